import { ClientError } from "../shared/errors.ts";

/** The queue as admission sees it. */
interface Waiting {
  readonly length: number;
  readonly isFull: boolean;
  lengthOf(principal: string): number;
  aheadOf(principal: string): number;
}

export interface AdmissionOptions {
  readonly queue: Waiting;
  /** Whether a sandbox is idle: a request might have it at once. */
  readonly hasIdle: () => boolean;
  readonly maxQueuedPerPrincipal: number;
  /** ms; default `performance.now`. */
  readonly now?: () => number;
}

/** Of the pace at which requests leave the queue, the part that the latest one makes up. */
const NEWEST_SHARE = 0.1;
/** Longest pause that a refusal asks for, s. */
const MAX_RETRY_AFTER_S = 30;

/**
 * Whether one more execution may wait, told from counters alone: before its request is parsed, and again when it is about to wait. And how
 * long it would wait, by the pace at which requests have left the queue lately.
 */
export class Admission {
  readonly #options: AdmissionOptions;
  readonly #now: () => number;
  /** ms between two requests that leave the queue, where it did not become empty in between; null: not known. */
  #paceMs: number | null = null;
  #lastLeftMs: number | null = null;

  constructor(options: AdmissionOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  /**
   * Why a further execution would be refused now, of any principal.
   *
   * @param patienceMs how long its client waits; default: as long as it takes.
   * @returns null: it would not.
   */
  refusal(patienceMs = Number.POSITIVE_INFINITY): ClientError | null {
    const { queue, hasIdle } = this.#options;
    const isFull = queue.isFull && (queue.length > 0 || !hasIdle());
    // As for a principal of whom nothing waits: no one gets a turn earlier.
    const waitMs = this.expectedWaitMs("");
    return isFull || waitMs > patienceMs ? refuse("queue_full", waitMs) : null;
  }

  /** As {@link refusal}, for one principal. */
  refusalOf(principal: string, patienceMs = Number.POSITIVE_INFINITY): ClientError | null {
    const { queue, maxQueuedPerPrincipal } = this.#options;
    const own = queue.lengthOf(principal);
    const waitMs = this.expectedWaitMs(principal);
    if (own > 0 && own >= maxQueuedPerPrincipal) return refuse("principal_queue_full", waitMs);
    return waitMs > patienceMs ? refuse("queue_full", waitMs) : null;
  }

  /** @throws {ClientError} 429 `queue_full` or `principal_queue_full`, if no more may wait. */
  check(principal: string): void {
    const { queue, maxQueuedPerPrincipal } = this.#options;
    if (queue.isFull) throw refuse("queue_full", this.expectedWaitMs(principal));
    if (queue.lengthOf(principal) >= maxQueuedPerPrincipal)
      throw refuse("principal_queue_full", this.expectedWaitMs(principal));
  }

  /** How long an execution of this principal would wait for a sandbox if it came now, ms; 0: that is not known. */
  expectedWaitMs(principal: string): number {
    const { queue } = this.#options;
    if (queue.length === 0 || this.#paceMs === null || this.#lastLeftMs === null) return 0;
    // Nothing has left for a while: it has become slower than it was.
    const paceMs = Math.max(this.#paceMs, this.#now() - this.#lastLeftMs);
    return queue.aheadOf(principal) * this.#paceMs + paceMs;
  }

  /** To be told when a request has left the queue for a sandbox. */
  left(): void {
    if (this.#options.queue.length === 0) {
      // The time until the next one comes would be no pace, and by then it may be another.
      this.#paceMs = null;
      this.#lastLeftMs = null;
      return;
    }
    const nowMs = this.#now();
    if (this.#lastLeftMs !== null) {
      const sinceMs = nowMs - this.#lastLeftMs;
      this.#paceMs = this.#paceMs === null ? sinceMs : this.#paceMs + NEWEST_SHARE * (sinceMs - this.#paceMs);
    }
    this.#lastLeftMs = nowMs;
  }
}

function refuse(code: "queue_full" | "principal_queue_full", waitMs: number): ClientError {
  const retryAfterS = Math.min(MAX_RETRY_AFTER_S, Math.max(1, Math.ceil(waitMs / 1000)));
  return new ClientError(code, { retryAfterS });
}
