import fc from "fast-check";
import { expect, test } from "vitest";
import { FairQueue } from "../shared/fair-queue.ts";
import { Admission } from "./admission.ts";

function admission({ limit = 4, perPrincipal = 2, idle = false } = {}) {
  const queue = new FairQueue<string>(limit);
  let nowMs = 0;
  const counters = new Admission({ queue, hasIdle: () => idle, maxQueuedPerPrincipal: perPrincipal, now: () => nowMs });
  const serve = (afterMs: number) => {
    nowMs += afterMs;
    queue.take(() => true);
    counters.left();
  };
  const pass = (ms: number) => {
    nowMs += ms;
  };
  return { queue, counters, serve, pass };
}

const told = (error: { code: string; retryAfterS: number | undefined } | null) =>
  error && [error.code, error.retryAfterS];

test("a full queue refuses all, a full share its principal", () => {
  const { queue, counters } = admission();
  queue.push("alice", "a1");
  expect([counters.refusal(), counters.refusalOf("alice")]).toEqual([null, null]);
  queue.push("alice", "a2");
  expect([counters.refusal(), counters.refusalOf("bob")]).toEqual([null, null]);
  expect(told(counters.refusalOf("alice"))).toEqual(["principal_queue_full", 1]);
  expect(() => counters.check("alice")).toThrow(expect.objectContaining({ code: "principal_queue_full" }));
  queue.push("bob", "b1");
  queue.push("carol", "c1");
  expect(told(counters.refusal())).toEqual(["queue_full", 1]);
  expect(() => counters.check("dave")).toThrow(expect.objectContaining({ code: "queue_full" }));
});

test("where nothing may wait, an idle sandbox takes an execution all the same", () => {
  expect(admission({ limit: 0, idle: true }).counters.refusal()).toBeNull();
  expect(told(admission({ limit: 0 }).counters.refusal())).toEqual(["queue_full", 1]);
});

test("a client is refused at once if it would wait in vain, by the pace of the queue and its turn in it", () => {
  const { queue, counters, serve, pass } = admission({ limit: 1000, perPrincipal: 500 });
  for (let i = 0; i < 100; i++) queue.push("alice", `a${i}`);
  // Nothing is known yet: nothing is refused for it.
  expect(counters.refusalOf("alice", 0)).toBeNull();
  for (let i = 0; i < 10; i++) serve(500);
  expect(counters.expectedWaitMs("alice")).toBeCloseTo(91 * 500);
  expect(told(counters.refusalOf("alice", 45_000))).toEqual(["queue_full", 30]);
  expect(counters.refusalOf("alice", 46_000)).toBeNull();
  // Of whom nothing waits has the turn after the next.
  expect(counters.expectedWaitMs("bob")).toBeCloseTo(2 * 500);
  expect(counters.refusalOf("bob", 1000)).toBeNull();
  expect(told(counters.refusalOf("bob", 999))).toEqual(["queue_full", 1]);
  expect(told(counters.refusal(999))).toEqual(["queue_full", 1]);
  // The sandboxes are held up.
  pass(8000);
  expect(counters.refusalOf("bob", 8000)).not.toBeNull();
  for (let i = 0; i < 90; i++) serve(1);
  expect(counters.expectedWaitMs("alice")).toBe(0);
});

test("what is ahead of a principal is what gets its turn before", () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom("a", "b", "c", "d")), fc.constantFrom("a", "b", "e"), (pushed, principal) => {
      const queue = new FairQueue<string>(1000);
      for (const [i, name] of pushed.entries()) queue.push(name, `${name}${i}`);
      const ahead = queue.aheadOf(principal);
      queue.push(principal, "new");
      let turns = 0;
      while (queue.take(() => true) !== "new") turns++;
      // Those of a round that come before or behind it in the order of principals make the difference.
      expect(turns).toBeLessThanOrEqual(ahead);
      expect(turns).toBeGreaterThanOrEqual(ahead - new Set(pushed).size);
    }),
  );
});
