import { setImmediate } from "node:timers/promises";

/** One is about what it takes to compare a version with one clause: a microsecond or two. */
const UNITS_OF_A_TURN = 2_000;
/** Characters of a specifier or a marker that count as one clause. */
const CHARACTERS_OF_A_UNIT = 8;

/**
 * Counts what a search does, so that however much that is, no turn of the event loop is long and the whole comes to an end.
 * Everything that repeats by what packages state is spent here, one item at a time.
 */
export class SearchEffort {
  readonly #maxUnits: number;
  readonly #tooMuch: () => Error;
  readonly #signal: AbortSignal | undefined;
  #units = 0;
  #thisTurn = 0;

  /** @param tooMuch what is thrown above `maxUnits`. */
  constructor(maxUnits: number, tooMuch: () => Error, signal?: AbortSignal) {
    this.#maxUnits = maxUnits;
    this.#tooMuch = tooMuch;
    this.#signal = signal;
  }

  /** Spent so far. */
  get units(): number {
    return this.#units;
  }

  /** @throws what the effort was given for too much of it; the signal's reason. */
  async spend(units: number): Promise<void> {
    this.#units += units;
    this.#thisTurn += units;
    if (this.#units > this.#maxUnits) throw this.#tooMuch();
    if (this.#thisTurn >= UNITS_OF_A_TURN) await this.turn();
  }

  /** Leaves the event loop to others, and begins anew with what one turn may do. */
  async turn(): Promise<void> {
    await setImmediate();
    this.#thisTurn = 0;
    this.#signal?.throwIfAborted();
  }
}

/** What it takes to look at a text of clauses. */
export function unitsOf(text: string): number {
  return 1 + Math.ceil(text.length / CHARACTERS_OF_A_UNIT);
}
