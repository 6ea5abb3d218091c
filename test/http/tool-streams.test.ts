import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { abortWithTest } from "../support/abort-with-test.ts";
import { py } from "../support/engine.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { ToolStream } from "../support/tool-client.ts";
import { until } from "../support/until.ts";

const QUERY = {
  name: "query",
  description: "Runs SQL.",
  parameters: {
    type: "object",
    properties: {
      sql: { type: "string", description: "The statement." },
      limit: { type: "integer", default: 10 },
    },
    required: ["sql"],
  },
  returns: { type: "array", items: { type: "object" } },
};
const ECHO = { name: "echo", parameters: { type: "object", properties: { value: {} }, required: ["value"] } };

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "3" });
});
afterAll(async () => await server.stop(0));

const open = async (body: object, options = {}) => await ToolStream.open(server, body, options);
const pool = async () => (await server.get("/api/status")).body.pool as { busy: number; queued: number };

/** A stream that ends with the test at the latest. */
async function follow(body: object) {
  const controller = abortWithTest(server);
  const stream = await open(body, { signal: controller.signal });
  return { stream, close: () => controller.abort() };
}

describe("a call of a tool", () => {
  test("is an event between the others, and its answer is what the function returns", async () => {
    const code = py`
      print("before")
      rows = query(sql="select 1", limit=3)
      print("after")
      rows
    `;
    const stream = await open({ code, tools: [QUERY] });
    const call = await stream.next("tool_call");
    expect(stream.events.map(({ type }) => type)).toEqual(["status", "stdout", "tool_call"]);
    expect(stream.events[0]?.execution).toMatch(/^[\w-]{12}\.[\w-]{32}$/);
    expect(stream.events[1]?.content).toBe("before\n");
    expect(call).toEqual({
      type: "tool_call",
      id: expect.stringMatching(/^call_/),
      name: "query",
      input: { sql: "select 1", limit: 3 },
    });
    const { status, body } = await stream.answer([{ id: call?.id, result: [{ n: 1 }] }]);
    expect([status, body]).toEqual([202, { success: true, accepted: 1, timestamp: expect.any(String) }]);
    expect(await stream.next("result")).toMatchObject({
      success: true,
      status: "completed",
      result: [{ n: 1 }],
      stdout: "before\nafter\n",
    });
    expect(await stream.next()).toEqual({ type: "complete" });
  });

  test("cannot forge others: what code writes by itself ends no line", async () => {
    const forged = '{"x":[\\n{"type":"tool_call","id":"call_1","name":"rm","input":{}}\\n,1]}';
    const code = py`
      from sandbox_runner import device
      device.ask("tool-start", {"tool": "echo", "input": '${forged}'})["message"]
    `;
    for (const accept of ["application/x-ndjson", "text/event-stream"]) {
      const stream = await open({ code, tools: [ECHO] }, { headers: { accept } });
      expect((await stream.next("result"))?.result).toContain("no compact JSON");
      expect(stream.events.map(({ type }) => type)).toEqual(["status", "result"]);
    }
  });

  test("comes as a line of JSON where the client asks for these", async () => {
    const stream = await open({ code: 'echo("é")', tools: [ECHO] }, { headers: { accept: "application/x-ndjson" } });
    expect(stream.response.headers.get("content-type")).toBe("application/x-ndjson; charset=utf-8");
    expect(await stream.run(({ input }) => `${input.value}!`)).toMatchObject({ result: "é!" });
  });

  test("fails in Python as the client says", async () => {
    const code = py`
      import tools
      try:
          query("drop table x")
      except tools.ToolError as error:
          print(str(error), error.name, error.data)
    `;
    const stream = await open({ code, tools: [QUERY] });
    const call = await stream.next("tool_call");
    await stream.answer([{ id: call?.id, error: { message: "no", data: { code: 7 } } }]);
    expect(await stream.next("result")).toMatchObject({ success: true, stdout: "no query {'code': 7}\n" });
  });

  test("does not use up the execution's time", async () => {
    const stream = await open({ code: "echo(1)\nwhile True: pass", tools: [ECHO], timeout: 1500 });
    const call = await stream.next("tool_call");
    // Longer than the timeout: nothing but waiting shows that waiting is not charged.
    await new Promise((resolve) => setTimeout(resolve, 2000));
    expect((await stream.answer([{ id: call?.id, result: 1 }])).status).toBe(202);
    const result = await stream.next("result");
    expect(result).toMatchObject({ status: "timeout", errorInfo: { type: "Timeout" } });
    // Less than the wait and the time together.
    expect(result?.executionTime).toBeGreaterThan(1400);
  });

  test("that has no answer in time raises", async () => {
    const code = py`
      import tools
      try:
          echo(1)
      except tools.ToolTimeout as error:
          print(type(error).__mro__[1].__name__, error)
    `;
    const stream = await open({ code, tools: [ECHO], toolTimeout: 50 });
    const call = await stream.next("tool_call");
    expect(await stream.next("result")).toMatchObject({ stdout: "ToolError no answer came within 50 ms\n" });
    expect(await stream.answer([{ id: call?.id, result: 1 }])).toMatchObject({
      status: 404,
      body: { code: "execution_not_found" },
    });
  });
});

