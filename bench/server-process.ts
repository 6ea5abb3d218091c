import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { CpuClock } from "../src/isolation/process-facts.ts";
import { descendantsOf, residentBytesOf } from "../test/support/processes.ts";
import { listening } from "../test/support/server-process.ts";

/** A server under test, in a process of its own. */
export interface ServerProcess {
  readonly url: string;
  /** Start of the process to its first word on where it listens, ms. */
  readonly readyMs: number;
  /** Resident memory of the process and of all below it, bytes. Linux only. */
  residentBytes(): { server: number; children: number };
  /** Processor time of the process and of all below it so far, ms. Linux only. */
  cpuMs(): { server: number; children: number };
  stop(): Promise<void>;
}

const ROOT = fileURLToPath(new URL("../", import.meta.url));

/** Starts a script of this repository that prints `Ready on <url>` when it is ready. */
export async function startServerProcess(
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<ServerProcess> {
  const startedAt = performance.now();
  const child = spawn(process.execPath, args, {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...env },
  });
  const url = await listening(child);
  const pid = child.pid as number;
  const ofEach = (fact: (pid: number) => number) => ({
    server: fact(pid),
    children: descendantsOf(pid).reduce((sum, below) => sum + fact(below), 0),
  });
  return {
    url,
    readyMs: performance.now() - startedAt,
    residentBytes: () => ofEach(residentBytesOf),
    cpuMs: () =>
      ofEach((pid) => {
        using clock = new CpuClock(pid);
        return clock.readMs() ?? 0;
      }),
    stop: async () => {
      child.kill("SIGTERM");
      if (child.exitCode === null) await once(child, "close");
    },
  };
}
