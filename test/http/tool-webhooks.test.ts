import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { toolSet } from "../../src/tools/definitions.ts";
import { PendingCalls } from "../../src/tools/pending-calls.ts";
import { ToolEndpoints } from "../../src/tools/webhook.ts";
import { testConfig } from "../support/config.ts";
import { py } from "../support/engine.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ECHO = { name: "echo", parameters: { type: "object", properties: { value: {} }, required: ["value"] } };

interface Call {
  readonly request: IncomingMessage;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: what a server sends is what the test is about to find out.
  readonly body: any;
}

const calls: Call[] = [];
let respond: (call: Call, response: ServerResponse) => void;
const endpoint = createServer(async (request, response) => {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  const call = { request, text, body: JSON.parse(text) };
  calls.push(call);
  respond(call, response);
});
let url: string;
let server: TestServer;
let strict: TestServer;

beforeAll(async () => {
  endpoint.listen(0, "127.0.0.1");
  await once(endpoint, "listening");
  url = `http://127.0.0.1:${(endpoint.address() as AddressInfo).port}/tools`;
  const settings = { POOL_SIZE: "2", TOOL_ENDPOINTS: `${url},http://localhost:1/x`, TOOL_ENDPOINT_SECRET: SECRET };
  [server, strict] = await Promise.all([
    startTestServer({ ...settings, NETWORK_ALLOW_PRIVATE: "true" }),
    startTestServer({ ...settings, LOG_CODE: "true" }),
  ]);
});
afterAll(async () => {
  await Promise.all([server.stop(0), strict.stop(0)]);
  endpoint.close();
  endpoint.closeAllConnections();
});
beforeEach(() => {
  calls.length = 0;
  respond = ({ body }, response) => json(response, { result: { name: body.name, value: body.input.value } });
});

const json = (response: ServerResponse, body: unknown, status = 200) =>
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
const run = async (code: string, more: object = {}, on = server) =>
  (await on.post("/api/execute", { code, tools: [ECHO], toolEndpoint: url, ...more })).body;
const failure = async (more?: object, on?: TestServer) => {
  const code = "import tools\ntry: echo(1)\nexcept tools.ToolError as e: print(type(e).__name__, e)";
  return (await run(code, more, on)).stdout as string;
};

test("each call is posted, signed, and the response is its answer", async () => {
  expect(await run("echo('é')")).toMatchObject({ status: "completed", result: { name: "echo", value: "é" } });
  const [{ request, body, text } = {} as Call] = calls;
  expect(body).toEqual({
    type: "tool_call",
    id: expect.any(String),
    principal: "anonymous",
    name: "echo",
    input: { value: "é" },
  });
  const { "webhook-id": id, "webhook-timestamp": time, "webhook-signature": signature } = request.headers;
  expect(id).toBe(body.id);
  expect(Math.abs(Date.now() / 1000 - Number(time))).toBeLessThan(600);
  const key = Buffer.from(SECRET.slice("whsec_".length), "base64");
  expect(signature).toBe(`v1,${createHmac("sha256", key).update(`${id}.${time}.${text}`).digest("base64")}`);
});

test("calls in parallel, and a stream, are answered so as well", async () => {
  const code = "import asyncio\nsum([one['value'] for one in await asyncio.gather(*(echo(n) for n in range(50)))])";
  expect(await run(code, { toolMode: "async" })).toMatchObject({ result: 1225 });
  const reply = await server.post("/api/execute-stream", { code: "echo(1)", tools: [ECHO], toolEndpoint: url });
  expect(reply.body).toContain('"result":{"name":"echo","value":1}');
});

test("an error of the endpoint's is the tool's", async () => {
  respond = (_, response) => json(response, { error: { message: "no such table" } });
  expect(await failure()).toBe("ToolError no such table\n");
});

test.each<[string, (response: ServerResponse) => void, string]>([
  ["redirects", (response) => response.writeHead(302, { location: "http://127.0.0.1:1/" }).end(), "redirects (302)"],
  [
    "answers HTML",
    (response) => response.writeHead(200, { "content-type": "text/html" }).end("<p>"),
    'answers "text/html", not JSON',
  ],
  ["fails", (response) => json(response, { result: 1 }, 500), "answers 500"],
  [
    "answers no JSON",
    (response) => response.writeHead(200, { "content-type": "application/json" }).end("{"),
    "Invalid JSON format",
  ],
  ["answers nothing", (response) => json(response, {}), "has neither result nor error"],
  [
    "breaks off",
    (response) =>
      response
        .writeHead(200, { "content-type": "application/json", "content-length": "99" })
        .write("{", () => response.destroy()),
    "breaks off",
  ],
  ["answers too much", (response) => json(response, { result: "x".repeat(11 * 2 ** 20) }), "is over"],
])("one that %s is an error in Python", async (_name, answer, said) => {
  respond = (_, response) => answer(response);
  expect(await failure()).toContain(said);
  expect(calls).toHaveLength(1);
});

