import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

/** A server under test, in a process of its own. */
export interface ServerProcess {
  readonly url: string;
  /** Start of the process to its first word on where it listens, ms. */
  readonly readyMs: number;
  /** Resident memory of the process and of all below it, bytes. Linux only. */
  residentBytes(): Promise<{ server: number; children: number }>;
  /** Processor time of the process and of all below it so far, ms. Linux only. */
  cpuMs(): Promise<{ server: number; children: number }>;
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
  return {
    url,
    readyMs: performance.now() - startedAt,
    residentBytes: async () => {
      const pid = child.pid as number;
      const below = await descendants(pid);
      const children = await Promise.all(below.map(residentBytes));
      return { server: await residentBytes(pid), children: children.reduce((sum, bytes) => sum + bytes, 0) };
    },
    cpuMs: async () => {
      const pid = child.pid as number;
      const children = await Promise.all((await descendants(pid)).map(cpuMs));
      return { server: await cpuMs(pid), children: children.reduce((sum, ms) => sum + ms, 0) };
    },
    stop: async () => {
      child.kill("SIGTERM");
      if (child.exitCode === null) await once(child, "close");
    },
  };
}

function listening(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = "";
    const read = (chunk: string) => {
      said += chunk;
      const url = /Ready on (http:\/\/[\d.:]+)/.exec(said)?.[1];
      if (url) resolve(url);
    };
    child.stdout?.setEncoding("utf8").on("data", read);
    child.stderr?.setEncoding("utf8").on("data", read);
    child.once("close", () => reject(new Error(`the server did not start:\n${said}`)));
  });
}

/** Every process below this one. Linux only. */
export async function descendants(pid: number): Promise<number[]> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  const pids = children.trim().split(" ").filter(Boolean).map(Number);
  return [...pids, ...(await Promise.all(pids.map(descendants))).flat()];
}

async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
}

async function cpuMs(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // proc(5): user and system time, fields 14 and 15, in ticks of 10 ms on every Linux that Node runs on.
  return (Number(fields[11]) + Number(fields[12])) * 10;
}
