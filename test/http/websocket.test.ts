import { once } from "node:events";
import { readFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import path from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { Channel } from "../../src/http/websocket/channel.ts";
import { createClient } from "../support/client.ts";
import { testConfig } from "../support/config.ts";
import { py } from "../support/engine.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";
import { type OpenOptions, SocketClient, SUBPROTOCOL } from "../support/web-socket.ts";

const ADD = { name: "add", parameters: { type: "object", properties: { a: {}, b: {} }, required: ["a", "b"] } };
const ECHO = { name: "echo", parameters: { type: "object", properties: { value: {} }, required: ["value"] } };

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "3" });
});
afterAll(async () => await server.stop(0));

async function open(options: OpenOptions = {}, at: TestServer = server): Promise<SocketClient> {
  const client = await SocketClient.open(at.url, options);
  onTestFinished(() => client.close());
  await client.next({ type: "ready" });
  return client;
}

const busy = async () => (await server.get("/api/status")).body.pool.busy as number;

describe("executions", () => {
  test("events come in order, numbered, and the result last", async () => {
    const client = await open();
    const code = py`
      import sys
      print("one")
      print("two", file=sys.stderr)
      display(3)
      str(big + 1)`;
    // As JSON writes it: no JavaScript number has all its digits.
    client.send(
      `{"type": "execute", "execution": "e-1", "context": {"big": 12345678901234567890}, "code": ${JSON.stringify(code)}}`,
    );
    await client.next({ type: "result" });
    const [ready, ...events] = client.events;
    expect(ready).toEqual({ type: "ready", channel: expect.stringMatching(/^[\w-]{24}$/) });
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, index) => index + 1));
    expect(events.every(({ execution }) => execution === "e-1")).toBe(true);
    expect(events.map(({ type }) => type).filter((type) => type !== "status")).toEqual([
      "stdout",
      "stderr",
      "output",
      "result",
    ]);
    expect(events.find(({ type }) => type === "output")).toMatchObject({ data: { "text/plain": "3" } });
    expect(events.at(-1)).toMatchObject({ success: true, status: "completed", stdout: "one\n", stderr: "two\n" });
    expect(events.at(-1).result).toBe("12345678901234567891");
  });

  test("say what they update and what is cleared, and the last value is a bundle, too", async () => {
    const client = await open();
    const code = py`
      h = display(1, display_id="a", metadata={"text/plain": {"b": 2}})
      h.update(2)
      __import__("IPython").display.clear_output()
      [3]`;
    const result = await client.run("e-1", { code });
    expect(result).toMatchObject({ outputs: [], display: { "text/plain": "[3]" } });
    const shown = client.of("e-1").filter(({ type }) => type === "output" || type === "clear_output");
    expect(shown.map(({ seq: _, execution: __, ...event }) => event)).toEqual([
      { type: "output", data: { "text/plain": "1" }, displayId: "a", metadata: { "text/plain": { b: 2 } } },
      { type: "output", data: { "text/plain": "2" }, displayId: "a", update: true },
      { type: "clear_output", wait: false },
    ]);
  });

  test("several at a time, on one connection, one of them waiting for another", async () => {
    const client = await open();
    client.send({ type: "execute", execution: "asks", code: "echo(value=1)", tools: [ECHO] });
    const { id } = await client.next({ type: "tool_call", execution: "asks" });
    const others = await Promise.all([client.run("a", { code: "'a'" }), client.run("b", { code: "'b'" })]);
    expect(others.map(({ result }) => result).sort()).toEqual(["a", "b"]);
    expect(client.of("asks").some(({ type }) => type === "result")).toBe(false);
    client.answer("asks", { id, result: 2 });
    expect(await client.next({ type: "result", execution: "asks" })).toMatchObject({ result: 2 });
    // A name is free again when its execution is over.
    expect(await client.run("a", { code: "1" })).toMatchObject({ execution: "a" });
  });

  test("an error of Python's is a result, and one of the request's an error", async () => {
    const client = await open();
    expect(await client.run("a", { code: "1 / 0" })).toMatchObject({ type: "result", success: false, status: "error" });
    const codeOf = async (name: string, body: object) => (await client.run(name, body)).code;
    expect(await codeOf("b", {})).toBe("invalid_request");
    expect(await codeOf("c", { code: "1", environment: "none-such" })).toBe("unknown_environment");
    expect(await codeOf("d", { code: "1", session: "none-such" })).toBe("session_not_found");
    expect(await codeOf("e", { code: "1", tools: [{ name: 1 }] })).toMatch(/^invalid_/);
    expect(await codeOf("f", { code: "1", network: { allowOut: [1] } })).toBe("invalid_request");
  });

  test("run in sessions, which are made, forked, reset and deleted", async () => {
    const client = await open();
    const env = { STAGE: "test" };
    const metadata = { user: "u-17" };
    client.send({ type: "create_session", request: "r1", environment: "stdlib", ttl: 60, cwd: "a", env, metadata });
    const { session } = await client.next({ request: "r1" });
    expect(session).toMatchObject({ environment: "stdlib", executions: 0, metadata });
    const code = "x = 41; import os\n[os.getcwd(), os.environ['STAGE'], os.environ['B']]";
    const first = await client.run("a", { code, session: session.id, env: { B: "2" } });
    expect(first).toMatchObject({ executionCount: 1, result: ["/home/pyodide/a", "test", "2"] });
    expect(await client.run("b", { code: "x + 1", session: session.id })).toMatchObject({ result: 42 });
    client.send({ type: "fork_session", request: "r2", session: session.id });
    const { session: fork } = await client.next({ request: "r2" });
    client.send({ type: "reset_session", request: "r3", session: session.id });
    await client.next({ request: "r3" });
    expect(await client.run("c", { code: "x", session: session.id })).toMatchObject({ status: "error" });
    expect(await client.run("d", { code: "x", session: fork.id })).toMatchObject({ result: 41 });
    client.send({ type: "get_session", request: "r4", session: fork.id });
    expect((await client.next({ request: "r4" })).session).toMatchObject({ id: fork.id });
    client.send({ type: "delete_session", request: "r5", session: session.id });
    expect(await client.next({ request: "r5" })).toMatchObject({ type: "session", session: null });
    client.send({ type: "get_session", request: "r6", session: session.id });
    expect(await client.next({ request: "r6" })).toMatchObject({ type: "error", code: "session_not_found" });
    expect((await server.get(`/api/sessions/${session.id}`)).status).toBe(404);
  });

  test("are in the security log before the client is told of them", async () => {
    const original = Channel.prototype.emit;
    const told: { id: string; isWritten: boolean }[] = [];
    const log = path.join(server.config.LOG_DIR, "security.log");
    const emit = vi.spyOn(Channel.prototype, "emit").mockImplementation(function (this: Channel, event) {
      const { session } = event as { session?: { id: string } };
      if (session) told.push({ id: session.id, isWritten: readFileSync(log, "utf8").includes(session.id) });
      return original.call(this, event);
    });
    onTestFinished(() => emit.mockRestore());
    const client = await open();
    client.send({ type: "create_session", request: "r1", environment: "stdlib" });
    const { session } = await client.next({ request: "r1" });
    client.send({ type: "fork_session", request: "r2", session: session.id });
    await client.next({ request: "r2" });
    expect(told.map(({ isWritten }) => isWritten)).toEqual([true, true]);
  });

  test("are interrupted: while they run, while they wait for an answer, and in a session", async () => {
    const client = await open();
    client.send({ type: "execute", execution: "runs", code: "print('on')\nwhile True: pass" });
    await client.next({ type: "stdout", execution: "runs" });
    client.send({ type: "interrupt", execution: "runs" });
    expect(await client.next({ type: "result", execution: "runs" })).toMatchObject({ status: "cancelled" });
    client.send({ type: "execute", execution: "asks", code: "echo(value=1)", tools: [ECHO] });
    await client.next({ type: "tool_call", execution: "asks" });
    client.send({ type: "interrupt", execution: "asks" });
    expect(await client.next({ type: "result", execution: "asks" })).toMatchObject({ status: "cancelled" });
    client.send({ type: "interrupt", execution: "asks" });
    expect(await client.next({ type: "error", execution: "asks" })).toMatchObject({ code: "execution_not_found" });
  });
});

