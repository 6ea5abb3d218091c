import { afterEach, describe, expect, test } from "vitest";
import { SandboxPool } from "../../src/executor/pool.ts";
import { WARM_UP, warmUp } from "../../src/executor/warm-up.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { startTestEngine } from "../support/engine.ts";
import { runOn, startTestSandbox } from "../support/sandbox.ts";

const WHO = { environment: "stdlib", principal: "p", signal: undefined };

let pool: SandboxPool<Sandbox> | undefined;
afterEach(async () => await pool?.stop(0));

/** A pool of one sandbox that warms up as `warm` says, and which sandboxes have. */
function poolThatWarms(warm: (sandbox: Sandbox) => ReturnType<typeof warmUp>, maxExecutions = 100) {
  const warmed: number[] = [];
  pool = new SandboxPool({
    ...{ size: 1, queueLimit: 10, maxExecutions, maxAgeMs: 600_000, environment: "stdlib" },
    start: () => startTestSandbox(),
    warmUp: async (sandbox) => {
      warmed.push(sandbox.pid);
      return await warm(sandbox);
    },
  });
  return { pool, warmed };
}

test("all of what a sandbox warms up with works, and is rewound", async () => {
  const sandbox = await startTestSandbox({ verifyRewind: true });
  const { result, verdict } = await runOn(sandbox, WARM_UP);
  sandbox.kill("the test is done");
  await sandbox.ended;
  // Its last line is an error on purpose.
  expect(result).toMatchObject({ success: false, errorInfo: { type: "ZeroDivisionError" } });
  expect(result.stdout).toMatch(/\S/);
  expect(verdict).toMatchObject({ state: "pristine" });
});

describe("a pool", () => {
  test("lends a sandbox that is warm, and does not count what warmed it", async () => {
    const { pool, warmed } = poolThatWarms(warmUp, 1);
    await pool.start();
    expect(warmed).toHaveLength(1);
    expect(pool.status()).toMatchObject({ idle: 1, starting: 0, executions: 0, started: 1, discarded: {} });
    const pid = await pool.use(WHO, async (sandbox) => {
      await runOn(sandbox, "1");
      return sandbox.pid;
    });
    expect(pid).toBe(warmed[0]);
    expect(pool.status().discarded).toEqual({ "served its executions": 1 });
  });

  test("does not have somebody who waits wait for that", async () => {
    const { pool, warmed } = poolThatWarms(warmUp);
    await pool.start();
    const lent = Promise.withResolvers<void>();
    const first = pool.use(WHO, async (sandbox) => {
      await lent.promise;
      sandbox.kill("the test ends it");
      return sandbox.pid;
    });
    const second = pool.use(WHO, async (sandbox) => sandbox.pid);
    lent.resolve();
    expect(await second).not.toBe(await first);
    expect(warmed).toEqual([await first]);
  });

  test("replaces a sandbox that warming up has spoilt, once", async () => {
    const { pool, warmed } = poolThatWarms(async () => ({ state: "discard", reason: "spoilt" }));
    const replaced = new Promise((resolve) =>
      pool.on("ready", (sandbox) => sandbox.pid !== warmed[0] && resolve(null)),
    );
    await pool.start();
    await replaced;
    const pid = await pool.use(WHO, async (sandbox) => sandbox.pid);
    expect(warmed).toHaveLength(1);
    expect(pid).not.toBe(warmed[0]);
    expect(pool.status()).toMatchObject({ started: 2, discarded: { spoilt: 1 } });
  });

  test("goes on when a sandbox ends while it warms up", async () => {
    const { pool, warmed } = poolThatWarms(async (sandbox) => {
      sandbox.kill("the test ends it");
      return await warmUp(sandbox);
    });
    await pool.start();
    const pid = await pool.use(WHO, async (sandbox) => {
      expect((await runOn(sandbox, "6 * 7")).result).toMatchObject({ result: 42 });
      return sandbox.pid;
    });
    expect(pid).not.toBe(warmed[0]);
  });
});

test("leaves no trace in what a server answers", async () => {
  const tested = await startTestEngine();
  expect(tested.executor.pool.status()).toMatchObject({ executions: 0, started: 1, discarded: {} });
  await tested.stop();
});
