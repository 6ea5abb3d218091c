import { PAGE_BYTES, type Run } from "../../wire/image-format.ts";
import type { DirtyPages } from "./dirty-pages.ts";
import type { ImageFile } from "./image-file.ts";
import { PageList } from "./page-list.ts";
import { REWIND_MODULE } from "./rewind-module.ts";
import { complement, intersection, joined, type Span, spansOf, ZERO } from "./spans.ts";
import { pagesFor, WASM_PAGE_BYTES } from "./wasm-pages.ts";

/** Blocks that a session's state is made of. Smaller ones cost more to list, larger ones carry more that did not change. */
export const STATE_BLOCK_BYTES = 256;

const WORDS_PER_BLOCK = STATE_BLOCK_BYTES / 4;

/** Pages are given back by age once in so many rewinds. */
const AGING_REWINDS = 16;
/** What is unchanged is given back at once where there is more of it, bytes: a large program was before a small one. */
const MAX_IDLE_BYTES = 16 * 2 ** 20;

/** What of memory may be the process's own when a session begins, bytes: twice what an ordinary execution writes to. */
const MAX_SESSION_BYTES = 2 ** 20;

/** Pages whose difference is gathered at once: the memory that it is gathered in never gets smaller again. */
const GATHERED_PAGES = 256;
const BLOCKS_PER_PAGE = PAGE_BYTES / STATE_BLOCK_BYTES;
/** Where the blocks lie behind their numbers. */
const GATHERED_AT = GATHERED_PAGES * BLOCKS_PER_PAGE * 4;

/** A list names every block of a heap that is so many times larger than the list. */
const BLOCKS_PER_LIST_BYTE = STATE_BLOCK_BYTES / 4;

/** Offsets in bytes, of `clear` multiples of {@link PAGE_BYTES}; of `diff` the `source` may be `ZERO`. See `rewind.wat`. */
interface RewindExports {
  rewind(firstEntry: number, endEntry: number): number;
  capture(firstEntry: number, endEntry: number, dead: number, alive: number, numbers: number, data: number): number;
  clear(from: number, to: number): number;
  diff(from: number, to: number, source: number, out: number): number;
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
  /** Numbers of the pages of which the baseline is not what is mapped there. */
  #own: ReadonlySet<number> = new Set();
  /** The pages that may differ, and what that was said of. */
  readonly #pages = new PageList();
  #listed: { readonly runs: readonly Run[]; readonly heapBytes: number } | null = null;
  /** Where the image has a page of zeros, which pages that were zero are compared with. */
  readonly #zeros: number;
  #rewinds = 0;
  #everything: readonly Run[] = [];

