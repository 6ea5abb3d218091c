/**
 * The time of day as durations and deadlines need it: that of this machine's clock, but going on by the monotonic one, so that
 * nothing ends, breaks or is counted twice when an operator sets the clock, or a time server corrects it by hours.
 *
 * `performance.now()` alone serves what is compared within the process; this is for what is stored, and for what is shown.
 */
export class SteadyClock {
  /** What to add to the monotonic clock, ms. */
  #originMs = Date.now() - performance.now();

  /** ms since 1970, whole ones as of `Date.now`. */
  nowMs(): number {
    return Math.floor(performance.now() + this.#originMs);
  }

  /** How far this machine's clock has been set since, ms; what is shown is moved by it, so that it agrees with other clocks. */
  stepMs(): number {
    return Date.now() - this.nowMs();
  }

  /** Goes over to this machine's time: for when all that was stored by the old one has been moved. */
  follow(stepMs: number): void {
    this.#originMs += stepMs;
  }
}

/** The one of this process. */
export const steadyClock = new SteadyClock();

export const steadyNowMs = (): number => steadyClock.nowMs();
