import { readdirSync, readFileSync } from "node:fs";
import { descendantsOf } from "../test/support/processes.ts";

/** Processor time, ms. */
export interface CpuUse {
  /** The server's main thread, which is the event loop. */
  readonly loop: number;
  /** The server's other threads: garbage collection, compilation, file system. */
  readonly helpers: number;
  /** Main threads of the processes below it: the interpreters, with rewinds. */
  readonly interpreters: number;
  /** Their other threads: watchers, garbage collection, compilation. */
  readonly watchers: number;
}

/** What a server and the processes below it have used so far, in nanoseconds of the kernel's scheduler. Linux only. */
export function cpuOf(pid: number): CpuUse {
  const own = threadsOf(pid);
  const below = descendantsOf(pid).map(threadsOf);
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
  return {
    loop: own.main,
    helpers: own.others,
    interpreters: sum(below.map(({ main }) => main)),
    watchers: sum(below.map(({ others }) => others)),
  };
}

/** What was used between two readings, for each of `requests`, ms. */
export function perRequest(before: CpuUse, after: CpuUse, requests: number): CpuUse {
  const of = (key: keyof CpuUse) => (after[key] - before[key]) / Math.max(1, requests);
  return { loop: of("loop"), helpers: of("helpers"), interpreters: of("interpreters"), watchers: of("watchers") };
}

export const totalOf = ({ loop, helpers, interpreters, watchers }: CpuUse): number =>
  loop + helpers + interpreters + watchers;

function threadsOf(pid: number): { main: number; others: number } {
  const times = { main: 0, others: 0 };
  for (const tid of names(`/proc/${pid}/task`)) {
    try {
      const ms = Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, "latin1").split(" ")[0]) / 1e6;
      if (Number(tid) === pid) times.main += ms;
      else times.others += ms;
    } catch {
      // It has ended.
    }
  }
  return times;
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
