import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { TEST_CACHE_DIR } from "./config.ts";
import { descendantsOf, isRunning } from "./processes.ts";

const CLI = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));

/** A server in a process of its own, to be killed. */
export interface ServerProcess {
  readonly url: string;
  readonly child: ChildProcess;
  /** Its sandboxes and whatever is around them. */
  descendants(): number[];
  /** `kill -9` of the server alone; resolves when its sandboxes have ended too. */
  kill(): Promise<void>;
}

export async function startServerProcess(dataDir: string, settings: Record<string, string>): Promise<ServerProcess> {
  const child = spawn(process.execPath, [CLI, "serve"], {
    env: {
      PATH: process.env.PATH,
      DATA_DIR: dataDir,
      CACHE_DIR: TEST_CACHE_DIR,
      LOG_DIR: path.join(dataDir, "logs"),
      PORT: "0",
      PYODIDE_PACKAGES: "none",
      ...settings,
    },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const pid = child.pid ?? -1;
  const url = await listening(child);
  return {
    url,
    child,
    descendants: () => descendantsOf(pid),
    async kill() {
      const sandboxes = descendantsOf(pid);
      if (child.exitCode === null && child.signalCode === null) {
        const exited = once(child, "exit");
        child.kill("SIGKILL");
        await exited;
      }
      while (sandboxes.some(isRunning)) {
        // One that was just being started waits for its parent's word for good (bubblewrap 0.8). Nothing runs in it.
        for (const pid of sandboxes) if (isRunning(pid) && descendantsOf(pid).length === 0) endWrapper(pid);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
  };
}

/** Waits until a process says `Ready on <url>`. What it says afterwards is read and forgotten. */
export function listening(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let said: string | null = "";
    const read = (chunk: string) => {
      if (said === null) return;
      said += chunk;
      const url = /Ready on (http:[^"\s]+)["\s]/.exec(said)?.[1];
      if (url === undefined) return;
      said = null;
      resolve(url);
    };
    for (const stream of [child.stdout, child.stderr]) stream?.setEncoding("utf8").on("data", read);
    child.once("close", () => reject(new Error(`the server did not start:\n${said}`)));
  });
}

function endWrapper(pid: number): void {
  try {
    if (readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "bwrap") process.kill(pid, "SIGKILL");
  } catch {
    // It has ended meanwhile.
  }
}