  /** What an image says the memory is. It is put in place by what `preparePlace` returns. */
  constructor(heap: WebAssembly.Memory, file: ImageFile) {
    const { heapBytes, runs } = file.header;
    this.#heap = heap;
    this.#heapBytes = heapBytes;
    this.#image = file.toMemory();
    this.#zeros = file.dataBytes;
    this.#imageBytes = this.#zeros;
    this.#extendImage(PAGE_BYTES);
    this.#blocks = new WebAssembly.Memory({ initial: pagesFor(heapBytes / BLOCKS_PER_LIST_BYTE) });
    this.#rewind = instantiate({ heap, image: this.#image, blocks: this.#blocks, pages: this.#pages.memory });
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
    if (this.#written !== null) this.#own = new Set(pagesOf(written));
    this.#listed = null;
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
    this.#extendImage(end - start);
    new Uint8Array(this.#image.buffer).set(new Uint8Array(this.#heap.buffer, start, end - start), source);
    return source;
  }

  #extendImage(bytes: number): void {
    this.#imageBytes += bytes;
    const missing = pagesFor(this.#imageBytes) - this.#image.buffer.byteLength / WASM_PAGE_BYTES;
    if (missing > 0) this.#image.grow(missing);
  }

  /**
   * Makes the memory what it was, byte for byte, and zeroes whatever it has grown by since: `calloc` trusts memory
   * fresh from the system to be zero.
   *
   * @returns how many blocks of 4 KiB had changed.
   */
  restore(): number {
    this.#listPages();
    // The last pages first: what any execution needs is at the beginning (static data, the stack, what is oldest in the heap), and is then
    // still in the processor's caches, a tenth of an execution's time [measured].
    const changed = this.#rewind.rewind(...this.#pages.entries);
    if (this.#written !== null) this.#giveBack(this.#written, this.#pages.length - changed);
    return changed;
  }

  /**
   * Makes few the pages that may differ, which are looked at after each execution of a session from here on. Before an execution alone it would not be worth
   * it: the pages that it writes to would have to be copied. To be called at the baseline only.
   */
  prepareForSession(): void {
    this.#listPages();
    if (this.#written === null || this.#pages.length * PAGE_BYTES <= MAX_SESSION_BYTES) return;
    this.#rewind.rewind(...this.#pages.entries);
    for (const run of this.#pages.takeUnchanged(this.#own)) this.#written.discard(run);
  }

  /** Has pages that are what they were be the file's again, for less to look at and less memory, once it is worth it. */
  #giveBack(written: DirtyPages, unchanged: number): void {
    this.#rewinds++;
    const isMuch = unchanged * PAGE_BYTES > MAX_IDLE_BYTES;
    if (!isMuch && this.#rewinds % AGING_REWINDS !== 0) return;
    const taken = isMuch ? this.#pages.takeUnchanged(this.#own) : this.#pages.takeOld(this.#own);
    for (const run of taken) written.discard(run);
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
    this.#listPages();
    const pages = Math.min(this.#pages.length, GATHERED_PAGES);
    this.#growBlocks(GATHERED_AT + pages * PAGE_BYTES);
    const dead = Math.ceil(deadStack[0] / STATE_BLOCK_BYTES) * STATE_BLOCK_BYTES;
    const alive = Math.floor(deadStack[1] / STATE_BLOCK_BYTES) * STATE_BLOCK_BYTES;
    const parts: { blocks: Uint32Array; data: Uint8Array }[] = [];
    let total = 0;
    for (const [first, end] of this.#pages.parts(GATHERED_PAGES)) {
      const count = this.#rewind.capture(first, end, dead, Math.max(dead, alive), 0, GATHERED_AT);
      total += count;
      const { buffer } = this.#blocks;
      parts.push({
        blocks: new Uint32Array(buffer, 0, count).slice(),
        data: new Uint8Array(buffer, GATHERED_AT, count * STATE_BLOCK_BYTES).slice(),
      });
    }
    const blocks = new Uint32Array(total);
    const data = new Uint8Array(total * STATE_BLOCK_BYTES);
    let at = 0;
    for (const part of parts) {
      blocks.set(part.blocks, at);
      data.set(part.data, at * STATE_BLOCK_BYTES);
      at += part.blocks.length;
    }
    return { heapBytes: this.#heap.buffer.byteLength, blocks, data };
  }

  #growBlocks(bytes: number): void {
    const missing = pagesFor(bytes) - this.#blocks.buffer.byteLength / WASM_PAGE_BYTES;
    if (missing > 0) this.#blocks.grow(missing);
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

  /** Lists the pages that may not be as the baseline says, unless they are sure to be the same as before. */
  #listPages(): void {
    const runs = this.#writtenRuns();
    const heapBytes = this.#heap.buffer.byteLength;
    if (this.#listed?.runs === runs && this.#listed.heapBytes === heapBytes) return;
    this.#pages.fill(intersection(this.#allSpans(), runs), this.#zeros);
    this.#listed = { runs, heapBytes };
  }

  #writtenRuns(): readonly Run[] {
    if (this.#written !== null) return this.#written.runs();
    const { byteLength } = this.#heap.buffer;
    if (this.#everything[0]?.[1] !== byteLength) this.#everything = [[0, byteLength]];
    return this.#everything;
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
  const { clear } = instantiate({ heap: memory, image: memory, blocks: memory, pages: memory });
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

function pagesOf(runs: readonly Run[]): number[] {
  return runs.flatMap(([start, end]) =>
    Array.from({ length: (end - start) / PAGE_BYTES }, (_, index) => start / PAGE_BYTES + index),
  );
}

function instantiate(memories: Record<"heap" | "image" | "blocks" | "pages", WebAssembly.Memory>): RewindExports {
  const code = Uint8Array.from(atob(REWIND_MODULE), (character) => character.charCodeAt(0));
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(code), { rewind: memories });
  return exports as unknown as RewindExports;
}
