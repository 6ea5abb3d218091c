import { type ChildProcessByStdio, type SpawnOptions, spawn } from "node:child_process";
import { realpathSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { mainStackBytes, withStack } from "./main-stack.ts";
import {
  type HostFacts,
  type IsolationPlan,
  inheritedMountOptions,
  type Limit,
  mayDropBoundingSet,
  type Program,
  SANDBOX_USERS,
} from "./plan.ts";
import { hasSeccompFilter, seccompFilter } from "./seccomp.ts";

/** What is to run inside. */
export interface SandboxCommand {
  /** Absolute path of the executable; visible inside under the same path. */
  readonly command: string;
  readonly args: readonly string[];
  /** Files and folders that the sandbox may read, absolute; visible inside under the same paths. They must exist. */
  readonly readOnlyPaths: readonly string[];
  /** The whole environment: nothing is inherited. */
  readonly env: Readonly<Record<string, string>>;
  /** Memory that the process may use beyond what the runtime itself needs ({@link RUNTIME_MEMORY_BYTES}). */
  readonly memoryBytes: number;
}

/** How commands are wrapped on this host. */
export interface Wrapping {
  readonly plan: IsolationPlan;
  readonly facts: HostFacts;
  /** Processor time of all threads of one sandbox together; the kernel kills it when that is used up. */
  readonly cpuSeconds: number;
}

/** A command line that starts the sandbox with every layer around it; for {@link spawnWrapped}. */
export interface WrappedCommand {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** What the wrapper reads from descriptors 3, 4, … to their end. The sandboxed command inherits none of them. */
  readonly inputs: readonly Uint8Array[];
}

/**
 * Private memory that Deno holds before user code runs. [measured] 1.14 GiB with Pyodide loaded on two cores,
 * most of it V8's reservation for compiled code, which counts although it is not in use; the rest of this is room for
 * more threads' stacks and for files on their way. A process that meets the limit is slow, since V8 collects garbage
 * again and again before it gives up, so the limit that user code meets first must be WebAssembly's own.
 */
export const RUNTIME_MEMORY_BYTES = 2 * 1024 * 1024 * 1024;

/** An empty folder of the package, which exists wherever the server runs: the scratch root is mounted on it. */
const SCRATCH_ROOT = fileURLToPath(new URL("assets/scratch/", import.meta.url)).replace(/\/$/, "");

/**
 * Stands in for /proc/self/maps, where the C library looks for the main thread's stack: without it Deno panics in its
 * TypeScript parser. It says that any address may be stack; the C library takes the end from elsewhere. A real /proc
 * would also give code that can only read and write files the process's memory, /proc/self/mem.
 */
const MAPS = fileURLToPath(new URL("assets/proc-self-maps.txt", import.meta.url));

/** Where a process can ask which of its memory it has written to (`guest/memory/mapping.ts`). */
const PAGEMAP = "/proc/self/pagemap";

const OPEN_FILES = 256;
/** Those that V8 starts have by default a stack as large as the main thread may have, all of which counts. */
const THREADS = os.availableParallelism();
/** Threads, rather: V8 and Tokio start some for each core, and a few for themselves. */
const PROCESSES = 64 + os.availableParallelism();

/** Deno wants a folder for its caches; one that not even root can make switches them off. */
const ENVIRONMENT = { DENO_DIR: "/dev/null/deno", DENO_NO_UPDATE_CHECK: "1" };

let usersGiven = 0;

/** @returns the limits that a sandbox gets: what we want, or the server's own hard limit where that is lower. */
export function limitsOf(
  { plan, facts, cpuSeconds }: Wrapping,
  { memoryBytes }: Pick<SandboxCommand, "memoryBytes">,
): Readonly<Partial<Record<Limit | "core" | "fsize", number>>> {
  const stack = mainStackBytes(facts.hardLimits.stack);
  const within = (name: Limit, wanted: number) => Math.min(Math.ceil(wanted), facts.hardLimits[name]);
  return {
    core: 0,
    fsize: 0,
    cpu: within("cpu", cpuSeconds),
    nofile: within("nofile", OPEN_FILES),
    // V8 reserves address space by the GiB, so RLIMIT_AS cannot be set; RLIMIT_DATA counts what is writable.
    data: within("data", memoryBytes + RUNTIME_MEMORY_BYTES + THREADS * stack),
    stack,
    ...(plan.limitProcesses ? { nproc: within("nproc", PROCESSES) } : {}),
  };
}

/** Puts the layers of the plan around a command; null: none. @throws {Error} if a path does not exist. */
export function wrapWithPlan(wrapping: Wrapping | null, request: SandboxCommand): WrappedCommand {
  const env = { ...ENVIRONMENT, ...request.env };
  if (wrapping === null) {
    return { ...withStack(request.command, request.args, mainStackBytes(null)), env, inputs: [] };
  }
  const { plan, facts } = wrapping;
  const user = (facts.firstUser ?? 0) + (usersGiven++ % SANDBOX_USERS);
  const inside = [...dropPrivileges(plan, facts, user), ...setLimits(wrapping, request)];
  const line = [...changeUserFirst(plan, facts, user)];
  const inputs: Uint8Array[] = [];
  if (plan.tool === "bubblewrap") {
    line.push(...bubblewrap(plan, facts, request));
    if (plan.seccomp) {
      if (!hasSeccompFilter(process.arch)) throw new Error(`no seccomp filter for ${process.arch}`);
      inputs.push(seccompFilter(process.arch, { mayDropPrivileges: plan.identity === "own-user" }));
      line.push("--seccomp", "3");
    }
    line.push("--");
  } else if (plan.tool === "unshare") {
    line.push(...unshare(plan, facts, request));
  }
  line.push(...inside, request.command, ...request.args);
  const [command = "", ...args] = line;
  return { command, args, env, inputs };
}

/**
 * Starts a wrapped command with pipes for its standard streams. Killing the returned process kills everything inside,
 * and so does the end of this process.
 */
export function spawnWrapped(
  wrapped: WrappedCommand,
  options: Pick<SpawnOptions, "cwd"> = {},
): ChildProcessByStdio<Writable, Readable, Readable> {
  const child = spawn(wrapped.command, [...wrapped.args], {
    ...options,
    env: { ...wrapped.env },
    stdio: ["pipe", "pipe", "pipe", ...wrapped.inputs.map(() => "pipe" as const)],
  });
  for (const [index, input] of wrapped.inputs.entries()) {
    const pipe = child.stdio[3 + index] as Writable | null;
    // A wrapper that ends before it has read its input says why on standard error; the broken pipe adds nothing.
    pipe?.on("error", () => {});
    pipe?.end(input);
  }
  return child as ChildProcessByStdio<Writable, Readable, Readable>;
}

function program(facts: HostFacts, name: Program): string {
  const file = facts.programs[name];
  if (file === undefined) throw new Error(`${name} is not installed`);
  return file;
}

function changeUserFirst(plan: IsolationPlan, facts: HostFacts, user: number): string[] {
  if (plan.identity === "own-user-then-namespace")
    return [program(facts, "setpriv"), ...asUser(user), "--pdeathsig", "KILL"];
  // Bubblewrap sees to it itself; `setpriv` alone does it in dropPrivileges.
  return plan.tool === "unshare" ? [program(facts, "setpriv"), "--pdeathsig", "KILL"] : [];
}

const asUser = (user: number) => ["--reuid", String(user), "--regid", String(user), "--clear-groups"];

function dropPrivileges(plan: IsolationPlan, facts: HostFacts, user: number): string[] {
  // In a user namespace of its own bubblewrap leaves nothing to drop.
  if (plan.tool === "bubblewrap" && plan.identity !== "own-user") return [];
  const namespaced = plan.tool !== "setpriv" && plan.identity !== "own-user";
  return [
    program(facts, "setpriv"),
    ...(plan.identity === "own-user" ? asUser(user) : []),
    ...(namespaced || mayDropBoundingSet(facts) ? ["--bounding-set", "-all"] : []),
    ...["--inh-caps", "-all", "--no-new-privs", "--pdeathsig", "KILL"],
  ];
}

function setLimits(wrapping: Wrapping, request: SandboxCommand): string[] {
  const limits = Object.entries(limitsOf(wrapping, request));
  return [program(wrapping.facts, "prlimit"), ...limits.map(([name, value]) => `--${name}=${value}`)];
}

/** What the root holds, parents before what lies in them: `[path inside, file outside]`. */
function visibleFiles(plan: IsolationPlan, facts: HostFacts, request: SandboxCommand): [string, string][] {
  const tools = [facts.programs.prlimit, ...(dropsInside(plan) ? [facts.programs.setpriv] : [])];
  const all = [request.command, ...facts.libraries, ...tools, ...request.readOnlyPaths];
  const inside = [...new Set(all.filter((file) => file !== undefined).map((file) => path.resolve(file)))];
  const files = inside
    .toSorted((a, b) => a.length - b.length)
    .map((file): [string, string] => [file, realpathSync(file)]);
  return [...files, ["/proc/self/maps", MAPS]];
}

/** @returns `["/a", "/a/b"]` for `/a/b/c`. */
function ancestors(file: string): string[] {
  const names = file.split("/").slice(1, -1);
  return names.map((_, index) => `/${names.slice(0, index + 1).join("/")}`);
}

const dropsInside = (plan: IsolationPlan) => plan.tool === "unshare" || plan.identity === "own-user";

/**
 * Whether the sandbox is process 1 of its namespace, in the place of bubblewrap's reaper. As that it has bound the files of its root itself,
 * so that its own page map can be one of them. The reaper cannot be made to clear its parent-death signal; here a filter has to
 * forbid that, and the wrapper has to have the same user, or its signal would not be let through.
 */
const isFirstProcess = (plan: IsolationPlan) => plan.seccomp && plan.identity !== "own-user";

function bubblewrap(plan: IsolationPlan, facts: HostFacts, request: SandboxCommand): string[] {
  const flags = { pid: "--unshare-pid", network: "--unshare-net", ipc: "--unshare-ipc", uts: "--unshare-uts" };
  const args = [program(facts, "bwrap"), ...plan.namespaces.map((name) => flags[name]), "--unshare-cgroup-try"];
  if (plan.identity === "own-user") {
    // Only what `setpriv` needs to give up the rest.
    args.push("--cap-drop", "ALL");
    for (const capability of ["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"]) args.push("--cap-add", capability);
  } else {
    args.push("--unshare-user", "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL");
  }
  args.push("--die-with-parent", "--new-session", "--hostname", "sandbox");
  if (isFirstProcess(plan)) args.push("--as-pid-1");
  const visible = visibleFiles(plan, facts, request);
  // Left to itself bubblewrap makes the folders on the way to a mount for their owner only.
  const folders = new Set([...visible.flatMap(([inside]) => ancestors(inside)), "/dev"]);
  for (const folder of folders) args.push("--perms", "0755", "--dir", folder);
  for (const [inside, outside] of visible) args.push("--ro-bind", outside, inside);
  if (isFirstProcess(plan)) args.push("--ro-bind-try", PAGEMAP, PAGEMAP);
  // Deno asks /proc/self/exe for its own path. No more of /proc is needed, so none is mounted.
  args.push("--symlink", request.command, "/proc/self/exe", "--dev-bind", "/dev/urandom", "/dev/urandom");
  args.push("--remount-ro", "/", "--chdir", "/");
  return args;
}

function unshare(plan: IsolationPlan, facts: HostFacts, request: SandboxCommand): string[] {
  const flags = { pid: "--pid", network: "--net", ipc: "--ipc", uts: "--uts" };
  const args = [program(facts, "unshare"), ...plan.namespaces.map((name) => flags[name])];
  if (plan.identity !== "own-user") args.push("--user", "--map-root-user");
  args.push("--fork", "--kill-child");
  const shell = program(facts, "sh");
  if (!plan.scratchRoot) return [...args, shell, "-c", HOLD, "sh"];
  const visible = [...visibleFiles(plan, facts, request), ["/dev/urandom", "/dev/urandom"] as [string, string]];
  const folders: string[] = [];
  const files: string[] = [];
  const table: string[] = [];
  for (const [inside, outside] of visible) {
    const relative = inside.slice(1);
    const isFolder = statSync(outside).isDirectory();
    folders.push(isFolder ? relative : path.dirname(relative));
    if (!isFolder) files.push(relative);
    const options = ["bind", "ro", "nosuid", ...inheritedMountOptions(outside)];
    if (inside !== "/dev/urandom") options.push("nodev");
    table.push(`${fstabField(outside)} ${fstabField(path.join(SCRATCH_ROOT, inside))} none ${options.join(",")} 0 0`);
  }
  if ([...folders, ...files].some((name) => name.includes("\n"))) throw new Error("a path holds a line break");
  const tools = (["mount", "mkdir", "ln", "chroot"] as const).map((name) => program(facts, name));
  const parameters = [SCRATCH_ROOT, [...new Set(folders)].join("\n"), files.join("\n"), table.join("\n")];
  return [...args, "--mount", shell, "-c", BUILD_ROOT, "sh", ...tools, ...parameters, request.command];
}

const fstabField = (file: string) =>
  file.replace(/[\s\\#]/g, (character) => `\\${character.charCodeAt(0).toString(8).padStart(3, "0")}`);

/** The shell stays as process 1, for the reason that bubblewrap's reaper does; `exit` keeps it from an exec instead. */
const HOLD = `"$@"
exit $?`;

/** The page map is that of the process that becomes the sandbox: the shell's copy, which `chroot` takes the place of. */
const BUILD_ROOT = `set -efu
mount=$1 mkdir=$2 ln=$3 chroot=$4 root=$5 folders=$6 files=$7 table=$8 runtime=$9
shift 9
IFS='
'
"$mount" -t tmpfs -o size=64k,nr_inodes=4k,mode=0755,nosuid,nodev scratch "$root"
cd "$root"
"$mkdir" -p -- $folders
for file in $files; do : > "$file"; done
"$ln" -s -- "$runtime" proc/self/exe
: > proc/self/pagemap
printf '%s\\n' "$table" > proc/mounts
"$mount" --all --fstab proc/mounts
: > proc/mounts
"$mount" -o remount,bind,ro,nosuid,nodev "$root"
set +e
(
  IFS=' ' read -r pid rest < /proc/self/stat
  "$mount" --bind "/proc/$pid/pagemap" proc/self/pagemap
  exec "$chroot" "$root" "$@"
)
exit $?`;