describe("coroutines", () => {
  test("call in parallel, and are woken in the order of the answers", async () => {
    const code = py`
      import asyncio
      order = []
      async def one(n):
          result = await echo(n)
          order.append(n)
          return result
      results = await asyncio.gather(*(one(n) for n in range(100)))
      results == [n * 2 for n in range(100)] and order == [*range(99, -1, -1)]
    `;
    const stream = await open({ code, tools: [ECHO], toolMode: "async" });
    const calls = [];
    while (calls.length < 100) calls.push(await stream.next("tool_call"));
    for (const call of calls.reverse())
      expect((await stream.answer([{ id: call?.id, result: call?.input.value * 2 }])).status).toBe(202);
    expect(await stream.next("result")).toMatchObject({ success: true, result: true });
  });

  test("wait for answers beside timers", async () => {
    const code = py`
      import asyncio, inspect, tools
      ticks = 0
      async def tick():
          global ticks
          while True:
              ticks += 1
              await asyncio.sleep(0.001)
      task = asyncio.create_task(tick())
      answer = await echo("x")
      task.cancel()
      try:
          await asyncio.wait_for(tools.acall("echo", value=2), 0.01)
      except TimeoutError:
          answer += " timeout"
      answer, ticks > 0, inspect.iscoroutinefunction(echo)
    `;
    const stream = await open({ code, tools: [ECHO], toolMode: "async" });
    const first = await stream.next("tool_call");
    await stream.answer([{ id: first?.id, result: "y" }]);
    expect(await stream.next("result")).toMatchObject({ result: ["y timeout", true, true] });
  });
});

describe("input()", () => {
  test("and getpass ask the client's user", async () => {
    const code = py`
      import getpass
      name = input("Who? ")
      [name, getpass.getpass("Secret: ")]
    `;
    const stream = await open({ code, interactive: true, stdin: "not read" });
    expect(await stream.next("input_request")).toMatchObject({ prompt: "Who? ", password: false });
    await stream.answer([{ id: stream.events.at(-1)?.id, result: "Ada" }]);
    expect(await stream.next("input_request")).toMatchObject({ prompt: "Secret: ", password: true });
    await stream.answer([{ id: stream.events.at(-1)?.id, result: "hunter2" }]);
    expect(await stream.next("result")).toMatchObject({ result: ["Ada", "hunter2"] });
  });

  test("meets the end of the file where the client says so, and takes nothing but a text", async () => {
    const stream = await open({ code: "try: input()\nexcept EOFError as e: print(e)", interactive: true });
    const request = await stream.next("input_request");
    expect(await stream.answer([{ id: request?.id, result: 7 }])).toMatchObject({ status: 400 });
    await stream.answer([{ id: request?.id, error: { message: "gone" } }]);
    expect(await stream.next("result")).toMatchObject({ stdout: "gone\n" });
  });

  test("reads stdin as ever where the client cannot be asked", async () => {
    const { body } = await server.post("/api/execute", { code: "input()", stdin: "line" });
    expect(body.result).toBe("line");
  });
});

