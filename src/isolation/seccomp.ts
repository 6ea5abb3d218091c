/**
 * The system calls that a sandbox may make, as a classic BPF program for seccomp(2).
 *
 * An allow-list, found by tracing Deno with workers, WebAssembly and Pyodide. What is not on it fails with ENOSYS, as on
 * a kernel that never had it, so that a libc newer than this list takes its fallback instead of giving up. A foreign
 * architecture (32-bit calls, the x32 ABI) ends the process: its numbers would mean other calls.
 *
 * Two calls that one would like to see missing are there. `execve`, because the filter is in force before Deno is
 * started by it; without `fork` it can only replace the sandbox by one of the few programs visible in the scratch root,
 * under this same filter. `mprotect` with PROT_EXEC, because V8 compiles.
 */

/** `process.arch` values for which there is a filter. */
export type SeccompArchitecture = "x64" | "arm64";

export interface SeccompOptions {
  /** Let the process change its user and drop capabilities: needed where the filter is in force before that is done. */
  readonly mayDropPrivileges: boolean;
}

/** `[x86-64, arm64]`; null: the architecture has no such call. */
type Numbers = readonly [number, number | null];

/** All must hold for the low 32 bits of the arguments they name. */
type Conjunction = readonly { readonly argument: number; readonly mask?: number; readonly equals: number }[];

interface Rule {
  readonly name: string;
  readonly numbers: Numbers;
  /** Allowed if any of these holds; absent: always. */
  readonly when?: readonly Conjunction[];
  /** If any of these holds, nothing is done, and the caller is told that it was. */
  readonly pretended?: readonly Conjunction[];
  /** What the caller gets where none holds; default EPERM. */
  readonly otherwise?: number;
}

const EPERM = 1;
const ENOTTY = 25;
const ENOSYS = 38;

const CLONE_THREAD = 0x0001_0000;
/** CLONE_NEWTIME, NS, CGROUP, UTS, IPC, USER, PID, NET. */
const CLONE_NEW_ANYTHING = 0x7e02_0080;
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_TYPE_MASK = 0xf;
const SIGKILL = 9;
const PR_SET_PDEATHSIG = 1;

const anyOf = (argument: number, values: readonly number[]): Conjunction[] =>
  values.map((equals) => [{ argument, equals }]);

const ALWAYS: Readonly<Record<string, Numbers>> = {
  // Files: the scratch root is read-only, so calls that would write to it need no place here.
  read: [0, 63],
  write: [1, 64],
  readv: [19, 65],
  writev: [20, 66],
  pread64: [17, 67],
  preadv: [295, 69],
  lseek: [8, 62],
  open: [2, null],
  openat: [257, 56],
  close: [3, 57],
  stat: [4, null],
  fstat: [5, 80],
  lstat: [6, null],
  newfstatat: [262, 79],
  statx: [332, 291],
  access: [21, null],
  faccessat: [269, 48],
  readlink: [89, null],
  readlinkat: [267, 78],
  getdents64: [217, 61],
  getcwd: [79, 17],
  fstatfs: [138, 44],
  dup: [32, 23],
  dup2: [33, null],
  dup3: [292, 24],
  pipe: [22, null],
  pipe2: [293, 59],
  // Memory
  mmap: [9, 222],
  mprotect: [10, 226],
  munmap: [11, 215],
  mremap: [25, 216],
  madvise: [28, 233],
  brk: [12, 214],
  mincore: [27, 232],
  pkey_alloc: [330, 289],
  pkey_mprotect: [329, 288],
  pkey_free: [331, 290],
  membarrier: [324, 283],
  // Threads
  futex: [202, 98],
  set_robust_list: [273, 99],
  get_robust_list: [274, 100],
  rseq: [334, 293],
  set_tid_address: [218, 96],
  sched_yield: [24, 124],
  sched_getaffinity: [204, 123],
  sched_getparam: [143, 121],
  sched_getscheduler: [145, 120],
  sched_get_priority_max: [146, 125],
  sched_get_priority_min: [147, 126],
  getcpu: [309, 168],
  // Signals to itself only
  sigaltstack: [131, 132],
  rt_sigaction: [13, 134],
  rt_sigprocmask: [14, 135],
  rt_sigreturn: [15, 139],
  restart_syscall: [219, 128],
  // Time
  clock_gettime: [228, 113],
  clock_getres: [229, 114],
  clock_nanosleep: [230, 115],
  nanosleep: [35, 101],
  gettimeofday: [96, 169],
  time: [201, null],
  // Waiting
  poll: [7, null],
  ppoll: [271, 73],
  epoll_create1: [291, 20],
  epoll_ctl: [233, 21],
  epoll_wait: [232, null],
  epoll_pwait: [281, 22],
  epoll_pwait2: [441, 441],
  eventfd2: [290, 19],
  // The far ends are this process's own socket pairs and its three pipes.
  recvfrom: [45, 207],
  sendto: [44, 206],
  // About itself
  getpid: [39, 172],
  getppid: [110, 173],
  gettid: [186, 178],
  getuid: [102, 174],
  geteuid: [107, 175],
  getgid: [104, 176],
  getegid: [108, 177],
  getrandom: [318, 278],
  uname: [63, 160],
  sysinfo: [99, 179],
  getrlimit: [97, 163],
  getrusage: [98, 165],
  times: [100, 153],
  exit: [60, 93],
  exit_group: [231, 94],
  wait4: [61, 260],
  execve: [59, 221],
  arch_prctl: [158, null],
};

