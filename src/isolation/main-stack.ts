import { existsSync, readFileSync } from "node:fs";
import { hardLimitsIn, LIMIT_NAMES } from "./process-facts.ts";

/**
 * Stack of a sandbox's main thread, where the interpreter is. Calls in WebAssembly are on it, and Python, which has a stack of its own in memory, does
 * not see it: whatever recurses has to meet Python's limit first. [measured] What takes most is 37 MiB: freeing exception groups 50,000
 * deep. The system gives a page when it is first touched.
 */
const WANTED_BYTES = 64 * 1024 * 1024;
/** What a process has that nothing is done for. */
const DEFAULT_BYTES = 8 * 1024 * 1024;
/** For what runs below V8. */
const RESERVE_BYTES = 1192 * 1024;

const SHELL = "/bin/sh";

/**
 * @param hardLimitBytes what the wrapper found the server's own hard limit to be; null: there is no wrapper.
 * @returns how large a stack a sandbox gets, bytes: no more than that.
 */
export function mainStackBytes(hardLimitBytes: number | null): number {
  if (hardLimitBytes !== null) return Math.min(WANTED_BYTES, hardLimitBytes);
  if (process.platform !== "linux" || !existsSync(SHELL)) return DEFAULT_BYTES;
  const limits = hardLimitsIn(readFileSync("/proc/self/limits", "utf8"));
  return Math.min(WANTED_BYTES, limits[LIMIT_NAMES.stack] ?? DEFAULT_BYTES);
}

/** @returns what V8 may use of it, KiB. Its own default is 984. */
export function v8StackKib(stackBytes: number): number {
  return Math.max(Math.floor((stackBytes - RESERVE_BYTES) / 1024), 512);
}

/** Gives a command that nothing is put around a stack of this size. */
export function withStack(
  command: string,
  args: readonly string[],
  stackBytes: number,
): { command: string; args: readonly string[] } {
  if (stackBytes === DEFAULT_BYTES) return { command, args };
  const script = 'ulimit -s "$1" && shift && exec "$@"';
  return { command: SHELL, args: ["-c", script, "sh", String(Math.floor(stackBytes / 1024)), command, ...args] };
}
