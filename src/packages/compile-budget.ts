/** Less is not worth the start of a piece of work, ms. */
const LEAST_MS = 100;

/**
 * How long the sources of one wheel may be compiled in all: what takes long (a source of 500 bytes can take seconds) goes without
 * bytecode, and costs no more than this.
 *
 * A piece of work may take half of what is left, at the most: one that takes too long leaves something for the others.
 */
export class CompileBudget {
  #leftMs: number;
  readonly #longestMs: number;

  /** @param ms infinite: each piece may take `longestMs`. */
  constructor(ms: number, longestMs: number = Number.POSITIVE_INFINITY) {
    this.#leftMs = ms;
    this.#longestMs = longestMs;
  }

  /** @returns what a piece of work may take now, ms, until `giveBack` says what it took; null: nothing is left. */
  take(): number | null {
    const ms = Math.min(this.#leftMs / 2, this.#longestMs);
    if (ms < LEAST_MS) return null;
    this.#leftMs -= ms;
    return ms;
  }

  /** @param takenMs as `take` has said. @param usedMs what the work took of it. */
  giveBack(takenMs: number, usedMs: number): void {
    this.#leftMs += Math.max(0, takenMs - usedMs);
  }
}
