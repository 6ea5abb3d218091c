import fc from "fast-check";
import { expect, test } from "vitest";
import { KillGrace } from "./kill-grace.ts";

/** What a process does in a while after its interrupt: it runs (with so many threads), waits for a processor, or sleeps. */
interface While {
  readonly ms: number;
  readonly state: "runs" | "is queued" | "sleeps";
  readonly threads: number;
}

/** A process that goes on as given, and then for ever as in its last while. @returns when it is killed, and what it used until then, ms. */
function killed(whiles: readonly While[], known = true): { atMs: number; usedMs: number; looks: number } {
  let nowMs = 1000;
  let [cpuMs, queuedMs, looks] = [70, 30, 0];
  const rest = whiles.map((one) => ({ ...one }));
  const pass = (ms: number) => {
    for (let left = ms; left > 0; ) {
      const current = rest[0] as { ms: number } & While;
      const step = rest.length > 1 ? Math.min(left, current.ms) : left;
      if (current.state === "runs") cpuMs += step * current.threads;
      if (current.state === "is queued") queuedMs += step;
      nowMs += step;
      left -= step;
      current.ms -= step;
      if (current.ms <= 0 && rest.length > 1) rest.shift();
    }
  };
  // As the system counts it.
  const clock = { readMs: () => Math.floor(cpuMs / 10) * 10, queuedMs: () => queuedMs };
  const grace = new KillGrace(known ? clock : null, () => nowMs);
  for (let leftMs = grace.leftMs; leftMs > 0; leftMs = grace.leftMs) {
    expect(++looks).toBeLessThan(250);
    pass(leftMs);
  }
  return { atMs: nowMs - 1000, usedMs: cpuMs - 70, looks };
}

const always = (state: While["state"]): readonly While[] => [{ ms: 1, state, threads: 1 }];

test("a process that had a processor, or needed none, is killed after 250 ms, one that has had none after 2 s", () => {
  expect(killed(always("runs")).atMs).toBeCloseTo(250);
  expect(killed(always("sleeps")).atMs).toBeCloseTo(250);
  expect(killed(always("is queued")).atMs).toBeCloseTo(2000);
  expect(killed(always("is queued"), false).atMs).toBeCloseTo(250);
});

test("one that shares a processor with others of its own has no more CPU time for that", () => {
  for (const [runs, waits] of [
    [1, 1],
    [4, 4],
    [30, 60],
    [5, 100],
  ] as const) {
    const turns = Array.from({ length: 500 }, (): While[] => [
      { ms: waits, state: "is queued", threads: 1 },
      { ms: runs, state: "runs", threads: 1 },
    ]).flat();
    const { atMs, usedMs } = killed(turns);
    expect(usedMs).toBeLessThanOrEqual(265);
    expect(atMs).toBeLessThanOrEqual(2000);
    // It has the time that it could not use.
    expect(atMs).toBeGreaterThan(Math.min(1990, (240 * (runs + waits)) / runs));
  }
});

test("whatever a process does, its time is no less than 250 ms and no more than 2 s, and its CPU time that of 250 ms", () => {
  const one = fc.record({
    ms: fc.integer({ min: 1, max: 400 }),
    state: fc.constantFrom("runs" as const, "is queued" as const, "sleeps" as const),
    threads: fc.integer({ min: 1, max: 3 }),
  });
  fc.assert(
    fc.property(fc.array(one, { minLength: 1, maxLength: 60 }), (whiles) => {
      const { atMs, usedMs } = killed(whiles);
      expect(atMs).toBeGreaterThanOrEqual(249);
      expect(atMs).toBeLessThanOrEqual(2010);
      // Of each thread.
      expect(usedMs).toBeLessThanOrEqual(3 * 265);
    }),
  );
});
