import { existsSync } from "node:fs";
import os from "node:os";
import path from "node:path";

const number = (name: string, fallback: number) => Number(process.env[name] ?? fallback);

const isQuick = process.argv.includes("--quick");

/** How long the benchmark takes is a question of these alone; a shortened run (`--quick`) only shows that it works. */
export const BENCH = {
  seconds: number("BENCH_SECONDS", isQuick ? 1 : 4),
  rounds: number("BENCH_ROUNDS", isQuick ? 1 : 3),
  starts: number("BENCH_STARTS", isQuick ? 1 : 7),
  soakSeconds: number("BENCH_SOAK_SECONDS", isQuick ? 5 : 120),
  isQuick,
  hibernated: isQuick ? [10, 100] : [10, 100, 1000, 10_000],
  connections: isQuick ? [1, 16] : [1, 4, 16, 64],
};

/**
 * The interpreter itself: the `python3` on the path may be a version manager's shell script, which takes ten times as long to
 * start and would flatter us.
 */
export const PYTHON =
  process.env.BENCH_PYTHON ?? ["/usr/bin/python3", "/usr/local/bin/python3"].find(existsSync) ?? "python3";

const DATA_DIR = path.join(os.tmpdir(), `pyodide-express-bench-${process.pid}`);

/**
 * Our server as `npm start` runs it, with workspaces, logs and statistics; on a free port, with data of its own. The environment is
 * the standard library, which is what the peers have.
 */
export const OURS = {
  args: ["--min-semi-space-size=32", "--max-semi-space-size=64", "bin/pyodide-express.mjs", "serve"],
  env: { PORT: "0", DATA_DIR, PYODIDE_PACKAGES: "none", PACKAGE_INDEX_URL: "none", LOG_LEVEL: "info" },
};

/** Another one of ours beside it: with the same cache. @param name of its data. */
export const oursWith = (name: string, env: Record<string, string> = {}): Record<string, string> => ({
  ...OURS.env,
  DATA_DIR: path.join(DATA_DIR, name),
  CACHE_DIR: path.resolve("data/cache"),
  ...env,
});

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

/** The value that a `share` of all, below 1, is not above; of no values 0. */
export function quantile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * share)] ?? 0;
}
