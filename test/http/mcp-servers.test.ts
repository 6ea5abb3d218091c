import { writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openMcpServers, openSecrets } from "../../src/compose/network.ts";
import { startServer } from "../../src/compose/server.ts";
import { createClient, type Reply, type TestClient } from "../support/client.ts";
import { testConfig } from "../support/config.ts";
import { py } from "../support/engine.ts";
import { startMcpServer, type TestMcpServer } from "../support/mcp-server.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";
import { SocketClient } from "../support/web-socket.ts";

const SECRET = "mcp-token-0123456789";
const KEYS = { alice: "alice-key-of-sixteen", bob: "bob-key-of-sixteen!!" };
const program = fileURLToPath(new URL("../support/mcp-server.ts", import.meta.url));

let elsewhere: TestMcpServer;
let remote: TestMcpServer;
let server: TestServer;
let alice: TestClient;
let bob: TestClient;
let settings: Record<string, string>;

beforeAll(async () => {
  elsewhere = await startMcpServer();
  remote = await startMcpServer(`${elsewhere.url}/mcp`);
  const dataDir = testConfig().DATA_DIR;
  const headers = { Authorization: "Bearer ${secret:MCP_TOKEN}" };
  const stdio = { command: process.execPath, args: [program], env: { TOKEN: "${secret:MCP_TOKEN}" } };
  writeFileSync(
    path.join(dataDir, "mcp.json"),
    JSON.stringify({
      remote: { url: `${remote.url}/mcp`, headers, timeoutMs: 20_000 },
      json: { url: `${remote.url}/json`, headers, tools: ["add", "tells", "huge", "missing"] },
      local: stdio,
      private: { ...stdio, principals: ["alice"], tools: ["counts"] },
      brief: { ...stdio, timeoutMs: 500 },
      redirects: { url: `${remote.url}/redirect`, headers },
      html: { url: `${remote.url}/html` },
      gone: { command: process.execPath, args: [program], env: { ENDS_AT_ONCE: "1" } },
      absent: { command: path.join(dataDir, "no-such-program") },
      refused: { url: "http://127.0.0.1:9/mcp" },
    }),
  );
  settings = {
    POOL_SIZE: "3",
    DATA_DIR: dataDir,
    LOG_DIR: path.join(dataDir, "logs"),
    API_KEYS: Object.entries(KEYS)
      .map(([name, key]) => `${name}:${key}`)
      .join(","),
    SECRETS: JSON.stringify({ MCP_TOKEN: SECRET }),
    MCP_SERVERS_FILE: path.join(dataDir, "mcp.json"),
  };
  server = await startTestServer(settings);
  [alice, bob] = Object.values(KEYS).map((key) => createClient(server.url, { "x-api-key": key })) as [
    TestClient,
    TestClient,
  ];
});
afterAll(async () => {
  await server?.stop(0);
  remote?.stop();
  elsewhere?.stop();
});

const run = async (code: string, mcp: unknown, client = alice): Promise<Reply> =>
  await client.post("/api/execute", { code, mcp, files: "none" });

async function value(code: string, mcp: unknown, client = alice): Promise<unknown> {
  const { body } = await run(code, mcp, client);
  expect(body).toMatchObject({ success: true, stderr: "" });
  return body.result;
}

