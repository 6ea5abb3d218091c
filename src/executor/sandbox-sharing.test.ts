import fc from "fast-check";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Verdict } from "../wire/guest-messages.ts";
import { SandboxPool } from "./pool.ts";
import { FakeSandbox, turn } from "./testing/fake-sandbox.ts";

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
  { maxLength: 60, size: "max" },
);

const SHARED = { sharing: "principal", maxExecutions: 1000, maxAgeMs: 1e9, environment: "stdlib" } as const;

describe("SANDBOX_SHARING=principal", () => {
  test("no sandbox ever serves two principals, no request waits for ever, and no more run than may", async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 4 }), steps, async (size, plan) => {
        const tenants = new Map<unknown, string>();
        const alive = new Set<FakeSandbox>();
        let running = 0;
        const pool = new SandboxPool<FakeSandbox>({
          ...SHARED,
          size,
          queueLimit: 1000,
          start: async () => {
            const sandbox = new FakeSandbox();
            alive.add(sandbox);
            void sandbox.ended.then(() => alive.delete(sandbox));
            await turn();
            return sandbox;
          },
        });
        await pool.start();
        const uses = plan.map(async ({ principal, environment, session, verdict, turns }, i) => {
          for (let n = 0; n < i % 7; n++) await turn();
          const key = session === null ? undefined : `${principal}-${session}`;
          const options = { principal, environment, signal: undefined, ...(key && { resident: key }) };
          await pool.use(options, async (sandbox, checkout) => {
            running++;
            expect(running).toBeLessThanOrEqual(size);
            expect(alive).toContain(sandbox);
            expect(tenants.get(sandbox) ?? principal).toBe(principal);
            tenants.set(sandbox, principal);
            const settle = sandbox.begin();
            for (let n = 0; n < turns; n++) await turn();
            const keeps = key !== undefined && (verdict === "resident" || verdict === "pinned");
            if (keeps) checkout.retain(key);
            if (keeps && verdict === "pinned") checkout.pin();
            const state = verdict === "discard" ? "discard" : keeps ? "resident" : "pristine";
            settle({ state, reason: "test" } as Verdict);
            running--;
          });
        });
        await Promise.all(uses);
        for (let n = 0; n < 50; n++) await turn();
        // Spares are there again, ahead of the next principal, unless pinned sessions have the places.
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
    const pool = new SandboxPool<FakeSandbox>({
      ...SHARED,
      size: 2,
      queueLimit: 10,
      start: async () => {
        starts++;
        return new FakeSandbox();
      },
    });
    onTestFinished(async () => await pool.stop(0));
    await pool.start();
    await turn();
    const run = (principal: string) =>
      pool.use({ principal, environment: "stdlib", signal: undefined }, async (sandbox) => {
        served.push(sandbox);
      });
    for (const principal of ["alice", "bob", "alice", "bob", "alice"]) await run(principal);
    expect(new Set(served).size).toBe(2);
    expect(starts).toBe(3);
    // The third takes the unused one; the sandbox that was used least recently makes room for the next spare.
    await run("carol");
    await turn();
    await turn();
    expect(served[1]?.endReason).toBe("principal");
    expect(starts).toBe(4);
    expect(pool.status().idle).toBe(3);
  });
});

test("of a principal that has several, one is ended before that of another who has one", async () => {
  const served = new Map<string, FakeSandbox[]>();
  const pool = new SandboxPool<FakeSandbox>({
    ...SHARED,
    size: 2,
    queueLimit: 10,
    start: async () => new FakeSandbox(),
  });
  onTestFinished(async () => await pool.stop(0));
  await pool.start();
  await turn();
  const run = (principal: string, ended = Promise.resolve()) =>
    pool.use({ principal, environment: "stdlib", signal: undefined }, async (sandbox) => {
      served.set(principal, [...(served.get(principal) ?? []), sandbox]);
      await ended;
    });
  await run("bob");
  const both = Promise.withResolvers<void>();
  const first = run("alice", both.promise);
  const second = run("alice", both.promise);
  both.resolve();
  await Promise.all([first, second]);
  await turn();
  expect(served.get("bob")?.[0]?.endReason).toBeNull();
  expect(served.get("alice")?.filter(({ endReason }) => endReason === "principal")).toHaveLength(1);
});
