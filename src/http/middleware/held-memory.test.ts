import { once } from "node:events";
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import express from "express";
import { expect, test } from "vitest";
import { until } from "../../../test/support/until.ts";
import { serve } from "../testing/serve.ts";
import { authenticate } from "./authentication.ts";
import { limitHeldMemory } from "./held-memory.ts";

const MIB = 2 ** 20;
const ALICE = "a-key-of-alice-alone";
const BOB = "a-key-of-bob-alone";

function limited(options: Partial<Parameters<typeof limitHeldMemory>[0]> = {}) {
  const app = express();
  app.use(authenticate({ API_KEYS: `alice:${ALICE},bob:${BOB}`, API_KEY: "" }));
  app.use(limitHeldMemory({ maxBodyBytes: 8 * MIB, maxBytes: 20 * MIB, ...options }));
  app.use(express.json({ limit: 8 * MIB }));
  app.post("/", (_request, response) => void response.json({ success: true }));
  app.get("/large", (_request, response) => void response.send(Buffer.alloc(10 * MIB)));
  return serve(app);
}

const ask = async (origin: string, key: string, path = "/large") => {
  const response = await fetch(origin + path, { headers: { "x-api-key": key } });
  if (response.status === 200) await response.arrayBuffer();
  return response.status;
};

/** A body that has been announced and does not come. */
async function announce(origin: string, headers: Record<string, string>) {
  const request = httpRequest(`${origin}/`, { method: "POST", headers: { "x-api-key": ALICE, ...headers } });
  request.on("error", () => {});
  const response = once(request, "response");
  response.catch(() => {});
  request.flushHeaders();
  request.write("[");
  await new Promise((resolve) => setTimeout(resolve, 30));
  return { response, destroy: () => void request.destroy() };
}

test.each([
  ["a length", { "content-length": String(8 * MIB) }],
  ["no length", { "transfer-encoding": "chunked" }],
])("bodies with %s that come at a time are bounded for their principal alone", async (_name, headers) => {
  await using server = await limited();
  const json = { "content-type": "application/json", ...headers };
  const requests = [await announce(server.origin, json), await announce(server.origin, json)];
  const third = await announce(server.origin, json);
  const [response] = await third.response;
  expect(response.statusCode).toBe(429);
  expect(Number(response.headers["retry-after"])).toBeGreaterThan(0);
  expect(await ask(server.origin, BOB)).toBe(200);
  for (const request of [...requests, third]) request.destroy();
  await until(async () => (await ask(server.origin, ALICE)) === 200);
});

test("replies that the client does not read are bounded for their principal alone, and given up after a while", async () => {
  await using server = await limited({ stuckMs: 300 });
  const { hostname, port } = new URL(server.origin);
  const sockets = await Promise.all(
    Array.from({ length: 3 }, async () => {
      const socket = connect(Number(port), hostname).pause();
      socket.on("error", () => {});
      await once(socket, "connect");
      socket.write(`GET /large HTTP/1.1\r\nHost: x\r\nX-API-Key: ${ALICE}\r\n\r\n`);
      return socket;
    }),
  );
  await until(async () => (await ask(server.origin, ALICE)) === 429);
  expect(await ask(server.origin, BOB)).toBe(200);
  // Who takes nothing loses the connection.
  await until(async () => (await ask(server.origin, ALICE)) === 200);
  for (const socket of sockets) socket.destroy();
});

test("one request is never refused for what it is, and short ones that do not say so take little", async () => {
  await using server = await limited({ maxBytes: MIB });
  expect(await ask(server.origin, ALICE)).toBe(200);
  const requests = Array.from({ length: 3 }, async () => {
    const body = new Blob(["[1]"]).stream();
    const headers = { "x-api-key": ALICE, "content-type": "application/json" };
    const response = await fetch(`${server.origin}/`, { method: "POST", body, headers, duplex: "half" } as RequestInit);
    return response.status;
  });
  expect((await Promise.all(requests)).filter((status) => status !== 200 && status !== 429)).toEqual([]);
});