describe("calls of the code's", () => {
  test("are answered in any order, many at a time", async () => {
    const client = await open();
    const code = py`
      import asyncio
      await asyncio.gather(*(add(a=i, b=1) for i in range(100)))`;
    client.send({ type: "execute", execution: "e", code, tools: [ADD], toolMode: "async" });
    await until(async () => client.of("e").filter(({ type }) => type === "tool_call").length === 100);
    const calls = client.of("e").filter(({ type }) => type === "tool_call");
    client.answer("e", ...calls.toReversed().map(({ id, input }) => ({ id, result: input.a + input.b })));
    expect((await client.next({ type: "result" })).result).toEqual(Array.from({ length: 100 }, (_, i) => i + 1));
  });

  test("input() asks the client, and errors raise", async () => {
    const client = await open();
    const code = py`
      name = input("Name? ")
      try:
          echo(value=name)
      except tools.ToolError as error:
          out = [name, str(error), error.data]
      out`;
    client.send({ type: "execute", execution: "e", code: `import tools\n${code}`, tools: [ECHO], interactive: true });
    const asked = await client.next({ type: "input_request" });
    expect(asked).toMatchObject({ execution: "e", prompt: "Name? ", password: false });
    client.answer("e", { id: asked.id, result: "Ada" });
    const { id, input } = await client.next({ type: "tool_call" });
    expect(input).toEqual({ value: "Ada" });
    client.answer("e", { id, error: { message: "no", data: { why: 1 } } });
    expect((await client.next({ type: "result" })).result).toEqual(["Ada", "no", { why: 1 }]);
  });

  test("a large answer goes through as it was written", async () => {
    const client = await open();
    client.send({ type: "execute", execution: "e", code: "v = echo(value=1); [len(v), v[-1]]", tools: [ECHO] });
    const { id } = await client.next({ type: "tool_call" });
    const rows = `[${Array.from({ length: 100_000 }, () => "1.50").join(",")},12345678901234567890]`;
    const large = `{"type": "results", "execution": "e", "results": [{"id": "${id}", "result": ${rows}}]}`;
    // Values of answers are never parsed: in a message as large as this the server looks at its beginning alone.
    const late = { execution: "e", results: [{ id, result: "x".repeat(200_000) }], type: "results" };
    client.send(late);
    expect(await client.next({ type: "error" })).toMatchObject({ code: "invalid_request", execution: "e" });
    client.send(large);
    expect((await client.next({ type: "result" })).stderr).toBe("");
    expect((await client.next({ type: "result" })).result[0]).toBe(100_001);
  });

  test("answers that fit nothing are refused, and the execution goes on", async () => {
    const client = await open();
    client.send({ type: "execute", execution: "e", code: "echo(value=1) + echo(value=2)", tools: [ECHO] });
    const first = await client.next({ type: "tool_call" });
    const refused = async (results: unknown, execution = "e") => {
      const before = client.events.length;
      client.send({ type: "results", execution, results });
      await until(async () => client.events.length > before);
      return client.events.at(-1);
    };
    expect(await refused([{ id: "call_none", result: 1 }])).toMatchObject({
      execution: "e",
      code: "unknown_tool_call",
    });
    expect(await refused([{ id: first.id }])).toMatchObject({ code: "invalid_request" });
    expect(await refused("x")).toMatchObject({ code: "invalid_request" });
    expect(await refused([{ id: first.id, result: 1 }], "another")).toMatchObject({ code: "execution_not_found" });
    client.answer("e", { id: first.id, result: 40 });
    await until(async () => client.of("e").filter(({ type }) => type === "tool_call").length === 2);
    expect(await refused([{ id: first.id, result: 1 }])).toMatchObject({ code: "tool_call_answered" });
    const second = client.of("e").findLast(({ type }) => type === "tool_call");
    client.answer("e", { id: second.id, result: 2 });
    expect((await client.next({ type: "result" })).result).toBe(42);
    expect(await refused([{ id: second.id, result: 1 }])).toMatchObject({ code: "execution_not_found" });
  });
});

