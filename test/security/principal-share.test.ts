import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestEngine, type TestEngine } from "../support/engine.ts";
import { startTestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const KEYS = "mallory:the-key-of-mallory,alice:the-key-of-alice";

let tested: TestEngine;
beforeAll(async () => {
  tested = await startTestEngine({ POOL_SIZE: "2", QUEUE_LIMIT: "8", API_KEYS: KEYS });
});
afterAll(() => tested.stop());

test("a principal that floods leaves another a sandbox and half of the queue", async () => {
  const { pool } = tested.executor;
  await expect.poll(() => pool.status().idle, { timeout: 60_000 }).toBe(2);
  const stop = new AbortController();
  const flood = () =>
    tested
      .run("import time\ntime.sleep(300)", { principal: "mallory", timeoutMs: 300_000, signal: stop.signal })
      .catch((error: Error) => error);
  const running = flood();
  await expect.poll(() => pool.status().busy).toBe(1);
  const waiting = Array.from({ length: 4 }, flood);
  await expect.poll(() => pool.status().queued).toBe(4);
  // One sandbox is idle, and stays so for others.
  expect(pool.status()).toMatchObject({ idle: 1, busy: 1 });
  expect(await flood()).toMatchObject({ status: 429, code: "principal_queue_full", retryAfterS: 1 });

  const answers = await Promise.all([1, 2, 3, 4].map((i) => tested.run(`${i} * 2`, { principal: "alice" })));
  expect(answers.map(({ result }) => result)).toEqual([2, 4, 6, 8]);
  expect(pool.status()).toMatchObject({ queued: 4 });

  stop.abort(new Error("enough"));
  expect(await running).toMatchObject({ success: false, errorInfo: { type: "Cancelled" } });
  expect(await Promise.all(waiting)).toEqual(waiting.map(() => new Error("enough")));
  await expect.poll(() => pool.status().idle, { timeout: 60_000 }).toBe(2);
});

test("what a principal has waiting runs once its own has ended", async () => {
  const codes = Array.from({ length: 5 }, (_, i) => `import time\ntime.sleep(0.01)\n${i}`);
  const results = await Promise.all(codes.map((code) => tested.run(code, { principal: "mallory" })));
  expect(results.map(({ result }) => result)).toEqual([0, 1, 2, 3, 4]);
  // Also where the sandbox was lost on the way.
  const crash = "import sandbox_runner.execution as e\ne._answer = lambda *a: b'x'";
  const [lost, next] = await Promise.all([crash, "6 * 7"].map((code) => tested.run(code, { principal: "mallory" })));
  expect(lost).toMatchObject({ errorInfo: { type: "SandboxDied" } });
  expect(next).toMatchObject({ result: 42 });
});

test("a session that cannot be stored keeps its sandbox until its principal has more than its share and another waits", {
  timeout: 120_000,
}, async () => {
  const server = await startTestServer({ POOL_SIZE: "2", API_KEYS: KEYS });
  try {
    const [mallory, alice] = ["mallory", "alice"].map((name) => ({ "x-api-key": `the-key-of-${name}` }));
    const run = async (body: object, headers = mallory) => (await server.post("/api/execute", body, headers)).body;
    const session = (await server.post("/api/sessions", {}, mallory)).body.session.id;
    await run({ session, code: "x = 1" });
    const pins = "import ctypes\ncalled = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 7)\nx = 2";
    expect((await run({ session, code: pins })).session.pinned).toBeDefined();
    for (let i = 0; i < 3; i++) expect((await run({ code: "1 + 1" }, alice)).result).toBe(2);
    // While it waits for what else its principal runs, too.
    const [, mine] = await Promise.all([
      run({ code: "import time\ntime.sleep(0.3)" }),
      run({ session, code: "[x, called()]" }),
    ]);
    expect(mine).toMatchObject({ result: [2, 7] });

    const client = new AbortController();
    const endless = server.request("/api/execute", {
      method: "POST",
      headers: { "content-type": "application/json", ...mallory },
      body: JSON.stringify({ code: "import time\ntime.sleep(250)", timeout: 280_000 }),
      signal: client.signal,
    });
    endless.catch(() => {});
    const state = async () => (await server.get(`/api/sessions/${session}`, mallory)).body.session.state;
    expect(await state()).toBe("pinned");
    // Not before that of mallory has the other sandbox.
    await until(async () => {
      await run({ code: "1 + 1" }, alice);
      return (await state()) === "hibernated";
    });
    client.abort();
    expect(await run({ session, code: "x" })).toMatchObject({ result: 1, session: { restored: true } });
  } finally {
    await server.stop(0);
  }
});
