import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openEnvironments } from "../../src/compose/environments.ts";
import { openHost } from "../../src/compose/host.ts";
import { type ArchivePart, buildArchive } from "../../src/packages/archive.ts";
import { BytecodeCompiler } from "../../src/packages/bytecode-compiler.ts";
import { BytecodeStore } from "../../src/packages/bytecode-store.ts";
import { KeptArchives } from "../../src/packages/kept-archives.ts";
import { sourceHash } from "../../src/packages/pyc.ts";
import type { SandboxOptions } from "../../src/sandbox/sandbox.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { Archive, type ArchiveEntry } from "../../src/wire/archive-format.ts";
import type { HostCall } from "../../src/wire/host-calls.ts";
import type { PackageListing } from "../../src/wire/messages.ts";
import { testConfig } from "../support/config.ts";
import { guestOptions, runOn, startTestSandbox } from "../support/sandbox.ts";

let options: SandboxOptions;
let stdlibPath: string;
let close: () => Promise<unknown>;

beforeAll(async () => {
  const opened = await openEnvironments(testConfig(), pino({ level: "silent" }), await openHost(testConfig()));
  close = opened.close;
  options = await opened.images.compiler();
  stdlibPath = (await opened.images.base()).stdlibPath;
}, 120_000);
/** No sandbox starts once they are closed. */
afterAll(async () => await close());

const SOURCES: Readonly<Record<string, string>> = {
  "site-packages/pack/__init__.py":
    'NAMES = {"a", "b", "c", "a longer one"}\nPAIR = (1, 2.5, "x" * 3)\n\n\ndef broken():\n    raise ValueError("of pack")\n',
  "site-packages/pack/old.py": 'print "Python 2"\n',
  "site-packages/pack/text.py": "'\\d'  # warns\nΩ = 'Ω'\n",
  "site-packages/pack/zero.py": "x = 1\0\n",
  "site-packages/pack/deep.py": `${"(".repeat(3000)}${")".repeat(3000)}\n`,
  "site-packages/pack/tests/test_pack.py": "assert True\n",
  "data/pack/template.py": "x = 1\n",
};

function partOf(sources: Readonly<Record<string, string>>): ArchivePart {
  const bytes = (name: string) => Buffer.from(sources[name] as string);
  return {
    filename: "pack",
    files: Object.keys(sources).map((name) => ({ path: name, zipPath: name, size: bytes(name).length, hash: null })),
    read: async ({ path: name }) => bytes(name),
  };
}

async function withCompiler<T>(use: (compiler: BytecodeCompiler) => Promise<T>): Promise<T> {
  const compiler = new BytecodeCompiler(async () => options);
  return await use(compiler).finally(() => compiler.close());
}

/** Archive of SOURCES with its bytecode, as a caller's packages are mounted. */
async function packArchive(folder: string, sources = SOURCES) {
  return await withCompiler(async (compiler) => {
    const part = partOf(sources);
    const store = new BytecodeStore(folder, compiler, async () => "key");
    const bytecode = await store.get(async () => ({ ...part, close: () => {} }), "0".repeat(64));
    return await buildArchive([{ ...part, bytecode }], folder);
  });
}

async function mountable(file: string, sha256: string) {
  const bytes = await readFile(file);
  const archive = new Archive((offset, length) => bytes.subarray(offset, offset + length), bytes.length);
  const listing: PackageListing = { sha256, entries: archive.entries };
  const read: string[] = [];
  const answer: HostCall<"read-package">["answer"] = ({ offset, length }) => {
    const entry = archive.entries.find((item) => item.offset <= offset && offset < item.offset + item.size);
    read.push((entry as ArchiveEntry).path);
    return { value: null, body: bytes.subarray(archive.dataStart + offset, archive.dataStart + offset + length) };
  };
  return { packages: listing, calls: () => ({ "read-package": { answer } }), read };
}

