import { expect, test } from "vitest";
import { PAGE_BYTES } from "../../wire/image-format.ts";
import { DirtyPages, type Kernel } from "./dirty-pages.ts";

const PRESENT = 1n << 63n;
const SWAPPED = 1n << 62n;
const OF_A_FILE = 1n << 61n;
const PAGES = 16;
const LAST = PAGES - 1;
const BYTES = PAGES * PAGE_BYTES;

/** A memory of 16 pages, of which the kernel says what `pages` says by number; of the last it says that it is written to. */
function pagesThat(pages: Readonly<Record<number, bigint>>, kernel: Partial<Kernel> = {}) {
  const memory = new WebAssembly.Memory({ initial: 1 });
  const said: Record<number, bigint> = { [LAST]: PRESENT, ...pages };
  const written = new DirtyPages(memory, {
    readPagemap: (count) =>
      new Uint32Array(BigUint64Array.from({ length: count }, (_, page) => said[page] ?? 0n).buffer),
    faults: () => null,
    discard: () => true,
    ...kernel,
  });
  return { memory, said, written };
}

/** Pages by their numbers, from and to. */
const runs = (written: DirtyPages) => written.runs().map((run) => run.map((at) => at / PAGE_BYTES));

test("tells the pages that the process has of its own, in memory or swapped out", () => {
  const file = PRESENT | OF_A_FILE;
  const { written } = pagesThat({ 0: PRESENT, 1: PRESENT, 2: file, 4: SWAPPED, 5: SWAPPED | OF_A_FILE, 14: PRESENT });
  expect(runs(written)).toEqual([
    [0, 2],
    [4, 5],
    [14, 16],
  ]);
});

test("does not change what is in memory", () => {
  const { memory, written } = pagesThat({});
  const bytes = new Uint8Array(memory.buffer);
  bytes.fill(0xa5);
  written.runs();
  expect(bytes.every((byte) => byte === 0xa5)).toBe(true);
});

test.each([
  ["the kernel says nothing of the page that is sure to be written to", pagesThat({ 3: PRESENT, [LAST]: 0n })],
  ["that page is a file's", pagesThat({ [LAST]: PRESENT | OF_A_FILE })],
  ["the page map cannot be read", pagesThat({}, { readPagemap: () => null })],
])("names every page where %s", (_, { written }) => {
  expect(written.runs()).toEqual([[0, BYTES]]);
});

test("looks at what the memory has grown by", () => {
  const { memory, said, written } = pagesThat({ 1: PRESENT });
  memory.grow(1);
  // Nothing is known of the new last page.
  expect(written.runs()).toEqual([[0, 2 * BYTES]]);
  said[20] = PRESENT;
  said[2 * PAGES - 1] = PRESENT;
  expect(runs(written)).toEqual([
    [1, 2],
    [15, 16],
    [20, 21],
    [31, 32],
  ]);
});

test("is refused where every page is said to be written to, and where none is", () => {
  const at = 2 * PAGE_BYTES;
  expect(() => pagesThat({ 2: PRESENT }).written.check(at)).toThrow("does not tell which pages were written to");
  expect(() => pagesThat({}, { readPagemap: () => null }).written.check(at)).toThrow("does not tell which pages");
  expect(() => pagesThat({ 2: PRESENT | OF_A_FILE }).written.check(at)).toThrow("of other pages than this memory's");
});

test("a page that cannot be given back is an error", () => {
  const { written } = pagesThat({}, { discard: () => false });
  expect(() => written.discard([0, PAGE_BYTES])).toThrow("could not be given back");
});

test("asks again after a page fault and when the memory has grown, and else does not, also where pages were given back", () => {
  let faults: number | null = 7;
  const { memory, said, written } = pagesThat({ 1: PRESENT }, { faults: () => faults });
  const first = written.runs();
  expect(written.runs()).toBe(first);
  said[3] = PRESENT;
  expect(written.runs()).toBe(first);
  faults++;
  expect(runs(written)).toEqual([
    [1, 2],
    [3, 4],
    [LAST, PAGES],
  ]);
  delete said[3];
  written.discard([3 * PAGE_BYTES, 4 * PAGE_BYTES]);
  expect(runs(written)).toContainEqual([3, 4]);
  faults++;
  expect(runs(written)).toEqual([
    [1, 2],
    [LAST, PAGES],
  ]);
  memory.grow(1);
  said[2 * PAGES - 1] = PRESENT;
  expect(runs(written).at(-1)).toEqual([2 * PAGES - 1, 2 * PAGES]);
  faults = null;
  said[3] = PRESENT;
  expect(runs(written)).toContainEqual([3, 4]);
  delete said[3];
  expect(runs(written)).not.toContainEqual([3, 4]);
});

test("an answer that was odd is not kept", () => {
  const { said, written } = pagesThat({ 1: PRESENT, [LAST]: 0n }, { faults: () => 7 });
  expect(runs(written)).toEqual([[0, PAGES]]);
  said[LAST] = PRESENT;
  expect(runs(written)).toEqual([
    [1, 2],
    [LAST, PAGES],
  ]);
});

test("a counter of faults that does not count is found out", () => {
  const said: Record<number, bigint> = { [LAST]: PRESENT };
  const memory = new WebAssembly.Memory({ initial: 1 });
  const written = new DirtyPages(memory, {
    readPagemap: (count) => {
      const entries = BigUint64Array.from({ length: count }, (_, page) => said[page] ?? 0n);
      said[2] = PRESENT;
      return new Uint32Array(entries.buffer);
    },
    faults: () => 7,
    discard: () => true,
  });
  expect(() => written.check(2 * PAGE_BYTES)).toThrow("other pages");
});
