import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { temporaryFolder } from "../../../src/shared/testing/temporary-folder.ts";
import { isRunning } from "../../support/processes.ts";
import type { Outcome, Scenario } from "./server.ts";

const SERVER = fileURLToPath(new URL("server.ts", import.meta.url));
const TIMEOUT_MS = 60_000;
const root = process.geteuid?.() === 0;
const linux = process.platform === "linux";
const installed = (file: string) => existsSync(file);
const bubblewrap = installed("/usr/bin/bwrap");
const compiler = installed("/usr/bin/gcc");

/** The server's user in each case. As root, an unprivileged server is tested as well. */
const USERS = root ? ["root", "nobody"] : ["self"];
const asUser = (user: string, ...line: string[]) =>
  user === "nobody" ? ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", ...line] : line;

const WAYS: { user: string; scenario: Scenario }[] = USERS.flatMap((user) => {
  const identities =
    user === "root" ? (["own-user-then-namespace", "own-user"] as const) : (["user-namespace"] as const);
  const tools = bubblewrap ? (["bubblewrap", "unshare"] as const) : (["unshare"] as const);
  return tools.flatMap((tool) => identities.map((identity) => ({ user, scenario: { tool, identity } })));
});

/** What needs seccomp to fail: nothing of the host is reached by it, but it is more kernel than a sandbox should see. */
const NEEDS_SECCOMP = [
  ...["listen", "startProcess", "hostName"],
  ...[
    "memoryFile",
    "socketTcp",
    "socketUdp",
    "socketIpv6",
    "socketNetlink",
    "socketUnix",
    "socketVsock",
    "datagramPair",
  ],
  ...["fork", "forkOld", "clone3", "clearDeathSignal", "keyring", "ioUring", "bpf", "userfaultfd", "personality"],
  ...["inotify", "sharedMemory", "messageQueue"],
];
/** What a sandbox may do by design: native code in its own process, threads. */
const ALLOWED = ["loadLibrary", "thread"];
/** What an unprivileged user cannot do with or without a wrapper, depending on the machine. */
const PRIVILEGED = [
  "becomeRoot",
  "createFileInRoot",
  "socketRaw",
  "bpf",
  "userfaultfd",
  "cloneUserNamespace",
  "unshareUser",
  "physicalAddress",
];

let folder: string;
let native: string;

beforeAll(() => {
  folder = temporaryFolder("attacker");
  // Any user's stand-in keeps its own folders in here, so that they go with it even if it was killed.
  chmodSync(folder, 0o777);
  native = path.join(folder, "attacker");
  const source = fileURLToPath(new URL("attacker.c", import.meta.url));
  if (compiler && linux) execFileSync("gcc", ["-w", "-O1", "-pthread", "-o", native, source]);
});

const environment = () => ({ ...process.env, TMPDIR: folder });

async function attack(user: string, scenario: Scenario): Promise<Outcome> {
  const [command = "", ...args] = asUser(user, process.execPath, SERVER, JSON.stringify(scenario));
  const { stdout } = await promisify(execFile)(command, args, { env: environment() });
  return JSON.parse(stdout);
}

const succeeded = (outcome: Outcome) =>
  Object.entries(outcome.attacks)
    .filter(([, result]) => result === true)
    .map(([name]) => name);

describe.skipIf(!linux)("without a wrapper", { timeout: TIMEOUT_MS }, () => {
  it.each(USERS)("every attack from JavaScript works, server as %s", async (user) => {
    const outcome = await attack(user, { tool: null });
    expect(Object.entries(outcome.attacks).filter(([, result]) => result !== true)).toEqual([]);
    expect(outcome).toMatchObject({ connections: 2, signals: 1 });
    expect(outcome.written).toEqual(["folder-from-javascript", "from-javascript", "written"]);
  });

  it.skipIf(!compiler).each(USERS)("every attack from native code works, server as %s", async (user) => {
    const outcome = await attack(user, { tool: null, native });
    const failed = Object.keys(outcome.attacks).filter((name) => outcome.attacks[name] !== true);
    expect(user === "root" ? failed : failed.filter((name) => !PRIVILEGED.includes(name))).toEqual([]);
    expect(Object.keys(outcome.attacks).length).toBeGreaterThan(35);
    expect(outcome).toMatchObject({ connections: 1, written: ["from-native", "from-native"] });
    expect(outcome.signals).toBeGreaterThan(0);
  });
});

