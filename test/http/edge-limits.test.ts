import { connect } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openRawRequest } from "../support/raw-request.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const MIB = 2 ** 20;

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ API_KEYS: "ada:ada-key-of-sixteen,bob:bob-key-of-sixteen" });
});
afterAll(() => server.stop(0));

const post = (path: string, ...headers: string[]) => [
  `POST ${path} HTTP/1.1`,
  "Content-Type: application/json",
  ...headers,
];

test.each(["/api/execute", "/api/execute-raw", "/api/upload", "/api/sessions/x/files/f"])(
  "a stranger is turned away before the body of %s has come",
  async (path) => {
    const { reply } = await openRawRequest(server.url, post(path, "Content-Length: 30000000"));
    expect(await reply()).toMatch(/^HTTP\/1.1 401 /);
  },
);

test("a body that does not say how large it is has the same limit as one that does", async () => {
  const { send, reply } = await openRawRequest(
    server.url,
    post("/api/execute", "X-API-Key: ada-key-of-sixteen", "Transfer-Encoding: chunked"),
  );
  const chunk = Buffer.concat([Buffer.from("100000\r\n"), Buffer.alloc(MIB, 0x20), Buffer.from("\r\n")]);
  for (let sent = 0; sent <= 30; sent++) await send(chunk);
  await send("0\r\n\r\n");
  expect(await reply()).toMatch(/^HTTP\/1.1 413 [\s\S]*request entity too large/);
});

test("a session's id is 128 random bits", async () => {
  const ids = await Promise.all(
    Array.from({ length: 20 }, async () => {
      const { body } = await server.post("/api/sessions", {}, { "x-api-key": "ada-key-of-sixteen" });
      return body.session.id as string;
    }),
  );
  for (const id of ids) expect(Buffer.from(id, "base64url")).toHaveLength(16);
  expect(new Set(ids).size).toBe(ids.length);
  // No bit is the same in all: by chance once in 2^12 runs.
  const bits = ids.map((id) => BigInt(`0x${Buffer.from(id, "base64url").toString("hex")}`));
  const always = bits.reduce((all, id) => all & id);
  const ever = bits.reduce((all, id) => all | id);
  expect(always).toBe(0n);
  expect(ever).toBe(2n ** 128n - 1n);
});

test("1,000 clients that say nothing keep nobody out", async () => {
  const { hostname, port } = new URL(server.url);
  const sockets = Array.from({ length: 1000 }, () => connect(Number(port), hostname).on("error", () => {}));
  await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once("connect", resolve))));
  const { body } = await server.post("/api/execute", { code: "6 * 7" }, { "x-api-key": "bob-key-of-sixteen" });
  expect(body.result).toBe(42);
  for (const socket of sockets) socket.destroy();
});
