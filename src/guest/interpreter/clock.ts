import { RESOLUTION_MS } from "./clock-resolution.ts";

const TICKS_PER_MS = 1 / RESOLUTION_MS;

/**
 * The monotonic clock that Python sees.
 *
 * A process's own begins at its start. A session that wakes in another process must not find itself before the time at which
 * it went to sleep: its timers would wait for hours. So the clock counts from 1970, and a session takes its reading along.
 *
 * It goes in ticks of {@link RESOLUTION_MS}: finer clocks are for watching, by the cache and the cores that are shared, what
 * a neighbour does. A tick does not come at the moment at which it is due but at a random one before the next is, or counting the
 * loops until it comes would give back what was taken. Browsers do both (Chromium's `time_clamper.cc`).
 */
export class Clock {
  readonly #fineMs: () => number;
  /** Drawn many at a time: a draw takes longer than all else here. */
  readonly #random = new Uint32Array(256);
  #randomUsed = 256;
  /** The last tick that was due, and the part of the time until the next after which it comes. */
  #due = 0;
  #delay = 0;
  #aheadTicks = 0;

  /** @param fineMs the process's own clock, ms since 1970; never goes back. */
  constructor(fineMs: () => number = processClock()) {
    this.#fineMs = fineMs;
  }

  /** Before the interpreter is loaded: it takes its time from `performance`. */
  install(): void {
    performance.now = () => this.nowMs();
  }

  nowMs(): number {
    return this.#ticks() / TICKS_PER_MS;
  }

  /** Makes the clock show at least `readingMs`. */
  advanceTo(readingMs: number): void {
    this.#aheadTicks += Math.max(0, Math.ceil(readingMs * TICKS_PER_MS) - this.#ticks());
  }

  reset(): void {
    this.#aheadTicks = 0;
  }

  /** Whole ones, so that what is added and taken away is exact, and a reading that was taken along is reached. */
  #ticks(): number {
    const fine = this.#fineMs() * TICKS_PER_MS;
    const due = Math.floor(fine);
    if (due !== this.#due) {
      this.#due = due;
      // Not `Math.random`: user code can draw from it, and foresee what it gives.
      if (this.#randomUsed === this.#random.length) {
        crypto.getRandomValues(this.#random);
        this.#randomUsed = 0;
      }
      this.#delay = (this.#random[this.#randomUsed++] as number) / 2 ** 32;
    }
    const shown = fine - due < this.#delay ? due - 1 : due;
    return shown + this.#aheadTicks;
  }
}

function processClock(): () => number {
  const sinceStart = performance.now.bind(performance);
  const origin = performance.timeOrigin;
  return () => origin + sinceStart();
}
