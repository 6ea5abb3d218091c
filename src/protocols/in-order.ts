/** Passes on what comes, in the order in which it comes, where some of it takes several turns of the event loop. */
export class InOrder {
  /** null: nothing is under way. */
  #last: Promise<void> | null = null;

  /** Runs an action when those before it are done; at once where none is under way. After one that has failed none runs. */
  pass(action: () => Promise<void> | undefined): void {
    const doing = this.#last === null ? action() : this.#last.then(action);
    if (doing === undefined) return;
    this.#last = doing;
    doing.then(
      () => {
        if (this.#last === doing) this.#last = null;
      },
      // It is what end() throws.
      () => {},
    );
  }

  /** Waits until all is passed on. @throws what an action has thrown. */
  async end(): Promise<void> {
    await this.#last;
  }
}
