/**
 * The monotonic clock that Python sees.
 *
 * A process's own begins at its start. A session that wakes in another process must not find itself before the time at which
 * it went to sleep: its timers would wait for hours. So the clock counts from 1970, and a session takes its reading along.
 */
export class Clock {
  readonly #sinceStart = performance.now.bind(performance);
  readonly #origin = performance.timeOrigin;
  #aheadMs = 0;

  /** Before the interpreter is loaded: it takes its time from `performance`. */
  install(): void {
    performance.now = () => this.nowMs();
  }

  nowMs(): number {
    return this.#origin + this.#sinceStart() + this.#aheadMs;
  }

  /** Makes the clock show at least `readingMs`. */
  advanceTo(readingMs: number): void {
    this.#aheadMs += Math.max(0, readingMs - this.nowMs());
  }

  reset(): void {
    this.#aheadMs = 0;
  }
}
