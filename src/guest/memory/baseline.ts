import { PAGE_BYTES, type Run } from "../../wire/image-format.ts";
import type { DirtyPages } from "./dirty-pages.ts";
import { type ImageFile, pagesFor, WASM_PAGE_BYTES } from "./image-file.ts";
import { REWIND_MODULE } from "./rewind-module.ts";
import { complement, intersection, joined, type Span, spansOf, ZERO } from "./spans.ts";

/** Blocks that a session's state is made of. Smaller ones cost more to list, larger ones carry more that did not change. */
export const STATE_BLOCK_BYTES = 256;

const WORDS_PER_BLOCK = STATE_BLOCK_BYTES / 4;

/**
 * Memory that was written to at some time is given back when rewinds have looked at so much of it in vain, bytes. To look at a page costs a fraction
 * of having it copied again, so that what is written to now and then is not given back each time.
 */
const MAX_IDLE_BYTES = 16 * 2 ** 20;

/** Of a difference so much is gathered at once. */
const MAX_GATHERED_BYTES = 2 ** 20;

/** A list names every block of a heap that is so many times larger than the list. */
const BLOCKS_PER_LIST_BYTE = STATE_BLOCK_BYTES / 4;

/** Offsets in bytes, of `restore` and `clear` multiples of {@link PAGE_BYTES}; of `diff` the `source` may be `ZERO`. */
interface RewindExports {
  restore(from: number, to: number, source: number): number;
  clear(from: number, to: number): number;
  diff(from: number, to: number, source: number, out: number): number;
  /** Of `shift` the bytes from a place in the heap to the image's of the same content; `zero` 1: the blocks are compared with zero. */
  gather(list: number, end: number, shift: number, zero: 0 | 1, out: number): void;
}

/**
 * Memory that differs from a baseline: the numbers of the blocks of 256 bytes, ascending, and what they are combined
 * with the baseline's by exclusive or. Most of a changed block is as it was (a reference count has changed), so that most
 * of this is zero, and compresses to a third.
 */
export interface MemoryDifference {
  readonly heapBytes: number;
  readonly blocks: Uint32Array;
  readonly data: Uint8Array;
}

/**
 * The interpreter's linear memory at one moment, and the way back to it.
 *
 * Only what is not zero is kept: about half of a heap is untouched stack and room to grow. A rewind nevertheless looks at
 * every byte that may have been written to, because a tenant's data may lie anywhere: in dead stack, in freed heap, above the break.
 * That is every page, or those that the kernel says.
 */
