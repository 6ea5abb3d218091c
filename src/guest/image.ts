import { REWIND_MODULE } from "./rewind-module.ts";

const WASM_PAGE_BYTES = 65_536;
/** What a rewind copies at least. */
const PAGE_BYTES = 4096;
/** In place of where a span's bytes lie in the image. */
const ZERO = -1;
/** Blocks that a session's state is made of. Smaller ones cost more to list, larger ones carry more that did not change. */
export const STATE_BLOCK_BYTES = 256;

/** A list names every block of a heap that is so many times larger than the list. */
const BLOCKS_PER_LIST_BYTE = STATE_BLOCK_BYTES / 4;

const pagesFor = (bytes: number) => Math.max(1, Math.ceil(bytes / WASM_PAGE_BYTES));

interface Span {
  readonly start: number;
  readonly end: number;
  /** Where the span's bytes lie in the image; `ZERO`: the span is zero. */
  readonly source: number;
}

interface RewindExports {
  restore(from: number, to: number, source: number): number;
  clear(from: number, to: number): number;
  diff(from: number, to: number, source: number, out: number): number;
}

/** Memory that differs from a checkpoint: the numbers of the blocks of 256 bytes, ascending, and their bytes. */
export interface MemoryDifference {
  readonly heapBytes: number;
  readonly blocks: Uint32Array;
  readonly data: Uint8Array;
}

/**
 * The interpreter's linear memory at one moment, and the way back to it.
 *
 * Only what is not zero is kept: about half of a heap is untouched stack and room to grow. A rewind nevertheless looks at
 * every byte, because a tenant's data may lie anywhere: in dead stack, in freed heap, above the break.
 */
export class Checkpoint {
  readonly heapBytes: number;
  readonly #heap: WebAssembly.Memory;
  readonly #spans: readonly Span[];
  readonly #blocks: WebAssembly.Memory;
  readonly #rewind: RewindExports;
  readonly #copy: Uint8Array | null;

  private constructor(
    heap: WebAssembly.Memory,
    spans: readonly Span[],
    blocks: WebAssembly.Memory,
    rewind: RewindExports,
    copy: Uint8Array | null,
  ) {
    this.#heap = heap;
    this.heapBytes = heap.buffer.byteLength;
    this.#spans = spans;
    this.#blocks = blocks;
    this.#rewind = rewind;
    this.#copy = copy;
  }

  /** @param verifiable keep a second copy for `isIntact`. */
  static async take(heap: WebAssembly.Memory, verifiable = false): Promise<Checkpoint> {
    const code = Uint8Array.from(atob(REWIND_MODULE), (character) => character.charCodeAt(0));
    const image = new WebAssembly.Memory({ initial: 1 });
    const blocks = new WebAssembly.Memory({ initial: pagesFor(heap.buffer.byteLength / BLOCKS_PER_LIST_BYTE) });
    const { instance } = await WebAssembly.instantiate(code, { rewind: { heap, image, blocks } });
    const rewind = instance.exports as unknown as RewindExports;
    const bytes = new Uint8Array(heap.buffer);
    // Blocks that are not zero, joined to runs of whole pages.
    const count = rewind.diff(0, bytes.length, ZERO, 0);
    const runs: { start: number; end: number }[] = [];
    for (const block of new Uint32Array(blocks.buffer, 0, count)) {
      const start = Math.floor((block * STATE_BLOCK_BYTES) / PAGE_BYTES) * PAGE_BYTES;
      const last = runs.at(-1);
      if (last && start <= last.end) last.end = Math.max(last.end, start + PAGE_BYTES);
      else runs.push({ start, end: start + PAGE_BYTES });
    }
    const spans: Span[] = [];
    let covered = 0;
    let imageBytes = 0;
    for (const { start, end } of runs) {
      if (start > covered) spans.push({ start: covered, end: start, source: ZERO });
      spans.push({ start, end, source: imageBytes });
      imageBytes += end - start;
      covered = end;
    }
    if (covered < bytes.length) spans.push({ start: covered, end: bytes.length, source: ZERO });
    image.grow(pagesFor(imageBytes));
    const copy = new Uint8Array(image.buffer);
    for (const { start, end, source } of spans) if (source !== ZERO) copy.set(bytes.subarray(start, end), source);
    return new Checkpoint(heap, spans, blocks, rewind, verifiable ? bytes.slice() : null);
  }

  /**
   * Makes the memory what it was, byte for byte, and zeroes whatever it has grown by since: `calloc` trusts memory
   * fresh from the system to be zero.
   *
   * @returns how many blocks of 4 KiB had changed.
   */
  restore(): number {
    let changed = 0;
    for (const { start, end, source } of this.#allSpans()) {
      changed += source === ZERO ? this.#rewind.clear(start, end) : this.#rewind.restore(start, end, source);
    }
    return changed;
  }

  /** Whether the memory is what it was, byte for byte, by the plainest of comparisons. Only if `verifiable`. */
  isIntact(): boolean {
    if (this.#copy === null) throw new Error("the checkpoint was not taken to be verified");
    const now = new BigUint64Array(this.#heap.buffer);
    const then = new BigUint64Array(this.#copy.buffer);
    for (let word = 0; word < now.length; word++) if (now[word] !== (then[word] ?? 0n)) return false;
    return true;
  }

  /** What the memory is now, as the difference from the checkpoint. */
  difference(): MemoryDifference {
    const heapBytes = this.#heap.buffer.byteLength;
    // Room for the case that every block differs.
    const missing = pagesFor(heapBytes / BLOCKS_PER_LIST_BYTE) - this.#blocks.buffer.byteLength / WASM_PAGE_BYTES;
    if (missing > 0) this.#blocks.grow(missing);
    let count = 0;
    for (const { start, end, source } of this.#allSpans()) {
      count += this.#rewind.diff(start, end, source, count * 4);
    }
    const blocks = new Uint32Array(this.#blocks.buffer, 0, count).slice();
    const heap = new Uint8Array(this.#heap.buffer);
    const data = new Uint8Array(count * STATE_BLOCK_BYTES);
    blocks.forEach((block, index) => {
      const start = block * STATE_BLOCK_BYTES;
      data.set(heap.subarray(start, start + STATE_BLOCK_BYTES), index * STATE_BLOCK_BYTES);
    });
    return { heapBytes, blocks, data };
  }

  /** Puts a difference on top of the checkpoint's memory, which must be in place and large enough. */
  apply({ blocks, data }: MemoryDifference): void {
    const heap = new Uint8Array(this.#heap.buffer);
    blocks.forEach((block, index) => {
      const from = index * STATE_BLOCK_BYTES;
      heap.set(data.subarray(from, from + STATE_BLOCK_BYTES), block * STATE_BLOCK_BYTES);
    });
  }

  /** The checkpoint's spans, and what the memory has grown by since. */
  *#allSpans(): Generator<Span> {
    yield* this.#spans;
    const grownTo = this.#heap.buffer.byteLength;
    if (grownTo > this.heapBytes) yield { start: this.heapBytes, end: grownTo, source: ZERO };
  }
}
