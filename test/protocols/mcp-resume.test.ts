import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { py } from "../support/engine.ts";
import { connectMcp, type McpResult, type McpTestClient } from "../support/mcp-client.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const KEYS = { alice: "a-key-of-alice-for-mcp", bob: "a-key-of-bob-for-mcp-too" };
const ADD = {
  name: "add",
  description: "Adds two numbers.",
  parameters: { type: "object", properties: { a: { type: "number" }, b: { type: "number" } }, required: ["a", "b"] },
};

let server: TestServer;
let alice: McpTestClient;
let bob: McpTestClient;

beforeAll(async () => {
  server = await startTestServer({ API_KEYS: `alice:${KEYS.alice},bob:${KEYS.bob}`, POOL_SIZE: "4" });
  alice = await connectMcp(server.url, KEYS.alice);
  bob = await connectMcp(server.url, KEYS.bob);
});
afterAll(async () => {
  for (const client of [alice, bob]) await client?.[Symbol.asyncDispose]();
  await server?.stop(0);
});

/** Answers calls until the code is over. */
async function finish(
  step: McpResult,
  answer: (call: { name: string; input: unknown }) => unknown,
): Promise<McpResult> {
  let now = step;
  while (now.data.status === "tool_call_required") {
    const { handle, toolCalls } = now.data;
    const results = toolCalls.map((call: { id: string; name: string; input: unknown }) => ({
      id: call.id,
      result: answer(call),
    }));
    now = await alice.call("resume_python", { handle, results });
  }
  return now;
}

test("code calls tools, and goes on with what they answer", async () => {
  const code = "print('begin')\ntotal = 0\nfor n in range(3):\n    total = add(a=total, b=n)\ntotal";
  const step = await alice.call("run_python", { code, tools: [ADD] });
  expect(step.isError).toBeUndefined();
  expect(step.data).toMatchObject({
    status: "tool_call_required",
    stdout: "begin\n",
    handle: expect.stringMatching(/^mcp-/),
    toolCalls: [{ id: expect.any(String), name: "add", input: { a: 0, b: 0 } }],
  });
  expect(step.text).toContain("Answer with resume_python");
  expect(step.text).toContain(step.data.handle);
  expect(step.text).toContain('add({"a":0,"b":0})');
  const over = await finish(step, ({ input }) => {
    const { a, b } = input as { a: number; b: number };
    return a + b;
  });
  expect(over.data).toMatchObject({ status: "completed", result: 3, stdout: "begin\n" });
  expect(over.text).toBe("begin\n3");
});

test("calls in parallel come together; errors are exceptions of the code", async () => {
  const code = py`
    import asyncio
    found = await asyncio.gather(add(a=1, b=2), add(a=3, b=4), return_exceptions=True)
    [str(one) for one in found]
  `;
  const step = await alice.call("run_python", { code, tools: [ADD], tool_mode: "async" });
  expect(step.data.toolCalls).toHaveLength(2);
  const [first, second] = step.data.toolCalls;
  const results = [
    { id: second.id, error: { message: "no such sum" } },
    { id: first.id, result: 3 },
  ];
  const over = await alice.call("resume_python", { handle: step.data.handle, results });
  expect(over.data.result).toEqual(["3", "no such sum"]);
});

test("input() asks the client", async () => {
  const step = await alice.call("run_python", { code: "name = input('Who? ')\nf'Hello {name}'", interactive: true });
  expect(step.data).toMatchObject({
    status: "tool_call_required",
    inputRequests: [{ prompt: "Who? ", password: false }],
  });
  expect(step.text).toContain('input("Who? ")');
  const [{ id }] = step.data.inputRequests;
  const over = await alice.call("resume_python", { handle: step.data.handle, results: [{ id, result: "Ada" }] });
  expect(over.data.result).toBe("Hello Ada");
});

