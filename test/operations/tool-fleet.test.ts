import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createClient, type TestClient } from "../support/client.ts";
import { hasRedis, startRedis, type TestRedis } from "../support/redis.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { ToolStream } from "../support/tool-client.ts";
import { until } from "../support/until.ts";

const KEYS = { alice: "a".repeat(20), bob: "b".repeat(20) };
const ECHO = { name: "echo", parameters: { type: "object", properties: { value: {} }, required: ["value"] } };

describe.skipIf(!hasRedis)("two servers that share Redis", () => {
  let redis: TestRedis;
  let servers: [TestServer, TestServer];
  let a: TestClient;
  let b: TestClient;

  const start = async () =>
    await startTestServer({
      REDIS_URL: redis.url,
      POOL_SIZE: "3",
      API_KEYS: `alice:${KEYS.alice}:execute+stats+files,bob:${KEYS.bob}:execute+stats`,
      TOOL_EXECUTIONS_PER_PRINCIPAL: "2",
    });
  const as = (server: TestServer, name: keyof typeof KEYS) => createClient(server.url, { "x-api-key": KEYS[name] });
  const proceed = async (on: TestClient, continuation: string, results: readonly unknown[]) =>
    await on.post(`/api/executions/${continuation}`, { results });
  const begin = async (on: TestClient, body: object = {}) =>
    (await on.post("/api/execute", { code: "echo(1)", tools: [ECHO], ...body })).body;

  beforeAll(async () => {
    redis = await startRedis();
    servers = [await start(), await start()];
    a = as(servers[0], "alice");
    b = as(servers[1], "alice");
  });
  afterAll(async () => {
    await Promise.all(servers.map((server) => server.stop(0)));
    await redis.stop();
  });

  test("an answer to a stream may go to the other one", async () => {
    const headers = { "x-api-key": KEYS.alice };
    const stream = await ToolStream.open(servers[0], { code: "[echo(1), echo(2)]", tools: [ECHO] }, { headers });
    const first = await stream.next("tool_call");
    expect(await stream.answer([{ id: "call_1", result: 1 }], servers[1])).toMatchObject({
      status: 404,
      body: { code: "unknown_tool_call" },
    });
    expect(await stream.answer([{ id: first?.id, error: 7 }], servers[1])).toMatchObject({ status: 400 });
    expect(
      await stream.post(`{"results":[{"id":"${first?.id}","result":12345678901234567890}]}`, servers[1]),
    ).toMatchObject({ status: 202 });
    const second = await stream.next("tool_call");
    expect(await stream.answer([{ id: first?.id, result: 1 }], servers[1])).toMatchObject({
      status: 409,
      body: { code: "tool_call_answered" },
    });
    const large = "x".repeat(9 * 2 ** 20);
    await stream.answer([{ id: second?.id, result: large }], servers[1]);
    const result = await stream.next("result");
    expect([result?.success, result?.result[1].length]).toEqual([true, large.length]);
  });

  test("a continuation may go on at the other one, and back", async () => {
    const code = "import tools\nn = echo(1)\ntry: echo(n)\nexcept tools.ToolError as e: print(e, e.data)\nn";
    const first = await begin(a, { code });
    const second = (await proceed(b, first.continuation, [{ id: first.toolCalls[0].id, result: 5 }])).body;
    expect(second).toMatchObject({
      status: "tool_call_required",
      continuation: first.continuation,
      toolCalls: [{ input: { value: 5 } }],
    });
    expect((await proceed(a, first.continuation, [])).body.toolCalls).toEqual(second.toolCalls);
    const error = { message: "no", data: [1] };
    const last = await proceed(b, first.continuation, [{ id: second.toolCalls[0].id, error }]);
    expect(last.body).toMatchObject({ status: "completed", result: 5, stdout: "no [1]\n" });
    await until(async () => (await proceed(b, first.continuation, [])).status === 404);
  });

  test("another principal's is not there on either", async () => {
    const first = await begin(a);
    const results = [{ id: first.toolCalls[0].id, result: "forged" }];
    for (const server of servers) {
      for (const path of [`/api/executions/${first.continuation}`, `/api/executions/${first.continuation}/results`]) {
        const reply = await as(server, "bob").post(path, { results });
        expect(reply).toMatchObject({ status: 404, body: { code: "execution_not_found" } });
      }
    }
    await proceed(b, first.continuation, [{ id: first.toolCalls[0].id, result: 1 }]);
  });

  test("a lease that has ended is told by both", async () => {
    const first = await begin(a, { toolTimeout: 50 });
    await until(() => servers[0].executor.pool.status().busy === 0);
    for (const on of [a, b])
      expect(await proceed(on, first.continuation, [])).toMatchObject({
        status: 410,
        body: { code: "tool_wait_expired" },
      });
  });

  test("a session whose code waits is not changed by way of the other one", async () => {
    const { session } = (await a.post("/api/sessions", {})).body;
    const base = `/api/sessions/${session.id}`;
    await b.post("/api/execute", { code: "x = 1", session: session.id });
    const first = await begin(a, { code: "x = echo(2)", session: session.id });
    await until(async () => (await b.post(`${base}/fork`, {})).body.code === "session_waiting");
    expect(await b.post(`${base}/checkpoints`, {})).toMatchObject({ status: 409, body: { code: "session_waiting" } });
    expect(await b.put(`${base}/files/f.txt`, "x")).toMatchObject({ status: 409 });
    expect((await as(servers[1], "bob").post(`${base}/fork`, {})).status).toBe(404);
    await proceed(b, first.continuation, [{ id: first.toolCalls[0].id, result: 2 }]);
    expect((await b.post(`${base}/fork`, {})).status).toBe(201);
    expect((await b.post("/api/execute", { code: "x", session: session.id })).body.result).toBe(2);
  });

  test("what waits on a server that ends is told so by the other, and its session is as it was before", async () => {
    const third = await start();
    const on = as(third, "alice");
    const { session } = (await on.post("/api/sessions", {})).body;
    await on.post("/api/execute", { code: "x = 1", session: session.id });
    const first = await begin(on, { code: "x = 2\necho(1)", session: session.id });
    expect(first.status).toBe("tool_call_required");
    await third.stop(0);
    const results = [{ id: first.toolCalls[0].id, result: 1 }];
    expect(await proceed(b, first.continuation, results)).toMatchObject({
      status: 410,
      body: { code: "tool_wait_expired" },
    });
    expect((await b.post("/api/execute", { code: "x", session: session.id })).body.result).toBe(1);
  });

  test("ids that were never given out are not there", async () => {
    for (const id of ["nothing", "a.b", `${"x".repeat(12)}.${"y".repeat(32)}`, "..", "__proto__.x"]) {
      const { status } = await b.post(`/api/executions/${encodeURIComponent(id)}/results`, { results: [] });
      expect([404, 410]).toContain(status);
    }
  });
});
