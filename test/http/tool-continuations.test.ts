import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { py } from "../support/engine.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const ECHO = { name: "echo", parameters: { type: "object", properties: { value: {} }, required: ["value"] } };
const KEYS = { alice: "a".repeat(20), bob: "b".repeat(20) };
const SCOPES = "execute+files+packages+stats";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({
    POOL_SIZE: "3",
    API_KEYS: `alice:${KEYS.alice}:${SCOPES},bob:${KEYS.bob}:${SCOPES}`,
    TOOL_EXECUTIONS_PER_PRINCIPAL: "2",
  });
});
afterAll(async () => await server.stop(0));

const post = async (path: string, body: unknown, name: keyof typeof KEYS = "alice") =>
  await server.post(path, body, { "x-api-key": KEYS[name] });
const get = async (path: string) => await server.get(path, { "x-api-key": KEYS.alice });
const execute = async (body: object) => (await post("/api/execute", { tools: [ECHO], ...body })).body;
const proceed = async (continuation: string, results: readonly unknown[]) =>
  await post(`/api/executions/${continuation}`, { results });
const isFree = () => server.executor.pool.status().busy === 0;

test("an execution with tools is a reply for each time that its code waits", async () => {
  const code = py`
    total = 0
    for n in range(3):
        print("step", n)
        total += echo(n)
    total
  `;
  let reply = await execute({ code });
  expect(reply).toEqual({
    success: true,
    status: "tool_call_required",
    continuation: expect.stringMatching(/^[\w-]{12}\.[\w-]{32}$/),
    toolCalls: [{ id: expect.stringMatching(/^call_/), name: "echo", input: { value: 0 } }],
    stdout: "step 0\n",
    stderr: "",
    timestamp: expect.any(String),
  });
  const steps = [];
  while (reply.status === "tool_call_required") {
    steps.push(reply.stdout);
    const results = reply.toolCalls.map(({ id, input }: { id: string; input: { value: number } }) => ({
      id,
      result: input.value + 1,
    }));
    reply = (await proceed(reply.continuation, results)).body;
  }
  expect(steps).toEqual(["step 0\n", "step 0\nstep 1\n", "step 0\nstep 1\nstep 2\n"]);
  expect(reply).toMatchObject({ success: true, status: "completed", result: 6, stdout: steps[2] });
});

test("one that asks nothing is the ordinary reply", async () => {
  expect(await execute({ code: "6 * 7" })).toMatchObject({ status: "completed", result: 42 });
  expect(await execute({ code: "1 / 0" })).toMatchObject({ status: "error", error: "division by zero" });
});

test("calls of coroutines come together, and may be answered in parts", async () => {
  const code = "import asyncio\nawait asyncio.gather(echo(1), echo(2), echo(3))";
  const first = await execute({ code, toolMode: "async" });
  expect(first.toolCalls.map(({ input }: { input: object }) => input)).toEqual([
    { value: 1 },
    { value: 2 },
    { value: 3 },
  ]);
  const [one, two, three] = first.toolCalls;
  const second = (await proceed(first.continuation, [{ id: two.id, result: "b" }])).body;
  expect(second.toolCalls.map(({ id }: { id: string }) => id)).toEqual([one.id, three.id]);
  const results = [
    { id: three.id, result: "c" },
    { id: one.id, error: { message: "no" } },
  ];
  expect((await proceed(first.continuation, results)).body).toMatchObject({
    error: "no",
    errorInfo: { type: "ToolError" },
  });
});

test("input() is among what is asked", async () => {
  const first = await execute({ code: 'input("Name? ")', interactive: true });
  expect(first).toMatchObject({
    toolCalls: [],
    inputRequests: [{ id: expect.any(String), prompt: "Name? ", password: false }],
  });
  const results = [{ id: first.inputRequests[0].id, result: "Ada" }];
  expect((await proceed(first.continuation, results)).body).toMatchObject({ result: "Ada" });
});

test("a lost reply is asked for again", async () => {
  const first = await execute({ code: "echo(1)" });
  expect((await proceed(first.continuation, [])).body).toMatchObject({ toolCalls: first.toolCalls });
  // The client goes away before the reply: what came of it waits for it.
  const controller = new AbortController();
  const lost = fetch(`${server.url}/api/executions/${first.continuation}`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": KEYS.alice },
    body: JSON.stringify({ results: [] }),
    signal: controller.signal,
  });
  await (await lost).text();
  controller.abort();
  const results = [{ id: first.toolCalls[0].id, result: 5 }];
  expect((await proceed(first.continuation, results)).body).toMatchObject({ status: "completed", result: 5 });
  // Taken.
  expect(await proceed(first.continuation, [])).toMatchObject({ status: 404, body: { code: "execution_not_found" } });
});

