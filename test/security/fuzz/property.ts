import { appendFileSync, mkdirSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { test } from "vitest";

/** Inputs for each property: few within `npm test`, 100,000 for a release (`npm run test:fuzz -- 100000`). */
const RUNS = Number(process.env.FUZZ_RUNS ?? 300);
/** Where figures are noted, for the table; `run.ts` sets it. */
const FIGURES = process.env.FUZZ_FIGURES;

/** One row of the table. A property that failed has none. */
export interface Figure {
  readonly name: string;
  readonly inputs: number;
  readonly seconds: number;
}

export interface FuzzOptions {
  /** Inputs that one run of the property takes: those that are sent at the same time. */
  readonly batch?: number;
  /** Inputs for each 100 asked for, where one costs a process. */
  readonly percent?: number;
}

/** A test that tries a property with as many inputs as are asked for, and notes how long they took. */
export function fuzz<T>(
  name: string,
  property: fc.IAsyncProperty<T> | fc.IProperty<T>,
  { batch = 1, percent = 100 }: FuzzOptions = {},
): void {
  const numRuns = Math.max(3, Math.ceil((RUNS * percent) / 100 / batch));
  test(name, { timeout: 60_000 + RUNS * 100 }, async () => {
    const startedAt = performance.now();
    await fc.assert(property as fc.IAsyncProperty<T>, { numRuns });
    note({ name, inputs: numRuns * batch, seconds: (performance.now() - startedAt) / 1000 });
  });
}

function note(figure: Figure): void {
  if (FIGURES === undefined) return;
  mkdirSync(path.dirname(FIGURES), { recursive: true });
  appendFileSync(FIGURES, `${JSON.stringify(figure)}\n`);
}
