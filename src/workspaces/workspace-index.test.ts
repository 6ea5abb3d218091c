import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FIXED_FOLDERS, parentOf } from "./paths.ts";
import { WorkspaceIndex, type Written } from "./workspace-index.ts";

const LIMITS = { maxBytes: 1000, maxFiles: 30 };

const file = (path: string, size = 1, mtimeMs = 5): Written => ({
  path,
  kind: "file",
  size,
  mtimeMs,
  sha256: String(size).padStart(64, "0"),
});
const folder = (path: string, mtimeMs = 5): Written => ({ path, kind: "folder", mtimeMs });
const empty = () => WorkspaceIndex.empty(1);
const paths = (index: WorkspaceIndex) =>
  index.listing.map(({ path }) => path).filter((path) => !FIXED_FOLDERS.has(path));
const indexOf = (...written: Written[]) => empty().merge(written, [], LIMITS);

describe("merge", () => {
  test("makes the folders on the way to a file", () => {
    expect(paths(indexOf(file("/tmp/a/b/c")))).toEqual(["/tmp/a", "/tmp/a/b", "/tmp/a/b/c"]);
  });

  test("deletes a folder only with all that is in it, in any order", () => {
    const index = indexOf(file("/tmp/a/b/c"), file("/tmp/a/d"));
    expect(paths(index.merge([], ["/tmp/a", "/tmp/a/b/c", "/tmp/a/b"], LIMITS))).toEqual(["/tmp/a", "/tmp/a/d"]);
    expect(paths(index.merge([], ["/tmp/a", "/tmp/a/d", "/tmp/a/b/c", "/tmp/a/b"], LIMITS))).toEqual([]);
  });

  test("deletes each path once, however often it is named", () => {
    const index = indexOf(file("/tmp/a/b"), file("/tmp/a/c"));
    expect(paths(index.merge([], ["/tmp/a", "/tmp/a/b", "/tmp/a/b", "/tmp/a/b"], LIMITS))).toEqual([
      "/tmp/a",
      "/tmp/a/c",
    ]);
  });

  test("keeps the fixed folders", () => {
    const index = empty().merge([], [...FIXED_FOLDERS], LIMITS);
    expect(index.listing.map(({ path }) => path)).toEqual([...FIXED_FOLDERS].sort());
  });

  test("puts a file in a folder's place, and a folder in a file's", () => {
    const index = indexOf(file("/tmp/a/b/c"), file("/tmp/ab"), file("/tmp/x"));
    expect(paths(index.merge([file("/tmp/a")], [], LIMITS))).toEqual(["/tmp/a", "/tmp/ab", "/tmp/x"]);
    expect(paths(index.merge([file("/tmp/x/y")], [], LIMITS))).toContain("/tmp/x/y");
    expect(index.merge([file("/tmp/x/y")], [], LIMITS).get("/tmp/x")?.kind).toBe("folder");
    expect(index.merge([folder("/tmp/x")], [], LIMITS).usage).toMatchObject({ bytes: 2, files: 5 });
  });

  test.each<[string, Written[]]>([
    ["a file inside a file", [file("/tmp/a"), file("/tmp/a/b")]],
    ["the same the other way round", [file("/tmp/a/b/c"), file("/tmp/a")]],
    ["a file in a fixed folder's place", [file("/plots")]],
    ["a time that is none", [file("/tmp/a", 1, Number.NaN)]],
  ])("refuses %s", (_name, written) => {
    for (const index of [empty(), indexOf(file("/tmp/a/b/c"))]) {
      expect(() => index.merge(written, [], LIMITS)).toThrow(
        expect.objectContaining({ status: 400, code: "invalid_changes" }),
      );
    }
  });

  test("brings times into what a Date can hold", () => {
    const index = indexOf(file("/tmp/a", 1, 1e300), file("/tmp/b", 1, -1e300));
    for (const { mtimeMs } of index.listing) expect(() => new Date(mtimeMs).toISOString()).not.toThrow();
  });

  test("refuses more bytes, files or path text than allowed, and nothing less", () => {
    const full = { status: 413, code: "workspace_full" };
    expect(indexOf(file("/tmp/a", 1000)).usage.bytes).toBe(1000);
    expect(() => indexOf(file("/tmp/a", 1000), file("/tmp/b"))).toThrow(expect.objectContaining(full));
    const many = Array.from({ length: 30 }, (_, i) => file(`/tmp/${i}`));
    expect(indexOf(...many).usage.files).toBe(30);
    expect(() => indexOf(...many, folder("/tmp/one more"))).toThrow(expect.objectContaining(full));
    expect(() => indexOf(file(`/tmp${"/d".repeat(31)}`))).toThrow(expect.objectContaining(full));
    const deep = Array.from({ length: 200 }, (_, i) => file(`/tmp/${i}${`/${"n".repeat(250)}`.repeat(16)}`));
    expect(() => empty().merge(deep, [], { ...LIMITS, maxFiles: 1e6 })).toThrow(expect.objectContaining(full));
  });

  test("lets a workspace that is over a lowered limit shrink", () => {
    const lowered = { maxBytes: 10, maxFiles: 2 };
    const index = indexOf(file("/tmp/a", 500), file("/tmp/b", 1), file("/tmp/c", 1), file("/tmp/d", 1));
    const smaller = index.merge([file("/tmp/a", 100)], ["/tmp/b"], lowered);
    expect(smaller.usage).toMatchObject({ bytes: 102, files: 3 });
    expect(() => smaller.merge([file("/tmp/a", 101)], [], lowered)).toThrow(expect.objectContaining({ status: 413 }));
  });

  test("leaves the index it started from as it was", () => {
    const index = indexOf(file("/tmp/a/b"));
    index.merge([file("/tmp/a"), file("/tmp/c")], ["/tmp/a/b"], LIMITS);
    expect(paths(index)).toEqual(["/tmp/a", "/tmp/a/b"]);
  });
});