export class Baseline {
  readonly #heap: WebAssembly.Memory;
  readonly #image: WebAssembly.Memory;
  readonly #blocks: WebAssembly.Memory;
  readonly #rewind: RewindExports;
  #spans: readonly Span[];
  #heapBytes: number;
  #imageBytes: number;
  #copy: Uint8Array | null = null;
  #written: DirtyPages | null = null;
  /** Pages of which the baseline is not what is mapped there. */
  #own: readonly Run[] = [];
  /** What the last question of which spans were written to was answered. */
  #lastWritten: {
    readonly all: readonly Span[];
    readonly runs: readonly Run[];
    readonly spans: readonly Span[];
  } | null = null;
  /** Looked at and found unchanged since memory was last given back. */
  #idleBytes = 0;

  /** What an image says the memory is. It is put in place by what `preparePlace` returns. */
  constructor(heap: WebAssembly.Memory, file: ImageFile) {
    const { heapBytes, runs } = file.header;
    this.#heap = heap;
    this.#heapBytes = heapBytes;
    this.#imageBytes = file.dataBytes;
    this.#image = file.toMemory();
    this.#blocks = new WebAssembly.Memory({ initial: pagesFor(heapBytes / BLOCKS_PER_LIST_BYTE) });
    this.#rewind = instantiate({ heap, image: this.#image, blocks: this.#blocks });
    this.#spans = spansOf(runs, heapBytes);
  }

  /**
   * Prepares to make the memory what the image says. All that needs a permission is done now.
   *
   * @returns does it, and says why a rewind will look at every page; null: it will look at those that were written to.
   */
  preparePlace(file: ImageFile): () => string | null {
    const map = file.prepareInto(this.#heap);
    if (typeof map === "string") {
      return () => {
        this.restore();
        return map;
      };
    }
    const watch = attempt(() => file.prepareWatch(this.#heap));
    return () => {
      map();
      if (typeof watch === "string") return watch;
      const written = attempt(watch);
      if (typeof written === "string") return written;
      this.#written = written;
      return null;
    };
  }

  /**
   * Makes the memory as it is now what it is to go back to.
   *
   * @param verifiable keep a second copy for `isIntact`.
   */
  renew(verifiable = false): void {
    const written = this.#writtenRuns();
    const all = this.#allSpans();
    const spans = intersection(all, complement(written));
    for (const span of intersection(all, written)) {
      const changed = this.#changedBlocks(span);
      if (span.source === ZERO) {
        spans.push(...this.#withoutZeros(span, changed));
      } else {
        this.#takeOver(span, changed);
        spans.push(span);
      }
    }
    this.#spans = joined(spans.toSorted((a, b) => a.start - b.start));
    this.#own = written;
    this.#heapBytes = this.#heap.buffer.byteLength;
    this.#copy = verifiable ? new Uint8Array(this.#heap.buffer).slice() : null;
  }

  /** Numbers of the blocks that differ, ascending; valid until the next call. */
  #changedBlocks({ start, end, source }: Span): Uint32Array {
    return new Uint32Array(this.#blocks.buffer, 0, this.#rewind.diff(start, end, source, 0));
  }

  #takeOver({ start, source }: Span, changed: Uint32Array): void {
    const heap = new Uint8Array(this.#heap.buffer);
    const image = new Uint8Array(this.#image.buffer);
    for (const block of changed) {
      const from = block * STATE_BLOCK_BYTES;
      image.set(heap.subarray(from, from + STATE_BLOCK_BYTES), source + from - start);
    }
  }

  /** A span that was zero, as it is now. */
  #withoutZeros({ start, end }: Span, changed: Uint32Array): Span[] {
    const spans: Span[] = [];
    let covered = start;
    for (const block of changed) {
      const from = Math.floor((block * STATE_BLOCK_BYTES) / PAGE_BYTES) * PAGE_BYTES;
      if (from < covered) continue;
      if (from > covered) spans.push({ start: covered, end: from, source: ZERO });
      covered = from + PAGE_BYTES;
      spans.push({ start: from, end: covered, source: this.#keep(from, covered) });
    }
    if (end > covered) spans.push({ start: covered, end, source: ZERO });
    return spans;
  }

  /** @returns where in the image the bytes are now. */
  #keep(start: number, end: number): number {
    const source = this.#imageBytes;
    this.#imageBytes += end - start;
    const missing = pagesFor(this.#imageBytes) - this.#image.buffer.byteLength / WASM_PAGE_BYTES;
    if (missing > 0) this.#image.grow(missing);
    new Uint8Array(this.#image.buffer).set(new Uint8Array(this.#heap.buffer, start, end - start), source);
    return source;
  }

  /**
   * Makes the memory what it was, byte for byte, and zeroes whatever it has grown by since: `calloc` trusts memory
   * fresh from the system to be zero.
   *
   * @returns how many blocks of 4 KiB had changed.
   */
  restore(): number {
    const written = this.#writtenSpans();
    let changed = 0;
    // From the end: what any execution needs is at the beginning (static data, the stack, what is oldest in the heap), and is then
    // still in the processor's caches, a tenth of an execution's time [measured].
    for (const { start, end, source } of written.toReversed()) {
      changed += source === ZERO ? this.#rewind.clear(start, end) : this.#rewind.restore(start, end, source);
    }
    if (this.#written !== null) this.#giveBack(this.#written, written, changed);
    return changed;
  }

  /** Has pages that are what they were be the file's again, for less to look at and less memory, once it is worth it. */
  #giveBack(pages: DirtyPages, spans: readonly Span[], changed: number): void {
    this.#idleBytes += spans.reduce((sum, { start, end }) => sum + end - start, -changed * PAGE_BYTES);
    if (this.#idleBytes <= MAX_IDLE_BYTES) return;
    this.#idleBytes = 0;
    for (const { start, end } of intersection(spans, complement(this.#own))) pages.discard([start, end]);
  }

  /** Whether the memory is what it was, byte for byte, by the plainest of comparisons. Only if `verifiable`. */
  isIntact(): boolean {
    if (this.#copy === null) throw new Error("the baseline was not taken to be verified");
    const now = new BigUint64Array(this.#heap.buffer);
    const then = new BigUint64Array(this.#copy.buffer);
    for (let word = 0; word < now.length; word++) if (now[word] !== (then[word] ?? 0n)) return false;
    return true;
  }

  /**
   * What the memory is now, as the difference from the baseline.
   *
   * @param deadStack where no frame is, bytes from and to: what calls have left there belongs to no frame.
   */
  difference(deadStack: readonly [from: number, to: number]): MemoryDifference {
    const heapBytes = this.#heap.buffer.byteLength;
    // Room for the case that every block differs.
    this.#growBlocks(heapBytes / BLOCKS_PER_LIST_BYTE);
    const found: { span: Span; from: number; to: number }[] = [];
    let count = 0;
    for (const span of this.#liveSpans(deadStack)) {
      const from = count;
      count += this.#rewind.diff(span.start, span.end, span.source, from * 4);
      if (count > from) found.push({ span, from, to: count });
    }
    return {
      heapBytes,
      blocks: new Uint32Array(this.#blocks.buffer, 0, count).slice(),
      data: this.#gather(found, count),
    };
  }

  /** The content of the blocks that the list names, combined with the baseline's. */
  #gather(found: readonly { span: Span; from: number; to: number }[], count: number): Uint8Array {
    const data = new Uint8Array(count * STATE_BLOCK_BYTES);
    const out = count * 4;
    // Behind the list, and not all at once: this memory never gets smaller again.
    const most = MAX_GATHERED_BYTES / STATE_BLOCK_BYTES;
    this.#growBlocks(out + Math.min(data.length, MAX_GATHERED_BYTES));
    let gathered = 0;
    let taken = 0;
    const take = () => {
      data.set(new Uint8Array(this.#blocks.buffer, out, gathered * STATE_BLOCK_BYTES), taken * STATE_BLOCK_BYTES);
      taken += gathered;
      gathered = 0;
    };
    for (const { span, from, to } of found) {
      const isZero = span.source === ZERO;
      for (let first = from; first < to; ) {
        const end = Math.min(to, first + most - gathered);
        const shift = isZero ? 0 : span.source - span.start;
        this.#rewind.gather(first * 4, end * 4, shift, isZero ? 1 : 0, out + gathered * STATE_BLOCK_BYTES);
        gathered += end - first;
        first = end;
        if (gathered === most) take();
      }
    }
    take();
    return data;
  }

  #growBlocks(bytes: number): void {
    const missing = pagesFor(bytes) - this.#blocks.buffer.byteLength / WASM_PAGE_BYTES;
    if (missing > 0) this.#blocks.grow(missing);
  }

  /** The parts of the memory that may not be as the baseline says, less what calls have left on the stack. */
  #liveSpans(deadStack: readonly [from: number, to: number]): readonly Span[] {
    const first = Math.ceil(deadStack[0] / STATE_BLOCK_BYTES) * STATE_BLOCK_BYTES;
    const last = Math.floor(deadStack[1] / STATE_BLOCK_BYTES) * STATE_BLOCK_BYTES;
    return intersection(this.#writtenSpans(), complement(first < last ? [[first, last]] : []));
  }

  /** Puts a difference on top of the baseline's memory, which must be in place and large enough. */
  apply({ blocks, data }: MemoryDifference): void {
    const heap = new Uint32Array(this.#heap.buffer);
    const words = new Uint32Array(data.buffer, data.byteOffset, data.length / 4);
    blocks.forEach((block, index) => {
      const to = block * WORDS_PER_BLOCK;
      const from = index * WORDS_PER_BLOCK;
      for (let word = 0; word < WORDS_PER_BLOCK; word++) {
        heap[to + word] = (heap[to + word] as number) ^ (words[from + word] as number);
      }
    });
  }

  /** The parts of the memory that may not be as the baseline says. */
  #writtenSpans(): readonly Span[] {
    const [all, runs] = [this.#allSpans(), this.#writtenRuns()];
    if (this.#written === null || this.#lastWritten?.all !== all || this.#lastWritten.runs !== runs) {
      this.#lastWritten = { all, runs, spans: intersection(all, runs) };
    }
    return this.#lastWritten.spans;
  }

  #writtenRuns(): readonly Run[] {
    return this.#written?.runs() ?? [[0, this.#heap.buffer.byteLength]];
  }

  /** The baseline's spans, and what the memory has grown by since. */
  #allSpans(): readonly Span[] {
    const grownTo = this.#heap.buffer.byteLength;
    if (grownTo === this.#heapBytes) return this.#spans;
    return [...this.#spans, { start: this.#heapBytes, end: grownTo, source: ZERO }];
  }
}

/** Makes the memory what an image says, with no way back to it. */
export function putInPlace(memory: WebAssembly.Memory, file: ImageFile): void {
  const map = file.prepareInto(memory);
  if (typeof map !== "string") {
    map();
    return;
  }
  const { clear } = instantiate({ heap: memory, image: memory, blocks: memory });
  const heap = new Uint8Array(memory.buffer);
  for (const { start, end, source } of spansOf(file.header.runs, heap.length)) {
    if (source === ZERO) clear(start, end);
    else file.readData(heap.subarray(start, end), source);
  }
}

/** @returns what `act` returns, or the message of what it throws. */
function attempt<T>(act: () => T): T | string {
  try {
    return act();
  } catch (error) {
    return (error as Error).message;
  }
}

function instantiate(memories: Record<"heap" | "image" | "blocks", WebAssembly.Memory>): RewindExports {
  const code = Uint8Array.from(atob(REWIND_MODULE), (character) => character.charCodeAt(0));
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(code), { rewind: memories });
  return exports as unknown as RewindExports;
}
