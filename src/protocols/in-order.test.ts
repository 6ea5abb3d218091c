import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, test } from "vitest";
import { InOrder } from "./in-order.ts";

test("what takes no time is passed on at once, and behind what does take some, after it", async () => {
  const passed: string[] = [];
  const order = new InOrder();
  const now = (name: string) =>
    order.pass(() => {
      passed.push(name);
      return undefined;
    });
  now("a");
  expect(passed).toEqual(["a"]);
  order.pass(async () => {
    await nextTurn();
    passed.push("b");
  });
  now("c");
  expect(passed).toEqual(["a"]);
  await order.end();
  expect(passed).toEqual(["a", "b", "c"]);
  now("d");
  expect(passed).toEqual(["a", "b", "c", "d"]);
});

test("what fails is told at the end, and nothing behind it is passed on", async () => {
  const order = new InOrder();
  order.pass(async () => {
    await nextTurn();
    throw new Error("failed");
  });
  let isPassed = false;
  order.pass(async () => {
    isPassed = true;
  });
  await nextTurn();
  await nextTurn();
  await expect(order.end()).rejects.toThrow("failed");
  expect(isPassed).toBe(false);
});
