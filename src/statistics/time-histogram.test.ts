import fc from "fast-check";
import { expect, test } from "vitest";
import { bucketOf, quantileMs } from "./time-histogram.ts";

function histogram(timesMs: readonly number[]): [number, number][] {
  const counts = new Map<number, number>();
  for (const timeMs of timesMs) counts.set(bucketOf(timeMs), (counts.get(bucketOf(timeMs)) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => a - b);
}

test("quantiles are within 2.5 % of the true ones at every scale", () => {
  fc.assert(
    fc.property(
      fc.array(fc.double({ min: 0.02, max: 300_000, noNaN: true }), { minLength: 1, maxLength: 300 }),
      fc.constantFrom(0.5, 0.95, 0.99),
      (timesMs, quantile) => {
        const exact = timesMs.toSorted((a, b) => a - b)[Math.ceil(quantile * timesMs.length) - 1] as number;
        expect(Math.abs(quantileMs(histogram(timesMs), quantile) / exact - 1)).toBeLessThan(0.0251);
      },
    ),
  );
});

test("is bounded, and takes what is out of bounds", () => {
  expect([bucketOf(0), bucketOf(-1), bucketOf(1e-9)]).toEqual([0, 0, 0]);
  expect(bucketOf(Number.POSITIVE_INFINITY)).toBe(bucketOf(600_000));
  expect(bucketOf(600_000)).toBeLessThan(370);
  expect(quantileMs([], 0.5)).toBe(0);
});