const CONDITIONAL: readonly Rule[] = [
  {
    name: "clone",
    numbers: [56, 220],
    when: [[{ argument: 0, mask: CLONE_THREAD | CLONE_NEW_ANYTHING, equals: CLONE_THREAD }]],
  },
  {
    name: "socketpair",
    numbers: [53, 199],
    when: [
      [
        { argument: 0, equals: AF_UNIX },
        { argument: 1, mask: SOCK_TYPE_MASK, equals: SOCK_STREAM },
      ],
    ],
  },
  // FIONBIO, FIOCLEX, and TCGETS, with which `isatty` asks.
  { name: "ioctl", numbers: [16, 29], when: anyOf(1, [0x5421, 0x5451, 0x5401]), otherwise: ENOTTY },
  // F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_DUPFD_CLOEXEC: not F_SETOWN and F_SETSIG, which send signals. SQLite,
  // which Deno's caches are in, locks what it reads (F_SETLK). No process writes there, and locks fill the kernel's memory.
  { name: "fcntl", numbers: [72, 25], when: anyOf(1, [0, 1, 2, 3, 4, 5, 1030]), pretended: anyOf(1, [6]) },
  { name: "prlimit64", numbers: [302, 261], when: anyOf(0, [0]) },
];

/** PR_SET_NAME, PR_GET_NAME, PR_GET_DUMPABLE, PR_GET_NO_NEW_PRIVS, PR_SET_VMA. */
const PRCTL_ALWAYS = [15, 16, 3, 39, 0x5356_4d41];
/** PR_SET_KEEPCAPS, PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_GET_SECUREBITS, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT. */
const PRCTL_DROP_PRIVILEGES = [8, 23, 24, 27, 38, 47];
const DROP_PRIVILEGES: Readonly<Record<string, Numbers>> = {
  getresuid: [118, 148],
  getresgid: [120, 150],
  setresuid: [117, 147],
  setresgid: [119, 149],
  setgroups: [116, 159],
  capget: [125, 90],
  capset: [126, 91],
};

const AUDIT_ARCH: Readonly<Record<SeccompArchitecture, number>> = { x64: 0xc000_003e, arm64: 0xc000_00b7 };

// struct seccomp_data { int nr; u32 arch; u64 instruction_pointer; u64 args[6]; }, little endian
const OFFSET_NUMBER = 0;
const OFFSET_ARCHITECTURE = 4;
const offsetOfArgument = (index: number) => 16 + 8 * index;

const RETURN_ALLOW = 0x7fff_0000;
/** Not made; fails with the number in the low bits, or succeeds where that is 0. */
const RETURN_ERRNO = 0x0005_0000;
const RETURN_KILL_PROCESS = 0x8000_0000;

