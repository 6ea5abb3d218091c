import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { py } from "../support/engine.ts";
import { connectMcp } from "../support/mcp-client.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const KEYS = { alice: "a-key-of-alice-for-mcp", bob: "a-key-of-bob-for-mcp-too" };
const HEADERS = {
  "content-type": "application/json",
  accept: "application/json, text/event-stream",
  authorization: `Bearer ${KEYS.alice}`,
};
const INITIALIZE = {
  jsonrpc: "2.0",
  id: 1,
  method: "initialize",
  params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "raw", version: "1" } },
};

let server: TestServer;

beforeAll(async () => {
  server = await startTestServer({ API_KEYS: `alice:${KEYS.alice},bob:${KEYS.bob}`, POOL_SIZE: "2" });
});
afterAll(async () => await server?.stop(0));

async function post(body: unknown, headers: Record<string, string | undefined> = {}, url = server.url) {
  const all = Object.entries({ ...HEADERS, ...headers }).filter(([, value]) => value !== undefined);
  const response = await fetch(`${url}/mcp`, {
    method: "POST",
    headers: Object.fromEntries(all) as Record<string, string>,
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  const text = await response.text();
  const isJson = response.headers.get("content-type")?.includes("application/json") ?? false;
  return { status: response.status, headers: response.headers, text, body: isJson ? JSON.parse(text) : null };
}

const request = (method: string, params?: object, id: number | string = 7) => ({ jsonrpc: "2.0", id, method, params });
const error = (code: number, id: unknown = null) => ({
  jsonrpc: "2.0",
  id,
  error: { code, message: expect.any(String) },
});

test.each(["hasOwnProperty", "toString", "constructor", "__proto__"])("%s is no method", async (method) => {
  const { status, body } = await post(request(method, {}));
  expect([status, body]).toEqual([200, error(-32601, 7)]);
});

describe("versions", () => {
  test.each(["2025-11-25", "2025-06-18", "2025-03-26"])("%s is spoken", async (protocolVersion) => {
    const { status, body, headers } = await post({ ...INITIALIZE, params: { ...INITIALIZE.params, protocolVersion } });
    expect(status).toBe(200);
    expect(body.result).toMatchObject({
      protocolVersion,
      capabilities: { tools: {}, resources: {} },
      serverInfo: { name: "pyodide-express" },
    });
    const session = headers.get("mcp-session-id") ?? "";
    expect(session).toMatch(/^[\x21-\x7e]{16,}$/);
    const further = { "mcp-session-id": session, "mcp-protocol-version": protocolVersion };
    expect((await post({ jsonrpc: "2.0", method: "notifications/initialized" }, further)).status).toBe(202);
    expect((await post(request("ping"), further)).body).toEqual({ jsonrpc: "2.0", id: 7, result: {} });
  });

  test("a version that is not known is answered with the newest, and refused as a header", async () => {
    const { body } = await post({ ...INITIALIZE, params: { ...INITIALIZE.params, protocolVersion: "1999-01-01" } });
    expect(body.result.protocolVersion).toBe("2025-11-25");
    expect(await post(request("ping"), { "mcp-protocol-version": "1999-01-01" })).toMatchObject({
      status: 400,
      body: error(-32000),
    });
  });
});

describe("who asks", () => {
  test("a key is needed, and the protocol's errors say so", async () => {
    const none = await post(INITIALIZE, { authorization: undefined });
    expect(none).toMatchObject({ status: 401, body: error(-32000) });
    expect(none.headers.get("www-authenticate")).toBe("Bearer");
    expect(none.body.error.data).toEqual({ code: "unauthorized" });
    expect((await post(INITIALIZE, { authorization: "Bearer another-key-0123456789" })).status).toBe(401);
    expect((await post(INITIALIZE, { authorization: undefined, "x-api-key": KEYS.bob })).status).toBe(200);
  });

  test("pages of other sites are refused, with a key too; clients that are no pages are not", async () => {
    const evil = await post(INITIALIZE, { origin: "https://evil.example" });
    expect(evil).toMatchObject({ status: 403, body: error(-32000) });
    expect((await post(INITIALIZE, { origin: server.url })).status).toBe(200);
  });

  test("without keys the name of the host counts as well, and CORS_ORIGIN names pages", async () => {
    const open = await startTestServer({ CORS_ORIGIN: "https://app.example" });
    const plain = await startTestServer();
    try {
      const ask = async (headers: Record<string, string>, to = plain): Promise<number | undefined> => {
        const asked = httpRequest(`${to.url}/mcp`, { method: "POST", headers: { ...HEADERS, ...headers } });
        asked.end(JSON.stringify(INITIALIZE));
        const [response] = (await once(asked, "response")) as [IncomingMessage];
        response.resume();
        return response.statusCode;
      };
      const port = new URL(plain.url).port;
      expect(await ask({ host: `localhost:${port}` })).toBe(200);
      expect(await ask({ host: `127.0.0.1:${port}` })).toBe(200);
      expect(await ask({ host: `evil.example:${port}` })).toBe(403);
      expect(await ask({ host: `evil.example:${port}`, origin: `http://evil.example:${port}` })).toBe(403);
      expect(await ask({ host: `localhost:${port}`, origin: "https://app.example" })).toBe(403);
      expect(await ask({ origin: "https://app.example" }, open)).toBe(200);
      expect(await ask({ origin: "https://other.example" }, open)).toBe(403);
    } finally {
      await open.stop(0);
      await plain.stop(0);
    }
  });
});

describe("what is wrong is answered as the specification says", () => {
  test.each([
    ["no JSON", "{", 400, -32700, null],
    ["nothing", "", 400, -32600, null],
    ["a scalar", "5", 400, -32700, null],
    ["no JSON-RPC", { hello: 1 }, 400, -32600, null],
    ["another version of JSON-RPC", { jsonrpc: "1.0", id: 3, method: "ping" }, 400, -32600, 3],
    ["an id that is null", { jsonrpc: "2.0", id: null, method: "ping" }, 400, -32600, null],
    ["an id that is an object", { jsonrpc: "2.0", id: {}, method: "ping" }, 400, -32600, null],
    ["a method that is no text", { jsonrpc: "2.0", id: 4, method: 5 }, 400, -32600, 4],
    ["a batch", [request("ping")], 400, -32600, null],
    ["an empty batch", [], 400, -32600, null],
    ["an unknown method", request("tools/destroy"), 200, -32601, 7],
    ["prompts, which there are none of", request("prompts/list"), 200, -32601, 7],
    ["a tool that is not there", request("tools/call", { name: "rm" }), 200, -32602, 7],
    ["a call without a name", request("tools/call", {}), 200, -32602, 7],
    ["a call without parameters", request("tools/call"), 200, -32602, 7],
    ["arguments that are a list", request("tools/call", { name: "run_python", arguments: [1] }), 200, -32602, 7],
    ["initialize without parameters", request("initialize"), 200, -32602, 7],
    ["a resource without a URI", request("resources/read", {}), 200, -32602, 7],
    ["a resource that is not there", request("resources/read", { uri: "x:y" }), 200, -32002, 7],
  ])("%s", async (_what, body, status, code, id) => {
    const reply = await post(body);
    expect({ status: reply.status, body: reply.body }).toMatchObject({ status, body: error(code, id) });
  });

  test("depth and size have limits", async () => {
    const deep = `${"[".repeat(5000)}${"]".repeat(5000)}`;
    const nested = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run_python","arguments":{"code":${deep}}}}`;
    expect(await post(nested)).toMatchObject({ status: 400, body: error(-32600) });
    expect(await post(`{"x":"${"y".repeat(31 * 1024 * 1024)}"}`)).toMatchObject({ status: 413, body: error(-32000) });
  });

  test("headers", async () => {
    expect(await post(INITIALIZE, { accept: "application/json" })).toMatchObject({ status: 406, body: error(-32000) });
    expect(await post(INITIALIZE, { accept: "text/html" })).toMatchObject({ status: 406 });
    expect(await post(INITIALIZE, { "content-type": "text/plain" })).toMatchObject({
      status: 415,
      body: error(-32000),
    });
    expect(await post(INITIALIZE, { "mcp-session-id": "x".repeat(200) })).toMatchObject({ status: 400 });
  });

  test("methods of HTTP", async () => {
    const ask = async (method: string, path = "/mcp", headers: Record<string, string> = {}) => {
      const response = await fetch(server.url + path, { method, headers: { ...HEADERS, ...headers } });
      return { status: response.status, allow: response.headers.get("allow"), body: await response.text() };
    };
    for (const method of ["GET", "PUT", "PATCH"]) {
      const { status, allow, body } = await ask(method);
      expect([status, allow, JSON.parse(body)]).toEqual([405, "POST, DELETE", error(-32000)]);
    }
    expect(JSON.parse((await ask("GET", "/mcp/more")).body)).toMatchObject(error(-32000));
    expect(await ask("DELETE")).toMatchObject({ status: 400 });
    expect(await ask("DELETE", "/mcp", { "mcp-session-id": "one-of-mine" })).toMatchObject({ status: 204, body: "" });
  });

  test("answers and notifications that nothing waits for are taken, and do nothing", async () => {
    const headers = { "mcp-session-id": "one-of-mine" };
    for (const message of [
      { jsonrpc: "2.0", id: 1, result: {} },
      { jsonrpc: "2.0", id: 1, error: { code: 1, message: "x" } },
      { jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 99 } },
      { jsonrpc: "2.0", method: "notifications/of/another/kind" },
    ])
      expect(await post(message, headers)).toMatchObject({ status: 202, text: "" });
  });

  test("numbers of a result have the digits that Python has written", async () => {
    const { text } = await post(
      request("tools/call", { name: "run_python", arguments: { code: "[1.0, 1e300, -0.0]" } }),
    );
    expect(text).toContain('"result":[1.0,1e+300,-0.0]');
  });
});

describe("a request that is given up stops its code", () => {
  const endless = (name: string) => py`
    import time
    open("${name}-started", "w").close()
    try:
        while True: time.sleep(0.01)
    finally:
        open("${name}-interrupted", "w").close()
  `;
  const idle = async () => await until(() => server.executor.pool.status().busy === 0);
  const busy = async () => await until(() => server.executor.pool.status().busy > 0);

  test("cancelled by the client", async () => {
    await using alice = await connectMcp(server.url, KEYS.alice);
    const controller = new AbortController();
    const called = alice.call("run_python", { code: endless("a"), timeout_ms: 60_000 }, { signal: controller.signal });
    called.catch(() => {});
    await busy();
    controller.abort("not wanted");
    await expect(called).rejects.toThrow("not wanted");
    await idle();
    await until(async () => (await alice.call("files_list")).text.includes("a-interrupted"));
  });

  test("not by another client of the same key, nor by another principal", async () => {
    const headers = { "mcp-session-id": "session-1" };
    const code = "import time\ntime.sleep(1)\n'done'";
    const called = post(request("tools/call", { name: "run_python", arguments: { code } }, 5), headers);
    await busy();
    const cancel = { jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 5 } };
    await post(cancel, { "mcp-session-id": "session-2" });
    await post(cancel, { authorization: `Bearer ${KEYS.bob}`, ...headers });
    await post(cancel, {});
    expect((await called).text).toContain("done");
  });

  test("a cancelled request has no response; its stream ends", async () => {
    const headers = { "mcp-session-id": "session-3" };
    const called = post(request("tools/call", { name: "run_python", arguments: { code: endless("b") } }, 0), headers);
    await busy();
    await post({ jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 0 } }, headers);
    expect((await called).text).not.toContain('"result"');
    await idle();
  });

  test("whose session is ended with DELETE", async () => {
    await using alice = await connectMcp(server.url, KEYS.alice);
    const called = alice.call("run_python", { code: endless("c"), timeout_ms: 60_000 });
    called.catch(() => {});
    await busy();
    const headers = { ...HEADERS, "mcp-session-id": alice.session ?? "" };
    expect((await fetch(`${server.url}/mcp`, { method: "DELETE", headers })).status).toBe(204);
    await idle();
  });

  test("whose client disconnects", async () => {
    const controller = new AbortController();
    const body = JSON.stringify(request("tools/call", { name: "run_python", arguments: { code: endless("d") } }));
    const called = fetch(`${server.url}/mcp`, { method: "POST", headers: HEADERS, body, signal: controller.signal });
    const read = called.then(async (response) => await response.text());
    read.catch(() => {});
    await busy();
    controller.abort();
    await expect(read).rejects.toThrow();
    await idle();
  });

  test("many requests of one client run beside each other", async () => {
    await using alice = await connectMcp(server.url, KEYS.alice);
    const results = await Promise.all(
      [1, 2, 3, 4].map(async (n) => await alice.call("run_python", { code: `${n} * 2` })),
    );
    expect(results.map(({ data }) => data.result)).toEqual([2, 4, 6, 8]);
  });
});
