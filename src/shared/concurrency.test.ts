import { getEventListeners } from "node:events";
import fc from "fast-check";
import { expect, test } from "vitest";
import { backoffMs } from "./backoff.ts";
import { KeyedQueue, SerialQueue } from "./serial-queue.ts";
import { SingleFlight } from "./single-flight.ts";
import { whileWaiting } from "./while-waiting.ts";

const turns = async (count: number) => {
  for (let i = 0; i < count; i++) await Promise.resolve();
};

test("tasks of one queue never overlap, keep their order, and outlive those that fail", async () => {
  const task = fc.record({ key: fc.constantFrom("a", "b"), turns: fc.nat(5), fails: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.array(task, { maxLength: 20 }), async (tasks) => {
      for (const queue of [new KeyedQueue(), oneQueue(new SerialQueue())]) {
        const running = new Set<string>();
        const begun = new Map<string, number[]>();
        const done = tasks.map(({ key, turns: count, fails }, index) =>
          queue.run(key, async () => {
            const name = queue instanceof KeyedQueue ? key : "";
            expect(running.has(name)).toBe(false);
            running.add(name);
            begun.set(name, [...(begun.get(name) ?? []), index]);
            await turns(count);
            running.delete(name);
            if (fails) throw new Error("fails");
            return index;
          }),
        );
        const results = await Promise.allSettled(done);
        results.forEach((result, index) => {
          if (tasks[index]?.fails) expect(result).toMatchObject({ status: "rejected", reason: { message: "fails" } });
          else expect(result).toEqual({ status: "fulfilled", value: index });
        });
        for (const order of begun.values()) expect(order).toEqual([...order].sort((a, b) => a - b));
      }
    }),
  );
});

function oneQueue(queue: SerialQueue) {
  return { run: <T>(_key: string, task: () => Promise<T>) => queue.run(task) };
}

test("what is being made is made once, and a failure is tried again", async () => {
  for (const keeps of [false, true]) {
    const flight = new SingleFlight<number>({ keeps });
    let made = 0;
    const make = async () => {
      await turns(3);
      if (++made === 1) throw new Error("fails");
      return made;
    };
    const first = [flight.run("k", make), flight.run("k", make)];
    expect(await Promise.allSettled(first)).toMatchObject([{ status: "rejected" }, { status: "rejected" }]);
    expect(made).toBe(1);
    expect(await Promise.all([flight.run("k", make), flight.run("k", make)])).toEqual([2, 2]);
    expect(await flight.run("k", make)).toBe(keeps ? 2 : 3);
    flight.forget("k");
    expect(await flight.run("k", make)).toBe(keeps ? 3 : 4);
  }
});

test("what was forgotten while it was being made does not make the next forgotten", async () => {
  const flight = new SingleFlight<string>();
  const before = Promise.withResolvers<string>();
  const first = flight.run("k", () => before.promise);
  flight.forget("k");
  const after = Promise.withResolvers<string>();
  const second = flight.run("k", () => after.promise);
  before.resolve("before");
  expect(await first).toBe("before");
  const third = flight.run("k", async () => "a third");
  after.resolve("after");
  expect(await Promise.all([second, third])).toEqual(["after", "after"]);
});

test("what is made for several goes on while one of them waits, and is stopped when none does", async () => {
  const flight = new SingleFlight<string>();
  const made = Promise.withResolvers<string>();
  const stops: AbortSignal[] = [];
  const make = (stop: AbortSignal) => {
    stops.push(stop);
    return made.promise;
  };
  const [first, second] = [new AbortController(), new AbortController()];
  const [one, other] = [flight.run("k", make, first.signal), flight.run("k", make, second.signal)];
  first.abort(new Error("first gone"));
  await expect(one).rejects.toThrow("first gone");
  expect(stops.map(({ aborted }) => aborted)).toEqual([false]);
  second.abort(new Error("second gone"));
  await expect(other).rejects.toThrow("second gone");
  expect(stops[0]?.reason).toEqual(new Error("second gone"));
  // One who comes now does not wait for what is stopped; one who waits to the end keeps it going.
  const third = new AbortController();
  const [anew, toTheEnd] = [flight.run("k", make, third.signal), flight.run("k", make)];
  third.abort(new Error("third gone"));
  await expect(anew).rejects.toThrow("third gone");
  await expect(flight.run("k", make, third.signal)).rejects.toThrow("third gone");
  expect(stops.map(({ aborted }) => aborted)).toEqual([true, false]);
  made.resolve("made");
  expect(await toTheEnd).toBe("made");
});

test("a wait ends with its signal, and leaves no listener behind", async () => {
  const stop = new AbortController();
  const never = new Promise<string>(() => {});
  for (let i = 0; i < 100; i++) expect(await whileWaiting(stop.signal, Promise.resolve(i))).toBe(i);
  expect(getEventListeners(stop.signal, "abort")).toHaveLength(0);
  const waiting = whileWaiting(stop.signal, never);
  stop.abort(new Error("stopped"));
  await expect(waiting).rejects.toThrow("stopped");
  await expect(whileWaiting(stop.signal, never)).rejects.toThrow("stopped");
  expect(getEventListeners(stop.signal, "abort")).toHaveLength(0);
});

test("pauses double up to the longest", () => {
  const pauses = [0, 1, 2, 3, 4, 2000].map((failures) => backoffMs(failures, { firstMs: 100, longestMs: 1000 }));
  expect(pauses).toEqual([100, 200, 400, 800, 1000, 1000]);
});
