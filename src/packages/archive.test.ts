import { createHash } from "node:crypto";
import { readdir, readFile, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { parseArchive } from "../wire/archive-format.ts";
import { buildArchive } from "./archive.ts";
import { makeWheel, type WheelRecipe } from "./testing/wheels.ts";
import { Wheel } from "./wheel.ts";

async function archiveOf(recipes: readonly WheelRecipe[], folder: string) {
  const wheels: Wheel[] = [];
  try {
    for (const recipe of recipes) {
      const made = await makeWheel(recipe);
      const file = path.join(temporaryFolder(), "wheel");
      await writeFile(file, made.bytes);
      wheels.push(await Wheel.open(file, made.filename));
    }
    return await buildArchive(wheels, folder);
  } finally {
    for (const wheel of wheels) wheel.close();
  }
}

const ONE: WheelRecipe = { name: "one", version: "1", files: { "one/__init__.py": "one = 1\n" } };
const TWO: WheelRecipe = {
  name: "two",
  version: "2",
  files: {
    "two/native.so": Buffer.from("\0asm\u0001\0\0\0", "latin1"),
    "two/foreign.so": "\x7fELF",
    "two/empty.py": "",
  },
};

test("an archive holds every installed file, and knows the shared libraries", async () => {
  const folder = temporaryFolder();
  const built = await archiveOf([ONE, TWO], folder);
  const bytes = await readFile(built.path);
  expect(createHash("sha256").update(bytes).digest("hex")).toBe(built.sha256);
  expect(bytes.length).toBe(built.bytes);
  expect(path.basename(built.path)).toBe(`${built.sha256}.pkgs`);
  const archive = parseArchive(bytes);
  expect(archive.entries).toEqual(built.entries);
  expect(archive.entries.map(({ path: file, kind }) => (kind === undefined ? file : `${file} (${kind})`))).toEqual([
    "site-packages/one-1.dist-info/METADATA",
    "site-packages/one-1.dist-info/RECORD",
    "site-packages/one-1.dist-info/WHEEL",
    "site-packages/one/__init__.py",
    "site-packages/two-2.dist-info/METADATA",
    "site-packages/two-2.dist-info/RECORD",
    "site-packages/two-2.dist-info/WHEEL",
    "site-packages/two/empty.py",
    "site-packages/two/foreign.so",
    "site-packages/two/native.so (library)",
  ]);
  const entry = archive.entries.find((item) => item.path.endsWith("__init__.py"));
  expect(entry && Buffer.from(archive.read(entry)).toString()).toBe("one = 1\n");
  expect(await readdir(folder)).toEqual([path.basename(built.path)]);
});

test("the same wheels give the same bytes", async () => {
  const first = await archiveOf([ONE, TWO], temporaryFolder());
  const second = await archiveOf([ONE, TWO], temporaryFolder());
  expect(second.sha256).toBe(first.sha256);
  const changed = { ...ONE, files: { "one/__init__.py": "one = 2\n" } };
  expect((await archiveOf([changed, TWO], temporaryFolder())).sha256).not.toBe(first.sha256);
});

test("a file that two wheels have is taken from the first; it is told only if they differ", async () => {
  const other = (name: string, text: string): WheelRecipe => ({ name, version: "1", files: { "shared.py": text } });
  const equal = await archiveOf([other("a", "x"), other("b", "x")], temporaryFolder());
  expect(equal.shadowed).toEqual([]);
  const different = await archiveOf([other("a", "x"), other("b", "y")], temporaryFolder());
  expect(different.shadowed).toEqual(["site-packages/shared.py"]);
  const archive = parseArchive(await readFile(different.path));
  const entry = archive.entries.find((item) => item.path.endsWith("shared.py"));
  expect(entry && Buffer.from(archive.read(entry)).toString()).toBe("x");
});

test("wheels that cannot stand side by side are refused, and nothing is left behind", async () => {
  const folder = temporaryFolder();
  const file: WheelRecipe = { name: "a", version: "1", files: { clash: "a file" } };
  const inside: WheelRecipe = { name: "b", version: "1", files: { "clash/x.py": "" } };
  await expect(archiveOf([file, inside], folder)).rejects.toThrow(
    /cannot be installed together: .*a file and a folder/,
  );
  const damaged: WheelRecipe = {
    ...ONE,
    record: (text) => text.replace(/(one\/__init__\.py,sha256=).{8}/, "$1AAAAAAAA"),
  };
  await expect(archiveOf([damaged], folder)).rejects.toThrow(/does not match its hash/);
  expect(await readdir(folder)).toEqual([]);
});

test("an archive without files is an archive", async () => {
  const built = await archiveOf([], temporaryFolder());
  expect(parseArchive(await readFile(built.path)).entries).toEqual([]);
});

test("a folder that cannot be made is the server's storage, not a fault", async () => {
  const folder = path.join(temporaryFolder(), "archives");
  // Making it fails in the same way as on a read-only file system.
  await symlink(`${folder}-none`, folder);
  await expect(archiveOf([ONE], folder)).rejects.toMatchObject({
    code: "package_storage",
    message: "The server cannot store packages: its package folder cannot be made.",
  });
});