test("numbers of answers have the digits that they were written with", async () => {
  const step = await alice.call("run_python", { code: "repr(add(a=1, b=2))", tools: [ADD] });
  const { handle, toolCalls } = step.data;
  // What JavaScript would make another number of.
  const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"arguments":{"results":[{"id":"${toolCalls[0].id}","result":[12345678901234567890,1.0]}],"handle":"${handle}"},"name":"resume_python"}}`;
  const response = await fetch(`${server.url}/mcp`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${KEYS.alice}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
    },
    body,
  });
  expect(await response.text()).toContain("[12345678901234567890, 1.0]");
});

test("in a session, whose tools are a default for all of its executions", async () => {
  const session = (await alice.call("session_create", { tools: [ADD] })).data.session.id;
  const step = await alice.call("run_python", { code: "x = add(a=1, b=1)\nx", session });
  expect(step.data).toMatchObject({ status: "tool_call_required", session });
  expect((await finish(step, () => 2)).data).toMatchObject({ status: "completed", result: 2, session });
  expect((await alice.call("run_python", { code: "x", session })).data.result).toBe(2);
});

test("a reply that was lost is asked for again", async () => {
  const step = await alice.call("run_python", { code: "add(a=1, b=1)", tools: [ADD] });
  const { handle, toolCalls } = step.data;
  expect((await alice.call("resume_python", { handle })).data).toMatchObject({ handle, toolCalls });
  expect((await alice.call("resume_python", { handle, results: [] })).data).toMatchObject({ handle, toolCalls });
  expect((await finish(step, () => 1)).data.status).toBe("completed");
});

describe("what is wrong", () => {
  test("handles that are not there, or are another's, or another protocol's", async () => {
    const step = await alice.call("run_python", { code: "add(a=1, b=1)", tools: [ADD] });
    const { handle, toolCalls } = step.data;
    const results = [{ id: toolCalls[0].id, result: 2 }];
    const lost = { isError: true, text: "Execution not found" };
    for (const odd of ["", "none", "mcp-none", handle.slice(4), `${handle}x`])
      expect(await alice.call("resume_python", { handle: odd, results })).toMatchObject(lost);
    expect(await bob.call("resume_python", { handle, results })).toMatchObject(lost);
    const headers = { authorization: `Bearer ${KEYS.alice}` };
    expect((await server.post(`/api/executions/${handle}`, { results }, headers)).status).toBe(404);
    const plain = await server.post("/api/execute", { code: "add(a=1, b=1)", tools: [ADD] }, headers);
    expect(await alice.call("resume_python", { handle: plain.body.continuation })).toMatchObject(lost);
    await server.post(
      `/api/executions/${plain.body.continuation}`,
      { results: [{ id: plain.body.toolCalls[0].id, result: 1 }] },
      headers,
    );
    expect((await finish(step, () => 2)).data).toMatchObject({ status: "completed", result: 2 });
    expect(await alice.call("resume_python", { handle, results })).toMatchObject({ isError: true });
  });

  test("answers, of which the execution knows nothing afterwards", async () => {
    const step = await alice.call("run_python", { code: "add(a=1, b=1)", tools: [ADD] });
    const { handle, toolCalls } = step.data;
    const { id } = toolCalls[0];
    const wrong = async (results: unknown) => {
      const { isError, text } = await alice.call("resume_python", { handle, results });
      expect(isError).toBe(true);
      return text;
    };
    expect(await wrong("all")).toBe("Results must be a list.");
    expect(await wrong([1])).toContain("Each result must be an object");
    expect(await wrong([{ result: 1 }])).toContain("needs the id");
    expect(await wrong([{ id }])).toContain("neither result nor error");
    expect(await wrong([{ id, result: 1, error: { message: "x" } }])).toContain("both");
    expect(await wrong([{ id: "call_none", result: 1 }])).toContain("no such call");
    expect((await finish(step, () => 2)).data.result).toBe(2);
  });

  test("more that wait than may", async () => {
    const waiting: McpResult[] = [];
    let refused: McpResult | null = null;
    while (refused === null) {
      const step = await alice.call("run_python", { code: "add(a=1, b=1)", tools: [ADD] });
      if (step.isError) refused = step;
      else waiting.push(step);
    }
    expect(refused._meta).toMatchObject({ "pyodide-express/code": "too_many_tool_executions" });
    for (const step of waiting) expect((await finish(step, () => 2)).data.status).toBe("completed");
  });
});

describe("a client that goes away", () => {
  const idle = async () => await until(() => server.executor.pool.status().busy === 0);
  const endless = "add(a=1, b=1)\nopen('resumed', 'w').close()\nimport time\nwhile True: time.sleep(0.01)";

  test("cancelling resume_python stops the code", async () => {
    const step = await alice.call("run_python", { code: endless, tools: [ADD], timeout_ms: 60_000 });
    const { handle, toolCalls } = step.data;
    const controller = new AbortController();
    const results = [{ id: toolCalls[0].id, result: 2 }];
    const called = alice.call("resume_python", { handle, results }, { signal: controller.signal });
    called.catch(() => {});
    await until(() => server.executor.pool.status().busy > 0);
    controller.abort();
    await expect(called).rejects.toThrow();
    await idle();
    expect((await alice.call("resume_python", { handle })).data).toMatchObject({ status: "cancelled" });
  });

  test("without a word, the code waits for its return, for its lease", async () => {
    const step = await alice.call("run_python", { code: "add(a=1, b=1)", tools: [ADD], tool_timeout_ms: 200 });
    await idle();
    const late = await alice.call("resume_python", { handle: step.data.handle });
    expect(late).toMatchObject({ isError: true, _meta: { "pyodide-express/code": "tool_wait_expired" } });
  });
});
