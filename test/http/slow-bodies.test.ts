import { readdir } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openRawRequest, type RawRequest } from "../support/raw-request.ts";
import { pathOf, ROUTES } from "../support/routes.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const MIN_RATE = 500;
const KEY = "ada-key-of-sixteen";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({
    BODY_STALL_S: "1",
    BODY_MIN_RATE: String(MIN_RATE),
    API_KEYS: `ada:${KEY}`,
  });
});
afterAll(() => server.stop(0));

const typeOf = (type = "application/json") => (type === "multipart/form-data" ? `${type}; boundary=x` : type);
const START: Readonly<Record<string, string>> = {
  "multipart/form-data": '--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n',
  "application/json": '{"code":"',
};
const head = (method: string, path: string, type: string | undefined, ...more: string[]) => [
  `${method} ${path} HTTP/1.1`,
  `Content-Type: ${typeOf(type)}`,
  ...more,
];

/** Sends a little again and again, until the reply is there. */
async function drip({ send, reply }: RawRequest, piece: string, everyMs = 100): Promise<string> {
  let over = false;
  const all = reply().finally(() => {
    over = true;
  });
  while (!over) {
    await send(piece).catch(() => {});
    await sleep(everyMs);
  }
  return await all;
}

describe("a body that comes slower than BODY_MIN_RATE is told so", () => {
  const withBody = ROUTES.filter(({ type }) => type !== undefined);
  test.concurrent.for([...withBody])("$method $path", { timeout: 60_000 }, async ({ method, path, type, ...rest }) => {
    const to = pathOf({ method, path, type, ...rest });
    for (const length of ["Content-Length: 1000000", "Transfer-Encoding: chunked"]) {
      const request = await openRawRequest(server.url, head(method, to, type, `X-API-Key: ${KEY}`, length));
      const start = START[type ?? ""] ?? "x";
      const isChunked = length.startsWith("Transfer");
      await request.send(isChunked ? `${start.length.toString(16)}\r\n${start}\r\n` : start);
      const reply = await drip(request, isChunked ? "1\r\nx\r\n" : "x");
      expect(reply).toMatch(/^HTTP\/1\.1 408 Request Timeout\r\n/);
      expect(reply).toMatch(/\r\nConnection: close\r\n/i);
      const body = JSON.parse(reply.slice(reply.indexOf("\r\n\r\n")));
      expect(body).toMatchObject({
        success: false,
        code: "body_too_slow",
        error: expect.stringContaining("500 bytes a second"),
      });
      expect(reply).toMatch(/\r\nX-Request-Id: /i);
    }
  });

  test("and nothing of it is left", async () => {
    await until(async () => (await readdir(server.config.UPLOAD_DIR)).length === 0);
    const { body } = await server.post("/api/execute", { code: "6 * 7" }, { "x-api-key": KEY });
    expect(body.result).toBe(42);
  });
});

test("one that comes faster goes on for many times BODY_STALL_S", { timeout: 60_000 }, async () => {
  const size = 120_000;
  const request = await openRawRequest(
    server.url,
    head("PUT", "/api/files/slow.bin", "application/octet-stream", `X-API-Key: ${KEY}`, `Content-Length: ${size}`),
  );
  // Twenty times the least rate: a machine under load must not decide this.
  for (let sent = 0; sent < size; sent += 2000) {
    await request.send("x".repeat(2000));
    await sleep(100);
  }
  expect(await request.reply()).toMatch(/^HTTP\/1\.1 200 /);
  expect((await server.get("/api/files", { "x-api-key": KEY })).body.files[0].size).toBe(size);
});

test("one that nobody waits for any more is cut off, too", { timeout: 60_000 }, async () => {
  // Refused before it is read; kept open, the connection would wait for the rest.
  const lines = [
    "POST /api/execute HTTP/1.1",
    "Content-Type: application/json",
    "Content-Length: 1000000",
    "Host: x",
    "",
    "",
  ];
  const { connect } = await import("node:net");
  const socket = connect(Number(new URL(server.url).port), "127.0.0.1");
  socket.write(lines.join("\r\n"));
  let reply = "";
  socket.setEncoding("utf8").on("data", (text) => {
    reply += text;
  });
  await new Promise<void>((resolve) => socket.on("error", () => {}).once("close", () => resolve()));
  expect(reply).toMatch(/^HTTP\/1\.1 401 /);
});
