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
const setAge = (list: PageList, number: number, age: number) => {
  new Uint16Array(list.memory.buffer)[number] = age;
};

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

test("takes pages that are old, but for those that stay, as runs", () => {
  const list = listed();
  for (const number of [1, 2, 5]) setAge(list, number, 64);
  setAge(list, 6, 63);
  expect(list.takeOld(new Set([5]))).toEqual([[page(1), page(3)]]);
  expect(entriesOf(list)).toEqual([
    [5, 99],
    [6, 99],
  ]);
});

test("a page that was taken is young when it is listed again, and old at twice the age, each time", () => {
  const list = new PageList();
  const relist = () => list.fill([{ start: page(1), end: page(2), source: 0 }], ZEROS);
  for (const old of [64, 128, 256, 512, 1024, 2048, 4096, 8192, 8192]) {
    relist();
    expect(list.takeOld(new Set())).toEqual([]);
    setAge(list, 1, old - 1);
    expect(list.takeOld(new Set())).toEqual([]);
    setAge(list, 1, old);
    expect(list.takeOld(new Set())).toEqual([[page(1), page(2)]]);
  }
});

test("takes all that is unchanged, which does not count as coming back", () => {
  const list = listed();
  for (const number of [2, 5, 6]) setAge(list, number, 1);
  expect(list.takeUnchanged(new Set([6]))).toEqual([
    [page(2), page(3)],
    [page(5), page(6)],
  ]);
  expect(entriesOf(list)).toEqual([
    [1, 7],
    [6, 99],
  ]);
  list.fill([{ start: page(2), end: page(3), source: 0 }], ZEROS);
  setAge(list, 2, 64);
  expect(list.takeOld(new Set())).toEqual([[page(2), page(3)]]);
});

test("lists every page of the largest heap", () => {
  const list = new PageList();
  list.fill([{ start: 0, end: 2 ** 32, source: ZERO }], ZEROS);
  expect(list.length).toBe(2 ** 20);
  const [, to] = list.entries;
  expect(new Uint32Array(list.memory.buffer, to - 8, 1)[0]).toBe(2 ** 32 - PAGE_BYTES);
});
