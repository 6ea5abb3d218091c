/** Reads a stream ahead of its consumer, up to a limit, and hands over in one piece what has come. */
export class ReadAhead {
  readonly #bufferBytes: number;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #ended = false;
  #error: unknown = null;
  #wakeReader = () => {};
  #wakeSource = () => {};

  /** @param bufferBytes the source waits while so much, or more, has not been asked for. */
  constructor(source: AsyncIterable<Buffer>, bufferBytes: number) {
    this.#bufferBytes = bufferBytes;
    void this.#run(source);
  }

  /**
   * One reader at a time.
   *
   * @returns what has come since the last call, or comes next; null: that was all.
   * @throws what the source threw, once all that came before has been handed over.
   */
  async next(): Promise<Buffer | null> {
    while (this.#bytes === 0 && !this.#ended) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wakeReader = resolve;
      await promise;
    }
    if (this.#bytes > 0) {
      const all = Buffer.concat(this.#chunks);
      this.#chunks = [];
      this.#bytes = 0;
      this.#wakeSource();
      return all;
    }
    if (this.#error !== null) throw this.#error;
    return null;
  }

  /** Never rejects. */
  async #run(source: AsyncIterable<Buffer>): Promise<void> {
    try {
      for await (const chunk of source) {
        this.#chunks.push(chunk);
        this.#bytes += chunk.length;
        this.#wakeReader();
        while (this.#bytes >= this.#bufferBytes) {
          const { promise, resolve } = Promise.withResolvers<void>();
          this.#wakeSource = resolve;
          await promise;
        }
      }
    } catch (error) {
      this.#error = error;
    }
    this.#ended = true;
    this.#wakeReader();
  }
}
