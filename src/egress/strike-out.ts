import { longestSpelling, spellingsOf, viewsOf } from "./spellings.ts";

const MASK = "*";
/** Bytes that may be the beginning of a secret wait so long for the rest; then they go on, whatever they are. */
const QUIET_MS = 50;

type Range = readonly [from: number, to: number];

/** Strikes values out of what comes back from hosts: as they are, and as encoders of URLs, JSON, HTML and base64 write them. */
export class StrikeOut {
  readonly #spellings = new Set<string>();
  #heldBytes = 0;

  add(value: string): void {
    for (const spelling of spellingsOf(value)) {
      this.#spellings.add(spelling);
      this.#heldBytes = Math.max(this.#heldBytes, longestSpelling(spelling) - 1);
    }
  }

  text(text: string): string {
    let struck = "";
    let end = 0;
    for (const [from, to] of this.#find(text)) {
      // Of two values of which one is in the other, or which overlap, nothing is left.
      if (from >= end) struck += `${text.slice(end, from)}***`;
      end = Math.max(end, to);
    }
    return struck + text.slice(end);
  }

  headers(headers: readonly (readonly [string, string])[]): (readonly [string, string])[] {
    return headers.map(([name, value]) => [this.text(name), this.text(value)]);
  }

  /**
   * A stream of as many bytes, for its length was announced. A value that is added meanwhile is struck out of what comes from then on. What
   * is cut into pieces that come more than 50 ms apart, or is compressed, is not found: that is for the host to refrain from.
   *
   * How many bytes are held back, and for how long, does not depend on what they are: code that has a host echo guesses
   * would learn from it how much of one is right.
   */
  async *stream(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    const iterator = source[Symbol.asyncIterator]();
    let held: Buffer = Buffer.alloc(0);
    /** So many bytes of what is held belong to a value that has begun before them. */
    let begun = 0;
    const rest = () => masked(held, [[0, begun], ...this.#findIn(held)]);
    let next = iterator.next();
    try {
      for (;;) {
        const result = held.length === 0 ? await next : await nextOrQuiet(next);
        if (result === null) {
          yield rest();
          held = Buffer.alloc(0);
          begun = 0;
          continue;
        }
        if (result.done) break;
        next = iterator.next();
        // Its failure is met when its turn comes.
        next.catch(() => {});
        const all = Buffer.concat([held, result.value]);
        const found: Range[] = [[0, begun], ...this.#findIn(all)];
        const end = Math.max(0, all.length - this.#heldBytes);
        // Held as it came: with what comes next it may be a longer value.
        held = all.subarray(end);
        for (const [from, to] of found) if (from < end) begun = Math.max(begun, to);
        begun = Math.max(0, begun - end);
        if (end > 0) yield masked(all.subarray(0, end), found);
      }
    } catch (error) {
      if (held.length > 0) yield rest();
      throw error;
    }
    if (held.length > 0) yield rest();
  }

  #findIn(bytes: Buffer): Range[] {
    return this.#find(bytes.toString("latin1"));
  }

  /** @returns from where to where, in order. */
  #find(text: string): Range[] {
    const found: Range[] = [];
    if (this.#spellings.size === 0) return found;
    for (const { text: view, starts } of viewsOf(text)) {
      const start = (at: number) => starts?.[at] ?? at;
      for (const spelling of this.#spellings) {
        for (let at = view.indexOf(spelling); at >= 0; at = view.indexOf(spelling, at + spelling.length)) {
          found.push([start(at), start(at + spelling.length)]);
        }
      }
    }
    return found.sort(([a], [b]) => a - b);
  }
}

/** @param bytes are the caller's own, and changed. */
function masked(bytes: Buffer, found: readonly Range[]): Buffer {
  for (const [from, to] of found) if (from < bytes.length) bytes.fill(MASK, from, Math.min(to, bytes.length));
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
