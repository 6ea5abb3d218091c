import { ClientError } from "../shared/errors.ts";

/**
 * Runs actions one after another, in the order in which they were asked for. What is given up while it waits leaves the line at once, with
 * all that it holds: a client that has gone keeps no room, and no memory.
 */
export class TurnQueue {
  readonly #limit: number;
  /** Begin the turns of those that wait, the first first; by each, what refuses it, which is null of one that others give way to. */
  readonly #waiting = new Map<() => void, ((reason: unknown) => void) | null>();
  #isTaken = false;

  /** @param limit most that may wait or run. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Actions that wait or run. */
  get length(): number {
    return this.#waiting.size + Number(this.#isTaken);
  }

  /**
   * @param signal aborting it gives the turn up, unless the action has begun. Undefined: a turn of the server's own, which holds nothing.
   * @throws {ClientError} 429 `session_queue_full`, at once; the signal's reason; what `action` throws.
   */
  run<T>(action: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    if (this.length >= this.#limit) {
      throw new ClientError("session_queue_full");
    }
    return this.#isTaken ? this.#wait(action, signal) : this.#take(action, signal);
  }

  /** As {@link run}, ahead of all that waits, which is refused. What is asked for from now on takes its turn behind it. */
  runInstead<T>(action: () => Promise<T>, signal: AbortSignal | undefined, refusal: Error): Promise<T> {
    this.refuseWaiting(refusal);
    if (this.length >= this.#limit) throw new ClientError("session_queue_full");
    return this.#isTaken ? this.#wait(action, signal, true) : this.#take(action, signal);
  }

  /** Refuses what waits for its turn, but for what others give way to. */
  refuseWaiting(refusal: Error): void {
    for (const refuse of [...this.#waiting.values()]) refuse?.(refusal);
  }

  #wait<T>(action: () => Promise<T>, signal: AbortSignal | undefined, isFirst = false): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const giveUp = () => refuse(signal?.reason);
    const refuse = (reason: unknown) => {
      signal?.removeEventListener("abort", giveUp);
      this.#waiting.delete(begin);
      reject(reason);
    };
    const begin = () => {
      signal?.removeEventListener("abort", giveUp);
      resolve(this.#take(action, signal));
    };
    if (signal?.aborted) reject(signal.reason);
    else {
      this.#waiting.set(begin, isFirst ? null : refuse);
      signal?.addEventListener("abort", giveUp, { once: true });
    }
    return promise;
  }

  async #take<T>(action: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    this.#isTaken = true;
    try {
      // The caller has its promise before anything of the action happens.
      await null;
      signal?.throwIfAborted();
      return await action();
    } finally {
      this.#isTaken = false;
      const [next] = this.#waiting.keys();
      if (next) {
        this.#waiting.delete(next);
        next();
      }
    }
  }
}
