import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { ClientError } from "../shared/errors.ts";
import { EnvironmentHealth } from "./environment-health.ts";
import { SandboxPool } from "./pool.ts";
import { FakeSandbox, PRISTINE } from "./testing/fake-sandbox.ts";

/** `flaky` starts every second time. */
const ENVIRONMENTS = ["default", "good", "bad", "worse", "flaky"] as const;
const OF_TWO = { size: 2, queueLimit: 10, maxExecutions: 100, maxAgeMs: 1e9, environment: "default" };

test("environments that do not start take no place from others, whatever is asked for in which order", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "Date", "performance"] });
  const request = fc.record({
    environment: fc.constantFrom(...ENVIRONMENTS),
    principal: fc.constantFrom("alice", "bob", "carol"),
    workMs: fc.nat(50),
    pauseMs: fc.nat(2000),
  });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 4 }), fc.array(request, { maxLength: 40 }), async (size, requests) => {
      const starts = new Map<string, number>();
      let [starting, mostBad] = [0, 0];
      const pool = new SandboxPool({
        size,
        queueLimit: 1000,
        maxExecutions: 7,
        maxAgeMs: 1e9,
        environment: "default",
        start: async (environment) => {
          const count = (starts.get(environment) ?? 0) + 1;
          starts.set(environment, count);
          const isBad = environment === "bad" || environment === "worse";
          if (isBad) mostBad = Math.max(mostBad, ++starting);
          await new Promise((resolve) => setTimeout(resolve, 10));
          if (isBad) starting--;
          if (isBad || (environment === "flaky" && count % 2 === 1))
            throw new Error(`boot failed: /a/b/c ${environment}`);
          return new FakeSandbox();
        },
      });
      const started = pool.start();
      await vi.advanceTimersByTimeAsync(20);
      await started;
      const outcomes: { environment: string; outcome: unknown }[] = [];
      for (const { environment, principal, workMs, pauseMs } of requests) {
        const work = pool.use({ environment, principal, signal: undefined }, async () => {
          await new Promise((resolve) => setTimeout(resolve, workMs));
          return "done";
        });
        void work.catch((error: unknown) => error).then((outcome) => outcomes.push({ environment, outcome }));
        await vi.advanceTimersByTimeAsync(pauseMs);
        // It is never all of the slots for long: two failed starts of an environment that has started before pause up to 400 ms each.
        for (let waitedMs = 0; size > 1 && !pool.isReady && waitedMs < 1000; waitedMs += 10)
          await vi.advanceTimersByTimeAsync(10);
        if (size > 1) expect(pool.isReady).toBe(true);
      }
      await vi.advanceTimersByTimeAsync(60_000);
      expect(outcomes).toHaveLength(requests.length);
      for (const { environment, outcome } of outcomes) {
        if (environment === "bad" || environment === "worse") {
          expect(outcome).toBeInstanceOf(ClientError);
          expect(outcome).toMatchObject({ status: 503, code: "environment_broken" });
          expect((outcome as Error).message).toBe(
            `The environment "${environment}" cannot be started: boot failed: … ${environment}`,
          );
        } else expect(outcome).toBe("done");
      }
      expect(mostBad).toBeLessThanOrEqual(Math.max(1, Math.floor(size / 2)));
      // Three starts, and one for each time that it was tried again, however often it was asked for.
      expect(starts.get("bad") ?? 0).toBeLessThan(3 + 3 * size);
      expect(pool.status()).toMatchObject({ idle: size, busy: 0, starting: 0, failed: 0, queued: 0 });
      await pool.stop(0);
    }),
    { numRuns: 60 },
  );
  vi.useRealTimers();
});