test("large arguments: so many at a time, the others with the next reply; what has no room at all is an error in Python", async () => {
  const code = py`
    import asyncio
    value = "x" * 10_400_000
    answers = await asyncio.gather(*(echo(value) for n in range(8)), return_exceptions=True)
    [one if one == "got" else str(one) for one in answers]
  `;
  let reply = await execute({ code, toolMode: "async" });
  const shown: number[] = [];
  while (reply.status === "tool_call_required") {
    shown.push(reply.toolCalls.length);
    const results = reply.toolCalls.map(({ id }: { id: string }) => ({ id, result: "got" }));
    reply = (await proceed(reply.continuation, results)).body;
  }
  expect(shown).toEqual(Array(6).fill(1));
  const refused = expect.stringContaining("calls that have no answer yet hold too much");
  expect(reply).toMatchObject({ status: "completed", result: [...Array(6).fill("got"), refused, refused] });
});

test("another principal's is not there", async () => {
  const first = await execute({ code: "echo(1)" });
  const results = [{ id: first.toolCalls[0].id, result: "forged" }];
  for (const path of [`/api/executions/${first.continuation}`, `/api/executions/${first.continuation}/results`]) {
    expect(await post(path, { results }, "bob")).toMatchObject({ status: 404, body: { code: "execution_not_found" } });
  }
  const own = [{ id: first.toolCalls[0].id, result: "own" }];
  expect((await proceed(first.continuation, own)).body).toMatchObject({ result: "own" });
});

test("wrong answers leave it as it is", async () => {
  const first = await execute({ code: "echo(1)" });
  expect(await proceed(first.continuation, [{ id: "call_1", result: 1 }])).toMatchObject({ status: 404 });
  expect(await proceed(first.continuation, [{ id: first.toolCalls[0].id }])).toMatchObject({ status: 400 });
  expect(await post("/api/executions/nothing", { results: [] })).toMatchObject({ status: 404 });
  expect((await proceed(first.continuation, [{ id: first.toolCalls[0].id, result: 1 }])).body).toMatchObject({
    result: 1,
  });
});

describe("a client that does not come back", () => {
  test("loses its execution when the lease ends: the sandbox is free, and it is told", async () => {
    const first = await execute({ code: 'open("left", "w").close(); echo(1)', toolTimeout: 100 });
    expect(first.status).toBe("tool_call_required");
    await until(isFree);
    const results = [{ id: first.toolCalls[0].id, result: 1 }];
    expect(await proceed(first.continuation, results)).toMatchObject({
      status: 410,
      body: { code: "tool_wait_expired" },
    });
    expect(await post(`/api/executions/${first.continuation}`, { results }, "bob")).toMatchObject({ status: 404 });
    const log = (await readSecurityLog(server.config)).filter(({ event }) => event === "tool_call");
    expect(log.at(-1)).toMatchObject({
      principal: "alice",
      details: { tool: "echo", outcome: "abandoned", inputBytes: 11 },
    });
    expect(log.at(-1)?.details).not.toHaveProperty("arguments");
  });

  test("leaves the session as it was before the execution", async () => {
    const { session } = (await post("/api/sessions", {})).body;
    await post("/api/execute", { code: "x = 1", session: session.id });
    const first = await execute({ code: "x = 2\necho(1)", session: session.id, toolTimeout: 100 });
    expect(first.status).toBe("tool_call_required");
    // Not by asking the continuation: a client that comes back has its lease anew.
    expect((await post("/api/execute", { code: "x", session: session.id })).body).toMatchObject({ result: 1 });
  });
});

