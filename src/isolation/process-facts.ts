import { closeSync, openSync, readFileSync, readSync } from "node:fs";
import { readdir, readFile, readlink } from "node:fs/promises";
import type { Limit } from "./plan.ts";

/** What the kernel says about a process, seen from outside it. */
export interface ProcessFacts {
  /** Fields of /proc/PID/status: `{NoNewPrivs: "1", CapEff: "0000000000000000", …}`. */
  readonly status: Readonly<Record<string, string>>;
  /** Identity of each namespace: `{net: "net:[4026531840]", …}`; one that may not be looked at is missing. */
  readonly namespaces: Readonly<Record<string, string>>;
  readonly networkDevices: readonly string[];
  /** Hard limits by the kernel's names; Infinity where there is none. */
  readonly hardLimits: Readonly<Record<string, number>>;
}

/** @throws {Error} if there is no such process, or /proc does not show it. */
export async function readProcess(pid: number | "self"): Promise<ProcessFacts> {
  const [status, limits, devices, names] = await Promise.all([
    readFile(`/proc/${pid}/status`, "utf8"),
    readFile(`/proc/${pid}/limits`, "utf8"),
    readFile(`/proc/${pid}/net/dev`, "utf8").catch(() => ""),
    readdir(`/proc/${pid}/ns`),
  ]);
  const links = await Promise.all(
    names.map(async (name) => [name, await readlink(`/proc/${pid}/ns/${name}`).catch(() => undefined)] as const),
  );
  const seen = links.filter((link): link is readonly [string, string] => link[1] !== undefined);
  return {
    status: Object.fromEntries([...status.matchAll(/^(\w+):[ \t]*(.*)$/gm)].map((match) => [match[1], match[2]])),
    namespaces: Object.fromEntries(seen),
    networkDevices: [...devices.matchAll(/^\s*(\S+):/gm)].map((match) => String(match[1])),
    hardLimits: hardLimitsIn(limits),
  };
}

/** What /proc/PID/limits calls them. */
export const LIMIT_NAMES: Readonly<Record<Limit | "core" | "fsize", string>> = {
  core: "Max core file size",
  fsize: "Max file size",
  cpu: "Max cpu time",
  nofile: "Max open files",
  nproc: "Max processes",
  data: "Max data size",
  stack: "Max stack size",
};

/** @param limits the text of /proc/PID/limits. @returns hard limits by the kernel's names; Infinity where there is none. */
export function hardLimitsIn(limits: string): Readonly<Record<string, number>> {
  return Object.fromEntries(
    [...limits.matchAll(/^(Max .+?)\s{2,}\S+\s+(\S+)/gm)].map((match) => [
      match[1],
      match[2] === "unlimited" ? Number.POSITIVE_INFINITY : Number(match[2]),
    ]),
  );
}

/** Unit of the kernel's times here: USER_HZ, 100 a second on every architecture that Node runs on. */
const MS_PER_TICK = 10;

/** Longer than a line of `/proc/PID/stat`: fifty numbers and a name of 64 characters at the most. */
const STAT_BYTES = 2048;

/**
 * Processor time that a process has used, all its threads together, in user code and in the kernel on its behalf. Every execution
 * asks for it twice: the file stays open, and can by then not have become another process's.
 */
export class CpuClock implements Disposable {
  readonly #pid: number;
  /** Null: the system does not tell (no /proc), or there is no such process. */
  #file: number | null = null;
  readonly #line = Buffer.alloc(STAT_BYTES);

  constructor(pid: number) {
    this.#pid = pid;
    try {
      this.#file = openSync(`/proc/${pid}/stat`, "r");
    } catch {
      // It says null.
    }
  }

  /** @returns ms, in steps of 10; null where the system does not tell, or the process is gone. */
  readMs(): number | null {
    if (this.#file === null) return null;
    try {
      // From its beginning: the kernel writes the line anew.
      const bytes = readSync(this.#file, this.#line, 0, STAT_BYTES, 0);
      const fields = statFields(this.#line.toString("latin1", 0, bytes));
      return (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK;
    } catch {
      return null;
    }
  }

  /**
   * How long the process's main thread has been ready to run, and waited for a processor: a kernel's account of a busy machine.
   *
   * @returns ms; null where the system does not tell, or the process is gone.
   */
  queuedMs(): number | null {
    try {
      // Time on a processor, ns; time waited for one, ns; count of turns.
      const [, queuedNs] = readFileSync(`/proc/${this.#pid}/schedstat`, "latin1").split(" ");
      return Number(queuedNs) / 1e6;
    } catch {
      return null;
    }
  }

  [Symbol.dispose](): void {
    if (this.#file !== null) closeSync(this.#file);
    this.#file = null;
  }
}

/** Fields of /proc/PID/stat from the third, counted behind the command's name, which may itself hold any character. */
function statFields(stat: string): string[] {
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
}

/** Follows the chain of only children from a wrapper down to the process it wraps. */
export async function innermostProcess(wrapper: number): Promise<number> {
  let parents: ReadonlyMap<number, number> | null = null;
  let pid = wrapper;
  for (;;) {
    let child = await onlyChild(pid);
    if (child === undefined) {
      // A kernel that does not list children: all processes have to be looked at.
      parents ??= await childrenByParent();
      child = parents.get(pid) ?? null;
    }
    if (child === null) return pid;
    pid = child;
  }
}

/** @returns null: it has none; undefined: the system does not tell. */
async function onlyChild(pid: number): Promise<number | null | undefined> {
  try {
    const [child] = (await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).split(" ");
    return child ? Number(child) : null;
  } catch {
    return undefined;
  }
}

/** Parent → one of its children. */
async function childrenByParent(): Promise<ReadonlyMap<number, number>> {
  const children = new Map<number, number>();
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const stat = await readFile(`/proc/${name}/stat`, "utf8").catch(() => undefined);
    const parent = stat === undefined ? undefined : statFields(stat)[1];
    if (parent !== undefined) children.set(Number(parent), Number(name));
  }
  return children;
}
