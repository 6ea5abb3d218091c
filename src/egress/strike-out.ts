const MASK = "*";
/** Bytes that may be the beginning of a secret wait so long for the rest; then they go on, whatever they are. */
const QUIET_MS = 50;

/** Strikes values out of what comes back from hosts: as they are, and as URLs, JSON and base64 write them. */
export class StrikeOut {
  readonly #forms = new Set<string>();

  add(value: string): void {
    const bytes = Buffer.from(value, "latin1");
    const forms = [
      value,
      encodeURIComponent(value),
      JSON.stringify(value).slice(1, -1),
      bytes.toString("base64"),
      bytes.toString("base64url"),
    ];
    for (const form of forms) this.#forms.add(form);
  }

  get isEmpty(): boolean {
    return this.#forms.size === 0;
  }

  text(text: string): string {
    let struck = text;
    for (const form of this.#longestFirst()) struck = struck.replaceAll(form, "***");
    return struck;
  }

  headers(headers: readonly (readonly [string, string])[]): (readonly [string, string])[] {
    return headers.map(([name, value]) => [this.text(name), this.text(value)]);
  }

  /**
   * A stream of as many bytes, for its length was announced. What is cut into pieces that come more than 50 ms apart, or is
   * compressed, is not found: that is for the host to refrain from.
   *
   * How many bytes are held back, and for how long, does not depend on what they are: code that has a host echo guesses
   * would learn from it how much of one is right.
   */
  async *stream(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    const forms = this.#longestFirst().map((form) => Buffer.from(form, "latin1"));
    const heldBytes = Math.max(0, ...forms.map((form) => form.length - 1));
    const iterator = source[Symbol.asyncIterator]();
    let held: Buffer = Buffer.alloc(0);
    let next = iterator.next();
    try {
      for (;;) {
        const result = held.length === 0 ? await next : await nextOrQuiet(next);
        if (result === null) {
          yield held;
          held = Buffer.alloc(0);
          continue;
        }
        if (result.done) break;
        next = iterator.next();
        // Its failure is met when its turn comes.
        next.catch(() => {});
        const all = strike(Buffer.concat([held, result.value]), forms);
        const end = Math.max(0, all.length - heldBytes);
        held = all.subarray(end);
        if (end > 0) yield all.subarray(0, end);
      }
    } catch (error) {
      if (held.length > 0) yield held;
      throw error;
    }
    if (held.length > 0) yield held;
  }

  #longestFirst(): string[] {
    return [...this.#forms].sort((a, b) => b.length - a.length);
  }
}

/** @param bytes are the caller's own, and changed. */
function strike(bytes: Buffer, forms: readonly Buffer[]): Buffer {
  for (const form of forms) {
    for (let at = bytes.indexOf(form); at >= 0; at = bytes.indexOf(form, at + form.length)) {
      bytes.fill(MASK, at, at + form.length);
    }
  }
  return bytes;
}

async function nextOrQuiet<T>(next: Promise<T>): Promise<T | null> {
  const { promise: quiet, resolve } = Promise.withResolvers<null>();
  const timer = setTimeout(() => resolve(null), QUIET_MS);
  try {
    return await Promise.race([next, quiet]);
  } finally {
    clearTimeout(timer);
  }
}