describe("toJson and parse", () => {
  test("any sequence of changes gives a tree whose sums are right, and which survives the disk", () => {
    const name = fc.constantFrom("a", "b", "__proto__");
    const anyPath = fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => `/tmp/${names.join("/")}`);
    const anyWritten = fc.oneof(
      anyPath.map((path) => folder(path)),
      fc.tuple(anyPath, fc.nat(20)).map(([path, size]) => file(path, size)),
    );
    const change = fc.record({ written: fc.array(anyWritten, { maxLength: 6 }), deleted: fc.array(anyPath) });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 8 }), (changes) => {
        let index = empty();
        for (const { written, deleted } of changes) {
          try {
            index = index.merge(written, deleted, LIMITS);
          } catch (error) {
            expect(error).toMatchObject({ code: expect.stringMatching(/^(invalid_changes|workspace_full)$/) });
          }
        }
        const listing = index.listing.filter(({ path }) => !FIXED_FOLDERS.has(path));
        for (const { path } of listing) expect(index.get(parentOf(path))?.kind).toBe("folder");
        expect(index.usage).toMatchObject({
          bytes: listing.reduce((sum, { size }) => sum + size, 0),
          files: listing.length,
          pathBytes: listing.reduce((sum, { path }) => sum + path.length, 0),
        });
        const read = WorkspaceIndex.parse(index.toJson("alice"));
        expect(read.listing).toEqual(index.listing);
        expect(read.usage).toEqual(index.usage);
      }),
    );
  });

  test("has the same files as another only if each is equal in all that a sandbox sees of it", () => {
    const base = empty().merge([file("/tmp/a", 9)], [], LIMITS);
    const entry = base.get("/tmp/a") as { mtimeMs: number; size: number; sha256: string };
    expect(WorkspaceIndex.parse(base.toJson("x")).hasSameFiles(base)).toBe(true);
    for (const other of [
      empty(),
      base.merge([file("/tmp/b", 9)], ["/tmp/a"], LIMITS),
      base.merge([{ ...file("/tmp/a", 9), mtimeMs: entry.mtimeMs + 1 }], [], LIMITS),
      base.merge([{ ...file("/tmp/a", 9), sha256: "0".repeat(64) } as Written], [], LIMITS),
      base.merge([file("/tmp/a", 8)], [], LIMITS),
      base.merge([{ path: "/tmp/a", kind: "folder", mtimeMs: entry.mtimeMs }], [], LIMITS),
    ]) {
      expect([base.hasSameFiles(other), other.hasSameFiles(base)]).toEqual([false, false]);
    }
  });

  test("carries upload records", () => {
    const upload = { filename: "a.csv", originalName: "Ä\n.csv", size: 9, sha256: "f".repeat(64), uploadedAtMs: 7 };
    const index = empty().withUpload(upload, [file("/tmp/a", 9)], LIMITS);
    const read = WorkspaceIndex.parse(index.toJson("alice"));
    expect([...read.uploads.values()]).toEqual([upload]);
    expect(read.usage).toMatchObject({ bytes: 9, files: 2 });
  });

  test.each(["", "{}", "[]", '{"version":2,"principal":"","entries":[],"uploads":[]}', '{"version":1,"princ'])(
    "refuses %j",
    (text) => {
      expect(() => WorkspaceIndex.parse(text)).toThrow();
    },
  );
});