test("the default environment is tried for ever, and who asks meanwhile is told why it does not start", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "Date", "performance"] });
  let works = true;
  const made: FakeSandbox[] = [];
  const pool = new SandboxPool({
    ...OF_TWO,
    start: async () => {
      if (!works) throw new Error("no memory");
      made.push(new FakeSandbox());
      return made.at(-1) as FakeSandbox;
    },
  });
  const use = () => pool.use({ environment: "default", principal: "a", signal: undefined }, async () => "done");
  await pool.start();
  expect(await use()).toBe("done");
  works = false;
  for (const each of made) each.kill("out of memory");
  await vi.advanceTimersByTimeAsync(1);
  const waiting = use().catch((error: unknown) => error);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(await waiting).toMatchObject({ code: "environment_broken" });
  await expect(use()).rejects.toMatchObject({ status: 503, retryAfterS: expect.any(Number) });
  expect(pool.isReady).toBe(false);
  expect(pool.status().broken).toMatchObject([{ environment: "default", reason: "no memory" }]);
  works = true;
  await vi.advanceTimersByTimeAsync(60_000);
  expect(await use()).toBe("done");
  expect(pool.status()).toMatchObject({ idle: 2, failed: 0, broken: [] });
  await pool.stop(0);
  vi.useRealTimers();
});

test("sandboxes that end as soon as they are ready are failures, too", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "Date", "performance"] });
  let starts = 0;
  const pool = new SandboxPool({
    ...OF_TWO,
    start: async (environment) => {
      const made = new FakeSandbox();
      if (environment === "short-lived") {
        starts++;
        setTimeout(() => made.kill("it ended with status 1"), 1);
      }
      return made;
    },
    warmUp: async () => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      return PRISTINE;
    },
  });
  const started = pool.start();
  await vi.advanceTimersByTimeAsync(100);
  await started;
  const abort = new AbortController();
  const use = pool.use({ environment: "short-lived", principal: "a", signal: abort.signal }, async () => {
    await new Promise((resolve) => setTimeout(resolve, 10));
  });
  await vi.advanceTimersByTimeAsync(120_000);
  await use.catch(() => {});
  // Without a pause it would be some ten thousand.
  expect(starts).toBeLessThan(20);
  expect(pool.isReady).toBe(true);
  await pool.stop(0);
  vi.useRealTimers();
});

test("a broken environment is tried again after a time that doubles, and is whole once code has run in it", () => {
  let now = 0;
  const health = new EnvironmentHealth(() => now);
  const rest = () => health.refusal("e")?.retryAfterS;
  const fail = (tookMs = 10) => health.failed("e", new Error("x"), tookMs);
  fail();
  fail();
  expect([rest(), health.isBroken("e")]).toEqual([undefined, false]);
  fail();
  expect([rest(), health.isBroken("e")]).toEqual([30, true]);
  now += 30_000;
  expect(rest()).toBeUndefined();
  fail();
  expect(rest()).toBe(60);
  for (let i = 0; i < 10; i++) fail();
  expect(rest()).toBe(600);
  health.started("e");
  expect([rest(), health.isBroken("e"), health.isProven("e")]).toEqual([undefined, false, true]);
  fail();
  expect(rest()).toBe(600);
  health.started("e");
  health.used("e");
  fail();
  expect(rest()).toBeUndefined();
  fail(60_000);
  expect(rest()).toBe(30);
});

test.each([
  [
    "boot failed: RuntimeError: unreachable\n    at f (file:///srv/app/src/guest/boot.ts:1:2)",
    "boot failed: RuntimeError: unreachable",
  ],
  ["it ended with SIGKILL: Error: /usr/lib/node/x.js:3:1 is /tmp/a gone", "it ended with SIGKILL: Error: … is … gone"],
  ["a\u001b[31mb\0c", "a [31mb c"],
  ["x".repeat(1000), "x".repeat(300)],
])("the reason %j is told as %j", (message, shown) => {
  const health = new EnvironmentHealth();
  health.failed("e", new Error(message), 10_000);
  expect(health.broken()).toMatchObject([{ reason: shown }]);
});