describe.skipIf(!linux).each(WAYS)(
  "server as $user, $scenario.tool as $scenario.identity",
  { timeout: TIMEOUT_MS },
  (way) => {
    const { user, scenario } = way;
    const seccomp = scenario.tool === "bubblewrap";
    const permitted = seccomp ? ALLOWED : [...ALLOWED, ...NEEDS_SECCOMP];

    it("has every layer in force that it claims", async () => {
      const { layers, rejected } = await attack(user, scenario);
      expect(rejected).toEqual([]);
      const inactive = layers.filter((layer) => !layer.active).map((layer) => layer.name);
      const absent = {
        "own-user-then-namespace": [],
        "own-user": ["user-namespace"],
        "user-namespace": ["own-user"],
        "same-user": [],
      }[scenario.identity ?? "same-user"];
      expect(inactive).toEqual(seccomp ? absent : [...absent, "seccomp"]);
    });

    it("stops JavaScript with every Deno permission", async () => {
      const outcome = await attack(user, scenario);
      expect(Object.keys(outcome.attacks).length).toBeGreaterThan(15);
      expect(succeeded(outcome).filter((name) => !permitted.includes(name))).toEqual([]);
      expect(outcome).toMatchObject({ connections: 0, signals: 0, written: [] });
    });

    it.skipIf(!compiler)("stops native code", async () => {
      const outcome = await attack(user, { ...scenario, native });
      expect(Object.keys(outcome.attacks).length).toBeGreaterThan(35);
      expect(succeeded(outcome).filter((name) => !permitted.includes(name))).toEqual([]);
      expect(outcome).toMatchObject({ connections: 0, signals: 0, written: [] });
      expect(outcome.attacks.thread).toBe(true);
    });

    it.skipIf(!compiler || process.arch !== "x64")("ends a process that makes 32-bit system calls", async () => {
      const open = await attack(user, { tool: null, native, mode: "compat" });
      const outcome = await attack(user, { ...scenario, native, mode: "compat" });
      // Where the kernel has no 32-bit calls, the process gets a segmentation fault and prints nothing either way.
      expect(outcome.attacks).toEqual(seccomp ? {} : open.attacks);
    });
  },
);

describe.skipIf(!linux)("in a container without user namespaces", { timeout: TIMEOUT_MS }, () => {
  /** A user namespace in which no other can be made, and no privilege to make namespaces without one. */
  const CONTAINER =
    'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --inh-caps -all --bounding-set -all "$@"';

  it.each(USERS)("keeps the layers that are left and says what is missing, server as %s", async (user) => {
    const scenario = JSON.stringify({ tool: "strongest" } satisfies Scenario);
    const line = ["unshare", "--map-root-user", "sh", "-c", CONTAINER, "sh", process.execPath, SERVER, scenario];
    const [command = "", ...args] = asUser(user, ...line);
    const { stdout } = await promisify(execFile)(command, args, { env: environment() });
    const outcome: Outcome = JSON.parse(stdout);
    expect(outcome.tool).toBe("setpriv");
    const active = outcome.layers.filter((layer) => layer.active).map((layer) => layer.name);
    expect(active).toEqual(["no-new-privileges", "capabilities", "resource-limits"]);
    expect(outcome.layers.find((layer) => layer.name === "scratch-root")?.detail).toBe("files of the host can be read");
    expect(outcome.rejected.length).toBeGreaterThan(0);
  });
});

describe.skipIf(!linux || !compiler)("a sandbox that tries to outlive its server", { timeout: TIMEOUT_MS }, () => {
  const started: number[] = [];
  afterEach(() => {
    for (const pid of started.splice(0)) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // Gone, as it should be.
      }
    }
  });

  async function linger(user: string, scenario: Scenario) {
    const [command = "", ...args] = asUser(
      user,
      process.execPath,
      SERVER,
      JSON.stringify({ ...scenario, native, mode: "linger" }),
    );
    const server = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], env: environment() });
    const [line] = await once(createInterface({ input: server.stdout }), "line");
    const { wrapper, inside } = JSON.parse(line) as { wrapper: number; inside: number };
    started.push(inside, wrapper, Number(server.pid));
    expect(isRunning(inside)).toBe(true);
    return { server, wrapper, inside };
  }

  it.each(USERS)("does so without a wrapper, server as %s", async (user) => {
    const { server, inside } = await linger(user, { tool: null });
    await killed(server);
    expect(isRunning(inside)).toBe(true);
  });

  it.each(WAYS)("dies with the server: $user, $scenario.tool as $scenario.identity", async ({ user, scenario }) => {
    const { server, wrapper, inside } = await linger(user, scenario);
    await killed(server);
    await gone(inside);
    await gone(wrapper);
  });

  it.each(WAYS)("dies with its wrapper: $user, $scenario.tool as $scenario.identity", async ({ user, scenario }) => {
    const { server, wrapper, inside } = await linger(user, scenario);
    process.kill(wrapper, "SIGKILL");
    await gone(inside);
    await killed(server);
  });
});

async function killed(server: ChildProcess): Promise<void> {
  server.kill("SIGKILL");
  await once(server, "exit");
}

async function gone(pid: number): Promise<void> {
  await expect.poll(() => isRunning(pid), { timeout: 10_000 }).toBe(false);
}
