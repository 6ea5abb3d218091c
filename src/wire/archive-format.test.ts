import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  Archive,
  ArchiveFormatError,
  archivePathProblem,
  encodeArchiveHeader,
  parseArchive,
} from "./archive-format.ts";
import { concatenate } from "./frames.ts";

function pack(files: Readonly<Record<string, string>>): Uint8Array {
  const encoder = new TextEncoder();
  const contents = new Map(Object.entries(files).map(([path, text]) => [path, encoder.encode(text)]));
  const { header, entries } = encodeArchiveHeader([...contents].map(([path, data]) => ({ path, size: data.length })));
  return concatenate([header, ...entries.map(({ path }) => contents.get(path) as Uint8Array)]);
}

/** An archive whose index is `index`, whatever that is. */
function withIndex(index: string, data = ""): Uint8Array {
  const bytes = new TextEncoder().encode(index);
  const prefix = pack({}).slice(0, 16);
  new DataView(prefix.buffer).setUint32(12, bytes.length, true);
  return concatenate([prefix, bytes, new TextEncoder().encode(data)]);
}

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const FILES = { "site-packages/b/__init__.py": "b = 1", "site-packages/a.py": "", "data/ü.txt": "ünïcode" };

test("what goes in comes out, sorted", () => {
  const archive = parseArchive(pack(FILES));
  expect(archive.entries.map(({ path }) => path)).toEqual(Object.keys(FILES).toSorted());
  for (const entry of archive.entries) expect(text(archive.read(entry))).toBe(FILES[entry.path as keyof typeof FILES]);
});

test("the order in which files are given does not matter", () => {
  expect(pack(Object.fromEntries(Object.entries(FILES).reverse()))).toEqual(pack(FILES));
});

test("opening reads header and index only, reading a part that part only", () => {
  const bytes = pack(FILES);
  const reads: number[] = [];
  const archive = new Archive((offset, length) => {
    reads.push(length);
    return bytes.subarray(offset, offset + length);
  }, bytes.length);
  expect(reads).toHaveLength(2);
  const entry = archive.entries.find(({ size }) => size === 5);
  if (entry === undefined) throw new Error("no such entry");
  expect(text(archive.read(entry, 2, 2))).toBe("= ".slice(0, 2));
  expect(reads[2]).toBe(2);
  expect(text(archive.read(entry, 3, 100))).toBe(" 1");
  expect(archive.read(entry, 100, 1)).toHaveLength(0);
  expect(() => archive.read(entry, -1)).toThrow(RangeError);
  expect(reads).toHaveLength(4);
});

describe("damaged archives are refused", () => {
  test("cut at any length, or with a byte too many", () => {
    const bytes = pack(FILES);
    for (let length = 0; length < bytes.length; length++)
      expect(() => parseArchive(bytes.subarray(0, length)), `${length}`).toThrow(ArchiveFormatError);
    expect(() => parseArchive(concatenate([bytes, new Uint8Array(1)]))).toThrow(/holds/);
  });

  test.each([
    ["no JSON", "{", /not JSON/],
    ["no list", "{}", /not a list/],
    ["no object", "[null]", /not an object/],
    ["no path", '[{"offset":0,"size":0}]', /without a path/],
    ["a path that climbs", '[{"path":"../a","offset":0,"size":0}]', /leaves its folder/],
    ["an absolute path", '[{"path":"/a","offset":0,"size":0}]', /absolute/],
    ["a negative size", '[{"path":"a","offset":0,"size":-1}]', /no size/],
    ["a size that is no whole number", '[{"path":"a","offset":0,"size":0.5}]', /no size/],
    ["a size beyond the end", '[{"path":"a","offset":0,"size":9}]', /tells of 9 bytes/],
    ["an offset elsewhere", '[{"path":"a","offset":1,"size":0}]', /does not follow/],
    ["an unknown kind", '[{"path":"a","offset":0,"size":0,"kind":"device"}]', /unknown kind/],
    ["a wrong order", '[{"path":"b","offset":0,"size":0},{"path":"a","offset":0,"size":0}]', /out of order/],
    ["a path twice", '[{"path":"a","offset":0,"size":0},{"path":"a","offset":0,"size":0}]', /out of order/],
    [
      "a file that is a folder",
      '[{"path":"a","offset":0,"size":0},{"path":"a-b","offset":0,"size":0},{"path":"a/b","offset":0,"size":0}]',
      /a file and a folder/,
    ],
  ])("%s", (_what, index, message) => {
    expect(() => parseArchive(withIndex(index))).toThrow(message);
  });

  test("another magic, another version, an index of another length", () => {
    for (const [at, message] of [
      [0, /not a package archive/],
      [8, /archive version/],
      [15, /longer than the archive/],
    ] as const) {
      const bytes = pack(FILES);
      bytes[at] = (bytes[at] as number) ^ 0x40;
      expect(() => parseArchive(bytes)).toThrow(message);
    }
  });

  test("random bytes behind a right beginning never give anything but an error of the format", () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 200 }), fc.string({ maxLength: 20 }), (index, data) => {
        expect(() => parseArchive(withIndex(index, data))).toThrow(ArchiveFormatError);
      }),
    );
  });
});

test("paths", () => {
  for (const path of ["a", "site-packages/x.py", "a..b/c.", "ü/…"]) expect(archivePathProblem(path)).toBeNull();
  for (const path of [
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "a/./b",
    "..",
    "a/..",
    "a\\b",
    "a\0",
    "a\x7f",
    "\ud800",
    "x".repeat(256),
  ])
    expect(archivePathProblem(path), JSON.stringify(path)).not.toBeNull();
});

test("paths that could not stand in one archive are refused when it is written", () => {
  const files = (...paths: string[]) => paths.map((path) => ({ path, size: 0 }));
  expect(() => encodeArchiveHeader(files("a", "a"))).toThrow(ArchiveFormatError);
  expect(() => encodeArchiveHeader(files("a", "a/b"))).toThrow(ArchiveFormatError);
  expect(() => encodeArchiveHeader(files("../a"))).toThrow(ArchiveFormatError);
});

test("a path of more than 64 parts is refused, and so checked in no time", () => {
  expect(archivePathProblem(Array(64).fill("a").join("/"))).toBeNull();
  expect(archivePathProblem(Array(65).fill("a").join("/"))).toBe("more than 64 folders deep");
});
