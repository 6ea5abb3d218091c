import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
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
  let url = "";
  let said = "";
  for await (const line of createInterface({ input: child.stdout as NodeJS.ReadableStream })) {
    said += `${line}\n`;
    url = /Ready on (http:[^"\s]+)/.exec(line)?.[1] ?? "";
    if (url !== "") break;
  }
  if (url === "") throw new Error(`the server did not start:\n${said}`);
  child.stdout?.resume();
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

function endWrapper(pid: number): void {
  try {
    if (readFileSync(`/proc/${pid}/comm`, "utf8").trim() === "bwrap") process.kill(pid, "SIGKILL");
  } catch {
    // It has ended meanwhile.
  }
}