describe("a connection that is lost", () => {
  const resume = async (channel: string, after: number, options: OpenOptions = {}, at = server) => {
    const client = await open(options, at);
    client.send({ type: "resume", channel, after });
    return client;
  };

  test("is resumed after any event: each comes once, and the execution has gone on", async () => {
    const first = await open();
    const code = py`
      for i in range(20):
          print(i)
          echo(value=i) if i % 5 == 0 else None`;
    first.send({ type: "execute", execution: "e", code, tools: [ECHO] });
    const received: number[] = [];
    let client = first;
    const channel = first.channel;
    for (let call = 0; call < 4; call++) {
      await until(async () =>
        client.events.some(({ type, input }) => type === "tool_call" && input.value === call * 5),
      );
      const { id } = client.events.findLast(({ type }) => type === "tool_call");
      const after = client.lastSeq;
      received.push(...client.events.map(({ seq }) => seq).filter((seq) => seq !== undefined));
      client.lose();
      await client.closed;
      client = await resume(channel, after);
      expect(await client.next({ type: "resumed" })).toEqual({ type: "resumed", channel, executions: ["e"] });
      client.answer("e", { id, result: null });
    }
    const result = await client.next({ type: "result" });
    received.push(...client.events.map(({ seq }) => seq).filter((seq) => seq !== undefined));
    expect(received).toEqual(Array.from({ length: received.length }, (_, i) => i + 1));
    expect(result.stdout).toBe(Array.from({ length: 20 }, (_, i) => `${i}\n`).join(""));
  });

  test("gives again what its client says it does not have: a call that is not answered, too", async () => {
    const first = await open();
    first.send({ type: "execute", execution: "e", code: "print('x')\necho(value=1)", tools: [ECHO] });
    await first.next({ type: "tool_call" });
    first.lose();
    const second = await resume(first.channel, 0);
    const { id } = await second.next({ type: "tool_call" });
    expect(second.events.slice(2)).toEqual(first.events.slice(1));
    second.answer("e", { id, result: 7 });
    expect((await second.next({ type: "result" })).result).toBe(7);
  });

  test("is taken over while the server has not noticed yet that it is lost", async () => {
    const first = await open();
    first.send({ type: "execute", execution: "e", code: "echo(value=1)", tools: [ECHO] });
    const { id } = await first.next({ type: "tool_call" });
    const second = await resume(first.channel, first.lastSeq);
    await second.next({ type: "resumed" });
    await first.closed;
    second.answer("e", { id, result: 8 });
    expect((await second.next({ type: "result" })).result).toBe(8);
    expect(first.events.some(({ type }) => type === "result")).toBe(false);
  });

  test("that its client has closed is over: what runs stops", async () => {
    const client = await open();
    client.send({ type: "execute", execution: "e", code: "print(1)\nwhile True: pass" });
    await client.next({ type: "stdout" });
    client.close();
    await client.closed;
    await until(async () => (await busy()) === 0);
    const second = await resume(client.channel, 0);
    expect(await second.next({ type: "error" })).toMatchObject({ code: "channel_not_found", status: 404 });
  });

  test("that is not resumed in time is over: what runs stops, and what waits", async () => {
    const brief = await startTestServer({ WEBSOCKET_RESUME_S: "1", POOL_SIZE: "3" });
    onTestFinished(() => brief.stop(0));
    const client = await open({}, brief);
    client.send({ type: "execute", execution: "a", code: "print(1)\nwhile True: pass", timeout: 300_000 });
    client.send({ type: "execute", execution: "b", code: "echo(value=1)", tools: [ECHO] });
    await client.next({ type: "stdout" });
    await client.next({ type: "tool_call" });
    client.lose();
    await until(async () => (await brief.get("/api/status")).body.pool.busy === 0);
    const second = await resume(client.channel, 0, {}, brief);
    expect(await second.next({ type: "error" })).toMatchObject({ code: "channel_not_found" });
    // The control: it can be used, so that it was not the server that ended.
    expect(await (await open({}, brief)).run("c", { code: "3" })).toMatchObject({ result: 3 });
  });

  test("is resumed by the first message alone", async () => {
    const first = await open();
    const second = await open();
    await second.run("a", { code: "1" });
    second.send({ type: "resume", channel: first.channel, after: 0 });
    expect(await second.next({ type: "error" })).toMatchObject({ code: "invalid_request" });
    for (const after of [-1, 1.5, "1", null]) {
      const third = await open();
      third.send({ type: "resume", channel: first.channel, after });
      expect(await third.next({ type: "error" })).toMatchObject({ code: "invalid_request" });
    }
    // After what was never sent is after the last.
    const fourth = await resume(first.channel, 1_000_000);
    expect(await fourth.run("x", { code: "1" })).toMatchObject({ seq: expect.any(Number) });
  });
});

