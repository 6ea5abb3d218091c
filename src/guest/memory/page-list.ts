import { PAGE_BYTES, type Run } from "../../wire/image-format.ts";
import { type Span, ZERO } from "./spans.ts";
import { pagesFor, WASM_PAGE_BYTES } from "./wasm-pages.ts";

/** Pages that a heap can ever have. */
const MAX_PAGES = 2 ** 32 / PAGE_BYTES;
/** Where the list begins: before it are for each page its age (two bytes) and how often it was taken for old (one). */
const LIST_AT = 3 * MAX_PAGES;
/** A page is old once so many rewinds have found it unchanged. To look at one costs a fraction of having it copied again. */
const OLD = 64;
/**
 * A page that was taken and came back is old only at twice the age: one that each execution writes to, and leaves as it was, looks unchanged as well. So often at the
 * most.
 */
const MAX_DOUBLINGS = 7;
const ENTRY_BYTES = 8;
const ENTRY_WORDS = 2;

/** Entries of a list, the first and behind the last, as addresses in its memory. */
export type Entries = readonly [from: number, to: number];

/**
 * The pages of a heap that may differ from the baseline, as `rewind.wat` reads them, and for how many rewinds each was found unchanged, its age. Ages outlive
 * the list: a page that is listed anew is as old as it was.
 */
export class PageList {
  readonly memory = new WebAssembly.Memory({ initial: pagesFor(LIST_AT + ENTRY_BYTES) });
  #length = 0;

  get length(): number {
    return this.#length;
  }

  get entries(): Entries {
    return [LIST_AT, LIST_AT + this.#length * ENTRY_BYTES];
  }

  /** The list in parts of so many pages at the most, in order. */
  *parts(pages: number): Generator<Entries> {
    const [first, end] = this.entries;
    const bytes = pages * ENTRY_BYTES;
    for (let from = first; from < end; from += bytes) yield [from, Math.min(end, from + bytes)];
  }

  /**
   * Lists the pages of spans, ascending.
   *
   * @param zeros where a page of zeros lies in the image.
   */
  fill(spans: readonly Span[], zeros: number): void {
    const pages = spans.reduce((sum, { start, end }) => sum + (end - start) / PAGE_BYTES, 0);
    const missing = pagesFor(LIST_AT + pages * ENTRY_BYTES) - this.memory.buffer.byteLength / WASM_PAGE_BYTES;
    if (missing > 0) this.memory.grow(missing);
    const words = new Uint32Array(this.memory.buffer);
    let at = LIST_AT / 4;
    for (const { start, end, source } of spans) {
      for (let page = start; page < end; page += PAGE_BYTES) {
        words[at] = page;
        words[at + 1] = source === ZERO ? zeros : source + page - start;
        at += ENTRY_WORDS;
      }
    }
    this.#length = pages;
  }

  /** Takes the pages that are old from the list, but for some. @param kept numbers of pages that stay. @returns the pages as runs, ascending. */
  takeOld(kept: ReadonlySet<number>): Run[] {
    const { buffer } = this.memory;
    const ages = new Uint16Array(buffer, 0, MAX_PAGES);
    const doublings = new Uint8Array(buffer, 2 * MAX_PAGES, MAX_PAGES);
    return this.#take((page) => {
      const times = doublings[page] as number;
      if ((ages[page] as number) < OLD << times || kept.has(page)) return false;
      doublings[page] = Math.min(times + 1, MAX_DOUBLINGS);
      return true;
    });
  }

  /** As `takeOld`, all that the last rewind found unchanged. */
  takeUnchanged(kept: ReadonlySet<number>): Run[] {
    const ages = new Uint16Array(this.memory.buffer, 0, MAX_PAGES);
    return this.#take((page) => (ages[page] as number) > 0 && !kept.has(page));
  }

  #take(goes: (page: number) => boolean): Run[] {
    const words = new Uint32Array(this.memory.buffer);
    const ages = new Uint16Array(this.memory.buffer, 0, MAX_PAGES);
    const taken: [number, number][] = [];
    const first = LIST_AT / 4;
    const end = first + this.#length * ENTRY_WORDS;
    let to = first;
    for (let from = first; from < end; from += ENTRY_WORDS) {
      const start = words[from] as number;
      const page = start / PAGE_BYTES;
      if (!goes(page)) {
        words[to] = start;
        words[to + 1] = words[from + 1] as number;
        to += ENTRY_WORDS;
        continue;
      }
      ages[page] = 0;
      const last = taken.at(-1);
      if (last?.[1] === start) last[1] = start + PAGE_BYTES;
      else taken.push([start, start + PAGE_BYTES]);
    }
    this.#length = (to - first) / ENTRY_WORDS;
    return taken;
  }
}
