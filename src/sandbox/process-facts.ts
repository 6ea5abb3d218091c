import { readdir, readFile, readlink } from "node:fs/promises";

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
    hardLimits: Object.fromEntries(
      [...limits.matchAll(/^(Max .+?)\s{2,}\S+\s+(\S+)/gm)].map((match) => [
        match[1],
        match[2] === "unlimited" ? Number.POSITIVE_INFINITY : Number(match[2]),
      ]),
    ),
  };
}

/** Follows the chain of only children from a wrapper down to the process it wraps. */
export async function innermostProcess(wrapper: number): Promise<number> {
  const parents = new Map<number, number>();
  for (const name of await readdir("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    // Field 4, counted behind the command's name, which is in parentheses and may itself hold any character.
    const stat = await readFile(`/proc/${name}/stat`, "utf8").catch(() => undefined);
    const parent = stat?.slice(stat.lastIndexOf(")") + 2).split(" ")[1];
    if (parent !== undefined) parents.set(Number(parent), Number(name));
  }
  let pid = wrapper;
  for (let child = parents.get(pid); child !== undefined; child = parents.get(pid)) pid = child;
  return pid;
}