describe("messages that are none", () => {
  test.each([
    ["no JSON", "{", "invalid_json"],
    ["a text", '"x"', "invalid_json"],
    ["a list", "[]", "invalid_request"],
    ["no type", "{}", "invalid_request"],
    ["a type that there is not", '{"type": "toString"}', "invalid_request"],
    ["an execution without a name", '{"type": "execute", "code": "1"}', "invalid_request"],
    ["a name with a space", '{"type": "execute", "execution": "a b", "code": "1"}', "invalid_request"],
    [
      "deep JSON",
      `{"type": "execute", "execution": "a", "context": ${"[".repeat(5000)}${"]".repeat(5000)}}`,
      "json_too_complex",
    ],
    ["a request without a name", '{"type": "create_session"}', "invalid_request"],
    ["a ttl that is none", '{"type": "create_session", "request": "r", "ttl": "x"}', "invalid_request"],
  ])("%s is an error, and the connection goes on", async (_what, message, code) => {
    const client = await open();
    client.send(message);
    expect(await client.next({ type: "error" })).toMatchObject({ code, status: 400 });
    expect(await client.run("next", { code: "1" })).toMatchObject({ result: 1 });
  });

  test("bytes end the connection, and so does what is too large", async () => {
    const binary = await open();
    binary.socket.send(Buffer.from('{"type":"execute"}'));
    expect(await binary.closed).toBe(1003);
    const large = await open();
    large.send(`{"type": "execute", "execution": "a", "code": "1", "stdin": "${"x".repeat(16 * 1024 * 1024)}"}`);
    expect(await large.closed).toBe(1009);
    expect(await (await open()).run("a", { code: "1" })).toMatchObject({ result: 1 });
  });

  test("a name that is taken, and more executions than may be", async () => {
    const client = await open();
    client.send({ type: "execute", execution: "e", code: "echo(value=1)", tools: [ECHO] });
    await client.next({ type: "tool_call" });
    client.send({ type: "execute", execution: "e", code: "1" });
    expect(await client.next({ type: "error" })).toMatchObject({ execution: "e", code: "execution_exists" });
    const session = (await server.post("/api/sessions", { environment: "stdlib" })).body.session.id;
    client.send({ type: "execute", execution: "held", code: "echo(value=1)", tools: [ECHO], session });
    await client.next({ type: "tool_call", execution: "held" });
    for (let i = 0; i < 99; i++) client.send({ type: "execute", execution: `q${i}`, code: "1", session });
    expect(await client.next({ execution: "q98", type: "error" })).toMatchObject({ code: "too_many_executions" });
  });
});

