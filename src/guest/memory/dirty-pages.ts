import { PAGE_BYTES, type Run } from "../../wire/image-format.ts";

// Of the upper half of an entry of /proc/self/pagemap.
const PRESENT = 0x8000_0000;
const SWAPPED = 0x4000_0000;
const OF_A_FILE = 0x2000_0000;

/** What is asked of the kernel about one memory; offsets and lengths in bytes. */
export interface Kernel {
  /**
   * The process's own page map for the memory's first pages (Documentation/admin-guide/mm/pagemap.rst): two words for each, the lower half
   * first. Valid until the next call. @returns null: it does not tell.
   */
  readPagemap(pages: number): Uint32Array | null;
  /**
   * Page faults of this thread so far. Only this thread writes to the memory, and a page becomes the process's own by a fault:
   * as long as there are no more of them, the same pages are. @returns null: not known.
   */
  faults(): number | null;
  /** Has pages be again what is mapped there: `madvise` with `MADV_DONTNEED`. @returns whether it was done. */
  discard(start: number, length: number): boolean;
}

/**
 * Which pages of a WebAssembly memory were written to since it was mapped: those of which the process has its own copy.
 *
 * An answer may name pages that were not written to, and never leaves out one that was. So where anything about it is odd, it is "all of them".
 *
 * The page map is read when the kernel has counted a fault of this thread since the last time, and else the last answer holds, because:
 *
 * 1. A page of a private mapping becomes the process's own when it is written to, by a fault, there and then. Nothing else makes it so: no fork shares the pages,
 *    and neither growth (`mprotect` of addresses that were reserved), nor moving, merging or swapping pages makes a copy of one that was not written to.
 * 2. The kernel counts the fault for the thread that writes (`mm_account_fault`: `min_flt` or `maj_flt` of `current`), also where it writes
 *    itself to the memory, for a system call of that thread.
 * 3. No other thread writes to this memory. It is not shared, so only this thread's JavaScript and WebAssembly reach it; V8's own threads compile and
 *    collect garbage and move no linear memory; the watcher has memories of its own; no asynchronous operation of Deno's is given a part of it. Other
 *    processes would need `ptrace`, which the filter on system calls and the isolation refuse.
 * 4. The count is read before the map: a fault between the two shows at the next look. Giving pages back (`MADV_DONTNEED`) makes the process's
 *    own pages fewer, which an answer need not tell; the next write to one of them is a fault.
 *
 * What of this a kernel does not do, `check` finds before the first execution: a count that does not move, a map that tells of other pages.
 */
export class DirtyPages {
  readonly #memory: WebAssembly.Memory;
  readonly #kernel: Kernel;
  /** The last answer, and what it holds for. */
  #known: { readonly runs: readonly Run[]; readonly bytes: number; readonly faults: number } | null = null;

  /** @param memory holds nothing but zeros and what is mapped privately from files. */
  constructor(memory: WebAssembly.Memory, kernel: Kernel) {
    this.#memory = memory;
    this.#kernel = kernel;
  }

  /** @returns ascending runs that do not touch each other; the same array as before if they are sure to be the same. */
  runs(): readonly Run[] {
    const { buffer } = this.#memory;
    const known = this.#known;
    // To read the page map takes longer than most executions.
    if (known?.bytes === buffer.byteLength && known.faults === this.#kernel.faults()) return known.runs;
    // Canary: dirty the last page. If the page map does not list it, the memory has moved: treat every page as dirty.
    const words = new Int32Array(buffer);
    Atomics.or(words, words.length - 1, 0);
    const faults = this.#kernel.faults();
    const read = this.#readRuns(buffer.byteLength / PAGE_BYTES);
    const isWhole = read.at(-1)?.[1] === buffer.byteLength;
    const runs: readonly Run[] = isWhole ? read : [[0, buffer.byteLength]];
    this.#known = isWhole && faults !== null ? { runs, bytes: buffer.byteLength, faults } : null;
    return runs;
  }

  /** Drops private copies of a run (MADV_DONTNEED): its pages map the file again. @throws {Error} if that fails: the content is unknown then. */
  discard([start, end]: Run): void {
    // The last answer stays: it names pages that are the file's again, until one of them is written to, which takes a fault.
    if (!this.#kernel.discard(start, end - start)) throw new Error("memory could not be given back");
  }

  #readRuns(pages: number): Run[] {
    const runs: Run[] = [];
    const entries = this.#kernel.readPagemap(pages);
    if (entries === null) return runs;
    let start = -1;
    for (let page = 0; page < pages; page++) {
      const entry = entries[page * 2 + 1] as number;
      const isWritten = (entry & (PRESENT | SWAPPED)) !== 0 && (entry & OF_A_FILE) === 0;
      if (isWritten === start >= 0) continue;
      if (isWritten) {
        start = page;
      } else {
        runs.push([start * PAGE_BYTES, page * PAGE_BYTES]);
        start = -1;
      }
    }
    if (start >= 0) runs.push([start * PAGE_BYTES, pages * PAGE_BYTES]);
    return runs;
  }

  /**
   * Tries it out on a page that is a file's: that a page that is written to is named, and that this is noticed.
   *
   * @param at where the page begins, bytes. It is written to, with what is there.
   * @throws {Error} if the answers do not tell it from one that is not written to.
   */
  check(at: number): void {
    const names = () => this.runs().some(([start, end]) => start <= at && at < end);
    const words = new Int32Array(this.#memory.buffer);
    Atomics.load(words, at / 4);
    if (names()) throw new Error("the kernel does not tell which pages were written to");
    Atomics.or(words, at / 4, 0);
    if (!names()) throw new Error("the kernel tells of other pages than this memory's");
  }
}
