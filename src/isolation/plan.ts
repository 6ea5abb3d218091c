import { readFileSync, realpathSync } from "node:fs";
import os from "node:os";
import { unescapedMount } from "../shared/host-limits.ts";

/**
 * How the sandbox gets a user with fewer rights than the server.
 *
 * - `own-user-then-namespace`: the server is root; a user id of its own is taken first, and a user namespace then gives
 *   the right to make the others. Needs every folder on the way to what the sandbox reads to be open to others.
 * - `own-user`: the server is root, prepares the sandbox as root, and the last step inside takes a user id of its own.
 * - `user-namespace`: the server is not root; the sandbox runs as its user, but owns nothing outside its namespace.
 * - `same-user`: neither; the sandbox is the server's user without privileges.
 */
export type Identity = "own-user" | "own-user-then-namespace" | "user-namespace" | "same-user";

export type Namespace = "pid" | "network" | "ipc" | "uts";

/** Which layers to ask for, and from which tool. Whether they come about is found by running it. */
export interface IsolationPlan {
  readonly tool: "bubblewrap" | "unshare" | "setpriv";
  readonly identity: Identity;
  readonly namespaces: readonly Namespace[];
  /** A root directory that holds the runtime, its libraries and what the caller names; needs a mount namespace. */
  readonly scratchRoot: boolean;
  readonly seccomp: boolean;
  /** RLIMIT_NPROC counts this sandbox only, so it can be set. */
  readonly limitProcesses: boolean;
}

/** What the plans are made of, read once. */
export interface HostFacts {
  readonly programs: Readonly<Partial<Record<Program, string>>>;
  readonly root: boolean;
  /** The server's effective capabilities, as the kernel's bit set. */
  readonly capabilities: bigint;
  /** First of {@link SANDBOX_USERS} user ids that no one else uses; undefined: no such range is mapped here. */
  readonly firstUser: number | undefined;
  /** Files that the runtime and the tools inside the root are linked with. Empty: not known. */
  readonly libraries: readonly string[];
  /** The server's own hard limits, which nothing inside can exceed. Infinity where there is none. */
  readonly hardLimits: Readonly<Record<Limit, number>>;
}

export const PROGRAMS = ["bwrap", "unshare", "setpriv", "prlimit", "sh", "mount", "mkdir", "ln", "chroot"] as const;
export type Program = (typeof PROGRAMS)[number];

export type Limit = "cpu" | "nofile" | "nproc" | "data" | "stack";

/** How many user ids a server as root hands out to sandboxes, one after another. */
export const SANDBOX_USERS = 4096;

const NAMESPACES: readonly Namespace[] = ["pid", "network", "ipc", "uts"];

const CAP_SETGID = 6n;
const CAP_SETUID = 7n;
const CAP_SETPCAP = 8n;
const CAP_SYS_ADMIN = 21n;
const has = (facts: HostFacts, capability: bigint) => ((facts.capabilities >> capability) & 1n) === 1n;

export const mayChangeUser = (facts: HostFacts) =>
  facts.root && facts.firstUser !== undefined && has(facts, CAP_SETUID) && has(facts, CAP_SETGID);
export const mayDropBoundingSet = (facts: HostFacts) => has(facts, CAP_SETPCAP);

/** @returns the plans worth trying on this host, strongest first; none if the tools are missing. */
export function candidatePlans(facts: HostFacts, seccomp: boolean): IsolationPlan[] {
  const { programs } = facts;
  const insideTools = programs.setpriv !== undefined && programs.prlimit !== undefined;
  const bubblewrap = programs.bwrap !== undefined && insideTools && facts.libraries.length > 0;
  const unshare = programs.unshare !== undefined && programs.sh !== undefined && insideTools;
  const chroot = (["mount", "mkdir", "ln", "chroot"] as const).every((name) => programs[name] !== undefined);
  const scratchRoot = chroot && facts.libraries.length > 0;

  const plans: IsolationPlan[] = [];
  for (const identity of identities(facts)) {
    const base = { identity, namespaces: NAMESPACES, limitProcesses: countsProcessesPerSandbox(identity) };
    if (bubblewrap) {
      if (seccomp) plans.push({ ...base, tool: "bubblewrap", scratchRoot: true, seccomp: true });
      plans.push({ ...base, tool: "bubblewrap", scratchRoot: true, seccomp: false });
    }
    if (unshare && scratchRoot) plans.push({ ...base, tool: "unshare", scratchRoot: true, seccomp: false });
  }
  // Namespaces without mounts: what AppArmor's `docker-default` profile leaves.
  for (const identity of identities(facts)) {
    if (!unshare) break;
    const base = { identity, limitProcesses: countsProcessesPerSandbox(identity) };
    for (const namespaces of [NAMESPACES, ["pid", "network"], ["network"], ["pid"]] as const)
      plans.push({ ...base, tool: "unshare", namespaces, scratchRoot: false, seccomp: false });
  }
  if (insideTools) {
    const identity = mayChangeUser(facts) ? "own-user" : "same-user";
    const limitProcesses = identity === "own-user";
    plans.push({ tool: "setpriv", identity, namespaces: [], scratchRoot: false, seccomp: false, limitProcesses });
  }
  return plans;
}

function identities(facts: HostFacts): Identity[] {
  if (!facts.root) return ["user-namespace"];
  const own = mayChangeUser(facts);
  return [
    ...(own ? (["own-user-then-namespace"] as const) : []),
    ...(own && has(facts, CAP_SYS_ADMIN) ? (["own-user"] as const) : []),
    "user-namespace",
  ];
}

/** Since Linux 5.14 RLIMIT_NPROC counts within a user namespace; before, all processes of the user on the machine. */
function countsProcessesPerSandbox(identity: Identity): boolean {
  const [major = 0, minor = 0] = os.release().split(".").map(Number);
  return identity === "own-user" || major > 5 || (major === 5 && minor >= 14);
}

/**
 * Options that a bind mount of `file` has to repeat: a user namespace may not remove them from what it inherits.
 *
 * `nosuid` and `nodev` are always set, so only `noexec` is left to be found out.
 */
export function inheritedMountOptions(file: string): string[] {
  const real = realpathSync(file);
  let best = "";
  let options: string[] = [];
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n")) {
    const [, , , , escaped, flags] = line.split(" ");
    if (escaped === undefined || flags === undefined) continue;
    const point = unescapedMount(escaped);
    const inside = point === "/" || real === point || real.startsWith(`${point}/`);
    // `>=`: of two mounts on one point the later one is seen.
    if (!inside || point.length < best.length) continue;
    best = point;
    options = flags.split(",");
  }
  return options.filter((option) => option === "noexec");
}
