import { request as httpRequest } from "node:http";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const FORM = { "content-type": "application/x-www-form-urlencoded" };
const PLAIN = { "content-type": "text/plain" };
const EVIL = "http://evil.example";

/** With any `Host`, which `fetch` does not let anybody choose. */
async function send(server: TestServer, path: string, method: string, headers: Record<string, string>, body = "") {
  const { hostname, port } = new URL(server.url);
  const request = httpRequest({ hostname, port, path, method, headers });
  request.end(body);
  const [response] = (await new Promise((resolve, reject) => {
    request.once("response", (response) => resolve([response])).once("error", reject);
  })) as [import("node:http").IncomingMessage];
  return { status: response.statusCode, headers: response.headers, body: await text(response) };
}

describe("a server without keys whose CORS_ORIGIN names its pages", () => {
  let server: TestServer;
  let port: string;
  beforeAll(async () => {
    server = await startTestServer({ CORS_ORIGIN: "https://app.example, http://localhost:5173" });
    ({ port } = new URL(server.url));
  });
  afterAll(() => server.stop(0));

  test.each([
    ["a form", "/api/execute", FORM, "code=1"],
    ["plain text", "/api/execute-raw", PLAIN, "1"],
    ["a form without a body", "/api/clear-all-files", FORM, ""],
    ["an upload", "/api/upload", { "content-type": "multipart/form-data; boundary=x" }, "--x--"],
  ])("refuses what another site's page can send without asking: %s", async (_what, path, headers, body) => {
    for (const origin of [EVIL, "null", "https://app.example.evil.example", `http://127.0.0.1:${Number(port) + 1}`]) {
      const reply = await send(server, path, "POST", { ...headers, host: `127.0.0.1:${port}`, origin }, body);
      expect(reply).toMatchObject({ status: 403, body: expect.stringContaining('"cross_site"') });
      expect(reply.headers["access-control-allow-origin"]).toBeUndefined();
    }
    const lines = await readSecurityLog(server.config);
    expect(lines.map(({ event }) => event)).not.toContain("code_execution");
    expect(lines.at(-1)).toMatchObject({ event: "access_denied", principal: null });
  });

  test("refuses every request under a name that is not its own, as DNS rebinding makes them", async () => {
    for (const host of ["evil.example", `evil.example:${port}`, "127.0.0.1.evil.example", "localhost.evil.example"]) {
      for (const [path, method] of [
        ["/", "GET"],
        ["/api/uploaded-files", "GET"],
        ["/api/execute-raw", "POST"],
      ] as const) {
        const same = { ...PLAIN, host, origin: `http://${host}` };
        expect(await send(server, path, method, same, method === "POST" ? "1" : "")).toMatchObject({ status: 403 });
      }
    }
  });

  test("serves its own pages, the named ones, and programs", async () => {
    const own = [`127.0.0.1:${port}`, `localhost:${port}`, `LOCALHOST:${port}`, `[::1]:${port}`, "app.example"];
    for (const host of own) {
      const run = (more: Record<string, string>) =>
        send(server, "/api/execute-raw", "POST", { ...PLAIN, host, ...more }, "6 * 7");
      expect(await run({})).toMatchObject({ status: 200, body: expect.stringContaining('"result":42') });
      expect(await run({ origin: `http://${host}` })).toMatchObject({ status: 200 });
      const { status, headers } = await run({ origin: "https://app.example" });
      expect({ status, allowed: headers["access-control-allow-origin"] }).toEqual({
        status: 200,
        allowed: "https://app.example",
      });
    }
    expect(await send(server, "/api/status", "GET", { host: own[0] as string, origin: EVIL })).toMatchObject({
      status: 200,
    });
  });
});

test("with keys it is the key that counts, and other names are served", async () => {
  const server = await startTestServer({ API_KEYS: "ada:ada-key-of-sixteen", CORS_ORIGIN: "https://app.example" });
  const headers = { ...PLAIN, host: "python.example", origin: EVIL };
  expect(await send(server, "/api/execute-raw", "POST", headers, "1")).toMatchObject({ status: 401 });
  expect(
    await send(server, "/api/execute-raw", "POST", { ...headers, "x-api-key": "ada-key-of-sixteen" }, "1"),
  ).toMatchObject({
    status: 200,
  });
  await server.stop(0);
});

test("without keys and without CORS_ORIGIN every page may use it, as the contract says", async () => {
  const server = await startTestServer();
  const reply = await send(
    server,
    "/api/execute-raw",
    "POST",
    { ...PLAIN, host: "python.example", origin: EVIL },
    "6 * 7",
  );
  expect(reply).toMatchObject({ status: 200, headers: { "access-control-allow-origin": "*" } });
  await server.stop(0);
});
