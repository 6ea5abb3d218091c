import { execFile, execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import { temporaryFolder } from "../../../src/shared/testing/temporary-folder.ts";
import { testSettings } from "../../support/config.ts";
import { callNumbers, compileProfile, type SeccompProfile } from "./seccomp-profile.ts";

const run = promisify(execFile);
const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const PROFILE: SeccompProfile = JSON.parse(readFileSync(here("../../../deploy/seccomp.json"), "utf8"));
const numbers = callNumbers();
const isRoot = process.getuid?.() === 0;
const canRun =
  numbers !== null && ["/usr/bin/gcc", "/usr/bin/bwrap", "/usr/bin/setpriv"].every((file) => existsSync(file));
if (!canRun)
  console.warn("There is no gcc, bubblewrap or header of system calls here: tests of the seccomp profile are skipped.");

/** What a container must not be able to do to the kernel it shares, whoever has taken it over. */
const FORBIDDEN = [
  "bpf",
  "perf_event_open",
  "userfaultfd",
  "io_uring_setup",
  "keyctl",
  "add_key",
  "request_key",
  "ptrace",
  "process_vm_readv",
  "process_vm_writev",
  "init_module",
  "finit_module",
  "delete_module",
  "kexec_load",
  "open_by_handle_at",
  "setns",
  "swapon",
  "reboot",
  "settimeofday",
  "fsopen",
  "move_mount",
  "open_tree",
  "quotactl",
  "acct",
  "personality",
  "modify_ldt",
  "vmsplice",
  "move_pages",
];

test("the profile allows what it names and nothing else, for 64-bit programs only", () => {
  expect(PROFILE).toMatchObject({ defaultAction: "SCMP_ACT_ERRNO", defaultErrnoRet: 38 });
  expect(PROFILE.architectures).toEqual(["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]);
  const names = PROFILE.syscalls.flatMap((rule) => rule.names);
  expect(new Set(names).size).toBe(names.length);
  for (const { action } of PROFILE.syscalls) expect(action).toBe("SCMP_ACT_ALLOW");
  expect(names.filter((name) => FORBIDDEN.includes(name))).toEqual([]);
  if (numbers) expect(FORBIDDEN.filter((name) => !numbers.has(name))).toEqual([]);
});

describe.skipIf(!canRun)("a server under it, as a user without privileges", { timeout: 180_000 }, () => {
  let folder: string;
  beforeAll(() => {
    folder = temporaryFolder("seccomp-profile");
    chmodSync(folder, 0o777);
    execFileSync("gcc", ["-O1", "-o", path.join(folder, "apply-filter"), here("apply-filter.c")]);
  });

  const filtered = async (profile: SeccompProfile, command: string[], env: Record<string, string> = {}) => {
    const filter = path.join(folder, "filter.bpf");
    writeFileSync(filter, compileProfile(profile, numbers as ReadonlyMap<string, number>), { mode: 0o644 });
    const asNobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps", "-all"];
    const wrapper = isRoot ? [...asNobody, "--bounding-set", "-all"] : [];
    const [file, ...args] = [...wrapper, path.join(folder, "apply-filter"), filter, ...command] as [
      string,
      ...string[],
    ];
    const running = run(file, args, { env: { PATH: process.env.PATH, ...env }, timeout: 120_000 });
    // Python's input.
    running.child.stdin?.end();
    return await running.then(
      ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
      (error) => ({ code: error.code as number, stdout: String(error.stdout), stderr: String(error.stderr) }),
    );
  };

  /** Runs Python in a sandbox behind what the setting asks for. */
  const python = async (profile: SeccompProfile, required: string) => {
    const data = mkdtempSync(path.join(folder, "data-"));
    chmodSync(data, 0o777);
    const file = path.join(folder, "code.py");
    writeFileSync(file, "import hashlib, zlib\nprint(6 * 7, hashlib.sha256(b'x').hexdigest()[:4])");
    chmodSync(file, 0o644);
    const settings = testSettings({ DATA_DIR: data, ISOLATION_REQUIRED: required, LOG_DIR: "none" });
    return await filtered(profile, [process.execPath, here("../../../src/cli/main.ts"), "run", file], settings);
  };

  const withoutWalls: SeccompProfile = {
    ...PROFILE,
    syscalls: PROFILE.syscalls.filter(({ names }) => !names.includes("unshare")),
  };

  test("has every layer that ISOLATION_REQUIRED=os asks for, and runs code behind them", async () => {
    expect(await python(PROFILE, "os")).toEqual({ code: 0, stdout: "42 2d71\n", stderr: "" });
  });

  test("does not start under one without the calls that build the walls, as Docker's own; only with less", async () => {
    const refused = await python(withoutWalls, "os");
    expect(refused).toMatchObject({ code: 1, stdout: "" });
    expect(refused.stderr).toContain("ISOLATION_REQUIRED=os");
    expect(await python(withoutWalls, "deno")).toMatchObject({ code: 0, stdout: "42 2d71\n" });
  });

  test("cannot make the calls by which kernels are taken over", async () => {
    const probe = FORBIDDEN.map((name) => String(numbers?.get(name)));
    const { stdout } = await filtered(PROFILE, ["--errno", ...probe]);
    expect(stdout.trim().split("\n")).toEqual(FORBIDDEN.map(() => "38"));
  });
});
