import fc from "fast-check";
import { expect, test } from "vitest";
import { FairQueue } from "./fair-queue.ts";

const drain = (queue: FairQueue<string>) => {
  const items: string[] = [];
  for (let item = queue.take(() => true); item !== undefined; item = queue.take(() => true)) items.push(item);
  return items;
};

test("principals take turns, and each one's items keep their order", () => {
  const queue = new FairQueue<string>(100);
  for (const item of ["a1", "a2", "a3", "b1", "c1", "b2"]) queue.push(item[0] as string, item);
  expect([...queue.inOrder()]).toEqual(["a1", "b1", "c1", "a2", "b2", "a3"]);
  expect(drain(queue)).toEqual(["a1", "b1", "c1", "a2", "b2", "a3"]);
  expect(queue.length).toBe(0);
});

test("one who comes later waits for one item of each, however many the others queue", () => {
  const queue = new FairQueue<string>(1000);
  for (let i = 0; i < 500; i++) queue.push("greedy", `greedy${i}`);
  queue.push("modest", "modest");
  expect([queue.take(() => true), queue.take(() => true)]).toEqual(["greedy0", "modest"]);
});

test("only what is accepted is taken, and costs its principal the turn", () => {
  const queue = new FairQueue<string>(10);
  for (const item of ["a1", "a2", "b1", "b2"]) queue.push(item[0] as string, item);
  expect(queue.take((item) => item === "b2")).toBe("b2");
  expect(queue.take(() => false)).toBeUndefined();
  expect(drain(queue)).toEqual(["a1", "b1", "a2"]);
});

test("giving up does not cost the turn", () => {
  const queue = new FairQueue<string>(10);
  for (const item of ["a1", "a2", "b1"]) queue.push(item[0] as string, item);
  expect(queue.remove("a", "a1")).toBe(true);
  expect(queue.remove("a", "a1")).toBe(false);
  expect(queue.remove("absent", "a2")).toBe(false);
  expect(drain(queue)).toEqual(["a2", "b1"]);
});

test("it is full at its limit, and again after every item that is put back", () => {
  const queue = new FairQueue<string>(2);
  expect(queue.isFull).toBe(false);
  queue.push("a", "a1");
  queue.push("b", "b1");
  expect(queue.isFull).toBe(true);
  queue.take(() => true);
  expect(queue.isFull).toBe(false);
  expect(new FairQueue(0).isFull).toBe(true);
});

test("whatever is pushed, taken and removed, nothing is lost, doubled, or taken out of its principal's order", () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("push" as const), principal: fc.constantFrom("a", "b", "c") }),
    fc.record({ kind: fc.constant("take" as const) }),
    fc.record({ kind: fc.constant("remove" as const), which: fc.nat(20) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const queue = new FairQueue<string>(Number.MAX_SAFE_INTEGER);
      let waiting: string[] = [];
      let served = 0;
      steps.forEach((action, index) => {
        if (action.kind === "push") {
          const item = `${action.principal}${index}`;
          queue.push(action.principal, item);
          waiting.push(item);
        } else if (action.kind === "take") {
          const next = [...queue.inOrder()][0];
          const item = queue.take(() => true);
          expect(item).toBe(next);
          if (item === undefined) return;
          served++;
          // The oldest of its principal's.
          expect(waiting.find((other) => other[0] === item[0])).toBe(item);
          waiting = waiting.filter((other) => other !== item);
        } else {
          const item = waiting[action.which];
          expect(queue.remove(item?.[0] ?? "a", item ?? "nothing")).toBe(item !== undefined);
          waiting = waiting.filter((other) => other !== item);
        }
        expect(queue.length).toBe(waiting.length);
        expect([...queue.inOrder()].sort()).toEqual([...waiting].sort());
      });
      expect(drain(queue).sort()).toEqual([...waiting].sort());
      expect(served).toBeLessThanOrEqual(steps.length);
    }),
  );
});
