import fc from "fast-check";
import { expect, test } from "vitest";
import { PAGE_BYTES } from "../../wire/image-format.ts";
import { PageList } from "./page-list.ts";
import { REWIND_MODULE } from "./rewind-module.ts";
import { ZERO } from "./spans.ts";

const BLOCK_BYTES = 256;
const PAGES = 16;
const ZEROS = 15 * PAGE_BYTES;
const BLOCKS_PER_PAGE = PAGE_BYTES / BLOCK_BYTES;
const DATA_AT = PAGES * BLOCKS_PER_PAGE * 4;

/** A heap of 16 pages, of which some are listed: page 2 n is the image's page n, the others are zero. The image's last page is of zeros. */
function setUp() {
  const memory = (pages: number) => new WebAssembly.Memory({ initial: pages });
  const [heap, image, blocks, list] = [memory(1), memory(1), memory(2), new PageList()];
  const module = new WebAssembly.Module(Buffer.from(REWIND_MODULE, "base64"));
  const memories = { heap, image, blocks, pages: list.memory };
  const { exports } = new WebAssembly.Instance(module, { rewind: memories });
  const { rewind, capture } = exports as unknown as Record<string, (...numbers: number[]) => number>;
  const bytesOf = ({ buffer }: WebAssembly.Memory) => new Uint8Array(buffer);
  const original = bytesOf(image);
  for (let at = 0; at < ZEROS; at++) original[at] = (at * 7 + (at >> 8)) % 251;
  const sourceOf = (page: number) => (page % 2 === 0 ? (page / 2) * PAGE_BYTES : ZERO);
  const baseline = new Uint8Array(PAGES * PAGE_BYTES);
  for (let page = 0; page < PAGES; page += 2) {
    const source = sourceOf(page);
    baseline.set(original.subarray(source, source + PAGE_BYTES), page * PAGE_BYTES);
  }
  bytesOf(heap).set(baseline);
  const spans = (pages: readonly number[]) =>
    pages.map((page) => ({ start: page * PAGE_BYTES, end: (page + 1) * PAGE_BYTES, source: sourceOf(page) }));
  return {
    heap: bytesOf(heap),
    blocks,
    baseline,
    list,
    fill: (pages: readonly number[]) => list.fill(spans(pages), ZEROS),
    rewind: rewind as (...numbers: number[]) => number,
    capture: capture as (...numbers: number[]) => number,
  };
}

const writes = fc.array(fc.tuple(fc.nat(PAGES * PAGE_BYTES - 1), fc.integer({ min: 1, max: 255 })), { maxLength: 40 });
const listed = fc.uniqueArray(fc.nat(PAGES - 1), { maxLength: PAGES }).map((pages) => pages.sort((a, b) => a - b));

test("a rewind makes the listed pages the image's, leaves the others, counts what differed, and ages what did not", () => {
  fc.assert(
    fc.property(writes, listed, (changes, pages) => {
      const { heap, baseline, list, fill, rewind } = setUp();
      for (const [at, by] of changes) heap[at] = (heap[at] as number) ^ by;
      const before = heap.slice();
      fill(pages);
      const differs = (page: number) => {
        const from = page * PAGE_BYTES;
        return (
          Buffer.compare(before.subarray(from, from + PAGE_BYTES), baseline.subarray(from, from + PAGE_BYTES)) !== 0
        );
      };
      expect(rewind(...list.entries)).toBe(pages.filter(differs).length);
      for (let page = 0; page < PAGES; page++) {
        const from = page * PAGE_BYTES;
        const wanted = pages.includes(page) ? baseline : before;
        expect(Buffer.compare(heap.subarray(from, from + PAGE_BYTES), wanted.subarray(from, from + PAGE_BYTES))).toBe(
          0,
        );
      }
      const ages = new Uint16Array(list.memory.buffer, 0, PAGES);
      expect(Array.from(ages)).toEqual(
        Array.from({ length: PAGES }, (_, page) => (pages.includes(page) && !differs(page) ? 1 : 0)),
      );
    }),
    { numRuns: 20 },
  );
});

test("what is captured of the listed pages, put on the baseline, is the heap, but for the dead stack", () => {
  const range = fc.tuple(fc.nat(PAGES * BLOCKS_PER_PAGE), fc.nat(PAGES * BLOCKS_PER_PAGE));
  fc.assert(
    fc.property(writes, listed, range, (changes, pages, [one, other]) => {
      const { heap, blocks, baseline, list, fill, capture } = setUp();
      for (const [at, by] of changes) heap[at] = (heap[at] as number) ^ by;
      fill(pages);
      const [dead, alive] = [Math.min(one, other) * BLOCK_BYTES, Math.max(one, other) * BLOCK_BYTES];
      const count = capture(...list.entries, dead, alive, 0, DATA_AT);
      const numbers = Array.from(new Uint32Array(blocks.buffer, 0, count));
      const data = new Uint8Array(blocks.buffer, DATA_AT, count * BLOCK_BYTES);
      expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
      const rebuilt = baseline.slice();
      numbers.forEach((block, index) => {
        for (let byte = 0; byte < BLOCK_BYTES; byte++) {
          const at = block * BLOCK_BYTES + byte;
          rebuilt[at] = (rebuilt[at] as number) ^ (data[index * BLOCK_BYTES + byte] as number);
        }
      });
      for (let at = 0; at < PAGES * PAGE_BYTES; at += BLOCK_BYTES) {
        const isTaken = pages.includes(Math.floor(at / PAGE_BYTES)) && !(at >= dead && at < alive);
        const wanted = isTaken ? heap : baseline;
        expect(Buffer.compare(rebuilt.subarray(at, at + BLOCK_BYTES), wanted.subarray(at, at + BLOCK_BYTES))).toBe(0);
        if (numbers.includes(at / BLOCK_BYTES)) expect(isTaken).toBe(true);
      }
    }),
    { numRuns: 20 },
  );
});
