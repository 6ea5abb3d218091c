import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { connectMcp } from "../support/mcp-client.ts";
import { hasRedis, startRedis, type TestRedis } from "../support/redis.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

if (!hasRedis) console.warn("There is no redis-server on this machine: its tests are skipped.");

const KEYS = { alice: "a-key-of-alice-for-mcp", bob: "a-key-of-bob-for-mcp-too" };
const ADD = {
  name: "add",
  description: "Adds.",
  parameters: { type: "object", properties: { a: { type: "number" } }, required: ["a"] },
};
const ENDLESS = "print('begun', flush=True)\nwhile True: pass";

describe.skipIf(!hasRedis)("MCP on a fleet", () => {
  let redis: TestRedis;
  let a: TestServer;
  let b: TestServer;

  beforeAll(async () => {
    redis = await startRedis();
    const settings = { REDIS_URL: redis.url, API_KEYS: `alice:${KEYS.alice},bob:${KEYS.bob}`, POOL_SIZE: "2" };
    [a, b] = await Promise.all([startTestServer(settings), startTestServer(settings)]);
  });
  afterAll(async () => {
    await Promise.all([a?.stop(0), b?.stop(0)]);
    await redis?.stop();
  });

  const busyOf = (server: TestServer) => server.executor.pool.status().busy;
  const headersOf = (key: string, session: string) => ({
    "content-type": "application/json",
    accept: "application/json, text/event-stream",
    authorization: `Bearer ${key}`,
    "mcp-session-id": session,
  });
  const post = async (server: TestServer, headers: Record<string, string>, message: object) =>
    await fetch(`${server.url}/mcp`, { method: "POST", headers, body: JSON.stringify({ jsonrpc: "2.0", ...message }) });
  const run = (server: TestServer, headers: Record<string, string>, id: number) =>
    post(server, headers, {
      id,
      method: "tools/call",
      params: { name: "run_python", arguments: { code: ENDLESS, timeout_ms: 120_000 } },
    });

  test("code that waits goes on by another server, which says as well where it stands", async () => {
    await using here = await connectMcp(a.url, KEYS.alice);
    await using there = await connectMcp(b.url, KEYS.alice);
    await using other = await connectMcp(b.url, KEYS.bob);
    const code = "print('begun')\nadd(a=1) + add(a=2)";
    const { handle, toolCalls } = (await here.call("run_python", { code, tools: [ADD] })).data;
    expect((await there.call("resume_python", { handle })).data).toMatchObject({ handle, toolCalls });
    expect(await other.call("resume_python", { handle })).toMatchObject({ isError: true, text: "Execution not found" });
    const next = await there.call("resume_python", { handle, results: [{ id: toolCalls[0].id, result: 10 }] });
    expect(next.data).toMatchObject({ status: "tool_call_required", toolCalls: [{ input: { a: 2 } }] });
    const results = [{ id: next.data.toolCalls[0].id, result: 20 }];
    expect((await there.call("resume_python", { handle, results })).data).toMatchObject({
      status: "completed",
      result: 30,
      stdout: "begun\n",
    });
    const session = (await here.call("session_create")).data.session.id;
    await here.call("run_python", { code: "x = 1", session });
    expect((await there.call("run_python", { code: "x", session })).data.result).toBe(1);
  });

  test("a cancellation that reaches another server stops the code, and another client's, or principal's, does not", async () => {
    const mine = headersOf(KEYS.alice, "of-alice");
    const called = run(a, mine, 5);
    await until(() => busyOf(a) === 1);
    const cancelled = (requestId: number) => ({ method: "notifications/cancelled", params: { requestId } });
    await post(b, headersOf(KEYS.alice, "another-of-alice"), cancelled(5));
    await post(b, headersOf(KEYS.bob, "of-alice"), cancelled(5));
    await post(b, mine, cancelled(6));
    // What one server tells arrives in the order in which it was told: this call ends, so the ones before were for nothing.
    const marker = run(a, headersOf(KEYS.bob, "marker"), 1);
    await until(() => busyOf(a) === 2);
    await post(b, headersOf(KEYS.bob, "marker"), cancelled(1));
    expect(await (await marker).text()).not.toContain('"result"');
    await until(() => busyOf(a) === 1);
    expect((await post(b, mine, cancelled(5))).status).toBe(202);
    expect(await (await called).text()).not.toContain('"result"');
    await until(() => busyOf(a) === 0);
  });

  test("so does the end of the protocol's session", async () => {
    const headers = headersOf(KEYS.alice, "ends");
    const called = run(a, headers, 7);
    await until(() => busyOf(a) === 1);
    expect((await fetch(`${b.url}/mcp`, { method: "DELETE", headers })).status).toBe(204);
    expect(await (await called).text()).not.toContain('"result"');
    await until(() => busyOf(a) === 0);
  });

  test("code that goes on by another server is stopped there", async () => {
    await using here = await connectMcp(a.url, KEYS.alice);
    await using there = await connectMcp(b.url, KEYS.alice);
    const { handle, toolCalls } = (await here.call("run_python", { code: `add(a=1)\n${ENDLESS}`, tools: [ADD] })).data;
    const controller = new AbortController();
    const results = [{ id: toolCalls[0].id, result: 1 }];
    const called = there.call("resume_python", { handle, results }, { signal: controller.signal });
    called.catch(() => {});
    await until(() => busyOf(a) === 1);
    controller.abort();
    await expect(called).rejects.toThrow();
    await until(() => busyOf(a) === 0);
  });
});
