import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { EventBudget, EventLog } from "./event-log.ts";

const EVENT_BYTES = 200;

function logOf(options: { maxBytes?: number; maxSentBytes?: number; budget?: EventBudget } = {}): EventLog {
  const { maxBytes = 10_000, maxSentBytes = 5_000, budget = new EventBudget(1_000_000) } = options;
  return new EventLog({ maxBytes, maxSentBytes, budget });
}

const seqsOf = (log: EventLog, after: number): number[] => {
  const seqs: number[] = [];
  for (let event = log.after(after); event; event = log.after(event.seq)) seqs.push(event.seq);
  return seqs;
};

describe("an event log", () => {
  test("gives all after any event, and nothing after the last", () => {
    const log = logOf();
    for (let i = 0; i < 3; i++) log.add((seq) => Buffer.from(`event ${seq}`));
    expect([0, 1, 3, 99].map((after) => seqsOf(log, after))).toEqual([[1, 2, 3], [2, 3], [], []]);
    expect(String(log.after(1)?.bytes)).toBe("event 2");
  });

  test("keeps the last event, however large it is", () => {
    const log = logOf({ maxBytes: 1000 });
    log.add(() => Buffer.alloc(10));
    log.add(() => Buffer.alloc(100_000));
    expect(seqsOf(log, 0)).toEqual([2]);
    log.markSent(2);
    expect(seqsOf(log, 0)).toEqual([2]);
  });

  test("of what was sent it keeps less than of what was not", () => {
    const log = logOf({ maxBytes: 10_000, maxSentBytes: 1000 });
    for (let i = 0; i < 20; i++) log.add(() => Buffer.alloc(100));
    expect(seqsOf(log, 0)).toHaveLength(20);
    for (let seq = 1; seq <= 20; seq++) log.markSent(seq);
    expect(seqsOf(log, 0)).toEqual([18, 19, 20]);
  });

  test("logs of one principal share what they may hold", () => {
    const budget = new EventBudget(3000);
    const [first, second] = [logOf({ budget }), logOf({ budget })];
    for (let i = 0; i < 9; i++) first.add(() => Buffer.alloc(100));
    for (let i = 0; i < 9; i++) second.add(() => Buffer.alloc(100));
    expect(budget.bytes).toBeLessThanOrEqual(3000 + 300);
    first.clear();
    second.clear();
    expect(budget.bytes).toBe(0);
  });

  test("whatever comes, is sent, and is asked for again: bounded, in order, without a gap but at its beginning", () => {
    const step = fc.oneof(
      fc.record({ add: fc.nat({ max: 4000 }) }),
      fc.record({ send: fc.nat({ max: 5 }) }),
      fc.record({ back: fc.nat({ max: 50 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
        const budget = new EventBudget(1_000_000);
        const log = logOf({ budget });
        let last = 0;
        let sent = 0;
        for (const one of steps) {
          if ("add" in one) {
            log.add(() => Buffer.alloc(one.add));
            last++;
          } else if ("send" in one) {
            for (let i = 0; i < one.send; i++) {
              const next = log.after(sent);
              sent = next?.seq ?? sent;
              log.markSent(sent);
            }
          } else {
            sent = Math.max(0, sent - one.back);
            log.markSent(sent);
          }
          const kept = seqsOf(log, 0);
          expect(kept).toEqual(kept.map((_, i) => last - kept.length + 1 + i));
          expect(log.lastSeq).toBe(last);
          const costs = kept.map((seq) => (log.after(seq - 1)?.bytes.length ?? 0) + EVENT_BYTES);
          const bytes = costs.reduce((sum, cost) => sum + cost, 0);
          expect(budget.bytes).toBe(bytes);
          if (kept.length > 1) {
            expect(bytes).toBeLessThanOrEqual(10_000);
            const ofSent = costs.filter((_, i) => (kept[i] as number) <= sent).reduce((sum, cost) => sum + cost, 0);
            expect(ofSent).toBeLessThanOrEqual(5_000);
          }
        }
      }),
    );
  });
});
