import { execFile } from "node:child_process";
import { randomInt } from "node:crypto";
import { constants } from "node:fs";
import { access, readFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { type HostFacts, type Limit, PROGRAMS, SANDBOX_USERS } from "./plan.ts";
import { hardLimitsIn, LIMIT_NAMES } from "./process-facts.ts";

/** Not PATH: what confines the sandbox must not be chosen by an environment variable. */
const FOLDERS = ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/run/current-system/sw/bin"];

/** First, a range that systemd's table of user ids lists as unused; then the one it gives to services on the fly. */
const USER_RANGES = [
  { first: 1_900_000_000, spans: 1024 },
  { first: 61_184, spans: 1 },
] as const;

/** Reads what Linux says about the server's own process, and finds the tools. `runtime`: the Deno executable. */
export async function readHostFacts(runtime: string): Promise<HostFacts> {
  const [status, userMap, limits, ...found] = await Promise.all([
    readFile("/proc/self/status", "utf8"),
    readFile("/proc/self/uid_map", "utf8"),
    readFile("/proc/self/limits", "utf8"),
    ...PROGRAMS.map(findProgram),
  ]);
  const programs = Object.fromEntries(PROGRAMS.map((name, index) => [name, found[index]]));
  const linked = [runtime, programs.setpriv, programs.prlimit].filter((file) => file !== undefined);
  const ldd = await findProgram("ldd");
  const seen = hardLimitsIn(limits);
  const hardLimit = (name: Limit) => seen[LIMIT_NAMES[name]] ?? Number.POSITIVE_INFINITY;
  return {
    programs,
    root: process.geteuid?.() === 0,
    capabilities: BigInt(`0x${/^CapEff:\s*(\w+)/m.exec(status)?.[1] ?? "0"}`),
    firstUser: USER_RANGES.map(({ first, spans }) => first + randomInt(spans) * SANDBOX_USERS).find((first) =>
      isMapped(userMap, first),
    ),
    libraries: ldd === undefined ? [] : await librariesOf(ldd, linked),
    hardLimits: {
      cpu: hardLimit("cpu"),
      nofile: hardLimit("nofile"),
      nproc: hardLimit("nproc"),
      data: hardLimit("data"),
      stack: hardLimit("stack"),
    },
  };
}

async function findProgram(name: string): Promise<string | undefined> {
  for (const folder of FOLDERS) {
    const file = path.join(folder, name);
    const runs = await access(file, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (runs) return file;
  }
  return undefined;
}

function isMapped(userMap: string, first: number): boolean {
  return userMap.split("\n").some((line) => {
    const [inside, , count] = line.trim().split(/\s+/).map(Number);
    return inside !== undefined && count !== undefined && inside <= first && first + SANDBOX_USERS <= inside + count;
  });
}

/** @returns the shared libraries and the loader, under the names by which the loader asks for them. */
async function librariesOf(ldd: string, files: readonly string[]): Promise<string[]> {
  try {
    const { stdout } = await promisify(execFile)(ldd, [...files], { env: {} });
    // "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" and, for the loader, "\t/lib64/ld-linux-x86-64.so.2 (0x…)"
    return [
      ...new Set([...stdout.matchAll(/^\t(?:\S+ => )?(\/.+) \(0x[0-9a-f]+\)$/gm)].map((match) => String(match[1]))),
    ];
  } catch {
    return [];
  }
}
