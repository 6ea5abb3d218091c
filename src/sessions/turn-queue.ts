import { ClientError } from "../shared/errors.ts";

/**
 * Runs actions one after another, in the order in which they were asked for. What is given up while it waits leaves the line at once, with
 * all that it holds: a client that has gone keeps no room, and no memory.
 */
export class TurnQueue {
  readonly #limit: number;
  /** Begin the turns of those that wait, the first first. */
  readonly #waiting = new Set<() => void>();
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

  #wait<T>(action: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const giveUp = () => {
      this.#waiting.delete(begin);
      reject(signal?.reason);
    };
    const begin = () => {
      signal?.removeEventListener("abort", giveUp);
      resolve(this.#take(action, signal));
    };
    if (signal?.aborted) reject(signal.reason);
    else {
      this.#waiting.add(begin);
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
      const [next] = this.#waiting;
      if (next) {
        this.#waiting.delete(next);
        next();
      }
    }
  }
}
