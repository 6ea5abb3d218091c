interface Flight<T> {
  readonly made: Promise<T>;
  readonly stop: AbortController;
  /** Those who wait for it; infinite once one of them waits to the end. */
  waiting: number;
}

/** Makes a thing once for all who ask for it while it is being made. */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>();
  readonly #keeps: boolean;

  /** @param options.keeps what was made answers later calls as well, until it is forgotten; a failure never does. */
  constructor({ keeps = false }: { readonly keeps?: boolean } = {}) {
    this.#keeps = keeps;
  }

  /**
   * @param make gets a signal that is aborted when none is left who waits for it.
   * @param signal of the one who asks: aborting it ends the wait, and not what others wait for.
   * @returns what `make` returned, or returns for the call that came first.
   * @throws the signal's reason.
   */
  async run(key: string, make: (signal: AbortSignal) => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    const flight = this.#flights.get(key) ?? this.#begin(key, make);
    if (signal === undefined) {
      flight.waiting = Number.POSITIVE_INFINITY;
      return await flight.made;
    }
    flight.waiting++;
    const gone = Promise.withResolvers<never>();
    const leave = () => {
      gone.reject(signal.reason);
      if (--flight.waiting > 0) return;
      // One who asks now begins anew, instead of getting what is stopped.
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
      flight.stop.abort(signal.reason);
    };
    signal.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([flight.made, gone.promise]);
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  #begin(key: string, make: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const stop = new AbortController();
    const flight: Flight<T> = { made: make(stop.signal), stop, waiting: 0 };
    this.#flights.set(key, flight);
    const forget = () => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    };
    flight.made.then(this.#keeps ? () => {} : forget, forget);
    return flight;
  }

  forget(key: string): void {
    this.#flights.delete(key);
  }

  /** What is being made, or was made and is kept. */
  entries(): [key: string, made: Promise<T>][] {
    return Array.from(this.#flights, ([key, { made }]) => [key, made]);
  }
}
