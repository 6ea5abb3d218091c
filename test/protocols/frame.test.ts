import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";

const KEY = "a-key-of-the-frame-tests";
let server: TestServer;

beforeAll(async () => {
  server = await startTestServer({ API_KEYS: `alice:${KEY}` });
});
afterAll(async () => await server.stop(0));

const ask = async (path: string, headers: Record<string, string> = {}) => {
  const response = await fetch(`${server.url}${path}`, { headers });
  return { status: response.status, body: await response.json(), id: response.headers.get("x-request-id") };
};

test("a protocol's requests need a key, and are refused in the protocol's own words", async () => {
  expect(await ask("/api/v2/runtimes")).toMatchObject({ status: 401, body: { message: "Authentication required" } });
  const wrong = await ask("/api/v2/runtimes", { "x-api-key": "another-key-0123456789" });
  expect(wrong).toMatchObject({ status: 401, body: { message: "Invalid API key" } });
  expect(await ask("/api/v2/runtimes", { "x-api-key": KEY })).toMatchObject({ status: 200, id: expect.any(String) });
});

test("what a protocol does not have is a 404 of the protocol's", async () => {
  const missing = await ask("/api/v2/nothing", { "x-api-key": KEY });
  expect(missing).toMatchObject({ status: 404, body: { message: "Endpoint not found" } });
  expect(Object.keys(missing.body as object)).toEqual(["message"]);
});

test("a protocol that PROTOCOLS does not name is not there", async () => {
  const none = await startTestServer({ PROTOCOLS: "none" });
  try {
    const response = await fetch(`${none.url}/api/v2/runtimes`);
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ success: false, code: "endpoint_not_found" });
  } finally {
    await none.stop(0);
  }
});
