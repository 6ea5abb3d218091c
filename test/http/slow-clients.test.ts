import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openRawRequest } from "../support/raw-request.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
beforeAll(async () => {
  // Headers have a little longer than idle connections.
  server = await startTestServer({ KEEP_ALIVE_S: "1" });
});
afterAll(() => server.stop(0));

async function open(): Promise<Socket> {
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  socket.on("error", () => {});
  await once(socket, "connect");
  return socket;
}

const isWell = async () => (await server.post("/api/execute", { code: "6 * 7" })).body.result === 42;

test("1,000 connections that send half a request keep nobody out", { timeout: 120_000 }, async () => {
  const sockets: Socket[] = [];
  for (let i = 0; i < 10; i++) sockets.push(...(await Promise.all(Array.from({ length: 100 }, open))));
  for (const socket of sockets) socket.write("POST /api/execute HTTP/1.1\r\nHost: x\r\nContent-Le");
  expect(await isWell()).toBe(true);
  for (const socket of sockets) socket.destroy();
  expect(await isWell()).toBe(true);
});

test("a request whose headers never end is answered with 408 and closed", { timeout: 60_000 }, async () => {
  const socket = await open();
  socket.write("GET /health HTTP/1.1\r\nHost: x\r\n");
  const drip = setInterval(() => socket.write("X-A: b\r\n"), 1000);
  let reply = "";
  socket.setEncoding("utf8").on("data", (text) => {
    reply += text;
  });
  await once(socket, "close");
  clearInterval(drip);
  expect(reply).toContain("408 Request Timeout");
  expect(await isWell()).toBe(true);
});

test("100 uploads that stop half way keep nobody out, and leave when their clients do", {
  timeout: 60_000,
}, async () => {
  const head = ["POST /api/upload HTTP/1.1", "Content-Type: multipart/form-data; boundary=x", "Content-Length: 100000"];
  const uploads = await Promise.all(Array.from({ length: 100 }, () => openRawRequest(server.url, head)));
  const start = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhalf';
  await Promise.all(uploads.map(({ send }) => send(start)));
  expect(await isWell()).toBe(true);
  for (const { socket } of uploads) socket.destroy();
  expect(await isWell()).toBe(true);
  expect((await server.get("/api/uploaded-files")).body.count).toBe(0);
});

test("headers over their limit are refused", async () => {
  const { reply } = await openRawRequest(server.url, ["GET /health HTTP/1.1", `X-Long: ${"x".repeat(20_000)}`]);
  expect(await reply()).toMatch(/^HTTP\/1.1 431 /);
  expect(await isWell()).toBe(true);
});
