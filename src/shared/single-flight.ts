/** Makes a thing once for all who ask for it while it is being made. */
export class SingleFlight<T> {
  readonly #flights = new Map<string, Promise<T>>();
  readonly #keeps: boolean;

  /** @param options.keeps what was made answers later calls as well, until it is forgotten; a failure never does. */
  constructor({ keeps = false }: { readonly keeps?: boolean } = {}) {
    this.#keeps = keeps;
  }

  /** @returns what `make` returned, or returns for the call that came first. */
  run(key: string, make: () => Promise<T>): Promise<T> {
    const known = this.#flights.get(key);
    if (known) return known;
    const flight = make();
    this.#flights.set(key, flight);
    const forget = () => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    };
    flight.then(this.#keeps ? () => {} : forget, forget);
    return flight;
  }

  forget(key: string): void {
    this.#flights.delete(key);
  }

  /** What is being made, or was made and is kept. */
  entries(): [key: string, made: Promise<T>][] {
    return [...this.#flights];
  }
}