test("a slow one is a timeout, and its connection is closed with the execution", async () => {
  respond = () => {};
  expect(await failure({ toolTimeout: 200 })).toBe("ToolTimeout no answer came within 200 ms\n");
  const [call] = calls;
  if (!call?.request.socket.destroyed) await once(call?.request.socket as NodeJS.EventEmitter, "close");
});

test("a call whose time is over is with the endpoint no longer, and others have its turn", async () => {
  let closed = 0;
  respond = (call) => void call.request.socket.once("close", () => closed++);
  const code = py`
    import asyncio
    await asyncio.gather(*(echo(n) for n in range(20)), return_exceptions=True)
    await echo("last")
  `;
  // As many as may be there at a time never get an answer, and the endpoint has no turn left unless they give theirs up.
  const ran = run(code, { toolMode: "async", toolTimeout: 1000 });
  await until(() => calls.some(({ body }) => body.input.value === "last"));
  await until(() => closed >= 16);
  expect(await ran).toMatchObject({ errorInfo: { type: "ToolTimeout" } });
});

test("answers for which there is no room are errors at once", async () => {
  respond = (_, response) => json(response, { result: "x".repeat(10 * 2 ** 20 - 100) });
  using client = new ToolEndpoints({ urls: [url], secret: SECRET, allowPrivate: true }).client(url, "tester");
  using pending = new PendingCalls({
    principal: "tester",
    tools: toolSet([{ name: "echo" }]),
    interactive: false,
    mode: "async",
    check: false,
    client,
    callTimeoutMs: 1e9,
    maxWaitMs: 1e9,
    maxCalls: 8,
  });
  client.attach(pending);
  const host = pending.calls(async () => []);
  const { signal } = new AbortController();
  const ids = [];
  for (let i = 0; i < 8; i++)
    ids.push((await host["tool-start"].answer({ tool: "echo", input: "{}" }, signal)).value as number);
  await until(() => pending.open.length === 0);
  const kinds = [];
  while (ids.length > 0) {
    const { value } = await host["tool-wait"].answer({ ids, requests: [], timeoutMs: null }, signal);
    for (const { id, kind } of value.calls) {
      kinds.push(kind);
      ids.splice(ids.indexOf(id), 1);
    }
  }
  expect(kinds.sort()).toEqual([...Array(2).fill("error"), ...Array(6).fill("result")]);
});

test("none but those that the operator has named are asked", async () => {
  for (const other of ["http://127.0.0.1:1/", `${url}/more`, `${url}?x=1`, "file:///etc/passwd", ""]) {
    const reply = await server.post("/api/execute", { code: "1", tools: [ECHO], toolEndpoint: other });
    expect(reply).toMatchObject({ status: 400, body: { code: "unknown_tool_endpoint" } });
  }
  expect(calls).toEqual([]);
});

test("a private address is refused unless the operator allows these", async () => {
  expect(await failure({}, strict)).toContain("127.0.0.1 is not a public address");
  expect(await failure({ toolEndpoint: "http://localhost:1/x" }, strict)).toContain("an address that is not public");
  expect(calls).toEqual([]);
});

test("each call is in the security log, its arguments with LOG_CODE alone", async () => {
  await failure({}, strict);
  await failure();
  const lineOf = async (on: TestServer) =>
    (await readSecurityLog(on.config)).findLast(({ event }) => event === "tool_call")?.details;
  const facts = {
    tool: "echo",
    outcome: expect.any(String),
    inputBytes: 11,
    resultBytes: expect.any(Number),
    duration: expect.any(Number),
  };
  expect(await lineOf(strict)).toEqual({ ...facts, outcome: "error", arguments: '{"value":1}' });
  expect(await lineOf(server)).toEqual({ ...facts, outcome: "answered" });
});

test("settings that cannot work stop the start", () => {
  const endpoints = (urls: string[], secret: string) => new ToolEndpoints({ urls, secret, allowPrivate: false });
  expect(() => endpoints(["https://x.test/"], "")).toThrow(/TOOL_ENDPOINT_SECRET/);
  expect(() => endpoints(["ftp://x.test/"], SECRET)).toThrow(/only http and https/);
  expect(() => endpoints(["nonsense"], SECRET)).toThrow(/malformed/);
  expect(testConfig({}).TOOL_ENDPOINTS).toEqual([]);
});
