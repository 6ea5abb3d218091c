import fc from "fast-check";
import { afterEach, describe, expect, onTestFinished, test } from "vitest";
import { SandboxPool } from "../src/executor/pool.ts";
import type { Sandbox } from "../src/sandbox/sandbox.ts";
import type { Verdict } from "../src/wire/guest-messages.ts";
import { createClient } from "./support/client.ts";
import { startTestServer, type TestServer } from "./support/server.ts";
import { until } from "./support/until.ts";

/** What the pool sees of a sandbox. Starting, and what becomes of it after each use, is decided by the test. */
class FakeSandbox {
  readonly startedAt = Date.now();
  endReason: string | null = null;
  idle: Promise<Verdict> = Promise.resolve({ state: "pristine" } as Verdict);
  readonly #ended = Promise.withResolvers<string>();
  readonly ended = this.#ended.promise;
  kill(reason: string): void {
    this.endReason = reason;
    this.#ended.resolve(reason);
  }
  async rewind(): Promise<Verdict> {
    return { state: "pristine" } as Verdict;
  }
}

const tick = () => new Promise((resolve) => setImmediate(resolve));

interface Step {
  readonly principal: string;
  readonly environment: string;
  readonly session: number | null;
  readonly verdict: "pristine" | "resident" | "discard" | "pinned";
  readonly turns: number;
}

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    principal: fc.constantFrom("alice", "bob", "carol", "dora", "emil"),
    environment: fc.constantFrom("stdlib", "stdlib", "numpy", "stdlib+alice"),
    session: fc.option(fc.nat(2)),
    verdict: fc.constantFrom("pristine", "pristine", "resident", "discard", "pinned"),
    turns: fc.nat(3),
  }),
  { maxLength: 60 },
);

describe("SANDBOX_SHARING=principal", () => {
  test("no sandbox ever serves two principals, nobody waits for ever, and no more run than may", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 4 }), steps, async (size, plan) => {
        const tenants = new Map<unknown, string>();
        const alive = new Set<FakeSandbox>();
        let running = 0;
        const pool = new SandboxPool({
          size,
          sharing: "principal",
          queueLimit: 1000,
          maxExecutions: 1000,
          maxAgeMs: 1e9,
          environment: "stdlib",
          start: async () => {
            const sandbox = new FakeSandbox();
            alive.add(sandbox);
            void sandbox.ended.then(() => alive.delete(sandbox));
            await tick();
            return sandbox as unknown as Sandbox;
          },
        });
        await pool.start();
        const uses = plan.map(async ({ principal, environment, session, verdict, turns }, i) => {
          for (let turn = 0; turn < i % 7; turn++) await tick();
          const key = session === null ? undefined : `${principal}-${session}`;
          const options = { principal, environment, signal: undefined, ...(key && { resident: key }) };
          await pool.use(options, async (sandbox, loan) => {
            running++;
            expect(running).toBeLessThanOrEqual(size);
            expect(alive).toContain(sandbox);
            expect(tenants.get(sandbox) ?? principal).toBe(principal);
            tenants.set(sandbox, principal);
            const done = Promise.withResolvers<Verdict>();
            (sandbox as unknown as FakeSandbox).idle = done.promise;
            for (let turn = 0; turn < turns; turn++) await tick();
            const keeps = key !== undefined && (verdict === "resident" || verdict === "pinned");
            if (keeps) loan.keep(key);
            if (keeps && verdict === "pinned") loan.pin();
            const state = verdict === "discard" ? "discard" : keeps ? "resident" : "pristine";
            done.resolve({ state, reason: "test" } as Verdict);
            running--;
          });
        });
        await Promise.all(uses);
        for (let turn = 0; turn < 50; turn++) await tick();
        // Spares are there again, ahead of whoever comes next, unless pinned sessions have the places.
        expect(alive.size).toBe(size + Math.ceil(size / 2));
        await pool.stop(0);
        expect(alive.size).toBe(0);
      }),
      { numRuns: 200 },
    );
  }, 120_000);

  test("a principal that comes again has its sandbox, and a new one does not wait for a start", async () => {
    const served: FakeSandbox[] = [];
    let starts = 0;
    const pool = new SandboxPool({
      size: 2,
      sharing: "principal",
      queueLimit: 10,
      maxExecutions: 1000,
      maxAgeMs: 1e9,
      environment: "stdlib",
      start: async () => {
        starts++;
        return new FakeSandbox() as unknown as Sandbox;
      },
    });
    onTestFinished(async () => await pool.stop(0));
    await pool.start();
    await tick();
    const run = (principal: string) =>
      pool.use({ principal, environment: "stdlib", signal: undefined }, async (sandbox) => {
        served.push(sandbox as unknown as FakeSandbox);
      });
    for (const principal of ["alice", "bob", "alice", "bob", "alice"]) await run(principal);
    expect(new Set(served).size).toBe(2);
    expect(starts).toBe(3);
    // The third takes the one that nobody has used; the sandbox that was used least recently makes room for the next spare.
    await run("carol");
    await tick();
    await tick();
    expect(served[1]?.endReason).toBe("principal");
    expect(starts).toBe(4);
    expect(pool.status().idle).toBe(3);
  });
});

