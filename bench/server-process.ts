import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { CpuClock } from "../src/isolation/process-facts.ts";
import { descendantsOf, residentBytesOf } from "../test/support/processes.ts";
import { listening } from "../test/support/server-process.ts";

/** A server under test, in a process of its own. */
export interface ServerProcess {
  readonly url: string;
  readonly pid: number;
  /** Start of the process to its word that it listens, ms; null: it has none. */
  readonly listensMs: number | null;
  /** Start of the process to its word that all can run, ms. */
  readonly readyMs: number;
  /** Resident memory of the process and of all below it, bytes. Linux only. */
  residentBytes(): { server: number; children: number };
  /** Processor time of the process and of all below it so far, ms. Linux only. */
  cpuMs(): { server: number; children: number };
  stop(): Promise<void>;
}

const ROOT = fileURLToPath(new URL("../", import.meta.url));

/**
 * Starts a script of this repository that prints `Ready on <url>` when it is ready.
 *
 * @param command what runs it; default: this Node.
 */
export async function startServerProcess(
  args: readonly string[],
  env: Record<string, string> = {},
  command = process.execPath,
): Promise<ServerProcess> {
  const startedAt = performance.now();
  const child = spawn(command, args, {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  let listensMs: number | null = null;
  const look = (chunk: string) => {
    if (String(chunk).includes("Listening on")) listensMs ??= performance.now() - startedAt;
  };
  child.stdout.on("data", look);
  child.stderr.on("data", look);
  const url = await listening(child);
  const pid = child.pid as number;
  const ofEach = (fact: (pid: number) => number) => ({
    server: fact(pid),
    children: descendantsOf(pid).reduce((sum, below) => sum + fact(below), 0),
  });
  return {
    url,
    pid,
    listensMs,
    readyMs: performance.now() - startedAt,
    residentBytes: () => ofEach(residentBytesOf),
    cpuMs: () =>
      ofEach((pid) => {
        using clock = new CpuClock(pid);
        return clock.readMs() ?? 0;
      }),
    stop: async () => {
      const below = descendantsOf(pid);
      child.kill("SIGTERM");
      if (child.exitCode === null && child.signalCode === null) await once(child, "close");
      // A peer's own processes may outlive it.
      for (const left of below) {
        try {
          process.kill(left, "SIGKILL");
        } catch {
          // It has ended.
        }
      }
    },
  };
}
