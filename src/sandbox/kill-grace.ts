import type { CpuClock } from "../isolation/process-facts.ts";
import { KILL_GRACE_MS, MAX_KILL_GRACE_MS } from "./limits.ts";

/** Shortest pause between two looks, ms: the system counts CPU time in steps of this. */
const STEP_MS = 10;

/**
 * How long an execution that was interrupted has until its process is killed. Time in which the process waited for a processor does not
 * count, since it could not react; time in which it ran always does. So code that ignores the interrupt runs no longer for keeping the
 * machine busy, with others of its own or not.
 */
export class KillGrace {
  readonly #clock: Pick<CpuClock, "readMs" | "queuedMs"> | null;
  readonly #now: () => number;
  readonly #startedAtMs: number;
  readonly #cpuBeforeMs: number | null;
  readonly #queuedBeforeMs: number | null;

  /** To be made when the interrupt is sent. @param clock null: what the process did is not known, and all time counts. */
  constructor(clock: Pick<CpuClock, "readMs" | "queuedMs"> | null, now = () => performance.now()) {
    this.#clock = clock;
    this.#now = now;
    this.#startedAtMs = now();
    this.#cpuBeforeMs = clock?.readMs() ?? null;
    this.#queuedBeforeMs = clock?.queuedMs() ?? null;
  }

  /** Since the interrupt, ms. */
  get elapsedMs(): number {
    return this.#now() - this.#startedAtMs;
  }

  /** The least time until it can be over, ms, when it is to be looked at again; 0: it is over. */
  get leftMs(): number {
    const { elapsedMs } = this;
    const queuedMs = since(this.#queuedBeforeMs, this.#clock?.queuedMs());
    const usedMs = since(this.#cpuBeforeMs, this.#clock?.readMs());
    const countedMs = Math.max(elapsedMs - queuedMs, usedMs);
    const leftMs = Math.min(KILL_GRACE_MS - countedMs, MAX_KILL_GRACE_MS - elapsedMs);
    // Timers may come a fraction too early.
    return leftMs < 1 ? 0 : Math.max(STEP_MS, leftMs);
  }
}

/** Of a process that is gone nothing more is known. */
function since(beforeMs: number | null, nowMs: number | null | undefined): number {
  return beforeMs === null || nowMs == null ? 0 : nowMs - beforeMs;
}
