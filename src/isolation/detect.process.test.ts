import { describe, expect, it } from "vitest";
import { denoBinary } from "../shared/deno-binary.ts";
import { StartupError } from "../shared/errors.ts";
import { assertIsolation, detectIsolation, REQUIRED_FOR_OS, wrapCommand } from "./detect.ts";
import { candidatePlans, type HostFacts } from "./plan.ts";

const SANDBOX_MAX_AGE_MS = 3_600_000;
const nothing = () => detectIsolation({ ISOLATION: "auto", SANDBOX_MAX_AGE_MS }, { consider: () => false });

describe("ISOLATION=deno", () => {
  it("wraps nothing and says so in every row", async () => {
    const report = await detectIsolation({ ISOLATION: "deno", SANDBOX_MAX_AGE_MS });
    expect(report.layers.map((layer) => layer.active)).not.toContain(true);
    expect(report.layers.every((layer) => layer.detail.includes("ISOLATION=deno"))).toBe(true);
    const command = { command: denoBinary(), args: ["--version"], readOnlyPaths: [], env: { A: "1" }, memoryBytes: 1 };
    const wrapped = wrapCommand(report, command);
    expect(wrapped.inputs).toEqual([]);
    // On Linux a shell raises the limit of the stack and becomes the command.
    expect([wrapped.command, ...wrapped.args].slice(-2)).toEqual([denoBinary(), "--version"]);
    expect(wrapped.args.length === 1 || wrapped.command === "/bin/sh").toBe(true);
  });
});

describe("ISOLATION_REQUIRED", () => {
  it("os: refuses to start where layers are missing, and names each", async () => {
    const report = await nothing();
    const refuse = () => assertIsolation(report, { ISOLATION: "auto", ISOLATION_REQUIRED: "os" });
    expect(refuse).toThrow(StartupError);
    for (const name of REQUIRED_FOR_OS) expect(refuse).toThrow(name);
    expect(refuse).toThrow("bubblewrap");
  });

  it("os: contradicts ISOLATION=deno", async () => {
    const report = await nothing();
    expect(() => assertIsolation(report, { ISOLATION: "deno", ISOLATION_REQUIRED: "os" })).toThrow("unset one");
  });

  it("os: accepts a report in which all that it demands is active", async () => {
    const report = await nothing();
    const layers = report.layers.map((layer) => ({ ...layer, active: REQUIRED_FOR_OS.includes(layer.name) }));
    assertIsolation({ ...report, layers }, { ISOLATION: "auto", ISOLATION_REQUIRED: "os" });
  });

  it.each(["", "deno"] as const)("%j: starts without the operating system's layers", async (required) => {
    assertIsolation(await nothing(), { ISOLATION: "auto", ISOLATION_REQUIRED: required });
  });
});

describe.skipIf(process.platform !== "linux")("detection", () => {
  it("passes over every way in which the sandbox could not read what it needs", async () => {
    const missing = "/nonexistent/image";
    const report = await detectIsolation({ ISOLATION: "auto", SANDBOX_MAX_AGE_MS }, { readOnlyPaths: [missing] });
    expect(report.tool).toBe("none");
    expect(report.rejected.join("\n")).toContain(missing);
  });
});

describe("candidate plans", () => {
  const limits = { cpu: 1, nofile: 1, nproc: 1, data: 1, stack: 1 };
  const programs = Object.fromEntries(
    ["bwrap", "unshare", "setpriv", "prlimit", "sh", "mount", "mkdir", "ln", "chroot"].map((name) => [
      name,
      `/${name}`,
    ]),
  );
  const user: HostFacts = {
    programs,
    root: false,
    capabilities: 0n,
    firstUser: 70_000,
    libraries: ["/libc.so"],
    hardLimits: limits,
  };

  it("prefers bubblewrap with seccomp, and ends with what every container allows", () => {
    const plans = candidatePlans(user, true);
    expect(plans[0]).toMatchObject({ tool: "bubblewrap", identity: "user-namespace", seccomp: true });
    expect(plans.at(-1)).toMatchObject({ tool: "setpriv", identity: "same-user", limitProcesses: false });
  });

  it("gives sandboxes of a root server their own user, if it may change users", () => {
    const root = { ...user, root: true, capabilities: 0x1ff_ffff_ffffn };
    expect(candidatePlans(root, true)[0]?.identity).toBe("own-user-then-namespace");
    const confined = { ...root, capabilities: 0n };
    expect(candidatePlans(confined, true).map((plan) => plan.identity)).not.toContain("own-user");
  });

  it("does without what is not installed", () => {
    const bare = { ...user, programs: {} };
    expect(candidatePlans(bare, true)).toEqual([]);
    const { bwrap: _, ...rest } = programs;
    expect(candidatePlans({ ...user, programs: rest }, true)[0]).toMatchObject({ tool: "unshare", scratchRoot: true });
  });
});