describe("who may open one", () => {
  const KEY = "alice-key-of-sixteen";
  let keyed: TestServer;
  beforeAll(async () => {
    keyed = await startTestServer({
      API_KEYS: `alice:${KEY},bob:bob-key-of-sixteen,stats:stats-key-of-sixteen:stats`,
      CORS_ORIGIN: "https://app.example",
      LOG_DIR: path.join(testConfig().DATA_DIR, "logs"),
      AUTH_MAX_FAILURES: "0",
      WEBSOCKETS_PER_PRINCIPAL: "3",
      POOL_SIZE: "2",
    });
  });
  afterAll(() => keyed.stop(0));
  const inProtocol = (key: string) => [SUBPROTOCOL, `pyodide-express.key.${Buffer.from(key).toString("base64url")}`];
  const bearer = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });

  test.each<[string, OpenOptions]>([
    ["Authorization", bearer(KEY)],
    ["X-API-Key", { headers: { "x-api-key": KEY } }],
    ["a subprotocol", { protocols: inProtocol(KEY) }],
    ["a subprotocol that stands first", { protocols: inProtocol(KEY).reverse() }],
  ])("who has a key, in %s", async (_where, options) => {
    const client = await open(options, keyed);
    expect(client.socket.protocol).toBe(SUBPROTOCOL);
    expect(await client.run("a", { code: "1" })).toMatchObject({ result: 1 });
    client.close();
    await client.closed;
  });

  test.each<[string, OpenOptions, number, string]>([
    ["no key", {}, 401, "unauthorized"],
    ["a wrong key", bearer("wrong-key-of-sixteen"), 401, "unauthorized"],
    ["a wrong key in a subprotocol", { protocols: inProtocol("wrong-key-of-sixteen") }, 401, "unauthorized"],
    ["an empty key in a subprotocol", { protocols: inProtocol("") }, 401, "unauthorized"],
    ["a key in the address", { path: `/api/ws?key=${KEY}` }, 401, "unauthorized"],
    ["a key without the scope", bearer("stats-key-of-sixteen"), 403, "missing_scope"],
    ["another subprotocol", { ...bearer(KEY), protocols: ["other"] }, 400, "bad_request"],
    ["no subprotocol", { ...bearer(KEY), protocols: [] }, 400, "bad_request"],
    ["another site's page", { ...bearer(KEY), origin: "https://evil.example" }, 403, "cross_site"],
    ["a page without an origin", { ...bearer(KEY), origin: "null" }, 403, "cross_site"],
    ["another path", { ...bearer(KEY), path: "/api/wss" }, 404, "endpoint_not_found"],
  ])("not who has %s", async (_what, options, status, code) => {
    const opened = SocketClient.open(keyed.url, options);
    await expect(opened).rejects.toMatchObject({ status, body: { success: false, code } });
  });

  test("pages of its own, and those that CORS_ORIGIN names", async () => {
    for (const origin of ["https://app.example", keyed.url]) {
      const client = await open({ ...bearer(KEY), origin }, keyed);
      client.close();
      await client.closed;
    }
  });

  test("a server without keys lets in pages of other sites only where it says so", async () => {
    const closed = await startTestServer({ CORS_ORIGIN: "none" });
    onTestFinished(() => closed.stop(0));
    const evil = { origin: "https://evil.example" };
    await expect(SocketClient.open(closed.url, evil)).rejects.toMatchObject({ body: { code: "cross_site" } });
    await expect(SocketClient.open(closed.url, { headers: { host: "rebound.example" } })).rejects.toMatchObject({
      body: { code: "wrong_host" },
    });
    await open({}, closed);
    // The control: without CORS_ORIGIN any page may, as it may use HTTP.
    await open(evil);
  });

  test("another principal finds no channel of theirs, and is told the same as of one that is not there", async () => {
    const alice = await open(bearer(KEY), keyed);
    alice.send({ type: "execute", execution: "e", code: "print('hers')\necho(value=1)", tools: [ECHO] });
    await alice.next({ type: "tool_call" });
    alice.lose();
    const messageFor = async (channel: string, options: OpenOptions) => {
      const client = await open(options, keyed);
      client.send({ type: "resume", channel, after: 0 });
      const event = await client.next({ type: "error" });
      client.close();
      await client.closed;
      return [event.code, event.error];
    };
    const bob = bearer("bob-key-of-sixteen");
    expect(await messageFor(alice.channel, bob)).toEqual(await messageFor("x".repeat(24), bob));
    expect((await messageFor(alice.channel, bob))[0]).toBe("channel_not_found");
    const { id } = await alice.next({ type: "tool_call" });
    const thief = await open(bob, keyed);
    thief.answer("e", { id, result: "forged" });
    expect(await thief.next({ type: "error" })).toMatchObject({ code: "execution_not_found" });
    // The control: its owner does.
    const owner = await open(bearer(KEY), keyed);
    owner.send({ type: "resume", channel: alice.channel, after: 0 });
    await owner.next({ type: "stdout" });
    owner.answer("e", { id, result: "true" });
    expect(await owner.next({ type: "result" })).toMatchObject({ result: "true" });
    for (const client of [owner, thief]) {
      client.close();
      await client.closed;
    }
  });

  test("so many of a principal, lost ones included, and one more when one is over", async () => {
    const bob = bearer("bob-key-of-sixteen");
    const three = await Promise.all([1, 2, 3].map(() => open(bob, keyed)));
    three[0]?.lose();
    const refused = SocketClient.open(keyed.url, bob);
    await expect(refused).rejects.toMatchObject({ status: 429, body: { code: "too_many_connections" } });
    await open(bearer(KEY), keyed);
    three[1]?.close();
    await until(async () =>
      SocketClient.open(keyed.url, bob).then(
        (client) => {
          client.close();
          return true;
        },
        () => false,
      ),
    );
  });

  test("refusals are in the security log, and no key is", async () => {
    const lines = await readSecurityLog(keyed.config);
    expect(lines).toContainEqual(
      expect.objectContaining({ event: "auth_failure", details: expect.objectContaining({ path: "/api/ws" }) }),
    );
    expect(lines.some(({ event, principal }) => event === "code_execution" && principal === "alice")).toBe(true);
    expect(JSON.stringify(lines)).not.toContain("key-of-sixteen");
    expect(JSON.stringify(lines)).not.toContain(Buffer.from(KEY).toString("base64url"));
  });
});

