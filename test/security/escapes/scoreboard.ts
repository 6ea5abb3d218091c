import { appendFileSync, mkdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** Where the suite notes what it tried, for the table; `run.ts` sets it. */
const FILE = process.env.ESCAPES_SCORES;
export const SCORES_DIR = fileURLToPath(new URL("../../../node_modules/.cache/pyodide-express/", import.meta.url));

/** One row of the table. */
export interface Score {
  readonly technique: string;
  /** The layers that were there. */
  readonly layers: string;
  readonly tried: number;
  readonly succeeded: number;
}

/** Notes what an intruder tried and what it achieved. */
export function record(
  technique: string,
  layers: string,
  { attacks, succeeded }: { attacks: Readonly<Record<string, unknown>>; succeeded: readonly string[] },
): void {
  write({ technique, layers, tried: Object.keys(attacks).length, succeeded: succeeded.length });
}

export function write(score: Score): void {
  if (FILE === undefined || score.tried === 0) return;
  mkdirSync(path.dirname(FILE), { recursive: true });
  appendFileSync(FILE, `${JSON.stringify(score)}\n`);
}