/** struct sock_filter */
interface Instruction {
  readonly code: number;
  readonly ifTrue: number;
  readonly ifFalse: number;
  readonly operand: number;
}
const instruction = (code: number, operand: number, ifTrue = 0, ifFalse = 0) => ({ code, ifTrue, ifFalse, operand });
const load = (offset: number) => instruction(0x20, offset);
const and = (mask: number) => instruction(0x54, mask);
const give = (value: number) => instruction(0x06, value);
/** Goes on with the next instruction if the accumulator equals `value`, else skips `count` instructions. */
const unlessEqualSkip = (value: number, count: number) => instruction(0x15, value, 0, count);
const ifEqualSkip = (value: number, count: number) => instruction(0x15, value, count, 0);
const unlessAtLeastSkip = (value: number, count: number) => instruction(0x35, value, 0, count);

/** @returns whether {@link seccompFilter} knows the architecture. */
export function hasSeccompFilter(architecture: string): architecture is SeccompArchitecture {
  return architecture in AUDIT_ARCH;
}

/** @returns an array of `struct sock_filter`, as `bwrap --seccomp` reads it. */
export function seccompFilter(architecture: SeccompArchitecture, options: SeccompOptions): Buffer {
  const column = architecture === "x64" ? 0 : 1;
  const program: Instruction[] = [
    load(OFFSET_ARCHITECTURE),
    ifEqualSkip(AUDIT_ARCH[architecture], 1),
    give(RETURN_KILL_PROCESS),
    load(OFFSET_NUMBER),
  ];
  if (architecture === "x64") {
    // Numbers with this bit are the x32 ABI's.
    program.push(unlessAtLeastSkip(0x4000_0000, 1), give(RETURN_KILL_PROCESS));
  }
  for (const rule of rules(options)) {
    const number = rule.numbers[column];
    if (number === null || number === undefined) continue;
    const body = bodyOf(rule);
    program.push(unlessEqualSkip(number, body.length), ...body);
  }
  program.push(give(RETURN_ERRNO | ENOSYS));
  return assemble(program);
}

function rules(options: SeccompOptions): Rule[] {
  const always = options.mayDropPrivileges ? { ...ALWAYS, ...DROP_PRIVILEGES } : ALWAYS;
  const prctl: Rule = {
    name: "prctl",
    numbers: [157, 167],
    when: [
      ...anyOf(0, options.mayDropPrivileges ? [...PRCTL_ALWAYS, ...PRCTL_DROP_PRIVILEGES] : PRCTL_ALWAYS),
      // Set, never cleared: a process that no longer dies with its parent would be an orphan.
      [
        { argument: 0, equals: PR_SET_PDEATHSIG },
        { argument: 1, equals: SIGKILL },
      ],
    ],
  };
  return [...Object.entries(always).map(([name, numbers]) => ({ name, numbers })), ...CONDITIONAL, prctl];
}

/** Ends with a verdict in every branch, so that the program need not load the number again. */
function bodyOf(rule: Rule): Instruction[] {
  if (rule.when === undefined) return [give(RETURN_ALLOW)];
  const allowed = rule.when.flatMap((conjunction) => giveIf(conjunction, RETURN_ALLOW));
  const pretended = (rule.pretended ?? []).flatMap((conjunction) => giveIf(conjunction, RETURN_ERRNO));
  return [...allowed, ...pretended, give(RETURN_ERRNO | (rule.otherwise ?? EPERM))];
}

function giveIf(conjunction: Conjunction, verdict: number): Instruction[] {
  const code: Instruction[] = [give(verdict)];
  for (const test of conjunction.toReversed()) {
    const masked = test.mask === undefined ? [] : [and(test.mask)];
    code.unshift(load(offsetOfArgument(test.argument)), ...masked, unlessEqualSkip(test.equals, code.length));
  }
  return code;
}

function assemble(program: readonly Instruction[]): Buffer {
  const bytes = Buffer.alloc(program.length * 8);
  for (const [index, { code, ifTrue, ifFalse, operand }] of program.entries()) {
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(ifTrue, index * 8 + 2);
    bytes.writeUInt8(ifFalse, index * 8 + 3);
    bytes.writeUInt32LE(operand >>> 0, index * 8 + 4);
  }
  return bytes;
}
