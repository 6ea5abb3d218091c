import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { OwnFiles } from "../../workspaces/own-files.ts";
import { keptContents } from "./programs.ts";
import type { StoredFile } from "./storage.ts";

const LIMITS = { maxBytes: 100, maxFiles: 100 };

/** One stored file, under several names. */
function inputs(size: number, names: number): ReadonlyMap<string, StoredFile> {
  const file = {
    id: "a",
    storageSession: "s",
    name: "x",
    path: "/home/pyodide/x",
    size,
    sha256: createHash("sha256").update(new Uint8Array(size)).digest("hex"),
    mtimeMs: 0,
    isReadOnly: false,
  };
  return new Map(Array.from({ length: names }, (_, index) => [`/home/pyodide/${index}`, file]));
}

function countingStorage(contentOf = ({ size }: StoredFile) => new Uint8Array(size)) {
  const storage = {
    reads: 0,
    read: async (file: StoredFile) => {
      storage.reads++;
      return contentOf(file);
    },
  };
  return storage;
}

test("a stored file is read when code opens it: what waits for a sandbox has none in memory", async () => {
  const storage = countingStorage();
  const files = await OwnFiles.of(new Map(), LIMITS, keptContents(storage, inputs(10, 10)));
  expect((await files.list()).filter(({ kind, size }) => kind === "file" && size === 10)).toHaveLength(10);
  expect(files.has("/home/pyodide/9")).toBe(true);
  expect(storage.reads).toBe(0);
  expect(await files.read("/home/pyodide/9")).toHaveLength(10);
  expect(storage.reads).toBe(1);
});

test("files that a workspace has no room for are refused before any is read", async () => {
  const storage = countingStorage();
  await expect(OwnFiles.of(new Map(), LIMITS, keptContents(storage, inputs(10, 11)))).rejects.toMatchObject({
    code: "workspace_full",
  });
  expect(storage.reads).toBe(0);
});

test("a stored file that was replaced meanwhile is not taken for what it was", async () => {
  const storage = countingStorage(({ size }) => new Uint8Array(size).fill(1));
  const files = await OwnFiles.of(new Map(), LIMITS, keptContents(storage, inputs(10, 1)));
  await expect(files.read("/home/pyodide/0")).rejects.toMatchObject({ code: "content_gone" });
});