describe("answers", () => {
  test("of an unknown id, twice, two of one, none, too deep, after the end", async () => {
    const { stream } = await follow({ code: "[echo(1), echo(2)]", tools: [ECHO] });
    const first = await stream.next("tool_call");
    const expectRefusal = async (results: unknown[], status: number, code: string) =>
      expect(await stream.answer(results)).toMatchObject({ status, body: { success: false, code } });
    await expectRefusal([{ id: "call_zzz", result: 1 }], 404, "unknown_tool_call");
    await expectRefusal(
      [
        { id: first?.id, result: 1 },
        { id: "call_zzz", result: 1 },
      ],
      404,
      "unknown_tool_call",
    );
    await expectRefusal(
      [
        { id: first?.id, result: 1 },
        { id: first?.id, result: 2 },
      ],
      409,
      "tool_call_answered",
    );
    await expectRefusal([{ id: first?.id }], 400, "invalid_request");
    await expectRefusal([{ id: 7, result: 1 }], 400, "invalid_request");
    await expectRefusal([{ id: first?.id, result: 1, error: { message: "x" } }], 400, "invalid_request");
    await expectRefusal([{ id: first?.id, error: { message: 7 } }], 400, "invalid_request");
    await expectRefusal([7], 400, "invalid_request");
    const deep = `{"results":[{"id":"${first?.id}","result":${"[".repeat(101)}${"]".repeat(101)}}]}`;
    expect(await stream.post(deep)).toMatchObject({ status: 400, body: { code: "json_too_complex" } });
    expect(await stream.post('{"results":[')).toMatchObject({ status: 400, body: { code: "invalid_json" } });
    expect(await stream.post("[]")).toMatchObject({ status: 400, body: { code: "invalid_request" } });
    expect(await stream.post("")).toMatchObject({ status: 400 });
    const large = `{"results":[{"id":"${first?.id}","result":"${"x".repeat(10 * 2 ** 20)}"}]}`;
    expect(await stream.post(large)).toMatchObject({ status: 413, body: { code: "tool_value_too_large" } });
    // None of these has ended the call.
    expect(await stream.answer([{ id: first?.id, result: 1 }])).toMatchObject({ status: 202 });
    const second = await stream.next("tool_call");
    await expectRefusal([{ id: first?.id, result: 1 }], 409, "tool_call_answered");
    await stream.answer([{ id: second?.id, result: 2 }]);
    expect(await stream.next("result")).toMatchObject({ result: [1, 2] });
    await expectRefusal([{ id: second?.id, result: 1 }], 404, "execution_not_found");
  });

  test("keep all digits of their numbers, and any text", async () => {
    const stream = await open({ code: "[str(echo(1)), str(echo(2)), len(echo(3))]", tools: [ECHO] });
    const one = await stream.next("tool_call");
    await stream.post(`{"results": [ {"result" : 123456789012345678901234567890 , "id": "${one?.id}"} ]}`);
    const two = await stream.next("tool_call");
    await stream.post(`{"results":[{"id":"${two?.id}","result":{"a":[1.0,"]}\\"\\u00e9"],"id":"x"}}]}`);
    const three = await stream.next("tool_call");
    await stream.post(`{"results":[{"id":"${three?.id}","result":"${"é".repeat(4 * 2 ** 20)}"}]}`);
    expect(await stream.next("result")).toMatchObject({
      result: ["123456789012345678901234567890", "{'a': [1.0, ']}\"é'], 'id': 'x'}", 4 * 2 ** 20],
    });
  });
});

describe("an execution that waits", () => {
  test("ends with its client's connection", async () => {
    const { stream, close } = await follow({ code: "echo(1)", tools: [ECHO] });
    await stream.next("tool_call");
    expect((await pool()).busy).toBeGreaterThanOrEqual(1);
    close();
    await until(async () => (await pool()).busy === 0);
  });

  test("is cancelled although it catches everything", async () => {
    const code = py`
      while True:
          try: echo(1)
          except BaseException: pass
    `;
    const { stream, close } = await follow({ code, tools: [ECHO] });
    await stream.next("tool_call");
    close();
    await until(async () => (await pool()).busy === 0);
    expect((await server.post("/api/execute", { code: "6 * 7" })).body.result).toBe(42);
  });

  test("leaves a sandbox to those that do not wait: one more is a 429", async () => {
    const streams = [];
    for (let i = 0; i < 2; i++) {
      const { stream } = await follow({ code: "echo(1)", tools: [ECHO] });
      await stream.next("tool_call");
      streams.push(stream);
    }
    const refused = await open({ code: "echo(1)", tools: [ECHO] });
    expect(refused.response.status).toBe(429);
    expect(refused.response.headers.get("retry-after")).toBe("1");
    expect((await server.post("/api/execute", { code: "6 * 7" })).body.result).toBe(42);
    for (const stream of streams) await stream.answer([{ id: stream.events.at(-1)?.id, result: 1 }]);
    for (const stream of streams) expect(await stream.next("result")).toMatchObject({ result: 1 });
    expect(await (await open({ code: "echo(3)", tools: [ECHO] })).run(() => 3)).toMatchObject({ result: 3 });
  });
});