test("what can be compiled is, beside its source; syntax errors, tests and data go without", async () => {
  const archive = await packArchive(temporaryFolder());
  const paths = archive.entries.map((entry) => entry.path);
  expect(paths.filter((name) => name.endsWith(".pyc"))).toEqual([
    "site-packages/pack/__pycache__/__init__.cpython-314.pyc",
    "site-packages/pack/__pycache__/text.cpython-314.pyc",
  ]);
  expect(paths).toEqual(expect.arrayContaining(Object.keys(SOURCES)));
}, 60_000);

test("bytecode is the same from another sandbox, in another order, and with other packages before it", async () => {
  const compiled = async (before: Readonly<Record<string, string>>[]) =>
    await withCompiler(async (compiler) => {
      for (const sources of before) await compiler.compile(partOf(sources), "/lib/environment");
      return await compiler.compile(partOf(SOURCES), "/lib/environment");
    });
  const other = { "site-packages/other.py": "NAMES = {'c', 'b', 'a'}\nimport json, tarfile\n" };
  const [first, second] = [await compiled([]), await compiled([other, SOURCES])];
  expect(second.map(({ path: name, bytes }) => [name, Buffer.from(bytes).toString("hex")])).toEqual(
    first.map(({ path: name, bytes }) => [name, Buffer.from(bytes).toString("hex")]),
  );
  const { bytes } = first.find(({ path: name }) => name.includes("__init__")) as (typeof first)[0];
  const header = Buffer.from(bytes.subarray(0, 16));
  expect(header.readUInt32LE(4)).toBe(1);
  expect(header.readBigUInt64LE(8)).toBe(
    sourceHash(header.readUInt32LE(0), Buffer.from(SOURCES["site-packages/pack/__init__.py"] as string)),
  );
}, 60_000);

test("imports read the bytecode and not the source; tracebacks and inspect show the source", async () => {
  const folder = temporaryFolder();
  const archive = await packArchive(folder);
  const sandbox = await startTestSandbox();
  const { packages, calls, read } = await mountable(archive.path, archive.sha256);
  const { result } = await runOn(sandbox, "import pack, pack.text\npack.__cached__", { packages, calls });
  expect(result.result).toBe("/lib/packages/site-packages/pack/__pycache__/__init__.cpython-314.pyc");
  expect(read.filter((name) => name.endsWith(".py"))).toEqual([]);
  const code =
    "import pack, inspect\nprint(inspect.getsource(pack.broken), pack.broken.__code__.co_filename)\npack.broken()";
  const failed = await runOn(sandbox, code, { packages, calls });
  expect(String(failed.result.stdout)).toBe(
    'def broken():\n    raise ValueError("of pack")\n /lib/packages/site-packages/pack/__init__.py\n',
  );
  expect(failed.result.errorInfo?.traceback).toContain('    raise ValueError("of pack")');
  const old = await runOn(sandbox, "import pack.old", { packages, calls });
  expect(old.result.errorInfo?.type).toBe("SyntaxError");
  sandbox.kill("the test is done");
}, 60_000);

test("the standard library is imported from bytecode, and has its sources", async () => {
  const sandbox = await startTestSandbox({ environment: null, stdlibPath });
  const code = `
import builtins, importlib._bootstrap_external as external
compiled = []
original = external.SourceLoader.source_to_code
external.SourceLoader.source_to_code = staticmethod(lambda data, path, **rest: compiled.append(path) or original(data, path, **rest))
import doctest, tarfile, pdb, inspect, os, pkgutil, importlib.resources
[compiled, tarfile.__file__, tarfile.__cached__, inspect.getsource(tarfile.is_tarfile).splitlines()[0], open(os.__file__).readline()[:8],
 any(module.name == "tarfile" for module in pkgutil.iter_modules()), importlib.resources.files("email").joinpath("mime").is_dir()]`;
  const { result } = await runOn(sandbox, code);
  expect(result.result).toEqual([
    [],
    "/lib/python314.zip/tarfile.py",
    "/lib/python314.zip/__pycache__/tarfile.cpython-314.pyc",
    "def is_tarfile(name):",
    'r"""OS r',
    true,
    true,
  ]);
  sandbox.kill("the test is done");
}, 60_000);