test("each message is a request to the limit of requests", async () => {
  const limited = await startTestServer({ RATE_LIMIT_MAX_REQUESTS: "4" });
  onTestFinished(() => limited.stop(0));
  const client = await open({}, limited);
  for (const name of ["a", "b", "c"]) expect(await client.run(name, { code: "1" })).toMatchObject({ type: "result" });
  expect(await client.run("d", { code: "1" })).toMatchObject({ code: "rate_limited", retryAfter: expect.any(Number) });
  expect((await limited.get("/api/status")).status).toBe(429);
});

test("a client that answers no heartbeat is taken for lost; one that does stays", async () => {
  const beating = await startTestServer({ STREAM_HEARTBEAT_S: "1" });
  onTestFinished(() => beating.stop(0));
  const [silent, well] = await Promise.all([open({ autoPong: false }, beating), open({}, beating)]);
  let pings = 0;
  well.socket.on("ping", () => pings++);
  expect(await silent.closed).toBe(1006);
  await until(async () => pings >= 3);
  expect(await well.run("a", { code: "1" })).toMatchObject({ result: 1 });
});

test("a server that stops says so, lets what runs end, and closes", async () => {
  const stopping = await startTestServer({ POOL_SIZE: "2" });
  const client = await SocketClient.open(stopping.url);
  client.send({ type: "execute", execution: "e", code: "echo(value=1)\nprint('end')\n5", tools: [ECHO] });
  const { id } = await client.next({ type: "tool_call" });
  const stopped = stopping.stop(20_000);
  await client.next({ type: "closing" });
  expect(await client.run("late", { code: "1" })).toMatchObject({ code: "server_stopping" });
  client.answer("e", { id, result: null });
  expect(await client.next({ type: "result" })).toMatchObject({ result: 5, stdout: "end\n" });
  expect(await client.closed).toBe(1001);
  await stopped;
});

