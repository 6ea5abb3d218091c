import fc from "fast-check";
import { expect, test } from "vitest";
import { CompileBudget } from "./compile-budget.ts";

test("pieces of work never take more than the budget together, whichever of them take all of their time", () => {
  const part = fc.double({ min: 0, max: 1, noNaN: true });
  fc.assert(
    fc.property(fc.array(part, { maxLength: 200 }), fc.integer({ min: 1, max: 8 }), (parts, atATime) => {
      const budget = new CompileBudget(20_000);
      let used = 0;
      const underWay: { readonly allowed: number; readonly taken: number }[] = [];
      const end = () => {
        const { allowed, taken } = underWay.shift() ?? { allowed: 0, taken: 0 };
        budget.giveBack(allowed, taken);
        used += taken;
      };
      for (const share of parts) {
        const allowed = budget.take();
        if (allowed === null) continue;
        expect(allowed).toBeLessThanOrEqual(10_000);
        underWay.push({ allowed, taken: allowed * share });
        if (underWay.length === atATime) end();
      }
      while (underWay.length > 0) end();
      expect(used).toBeLessThanOrEqual(20_000 + 1e-6);
    }),
  );
});

test("one that takes too long leaves something for those after it, and those that take little leave all", () => {
  const budget = new CompileBudget(20_000);
  for (const allowed of [10_000, 5_000, 2_500]) {
    expect(budget.take()).toBe(allowed);
    budget.giveBack(allowed, allowed);
  }
  for (let i = 0; i < 1000; i++) {
    expect(budget.take()).toBe(1_250);
    budget.giveBack(1_250, 0);
  }
  let pieces = 0;
  while (budget.take() !== null) pieces++;
  expect(pieces).toBeLessThan(6);
  expect(new CompileBudget(Number.POSITIVE_INFINITY, 120_000).take()).toBe(120_000);
});