test("of a principal that has several, one is ended before that of another who has one", async () => {
  const served = new Map<string, FakeSandbox[]>();
  const pool = new SandboxPool({
    size: 2,
    sharing: "principal",
    queueLimit: 10,
    maxExecutions: 1000,
    maxAgeMs: 1e9,
    environment: "stdlib",
    start: async () => new FakeSandbox() as unknown as Sandbox,
  });
  onTestFinished(async () => await pool.stop(0));
  await pool.start();
  await tick();
  const run = (principal: string, ended = Promise.resolve()) =>
    pool.use({ principal, environment: "stdlib", signal: undefined }, async (sandbox) => {
      served.set(principal, [...(served.get(principal) ?? []), sandbox as unknown as FakeSandbox]);
      await ended;
    });
  await run("bob");
  const both = Promise.withResolvers<void>();
  const first = run("alice", both.promise);
  const second = run("alice", both.promise);
  both.resolve();
  await Promise.all([first, second]);
  await tick();
  expect(served.get("bob")?.[0]?.endReason).toBeNull();
  expect(served.get("alice")?.filter(({ endReason }) => endReason === "principal")).toHaveLength(1);
});

describe("a server whose sandboxes are not shared", () => {
  const KEYS = { alice: "a".repeat(20), bob: "b".repeat(20), carol: "c".repeat(20) };
  let server: TestServer | undefined;
  afterEach(async () => await server?.stop(0));

  async function start(settings: Record<string, string> = {}) {
    const started = await startTestServer({ SANDBOX_SHARING: "principal", POOL_SIZE: "2", ...settings });
    server = started;
    const tenants = new Map<number, Set<string>>();
    const { pool } = started.executor;
    const use = pool.use.bind(pool);
    pool.use = async (options, work) =>
      await use(options, async (sandbox, loan) => {
        tenants.set(sandbox.pid, (tenants.get(sandbox.pid) ?? new Set()).add(options.principal));
        return await work(sandbox, loan);
      });
    const as = (name: keyof typeof KEYS) => createClient(started.url, { "x-api-key": KEYS[name] });
    return { server: started, tenants, as };
  }

  const keyed = {
    API_KEYS: Object.entries(KEYS)
      .map(([name, key]) => `${name}:${key}`)
      .join(","),
  };

  test("gives each process to one principal, in and out of sessions, and health checks are nobody's", {
    timeout: 60_000,
  }, async () => {
    const { tenants, as } = await start(keyed);
    const sessions = new Map<string, string>();
    for (const name of ["alice", "bob", "carol"] as const) {
      sessions.set(name, (await as(name).post("/api/sessions", {})).body.session.id);
    }
    for (let round = 1; round <= 4; round++) {
      const replies = (["alice", "bob", "carol"] as const).map(async (name) => {
        const session = sessions.get(name) as string;
        const code = `n = globals().get('n', 0) + 1; ['${name}', n]`;
        expect((await as(name).post("/api/execute", { code, session })).body.result).toEqual([name, round]);
        expect((await as(name).post("/api/execute", { code })).body.result).toEqual([name, 1]);
      });
      await Promise.all(replies);
    }
    expect((await as("alice").get("/api/health")).status).toBe(200);
    expect(tenants.size).toBeGreaterThan(2);
    for (const principals of tenants.values()) expect([...principals]).toHaveLength(1);
  });

  test("without keys all who call are one principal, and share", async () => {
    const { server, tenants } = await start();
    for (let i = 0; i < 6; i++) expect((await server.post("/api/execute", { code: "1 + 1" })).body.result).toBe(2);
    expect(tenants.size).toBe(1);
    await until(async () => server.executor.pool.status().idle === 3);
    expect(server.executor.pool.status()).toMatchObject({ size: 2, started: 3 });
  });
});