describe("a session whose execution waits", () => {
  test("is not forked, checkpointed, restored or reset: 409", async () => {
    const { session } = (await post("/api/sessions", {})).body;
    const base = `/api/sessions/${session.id}`;
    await post(`${base}/checkpoints`, { name: "before" });
    const first = await execute({ code: "x = echo(1)", session: session.id });
    for (const path of ["fork", "checkpoints", "checkpoints/before/restore", "checkpoints/@previous/restore"])
      expect(await post(`${base}/${path}`, {})).toMatchObject({ status: 409, body: { code: "session_waiting" } });
    expect((await get(base)).body.session.state).toBe("running");
    await proceed(first.continuation, [{ id: first.toolCalls[0].id, result: 7 }]);
    expect((await post(`${base}/fork`, {})).status).toBe(201);
    expect((await post("/api/execute", { code: "x", session: session.id })).body.result).toBe(7);
  });

  test("is not either where the change came before the wait", async () => {
    const { session } = (await post("/api/sessions", {})).body;
    const begun = post("/api/execute", {
      code: "import time; time.sleep(1); echo(1)",
      tools: [ECHO],
      session: session.id,
    });
    await until(async () => (await get(`/api/sessions/${session.id}`)).body.session.state === "running");
    expect(await post(`/api/sessions/${session.id}/fork`, {})).toMatchObject({
      status: 409,
      body: { code: "session_waiting" },
    });
    const { continuation, toolCalls } = (await begun).body;
    await proceed(continuation, [{ id: toolCalls[0].id, result: 1 }]);
  });

  test("can be interrupted, and deleted", async () => {
    const { session } = (await post("/api/sessions", {})).body;
    const first = await execute({ code: "echo(1)", session: session.id });
    expect((await post(`/api/sessions/${session.id}/interrupt`, {})).body).toMatchObject({ interrupted: true });
    expect((await proceed(first.continuation, [])).body).toMatchObject({ status: "cancelled" });
    const second = await execute({ code: "echo(1)", session: session.id });
    expect((await server.delete(`/api/sessions/${session.id}`, { "x-api-key": KEYS.alice })).status).toBe(200);
    expect((await proceed(second.continuation, [])).status).toBe(200);
  });

  test("whose sandbox dies says so", async () => {
    const { session } = (await post("/api/sessions", {})).body;
    await post("/api/execute", { code: "x = 1", session: session.id });
    const first = await execute({ code: "x = 2\necho(1)", session: session.id });
    expect(first.status).toBe("tool_call_required");
    // The one that waits is among them; the others are replaced.
    const sandboxes = server.executor.pool.sandboxes();
    for (const sandbox of sandboxes) sandbox.kill("killed by the test");
    await Promise.all(sandboxes.map(({ ended }) => ended));
    await until(isFree);
    const reply = (await proceed(first.continuation, [])).body;
    expect(reply).toMatchObject({ status: "sandbox_died", session: { restored: true } });
    expect((await post("/api/execute", { code: "x", session: session.id })).body.result).toBe(1);
  });
});

test("a session offers its tools to each of its executions that says nothing else", async () => {
  const { session } = (await post("/api/sessions", { tools: [ECHO], toolMode: "async" })).body;
  const first = await execute({ code: "await echo(1)", session: session.id, tools: undefined });
  expect(first.status).toBe("tool_call_required");
  await proceed(first.continuation, [{ id: first.toolCalls[0].id, result: 1 }]);
  expect(await execute({ code: "echo", session: session.id, tools: [] })).toMatchObject({
    errorInfo: { type: "NameError" },
  });
  expect(await post("/api/sessions", { tools: [ECHO, ECHO] })).toMatchObject({
    status: 400,
    body: { code: "invalid_tools" },
  });
});

test("a small schema whose references multiply holds up nothing, wherever tools are described", async () => {
  const layer = (n: number) =>
    n === 7 ? { type: "string" } : { anyOf: Array.from({ length: 60 }, () => ({ $ref: `#/$defs/d${n + 1}` })) };
  const $defs = Object.fromEntries(Array.from({ length: 8 }, (_, n) => [`d${n}`, layer(n)]));
  // Followed one by one these are 60 ** 7 schemas.
  const tools = [{ name: "t", parameters: { properties: { x: { $ref: "#/$defs/d1" } }, $defs } }];
  expect((await post("/api/execute", { code: "t.__name__", tools })).body.result).toBe("t");
  expect((await post("/api/sessions", { tools })).status).toBe(201);
  expect(await post("/api/tools/stubs", { tools })).toMatchObject({ status: 200 });
});

test("more executions than may wait are a 429, of one principal and in all", async () => {
  const waiting = [await execute({ code: "echo(1)" }), await execute({ code: "echo(2)" })];
  const refused = await post("/api/execute", { code: "echo(3)", tools: [ECHO] });
  expect(refused).toMatchObject({ status: 429, body: { code: "too_many_tool_executions" } });
  // There is a sandbox for others all the same.
  expect((await post("/api/execute", { code: "1" }, "bob")).body.result).toBe(1);
  for (const { continuation, toolCalls } of waiting) await proceed(continuation, [{ id: toolCalls[0].id, result: 1 }]);
});

test("a server with one sandbox says that it needs another", async () => {
  const small = await startTestServer({ POOL_SIZE: "1" });
  try {
    const reply = await small.post("/api/execute", { code: "echo(1)", tools: [ECHO] });
    expect(reply).toMatchObject({ status: 429, body: { code: "too_few_sandboxes" } });
    // What cannot wait needs none.
    const checked = (code: string) => small.post("/api/execute", { code, tools: [], check: true });
    expect((await checked("6 * 7")).body).toMatchObject({ status: "completed", result: 42 });
    expect((await checked("nothing()")).body).toMatchObject({ errorInfo: { type: "ToolCheckError" } });
  } finally {
    await small.stop(0);
  }
});
