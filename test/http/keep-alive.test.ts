import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { SETTINGS } from "../../src/shared/settings.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.stop(0));

async function open(to: TestServer): Promise<Socket> {
  const { hostname, port } = new URL(to.url);
  const socket = connect(Number(port), hostname).on("error", () => {});
  await once(socket, "connect");
  socket.setEncoding("utf8");
  return socket;
}

async function ask(socket: Socket): Promise<string> {
  socket.write("GET /ready HTTP/1.1\r\nHost: balancer\r\n\r\n");
  let reply = "";
  while (!reply.includes("}")) {
    const [text] = await Promise.race([once(socket, "data"), once(socket, "close").then(() => [null])]);
    if (text === null) return `${reply}(closed)`;
    reply += text;
  }
  return reply;
}

test("is longer than the minute of most balancers", async () => {
  expect(Number(SETTINGS.KEEP_ALIVE_S.fallback)).toBeGreaterThan(60);
  const socket = await open(server);
  expect(await ask(socket)).toContain("\r\nKeep-Alive: timeout=65\r\n");
  socket.destroy();
});

test("connections that are idle, or were opened before they are needed, are there when they are", {
  timeout: 60_000,
}, async () => {
  const [idle, early] = [await open(server), await open(server)];
  await ask(idle);
  // Longer than Node's 5 s, and than the 15 s that headers once had.
  await sleep(19_000);
  expect(await ask(idle)).toMatch(/^HTTP\/1\.1 200 /);
  expect(await ask(early)).toMatch(/^HTTP\/1\.1 200 /);
  for (const socket of [idle, early]) socket.destroy();
});

test("KEEP_ALIVE_S sets it, and headers have more", { timeout: 60_000 }, async () => {
  const brief = await startTestServer({ KEEP_ALIVE_S: "1" });
  try {
    const [idle, early] = [await open(brief), await open(brief)];
    expect(await ask(idle)).toContain("\r\nKeep-Alive: timeout=1\r\n");
    await once(idle, "close");
    expect(await ask(early)).toMatch(/^HTTP\/1\.1 200 /);
    early.destroy();
  } finally {
    await brief.stop(0);
  }
});
