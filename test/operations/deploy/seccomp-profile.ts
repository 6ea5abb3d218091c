import { readFileSync } from "node:fs";

/** The part of the OCI runtime's format that `deploy/seccomp.json` uses, which Docker, containerd and CRI-O read. */
export interface SeccompProfile {
  readonly defaultAction: string;
  readonly defaultErrnoRet: number;
  readonly architectures: readonly string[];
  readonly syscalls: readonly { readonly names: readonly string[]; readonly action: string }[];
}

/** Of this machine, where the C library's headers are installed; null: they are not. */
export function callNumbers(): ReadonlyMap<string, number> | null {
  const file = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";
  try {
    if (process.arch !== "x64") return null;
    const defined = readFileSync(file, "utf8").matchAll(/^#define __NR_(\w+) (\d+)$/gm);
    return new Map(Array.from(defined, ([, name = "", number]) => [name, Number(number)]));
  } catch {
    return null;
  }
}

const BPF = { load: 0x20, jumpIfEqual: 0x15, jumpIfAtLeast: 0x35, answer: 0x06 };
const ALLOW = 0x7fff_0000;
const FAIL = 0x0005_0000;
const KILL = 0x8000_0000;
const AUDIT_ARCH_X86_64 = 0xc000_003e;
const X32_CALLS = 0x4000_0000;

/** What libseccomp makes of such a profile on x86-64: calls that are named are made, others fail, other architectures end the process. */
export function compileProfile(profile: SeccompProfile, numbers: ReadonlyMap<string, number>): Buffer {
  const program: [code: number, ifTrue: number, ifFalse: number, value: number][] = [
    [BPF.load, 0, 0, 4],
    [BPF.jumpIfEqual, 1, 0, AUDIT_ARCH_X86_64],
    [BPF.answer, 0, 0, KILL],
    [BPF.load, 0, 0, 0],
    [BPF.jumpIfAtLeast, 0, 1, X32_CALLS],
    [BPF.answer, 0, 0, KILL],
  ];
  for (const { names, action } of profile.syscalls) {
    if (action !== "SCMP_ACT_ALLOW") throw new Error(`${action} is not compiled here`);
    // Names of another architecture's are left out, as libseccomp does.
    for (const number of names.map((name) => numbers.get(name)).filter((number) => number !== undefined)) {
      program.push([BPF.jumpIfEqual, 0, 1, number], [BPF.answer, 0, 0, ALLOW]);
    }
  }
  program.push([BPF.answer, 0, 0, FAIL + profile.defaultErrnoRet]);
  const bytes = Buffer.alloc(program.length * 8);
  for (const [i, [code, ifTrue, ifFalse, value]] of program.entries()) {
    bytes.writeUInt16LE(code, i * 8);
    bytes.writeUInt8(ifTrue, i * 8 + 2);
    bytes.writeUInt8(ifFalse, i * 8 + 3);
    bytes.writeUInt32LE(value, i * 8 + 4);
  }
  return bytes;
}