test("their tools are written as a stub file, for those who may use them", async () => {
  const stubs = async (query: string, client = alice) => await client.get(`/api/tools/stubs${query}`);
  const one = await stubs("?mcp=private&toolMode=async");
  expect(one.headers.get("content-type")).toBe("text/plain; charset=utf-8");
  expect(one.body).toMatch(
    /^from typing .*\n\nclass mcp:\n {4}class private:\n {8}@staticmethod\n {8}async def counts\(/,
  );
  expect(await stubs("?mcp=private", bob)).toMatchObject({ status: 400, body: { code: "unknown_mcp_server" } });
  expect(await stubs("?mcp=refused")).toMatchObject({ status: 503, body: { code: "mcp_unavailable" } });
  // Without a name all are asked for, of which some cannot be used.
  expect(await stubs("")).toMatchObject({ status: 503, body: { code: "mcp_unavailable" } });
  expect(await stubs("?session=none")).toMatchObject({ status: 404, body: { code: "session_not_found" } });
  const tools = [{ name: "ask" }];
  const both = await alice.post("/api/tools/stubs", { tools, mcp: ["private", "local"] });
  expect(both.body).toMatch(/^def ask\(/m);
  expect(both.body).toMatch(/^ {4}class local:$/m);
  const { id } = (await alice.post("/api/sessions", { tools, mcp: ["private"] })).body.session;
  const ofSession = await stubs(`?session=${id}`);
  expect(ofSession.body).toMatch(/^def ask\(/m);
  expect(ofSession.body).toMatch(/def counts\(/);
  expect((await stubs(`?session=${id}&mcp=`)).body).not.toContain("counts");
  // Python reads what is written.
  expect(await value(`import ast\n[n.name for n in ast.parse(${JSON.stringify(both.body)}).body[1:]]`, false)).toEqual(
    expect.arrayContaining(["ask", "mcp"]),
  );
});

const ERROR = py`
  import tools
  def error_of(call, *args, **kwargs):
      try:
          return call(*args, **kwargs)
      except (tools.ToolError, TypeError) as error:
          return f"{type(error).__name__}: {error}"
`;
const errorOf = async (call: string, mcp: string[]) => String(await value(`${ERROR}\nerror_of(${call})`, mcp));

describe.each(["remote", "json", "local"])("a server by %s", (name) => {
  test("is called, with signatures and types of its schemas, and answers with structured content", async () => {
    expect(await value(`[mcp.${name}.add(a=2, b=3), mcp.${name}.add(4)]`, [name])).toEqual([{ sum: 5 }, { sum: 5 }]);
    expect(await value(`import inspect; str(inspect.signature(mcp.${name}.add))`, [name])).toBe(
      "(a: float, b: float = 1) -> dict",
    );
    expect(await value(`mcp.${name}.add.__doc__`, [name])).toContain("Adds two numbers.");
    expect(await errorOf(`mcp.${name}.add, "x"`, [name])).toMatch(/^TypeError: mcp\.\w+\.add\(\)|^TypeError: add/);
    expect(await errorOf(`mcp.${name}.add, b=1`, [name])).toMatch(/^TypeError: /);
  });

  test("is told its credential, which the code does not see", async () => {
    expect(await value(`mcp.${name}.tells()`, [name])).toBe(name === "local" ? "told: ***" : "told: Bearer ***");
    if (name !== "local") expect(remote.requests.at(-1)?.authorization).toBe(`Bearer ${SECRET}`);
  });

  test("that sends 100 MB is given up, and serves the next call", async () => {
    expect(await errorOf(`mcp.${name}.huge`, [name])).toMatch(/ToolError: it sends (more than|too much)/);
    expect(await value(`mcp.${name}.add(1)`, [name])).toEqual({ sum: 2 });
  }, 60_000);
});

describe("tools", () => {
  test("of several servers, of texts, of other contents, and in coroutines at a time", async () => {
    expect(await value("mcp.local.greet_all(names=['A', 'B'])", ["local"])).toBe("Hello A\nHello B");
    expect(await value("mcp.local.picture()", ["local"])).toEqual([
      { type: "text", text: "a dot" },
      { type: "image", data: "iVBO", mimeType: "image/png" },
    ]);
    const code = py`
      import asyncio
      from tools import acall
      sums = await asyncio.gather(*(acall("mcp.remote.add", a=i) for i in range(20)))
      [sum(s["sum"] for s in sums), mcp.local.add(1)["sum"]]`;
    expect(await value(code, ["remote", "local"])).toEqual([210, 2]);
  });

  test("are there when they are asked for, and gone for the next", async () => {
    expect(await value("'mcp' in globals()", undefined)).toBe(false);
    const { session } = (await alice.post("/api/sessions", { environment: "stdlib", mcp: ["local"] })).body;
    const inSession = async (code: string, body = {}) =>
      (await alice.post("/api/execute", { code, session: session.id, ...body })).body;
    expect(await inSession("mcp.local.add(1)['sum']")).toMatchObject({ result: 2 });
    expect(await inSession("'mcp' in globals()", { mcp: false })).toMatchObject({ result: false });
    expect(await inSession("import mcp.local; mcp.local.add(2)['sum']")).toMatchObject({ result: 3 });
  });

  test("with schemas that are none, or names that are, are left out, and the others stay", async () => {
    const code = "sorted(name for name in dir(mcp.local) if not name.startswith('__'))";
    const names = ["add", "counts", "dies", "fails", "greet_all", "hangs", "huge", "lies", "picture", "tells"];
    expect(await value(code, ["local"])).toEqual(names);
    expect(await value(code.replace("local", "json"), ["json"])).toEqual(["add", "huge", "tells"]);
  });

  test("that fail, lie, or say nothing raise, each with a sentence", async () => {
    expect(await errorOf("mcp.local.fails", ["local"])).toBe("ToolError: it is broken");
    expect(await errorOf("mcp.local.lies", ["local"])).toMatch(
      /^ToolError: its answer is not what it says it would be/,
    );
    expect(await errorOf("mcp.brief.hangs", ["brief"])).toBe("ToolError: no answer came within 500 ms");
  });

  test("of a server that dies: the call says so, and the next starts it again", async () => {
    expect(await errorOf("mcp.local.dies", ["local"])).toBe("ToolError: it has ended, or closed the connection");
    expect(await value("mcp.local.add(1)['sum']", ["local"])).toBe(2);
  });

  test("code that is stopped while one hangs, stops", async () => {
    const body = { code: "mcp.remote.hangs()", mcp: ["remote"], files: "none", toolTimeout: 300 };
    expect((await alice.post("/api/execute", body)).body).toMatchObject({ errorInfo: { type: "ToolTimeout" } });
    const controller = new AbortController();
    const gone = alice.request("/api/execute", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...body, toolTimeout: undefined }),
      signal: controller.signal,
    });
    const busy = async () => server.executor.pool.status().busy;
    await until(async () => (await busy()) > 0);
    controller.abort();
    await expect(gone).rejects.toThrow();
    await until(async () => (await busy()) === 0);
  });

  test("beside tools of the client, which is not told of them and cannot answer for them", async () => {
    const client = await SocketClient.open(server.url, { headers: { "x-api-key": KEYS.alice } });
    const ask = { name: "ask", parameters: { type: "object", properties: {} } };
    client.send({ type: "execute", execution: "e", code: "mcp.local.add(ask())['sum']", tools: [ask], mcp: ["local"] });
    const { id } = await client.next({ type: "tool_call" });
    client.answer("e", { id, result: 41 });
    expect(await client.next({ type: "result" })).toMatchObject({ result: 42 });
    expect(client.events.filter(({ type }) => type === "tool_call")).toHaveLength(1);
    expect(await client.run("f", { code: "1", tools: [{ name: "mcp" }], mcp: ["local"] })).toMatchObject({
      code: "invalid_tools",
    });
    const forged = { name: "mcp:local:add", parameters: ask.parameters };
    expect(await client.run("g", { code: "1", tools: [forged], mcp: ["local"] })).toMatchObject({
      code: "invalid_tools",
    });
    client.close();
  });

  test("are in the security log, with what they took, and no credential is", async () => {
    await value("mcp.remote.add(1)", ["remote"]);
    const lines = await readSecurityLog(server.config);
    expect(lines).toContainEqual(
      expect.objectContaining({
        event: "tool_call",
        principal: "alice",
        details: expect.objectContaining({ tool: "mcp:remote:add", outcome: "answered" }),
      }),
    );
    expect(JSON.stringify(lines)).not.toContain(SECRET);
  });
});

describe("who may use a server", () => {
  test("those that the operator names; to others it is as if it were not there", async () => {
    expect(await value("mcp.private.counts()", ["private"])).toBe("1");
    const [theirs, none] = [(await run("1", ["private"], bob)).body, (await run("1", ["nothing"], bob)).body];
    expect(theirs).toMatchObject({ code: "unknown_mcp_server" });
    expect(none.error).toBe(theirs.error.replace("private", "nothing"));
  });

  test("each on a connection of its own: what one has there, no other finds", async () => {
    const counts = (client: TestClient) => value("mcp.local.counts()", ["local"], client);
    const first = Number(await counts(alice));
    expect(await counts(alice)).toBe(String(first + 1));
    expect(await counts(bob)).toBe("1");
  });

  test.each([
    ["a text", "local"],
    ["a number", 1],
    ["names that are none", [1]],
    ["too many", Array(65).fill("local")],
  ])("%s is refused", async (_what, mcp) => {
    expect((await run("1", mcp)).body).toMatchObject({ code: "invalid_request" });
  });
});

describe("a server that cannot be used", () => {
  test.each([
    ["redirects", "redirect"],
    ["html", "cannot be reached, or its answer is not one"],
    ["gone", "it has ended"],
    ["absent", "it cannot be reached"],
    ["refused", "it cannot be reached"],
  ])("%s is a 503, and the next request is not held up by it", async (name, message) => {
    const reply = await run("1", [name]);
    expect(reply).toMatchObject({ status: 503, body: { code: "mcp_unavailable" } });
    expect(reply.body.error).toContain(message);
    expect(reply.body.error).not.toMatch(/127\.0\.0\.1|no-such-program|node/);
    expect(await run("1", [name])).toMatchObject({ status: 503 });
  });

  test("a redirect is not followed: its target hears nothing", async () => {
    await run("1", ["redirects"]);
    expect(elsewhere.requests).toEqual([]);
    // The control: it would have answered.
    const direct = await fetch(`${elsewhere.url}/html`);
    expect(direct.status).toBe(200);
    elsewhere.requests.length = 0;
  });
});

test("doctor tells what each is good for", async () => {
  const config = testConfig({ ...settings, DATA_DIR: testConfig().DATA_DIR, LOG_DIR: "none" });
  const servers = openMcpServers(config, openSecrets(config, null));
  const health = Object.fromEntries((await servers.health()).map(({ name, ok, text }) => [name, { ok, text }]));
  await servers.close();
  expect(health.remote).toMatchObject({ ok: true, text: expect.stringContaining("10 tools; ") });
  expect(health.remote?.text).toContain("circle is left out");
  expect(health.json).toMatchObject({ ok: true, text: "3 tools; missing is left out: the server does not have it" });
  expect(health.redirects).toMatchObject({ ok: false });
  expect(JSON.stringify(health)).not.toContain(SECRET);
});

describe("a server does not start with", () => {
  test.each([
    ["no JSON", "{hidden-value", "the file is not JSON"],
    ["a server that is neither", { a: {} }, "it needs a url or a command"],
    ["a server that is both", { a: { url: "http://x.example", command: "x" } }, "it needs a url or a command"],
    ["another scheme", { a: { url: "file:///etc/passwd" } }, "no address of http or https"],
    ["a login in the URL", { a: { url: "http://user:hidden-value@x.example" } }, "no address of http or https"],
    ["a name that Python does not have", { "a-b": { command: "x" } }, "no name for Python"],
    ["a key that there is not", { a: { command: "x", principals: ["carol"] } }, "is no key's name"],
    ["a secret that there is not", { a: { command: "x", env: { A: "${secret:NONE}" } } }, "there is no secret"],
    ["a line end in a header", { a: { url: "http://x.example", headers: { A: "hidden-value\r\nB: 1" } } }, "line end"],
  ])("%s", async (_what, content, message) => {
    const config = testConfig();
    const file = path.join(config.DATA_DIR, "mcp.json");
    writeFileSync(file, typeof content === "string" ? content : JSON.stringify(content));
    const start = startServer(
      testConfig({ ...settings, DATA_DIR: config.DATA_DIR, LOG_DIR: "none", MCP_SERVERS_FILE: file }),
      pino({ level: "silent" }),
    );
    await expect(start).rejects.toThrow(message);
    await expect(start).rejects.toThrow("MCP_SERVERS_FILE");
    await expect(start).rejects.not.toThrow("hidden-value");
  });

  test("what MCP hosts have in their settings is read, too", async () => {
    const config = testConfig();
    const file = path.join(config.DATA_DIR, "mcp.json");
    writeFileSync(file, JSON.stringify({ mcpServers: { local: { command: process.execPath, args: [program] } } }));
    const opened = testConfig({ DATA_DIR: config.DATA_DIR, MCP_SERVERS_FILE: file });
    const servers = openMcpServers(opened, openSecrets(opened, null));
    expect(servers.namesFor("anonymous")).toEqual(["local"]);
    await servers.close();
  });
});
