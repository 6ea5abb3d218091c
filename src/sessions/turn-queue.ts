import { ClientError } from "../shared/errors.ts";
import { SerialQueue } from "../shared/serial-queue.ts";

/** Runs actions one after another, in the order in which they were asked for. */
export class TurnQueue {
  readonly #limit: number;
  readonly #queue = new SerialQueue();
  #length = 0;

  /** @param limit most that may wait or run. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Actions that wait or run. */
  get length(): number {
    return this.#length;
  }

  /**
   * @param signal aborting it gives the turn up, unless the action has begun.
   * @throws {ClientError} 429 `session_queue_full`; the signal's reason; what `action` throws.
   */
  run<T>(action: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    if (this.#length >= this.#limit) {
      throw new ClientError("session_queue_full");
    }
    this.#length++;
    let begun = false;
    const turn = this.#queue.run(async () => {
      signal?.throwIfAborted();
      begun = true;
      return await action();
    });
    const end = () => {
      this.#length--;
    };
    turn.then(end, end);
    if (!signal) return turn;
    return new Promise((resolve, reject) => {
      const giveUp = () => {
        if (!begun) reject(signal.reason);
      };
      signal.addEventListener("abort", giveUp, { once: true });
      turn.then(resolve, reject).finally(() => signal.removeEventListener("abort", giveUp));
    });
  }
}
