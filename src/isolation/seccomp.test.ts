import { describe, expect, it } from "vitest";
import { hasSeccompFilter, type SeccompArchitecture, seccompFilter } from "./seccomp.ts";

const ALLOW = 0x7fff_0000;
const KILL = 0x8000_0000;
const errno = (value: number) => 0x0005_0000 | value;
const [EPERM, ENOTTY, ENOSYS] = [errno(1), errno(25), errno(38)];
const ARCH = { x64: 0xc000_003e, arm64: 0xc000_00b7 };

/** The kernel's interpreter for the instructions that a filter may hold. */
function verdict(filter: Buffer, call: { arch: number; number: number; args?: readonly number[] }): number {
  const data = Buffer.alloc(64);
  data.writeUInt32LE(call.number >>> 0, 0);
  data.writeUInt32LE(call.arch, 4);
  for (const [index, value] of (call.args ?? []).entries()) data.writeUInt32LE(value >>> 0, 16 + 8 * index);
  let accumulator = 0;
  for (let at = 0; at * 8 < filter.length; at++) {
    const code = filter.readUInt16LE(at * 8);
    const [ifTrue, ifFalse] = [filter.readUInt8(at * 8 + 2), filter.readUInt8(at * 8 + 3)];
    const operand = filter.readUInt32LE(at * 8 + 4);
    if (code === 0x06) return operand;
    else if (code === 0x20) accumulator = data.readUInt32LE(operand);
    else if (code === 0x54) accumulator = (accumulator & operand) >>> 0;
    else if (code === 0x15) at += accumulator === operand ? ifTrue : ifFalse;
    else if (code === 0x35) at += accumulator >= operand ? ifTrue : ifFalse;
    else throw new Error(`instruction ${code} at ${at}`);
  }
  throw new Error("ran off the end");
}

/** Calls by name, with the numbers of include/uapi/asm-generic/unistd.h and of x86's table. */
const CALLS = {
  x64: {
    read: 0,
    clone: 56,
    clone3: 435,
    fork: 57,
    execve: 59,
    execveat: 322,
    socket: 41,
    socketpair: 53,
    connect: 42,
  },
  arm64: {
    read: 63,
    clone: 220,
    clone3: 435,
    fork: -1,
    execve: 221,
    execveat: 281,
    socket: 198,
    socketpair: 199,
    connect: 203,
  },
} as const;
const MORE = {
  x64: {
    ptrace: 101,
    kill: 62,
    mount: 165,
    bpf: 321,
    unshare: 272,
    setns: 308,
    prctl: 157,
    ioctl: 16,
    fcntl: 72,
    prlimit64: 302,
    setresuid: 117,
    mprotect: 10,
    futex: 202,
  },
  arm64: {
    ptrace: 117,
    kill: 129,
    mount: 40,
    bpf: 280,
    unshare: 97,
    setns: 268,
    prctl: 167,
    ioctl: 29,
    fcntl: 25,
    prlimit64: 261,
    setresuid: 147,
    mprotect: 226,
    futex: 98,
  },
} as const;

describe.each(["x64", "arm64"] as const)("the filter for %s", (architecture: SeccompArchitecture) => {
  const calls = { ...CALLS[architecture], ...MORE[architecture] };
  const filter = seccompFilter(architecture, { mayDropPrivileges: false });
  const ask = (name: keyof typeof calls, ...args: number[]) =>
    verdict(filter, { arch: ARCH[architecture], number: calls[name], args });

  it("allows what Deno needs", () => {
    for (const name of ["read", "execve", "mprotect", "futex"] as const) expect(ask(name)).toBe(ALLOW);
  });

  it("knows no dangerous call", () => {
    for (const name of ["clone3", "fork", "execveat", "socket", "connect", "ptrace", "kill", "mount", "bpf"] as const)
      expect(ask(name)).toBe(ENOSYS);
    for (const name of ["unshare", "setns", "setresuid"] as const) expect(ask(name)).toBe(ENOSYS);
  });

  it("allows threads and no process or namespace", () => {
    const pthread = 0x3d_0f00;
    expect(ask("clone", pthread)).toBe(ALLOW);
    expect(ask("clone", 17)).toBe(EPERM);
    expect(ask("clone", pthread | 0x1000_0000)).toBe(EPERM);
    expect(ask("clone", pthread | 0x4000_0000)).toBe(EPERM);
  });

  it("allows a pair of local stream sockets only", () => {
    expect(ask("socketpair", 1, 1 | 0x8_0800)).toBe(ALLOW);
    expect(ask("socketpair", 1, 2)).toBe(EPERM);
    expect(ask("socketpair", 16, 1)).toBe(EPERM);
  });

  it("lets the parent-death signal be set and not cleared", () => {
    expect(ask("prctl", 1, 9)).toBe(ALLOW);
    expect(ask("prctl", 1, 0)).toBe(EPERM);
    expect(ask("prctl", 15)).toBe(ALLOW);
    expect(ask("prctl", 22)).toBe(EPERM);
  });

  it("pushes nothing into a terminal, sends no signal by fcntl, limits no other process", () => {
    expect(ask("ioctl", 0, 0x5401)).toBe(ALLOW);
    expect(ask("ioctl", 0, 0x5412)).toBe(ENOTTY);
    expect(ask("fcntl", 0, 8)).toBe(EPERM);
    expect(ask("fcntl", 0, 10)).toBe(EPERM);
    expect(ask("prlimit64", 0)).toBe(ALLOW);
    expect(ask("prlimit64", 1)).toBe(EPERM);
  });

  it("takes no lock, and says that it did", () => {
    expect(ask("fcntl", 0, 6)).toBe(errno(0));
    expect(ask("fcntl", 0, 7)).toBe(EPERM);
    for (const openFileDescription of [37, 38]) expect(ask("fcntl", 0, openFileDescription)).toBe(EPERM);
  });

  it("ends a process that speaks another architecture's numbers", () => {
    const other = architecture === "x64" ? 0x4000_0003 : ARCH.x64;
    expect(verdict(filter, { arch: other, number: calls.read })).toBe(KILL);
    if (architecture === "x64") expect(verdict(filter, { arch: ARCH.x64, number: 0x4000_0000 })).toBe(KILL);
  });

  it("lets privileges be dropped where that comes later", () => {
    const early = seccompFilter(architecture, { mayDropPrivileges: true });
    const askEarly = (name: keyof typeof calls, ...args: number[]) =>
      verdict(early, { arch: ARCH[architecture], number: calls[name], args });
    expect(askEarly("setresuid")).toBe(ALLOW);
    expect(askEarly("prctl", 24)).toBe(ALLOW);
    expect(askEarly("prctl", 1, 0)).toBe(EPERM);
    expect(askEarly("socket")).toBe(ENOSYS);
  });
});

it("is known for two architectures", () => {
  expect(["x64", "arm64", "riscv64", "ia32"].map(hasSeccompFilter)).toEqual([true, true, false, false]);
});
