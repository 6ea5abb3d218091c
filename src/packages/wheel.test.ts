import { writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import type { ZipLimits } from "./safe-zip.ts";
import { ZIP_LIMITS } from "./safe-zip.ts";
import { type MadeWheel, makeWheel, makeZip, type WheelRecipe } from "./testing/wheels.ts";
import { readWheelMetadata, Wheel } from "./wheel.ts";

async function onDisk({ bytes }: { bytes: Uint8Array }): Promise<string> {
  const file = path.join(temporaryFolder(), "file");
  await writeFile(file, bytes);
  return file;
}

async function contentsOf(wheel: MadeWheel, limits: ZipLimits = ZIP_LIMITS): Promise<Record<string, string>> {
  const open = await Wheel.open(await onDisk(wheel), wheel.filename, limits);
  try {
    const contents: Record<string, string> = {};
    for (const file of open.files) contents[file.path] = (await open.read(file)).toString();
    return contents;
  } finally {
    open.close();
  }
}

const RECIPE: WheelRecipe = { name: "Demo-Package", version: "1.2" };
const damaged = (message: RegExp) =>
  expect.objectContaining({ code: "package_damaged", message: expect.stringMatching(message) });
const tooLarge = expect.objectContaining({ code: "package_too_large" });

test("a sound wheel is read, its metadata included", async () => {
  const wheel = await makeWheel({
    ...RECIPE,
    license: "MIT",
    requires: ["numpy>=2 ; python_version >= '3'", "rich ; extra == 'pretty'"],
    extras: ["pretty"],
    requiresPython: ">=3.9",
    files: { "demo_package/__init__.py": "x = 1\n", "demo_package/data,1.txt": "comma" },
    record: (text) => text.replace("demo_package/data,1.txt", '"demo_package/data,1.txt"'),
  });
  const open = await Wheel.open(await onDisk(wheel), wheel.filename);
  expect(open.metadata).toMatchObject({
    name: "Demo-Package",
    key: "demo-package",
    version: "1.2",
    requiresPython: ">=3.9",
    extras: ["pretty"],
    license: "MIT",
  });
  expect(open.metadata.requires.map(({ key }) => key)).toEqual(["numpy", "rich"]);
  open.close();
  expect(await contentsOf(wheel)).toMatchObject({
    "site-packages/demo_package/__init__.py": "x = 1\n",
    "site-packages/demo_package/data,1.txt": "comma",
    "site-packages/Demo_Package-1.2.dist-info/METADATA": wheel.metadata,
    "site-packages/Demo_Package-1.2.dist-info/RECORD": expect.stringContaining("METADATA,sha256="),
  });
});

test(".data folders go where they belong, scripts and headers nowhere", async () => {
  const data = "Demo_Package-1.2.data";
  const wheel = await makeWheel({
    ...RECIPE,
    files: {
      [`${data}/purelib/pure.py`]: "pure",
      [`${data}/platlib/plat.py`]: "plat",
      [`${data}/data/share/doc.txt`]: "doc",
      [`${data}/scripts/run`]: "#!python",
      [`${data}/headers/x.h`]: "",
    },
  });
  const contents = await contentsOf(wheel);
  expect(Object.keys(contents).filter((file) => !file.includes(".dist-info/"))).toEqual([
    "data/share/doc.txt",
    "site-packages/plat.py",
    "site-packages/pure.py",
  ]);
});

test("METADATA alone can be read", async () => {
  const wheel = await makeWheel({ ...RECIPE, requires: ["a>1"] });
  const metadata = await readWheelMetadata(await onDisk(wheel), wheel.filename);
  expect(metadata.requires.map(({ text }) => text)).toEqual(["a>1"]);
});

describe("entries that could harm", () => {
  test.each([
    ["../evil.py", /invalid relative path/],
    ["demo/../../evil.py", /invalid relative path/],
    ["/etc/evil.py", /absolute/],
    ["demo\\..\\evil.py", /backslash|leaves|invalid/],
    ["demo/ev\0il.py", /control character/],
    ["demo/./evil.py", /empty name/],
    ["demo//evil.py", /empty name/],
    ["demo/new\nline.py", /control character/],
  ])("%j is refused", async (name, message) => {
    const wheel = await makeWheel({ ...RECIPE, unlisted: [{ name, data: "evil" }] });
    expect(wheel.bytes.includes(name)).toBe(true);
    await expect(contentsOf(wheel)).rejects.toThrow(damaged(message));
  });

  test("a symbolic link is refused", async () => {
    const wheel = await makeWheel({ ...RECIPE, unlisted: [{ name: "link", data: "/etc/passwd", mode: 0o120777 }] });
    await expect(contentsOf(wheel)).rejects.toThrow(damaged(/symbolic link/));
  });

  test("a name that is there twice is refused", async () => {
    const twice = { name: "twice.py", data: "x" };
    const wheel = await makeWheel({ ...RECIPE, unlisted: [twice, twice] });
    await expect(contentsOf(wheel)).rejects.toThrow(damaged(/there twice/));
  });

  test("a file that is a folder as well is refused", async () => {
    const wheel = await makeWheel({ ...RECIPE, files: { demo: "a file", "demo/x.py": "" } });
    await expect(contentsOf(wheel)).rejects.toThrow(damaged(/a file and a folder/));
  });

  test("two entries that would be installed at one place are refused", async () => {
    const wheel = await makeWheel({ ...RECIPE, files: { "x.py": "1", "Demo_Package-1.2.data/purelib/x.py": "2" } });
    await expect(contentsOf(wheel)).rejects.toThrow(damaged(/installs "site-packages\/x.py" twice/));
  });

  test("a zip bomb is refused before it is unpacked", async () => {
    const wheel = await makeWheel({ ...RECIPE, files: { "bomb.txt": Buffer.alloc(64 * 1024 * 1024) } });
    expect(wheel.bytes.length).toBeLessThan(1024 * 1024);
    await expect(contentsOf(wheel)).rejects.toThrow(damaged(/zip bomb/));
  });

  test("a file that unpacks to more than its declared size is cut off", async () => {
    const data = Buffer.alloc(100_000, "spam and eggs ");
    const declared = Buffer.alloc(4);
    declared.writeUInt32LE(data.length);
    const record = (text: string) => text.replace(`,${data.length}`, ",10");
    const lying = await makeWheel({ ...RECIPE, files: { "liar.txt": data }, record });
    const patched = Buffer.from(lying.bytes);
    for (let at = patched.indexOf(declared); at !== -1; at = patched.indexOf(declared, at + 1))
      patched.writeUInt32LE(10, at);
    await expect(contentsOf({ ...lying, bytes: patched })).rejects.toThrow(damaged(/"liar.txt" cannot be unpacked/));
  });

  test("limits on entries, file size and total size hold", async () => {
    const wheel = await makeWheel({ ...RECIPE, files: { "a.txt": "0123456789", "b.txt": "0123456789" } });
    await expect(contentsOf(wheel, { ...ZIP_LIMITS, maxEntries: 4 })).rejects.toThrow(tooLarge);
    await expect(contentsOf(wheel, { ...ZIP_LIMITS, maxFileBytes: 9 })).rejects.toThrow(tooLarge);
    await expect(contentsOf(wheel, { ...ZIP_LIMITS, maxTotalBytes: 100 })).rejects.toThrow(tooLarge);
    expect(Object.keys(await contentsOf(wheel, { ...ZIP_LIMITS, maxEntries: 5 }))).toHaveLength(5);
  });
});

describe("damage", () => {
  test.each([0.1, 0.5, 0.99])("truncated at %f of its length", async (part) => {
    const wheel = await makeWheel(RECIPE);
    const bytes = wheel.bytes.subarray(0, Math.floor(wheel.bytes.length * part));
    await expect(contentsOf({ ...wheel, bytes })).rejects.toThrow(damaged(/no zip file, or it is truncated/));
  });

  test.each(["", "<!doctype html><title>Sign in</title>", "PK\u0003\u0004"])("%j is no wheel", async (text) => {
    const wheel = { ...(await makeWheel(RECIPE)), bytes: Buffer.from(text) };
    await expect(contentsOf(wheel)).rejects.toThrow(damaged(/no zip file/));
  });

  test("no single flipped bit in the packed files goes unnoticed", async () => {
    const wheel = await makeWheel({ ...RECIPE, files: { "m.py": "0123456789abcdefghijklmnopqrstuvwxyz" } });
    const start = wheel.bytes.indexOf("m.py") + 4;
    for (let at = start; at < start + 16; at++) {
      const bytes = Buffer.from(wheel.bytes);
      bytes[at] = (bytes[at] as number) ^ 0x10;
      await expect(contentsOf({ ...wheel, bytes }), `byte ${at}`).rejects.toThrow(damaged(/./));
    }
  });

  test("RECORD has to agree with the files", async () => {
    const change = async (record: (text: string) => string, extra: Partial<WheelRecipe> = {}) =>
      await contentsOf(await makeWheel({ ...RECIPE, files: { "m.py": "x = 1\n" }, record, ...extra }));
    await expect(change((text) => text.replace(/m\.py,sha256=.{8}/, "m.py,sha256=AAAAAAAA"))).rejects.toThrow(
      damaged(/"m.py" does not match its hash/),
    );
    await expect(change((text) => text.replace(/^m\.py.*\n/m, ""))).rejects.toThrow(damaged(/"m.py" is not listed/));
    await expect(change((text) => text.replace(/^m\.py.*$/m, "m.py,,"))).rejects.toThrow(damaged(/no hash/));
    await expect(change((text) => text.replace(/^m\.py.*$/m, "m.py,md5=abc,6"))).rejects.toThrow(
      damaged(/proves nothing/),
    );
    await expect(change((text) => text.replace(/^(m\.py.*),6$/m, "$1,7"))).rejects.toThrow(damaged(/another size/));
    await expect(change((text) => `${text}gone.py,sha256=abc,3\n`)).rejects.toThrow(damaged(/"gone.py" is listed/));
    await expect(change((text) => `${text}a,"b\n`)).rejects.toThrow(damaged(/RECORD cannot be read/));
    await expect(change((text) => text, { unlisted: [{ name: "sneaked.py", data: "" }] })).rejects.toThrow(
      damaged(/"sneaked.py" is not listed/),
    );
  });

  test("a wheel has to be what its file name says", async () => {
    const wheel = await makeWheel(RECIPE);
    await expect(contentsOf({ ...wheel, filename: "other-1.2-py3-none-any.whl" })).rejects.toThrow(
      damaged(/is that of/),
    );
    await expect(contentsOf({ ...wheel, filename: "demo_package-1.3-py3-none-any.whl" })).rejects.toThrow(
      damaged(/says version 1.2/),
    );
  });

  test("a zip without .dist-info is refused", async () => {
    const bytes = await makeZip([{ name: "demo.py", data: "" }]);
    await expect(contentsOf({ ...(await makeWheel(RECIPE)), bytes })).rejects.toThrow(damaged(/no .dist-info/));
  });
});
