import { FairQueue } from "./fair-queue.ts";

/** So many pieces of work at a time; those that wait take turns by principal. */
export class FairTurns {
  readonly #waiting = new FairQueue<() => void>(Number.POSITIVE_INFINITY);
  #free: number;

  /** @param places how many pieces of work may be under way. */
  constructor(places: number) {
    this.#free = places;
  }

  /** @throws the signal's reason, if it is aborted before the work begins. @throws what `work` throws. */
  async run<T>(principal: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    if (this.#free > 0) this.#free--;
    else await this.#wait(principal, signal);
    try {
      signal?.throwIfAborted();
      return await work();
    } finally {
      const next = this.#waiting.take(() => true);
      if (next) next();
      else this.#free++;
    }
  }

  async #wait(principal: string, signal: AbortSignal | undefined): Promise<void> {
    const turn = Promise.withResolvers<void>();
    const leave = () => {
      if (this.#waiting.remove(principal, turn.resolve)) turn.reject(signal?.reason);
    };
    this.#waiting.push(principal, turn.resolve);
    signal?.addEventListener("abort", leave, { once: true });
    try {
      await turn.promise;
    } finally {
      signal?.removeEventListener("abort", leave);
    }
  }
}
