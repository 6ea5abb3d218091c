import { expect, test } from "vitest";
import { PAGE_BYTES } from "../../wire/image-format.ts";
import { PageList } from "./page-list.ts";
import { ZERO } from "./spans.ts";

const ZEROS = 99 * PAGE_BYTES;
const page = (number: number) => number * PAGE_BYTES;

function listed() {
  const list = new PageList();
  list.fill(
    [
      { start: page(1), end: page(3), source: page(7) },
      { start: page(5), end: page(7), source: ZERO },
    ],
    ZEROS,
  );
  return list;
}

const entriesOf = (list: PageList) => {
  const [from, to] = list.entries;
  const words = Array.from(new Uint32Array(list.memory.buffer, from, (to - from) / 4), (at) => at / PAGE_BYTES);
  return Array.from({ length: words.length / 2 }, (_, index) => words.slice(index * 2, index * 2 + 2));
};
const ageOf = (list: PageList, number: number) => new Uint8Array(list.memory.buffer, number, 1);

test("names each page of the spans, with where it lies in the image; zeros have one place", () => {
  expect(entriesOf(listed())).toEqual([
    [1, 7],
    [2, 8],
    [5, 99],
    [6, 99],
  ]);
});

test("gives the list in parts, in order", () => {
  const list = listed();
  const [from, to] = list.entries;
  expect([...list.parts(3)]).toEqual([
    [from, from + 24],
    [from + 24, to],
  ]);
});

test("takes pages that are old enough, but for those that stay, as runs", () => {
  const list = listed();
  for (const number of [1, 2, 5]) ageOf(list, number)[0] = 9;
  expect(list.take(9, new Set([5]))).toEqual([[page(1), page(3)]]);
  expect(entriesOf(list)).toEqual([
    [5, 99],
    [6, 99],
  ]);
  // What was taken is young when it is listed again.
  list.fill([{ start: page(1), end: page(3), source: page(7) }], ZEROS);
  expect(list.take(1, new Set())).toEqual([]);
});

test("lists every page of the largest heap", () => {
  const list = new PageList();
  list.fill([{ start: 0, end: 2 ** 32, source: ZERO }], ZEROS);
  expect(list.length).toBe(2 ** 20);
  const [, to] = list.entries;
  expect(new Uint32Array(list.memory.buffer, to - 8, 1)[0]).toBe(2 ** 32 - PAGE_BYTES);
});
