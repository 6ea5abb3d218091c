import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { makeFolder, makeFolderSync } from "./make-folder.ts";
import { temporaryFolder } from "./testing/temporary-folder.ts";

const makers: [name: string, make: (folder: string, mode?: number) => Promise<void>][] = [
  ["makeFolder", makeFolder],
  ["makeFolderSync", async (folder, mode) => makeFolderSync(folder, mode)],
];

test.for(makers)("%s makes a folder and those that it lies in, or leaves it as it is", async ([, make]) => {
  const root = temporaryFolder();
  const folder = path.join(root, "a/b/c");
  await make(folder, 0o700);
  for (const name of ["a", "a/b", "a/b/c"]) expect(statSync(path.join(root, name)).mode & 0o777).toBe(0o700);
  mkdirSync(path.join(folder, "kept"));
  await make(folder, 0o700);
  expect(existsSync(path.join(folder, "kept"))).toBe(true);
});

test.for(makers)("%s throws where a file is in the way", async ([, make]) => {
  const file = path.join(temporaryFolder(), "file");
  writeFileSync(file, "");
  await expect(make(file)).rejects.toThrow(/EEXIST/);
  await expect(make(path.join(file, "a"))).rejects.toThrow(/ENOTDIR/);
});

// Node's own never returns there.
test.skipIf(!existsSync("/proc/self")).for(makers)("%s throws where no folder can be made", async ([, make]) => {
  await expect(make("/proc/nowhere")).rejects.toThrow(/ENOENT|EACCES/);
  await expect(make("/proc/nowhere/a/b")).rejects.toThrow(/ENOENT|EACCES/);
});