test("every source of the standard library has bytecode", async () => {
  const bytes = await readFile(stdlibPath);
  const { entries } = new Archive((offset, length) => bytes.subarray(offset, offset + length), bytes.length);
  const count = (ending: string) => entries.filter((entry) => entry.path.endsWith(ending)).length;
  expect(count(".pyc")).toBe(count(".py"));
});

test("an archive with damaged bytecode is not taken", async () => {
  const folder = temporaryFolder();
  const archive = await packArchive(folder);
  const kept = new KeptArchives(folder);
  await kept.remember("1".repeat(64), { format: 1, archive });
  expect(await new KeptArchives(folder).find("1".repeat(64), 1)).not.toBeNull();
  const bytes = await readFile(archive.path);
  bytes[bytes.length - 100] = (bytes[bytes.length - 100] as number) ^ 1;
  await writeFile(path.join(folder, path.basename(archive.path)), bytes);
  expect(await new KeptArchives(folder).find("1".repeat(64), 1)).toBeNull();
}, 60_000);

test("nothing is compiled where no sandbox starts", async () => {
  const broken = { ...options, guest: guestOptions({ baseImagePath: "/nowhere", stdlibPath }) };
  const compiler = new BytecodeCompiler(async () => broken);
  await expect(compiler.compile(partOf(SOURCES), "/lib/environment")).rejects.toThrow("/nowhere");
}, 60_000);

/** Nested `finally`: each level compiles all below it twice. */
function slowSource(depth: number): string {
  const levels = Array.from(
    { length: depth },
    (_, level) => `${" ".repeat(level)} try: a\n${" ".repeat(level)} finally:\n`,
  );
  return Array.from(
    { length: 60 },
    (_, number) => `def f${number}():\n${levels.join("")}${" ".repeat(depth)} b\n`,
  ).join("");
}

/** As many wheels as there are compilers, and more, of sources that none comes to the end of. */
function slowWheels(): ArchivePart[] {
  const files = Object.fromEntries(
    Array.from({ length: 20 }, (_, i) => [`site-packages/slow/m${i}.py`, slowSource(16)]),
  );
  return Array.from({ length: 6 }, () => partOf(files));
}

test("a principal's slow sources do not keep another's from being compiled, and end with the request", async () => {
  await withCompiler(async (compiler) => {
    const alice = new AbortController();
    const slow = slowWheels().map((part) =>
      compiler.compile(part, "/lib/environment", undefined, { principal: "alice", signal: alice.signal }),
    );
    const quick = partOf({ "site-packages/quick.py": "x = 1\n" });
    const ends: string[] = [];
    const all = slow.map((work) => work.catch(() => {}).finally(() => ends.push("alice")));
    const compiled = await compiler.compile(quick, "/lib/environment", undefined, { principal: "bob" });
    expect(compiled).toHaveLength(1);
    // Behind one piece of each of hers at the most, of which a wheel has one after another.
    expect(ends).toEqual([]);
    alice.abort(new Error("alice has gone"));
    for (const work of slow) await expect(work).rejects.toThrow("alice has gone");
    await Promise.all(all);
    // All places are free again.
    for (let i = 0; i < 8; i++) expect(await compiler.compile(quick, "/lib/environment")).toHaveLength(1);
  });
}, 120_000);

test("sources that take longer than their wheel may go without, and the wheel comes to an end", async () => {
  await withCompiler(async (compiler) => {
    const part = partOf({
      "site-packages/a.py": "x = 1\n",
      "site-packages/slow.py": slowSource(20),
      "site-packages/z.py": "y = 2\n",
    });
    const compiled = await compiler.compile(part, "/lib/environment", undefined, { principal: "alice" });
    expect(compiled.map(({ path: name }) => name)).toEqual([
      "site-packages/__pycache__/a.cpython-314.pyc",
      "site-packages/__pycache__/z.cpython-314.pyc",
    ]);
  });
}, 120_000);
