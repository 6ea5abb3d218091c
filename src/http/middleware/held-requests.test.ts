import { once } from "node:events";
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import express from "express";
import { expect, test } from "vitest";
import { until } from "../../../test/support/until.ts";
import { sendFile } from "../resources/file-collection.ts";
import { serve } from "../testing/serve.ts";
import { authenticate } from "./authentication.ts";
import { holdBody, holdReply, keepHeld, limitHeldRequests } from "./held-requests.ts";

const MIB = 2 ** 20;
const ALICE = "a-key-of-alice-alone";
const BOB = "a-key-of-bob-alone";

function limited(
  options: Partial<Parameters<typeof limitHeldRequests>[0]> = {},
  act: () => Promise<void> = async () => {},
) {
  const app = express();
  app.use(authenticate({ API_KEYS: `alice:${ALICE},bob:${BOB}`, API_KEY: "" }));
  app.use(limitHeldRequests({ maxRequests: 100, maxBodyBytes: 8 * MIB, maxBytes: 20 * MIB, ...options }));
  app.use(express.json({ limit: 8 * MIB }), express.raw({ limit: 8 * MIB, type: "text/plain" }));
  app.post("/", (_request, response) => void response.json({ success: true }));
  app.post("/work", async (_request, response) => {
    const letGo = keepHeld(response);
    await act();
    letGo();
    if (!response.destroyed) response.json({ success: true });
  });
  app.get("/read", async (_request, response) => {
    holdReply(response, 10 * MIB);
    await act();
    response.send(Buffer.alloc(10 * MIB));
  });
  // As a route does that takes more than other bodies have: it says what has come.
  app.put("/upload", async (_request, response) => {
    holdBody(response, 15 * MIB);
    await act();
    response.json({ success: true });
  });
  app.get("/stream", async (_request, response) => {
    response.flushHeaders();
    holdReply(response, 10 * MIB);
    await act();
    response.end();
  });
  app.get("/file", async (_request, response) => {
    await sendFile(response, "a.bin", async (onSize) => {
      onSize(10 * MIB);
      await act();
      return new Uint8Array(10 * MIB);
    });
  });
  app.get("/large", (_request, response) => void response.send(Buffer.alloc(10 * MIB)));
  return serve(app);
}

test.each(["/read", "/file"])(
  "replies %s that are asked for at once are counted before they are read, for their principal alone",
  async (path) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    await using server = await limited({}, () => promise);
    const asked = [ask(server.origin, ALICE, path), ask(server.origin, ALICE, path)];
    const third = ask(server.origin, ALICE, path);
    const other = ask(server.origin, BOB, path);
    // Whichever came last: two have room.
    const refused = await Promise.race([...asked, third]);
    resolve();
    expect([refused, (await Promise.all([...asked, third])).sort(), await other]).toEqual([429, [200, 200, 429], 200]);
    expect(await ask(server.origin, ALICE, path)).toBe(200);
  },
);

test("what a stream will end with is counted until it ends, though its headers are sent", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  await using server = await limited({}, () => promise);
  const streams = await Promise.all(
    [1, 2].map(() => fetch(`${server.origin}/stream`, { headers: { "x-api-key": ALICE } })),
  );
  expect(await ask(server.origin, ALICE, "/read")).toBe(429);
  resolve();
  await Promise.all(streams.map((stream) => stream.arrayBuffer()));
  expect(await ask(server.origin, ALICE, "/read")).toBe(200);
});

test("what comes of a body that may be larger than others counts too", async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  let begun = 0;
  await using server = await limited({}, () => {
    begun++;
    return promise;
  });
  const upload = async (key: string) =>
    (await fetch(`${server.origin}/upload`, { method: "PUT", headers: { "x-api-key": key }, body: "1" })).status;
  const first = upload(ALICE);
  await until(() => begun === 1);
  expect(await upload(ALICE)).toBe(429);
  const other = upload(BOB);
  resolve();
  expect([await first, await other]).toEqual([200, 200]);
});

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

test("a reply that grows, and of which nothing is taken, is given up too", async () => {
  let isGivenUp = false;
  const app = express();
  app.use(authenticate({ API_KEYS: "", API_KEY: "" }));
  app.use(limitHeldRequests({ maxRequests: 100, maxBodyBytes: MIB, stuckMs: 200 }));
  app.get("/", (_request, response) => {
    response.write(Buffer.alloc(10 * MIB));
    const timer = setInterval(() => response.write("more"), 20);
    response.once("close", () => {
      clearInterval(timer);
      isGivenUp = true;
    });
  });
  await using server = await serve(app);
  const { hostname, port } = new URL(server.origin);
  const socket = connect(Number(port), hostname).pause();
  socket.on("error", () => {});
  await once(socket, "connect");
  socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  await until(() => isGivenUp);
  socket.destroy();
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

/** What `/work` waits for, whatever its client does. */
function work() {
  const { promise, resolve: end } = Promise.withResolvers<void>();
  let begun = 0;
  const act = async () => {
    begun++;
    await promise;
  };
  /** Sends a body of a length to `/work`, and goes away once that has it. */
  const sendAndGo = async (origin: string, key: string, bytes: number) => {
    const before = begun;
    const headers = { "x-api-key": key, "content-type": "text/plain", "content-length": String(bytes) };
    const request = httpRequest(`${origin}/work`, { method: "POST", headers }).on("error", () => {});
    request.end(Buffer.alloc(bytes));
    await until(() => begun > before);
    request.destroy();
  };
  return { act, end, sendAndGo };
}

test("what a request has sent counts until the work for it has ended, though its client has gone", async () => {
  const { act, end, sendAndGo } = work();
  await using server = await limited({}, act);
  await sendAndGo(server.origin, ALICE, 7 * MIB);
  expect(await ask(server.origin, ALICE)).toBe(200);
  await sendAndGo(server.origin, ALICE, 7 * MIB);
  const headers = { "x-api-key": ALICE, "content-type": "text/plain", "content-length": String(7 * MIB) };
  const refused = httpRequest(`${server.origin}/`, { method: "POST", headers }).on("error", () => {});
  refused.flushHeaders();
  const [response] = await once(refused, "response");
  expect(response.statusCode).toBe(429);
  refused.destroy();
  expect(await ask(server.origin, BOB)).toBe(200);
  end();
  await until(async () => {
    const body = Buffer.alloc(7 * MIB);
    const again = await fetch(`${server.origin}/work`, {
      method: "POST",
      body,
      headers: { "x-api-key": ALICE, "content-type": "text/plain" },
    });
    return again.status === 200;
  });
});

test("open requests are bounded for their principal alone, those among them whose clients have gone", async () => {
  const { act, end, sendAndGo } = work();
  await using server = await limited({ maxRequests: 3 }, act);
  for (let i = 0; i < 3; i++) await sendAndGo(server.origin, ALICE, 10);
  const response = await fetch(`${server.origin}/large`, { headers: { "x-api-key": ALICE } });
  expect(response.status).toBe(429);
  expect(response.headers.get("connection")).toBe("close");
  expect(await ask(server.origin, BOB)).toBe(200);
  end();
  await until(async () => (await ask(server.origin, ALICE)) === 200);
});
