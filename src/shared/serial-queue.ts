/** Runs tasks one after another, in the order in which they were asked for. */
export class SerialQueue {
  #last: Promise<unknown> = Promise.resolve();

  /** @returns what `task` returns; a task that fails does not keep the next from running. */
  run<T>(task: () => T | Promise<T>): Promise<T> {
    const mine = this.#last.then(task);
    const done = () => {};
    // Of what it returns nothing is kept: that may be large.
    this.#last = mine.then(done, done);
    return mine;
  }

  /** Resolves when all tasks so far are done. Never rejects. */
  async idle(): Promise<void> {
    await this.#last;
  }
}

/** Runs tasks of one key one after another, in order; tasks of different keys side by side. */
export class KeyedQueue {
  readonly #queues = new Map<string, { readonly queue: SerialQueue; length: number }>();

  /** @returns what `task` returns; a task that fails does not keep the next from running. */
  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const own = this.#queues.get(key) ?? { queue: new SerialQueue(), length: 0 };
    this.#queues.set(key, own);
    own.length++;
    try {
      return await own.queue.run(task);
    } finally {
      if (--own.length === 0) this.#queues.delete(key);
    }
  }
}
