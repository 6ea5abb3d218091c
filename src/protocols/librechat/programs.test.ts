import { expect, test } from "vitest";
import { contentsOf } from "./programs.ts";
import type { StoredFile } from "./storage.ts";

const MAX_BYTES = 100;

/** One stored file, under several names. */
function inputs(size: number, names: number): ReadonlyMap<string, StoredFile> {
  const file = {
    id: "a",
    storageSession: "s",
    name: "x",
    path: "/home/pyodide/x",
    size,
    mtimeMs: 0,
    isReadOnly: false,
  };
  return new Map(Array.from({ length: names }, (_, index) => [`/home/pyodide/${index}`, file]));
}

function countingStorage() {
  const storage = {
    reads: 0,
    read: async ({ size }: StoredFile) => {
      storage.reads++;
      return new Uint8Array(size);
    },
  };
  return storage;
}

test("a file under many names is read once", async () => {
  const storage = countingStorage();
  expect((await contentsOf(storage, inputs(10, 10), MAX_BYTES)).size).toBe(10);
  expect(storage.reads).toBe(1);
});

test("files that a workspace has no room for are refused before any is read", async () => {
  const storage = countingStorage();
  await expect(contentsOf(storage, inputs(10, 11), MAX_BYTES)).rejects.toMatchObject({ code: "workspace_full" });
  expect(storage.reads).toBe(0);
});