test("one that does not end in time is stopped, and its client told", async () => {
  const stopping = await startTestServer();
  const client = await SocketClient.open(stopping.url);
  client.send({ type: "execute", execution: "e", code: "print(1)\nwhile True: pass", timeout: 300_000 });
  await client.next({ type: "stdout" });
  await stopping.stop(0);
  expect(await client.closed).toBe(1001);
  expect(client.of("e").at(-1).type).toMatch(/result|error/);
});

describe("what is no WebSocket", () => {
  test("is told that it has to be one", async () => {
    const reply = await server.get("/api/ws");
    expect(reply).toMatchObject({ status: 426, body: { code: "upgrade_required" } });
    expect(reply.headers.get("upgrade")).toBe("websocket");
  });

  test("other upgrades are ignored: Java's client offers h2c with each first request", async () => {
    const { hostname, port } = new URL(server.url);
    const body = JSON.stringify({ code: "6 * 7" });
    const headers = {
      "content-type": "application/json",
      connection: "Upgrade, HTTP2-Settings",
      upgrade: "h2c",
      "http2-settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    };
    const request = httpRequest({ hostname, port, method: "POST", path: "/api/execute", headers });
    request.end(body);
    const [response] = await once(request, "response");
    expect(JSON.parse(await text(response)).result).toBe(42);
  });

  test("an upgrade of another path is answered as if it were none", async () => {
    await expect(SocketClient.open(server.url, { path: "/health" })).rejects.toMatchObject({
      status: 200,
      body: { status: "ok" },
    });
  });

  test("a handshake that is wrong is refused, and takes no place", async () => {
    const { hostname, port } = new URL(server.url);
    for (let i = 0; i < 30; i++) {
      const socket = connect(Number(port), hostname);
      socket.write(
        `GET /api/ws HTTP/1.1\r\nHost: ${hostname}:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
          `Sec-WebSocket-Version: 99\r\nSec-WebSocket-Protocol: ${SUBPROTOCOL}\r\n\r\n`,
      );
      expect(await text(socket)).toMatch(/^HTTP\/1.1 4\d\d /);
    }
    // More than a principal may have.
    expect(await (await open()).run("a", { code: "1" })).toMatchObject({ result: 1 });
  });
});

test("below a base path, and counted as a request of its route", async () => {
  const based = await startTestServer({ BASE_PATH: "/python" });
  onTestFinished(() => based.stop(0));
  const client = await open({ path: "/python/api/ws" }, based);
  expect(await client.run("a", { code: "1" })).toMatchObject({ result: 1 });
  const metrics = await createClient(based.url).get("/metrics");
  expect(metrics.body).toMatch(/route="\/api\/ws"[^\n]*status="101"|status="101"[^\n]*route="\/api\/ws"/);
});
