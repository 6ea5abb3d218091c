import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import path from "node:path";
import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Runtime, startRuntime } from "../../src/compose/runtime.ts";
import { DiskWorkspaces } from "../../src/workspaces/disk-workspaces.ts";
import { testConfig } from "../support/config.ts";

const config = testConfig({ POOL_SIZE: "2", WORKSPACE_MAX_MB: "1" });
let runtime: Runtime;
let store: DiskWorkspaces;

beforeAll(async () => {
  runtime = await startRuntime(config, pino({ level: "silent" }));
  store = new DiskWorkspaces({
    directory: path.join(config.DATA_DIR, "workspaces"),
    maxBytes: config.WORKSPACE_MAX_MB * 1024 * 1024,
    maxFiles: config.WORKSPACE_MAX_FILES,
  });
});

afterAll(async () => {
  await runtime.stop(0);
  await store.close();
  await rm(config.DATA_DIR, { recursive: true });
});

async function run(principal: string, code: string) {
  using workspace = store.of(principal).forExecution();
  const { success, result, stderr } = await runtime.executor.execute({
    code,
    environment: "stdlib",
    timeoutMs: 20_000,
    principal,
    workspace,
  });
  return success ? result.parseAll() : stderr;
}

const files = async (principal: string) =>
  (await store.of(principal).list()).filter(({ kind }) => kind === "file").map(({ path }) => path);

test("files outlive an execution, with folders, times and whatever became of them", async () => {
  const code = `
import os
os.makedirs("a/b/empty")
for name in ("a/b/one", "a/two", "/plots/matplotlib/p.png"):
    open(name, "w").write(name)
os.utime("a/two", (1000, 1234.5))`;
  await run("alice", code);
  expect(await run("alice", 'os = __import__("os"); [os.listdir("a/b"), os.stat("a/two").st_mtime]')).toEqual([
    ["empty", "one"],
    1234.5,
  ]);
  expect(await run("alice", 'import os; os.rename("a", "c"); os.rmdir("c/b/empty"); open("c/b/one").read()')).toBe(
    "a/b/one",
  );
  expect(await files("alice")).toEqual(["/home/pyodide/c/b/one", "/home/pyodide/c/two", "/plots/matplotlib/p.png"]);
  expect(await run("alice", 'import shutil; shutil.rmtree("c"); shutil.rmtree("/plots/matplotlib")')).toBe(null);
  expect(await files("alice")).toEqual([]);
  expect(await run("alice", 'import os; os.listdir("/plots")')).toEqual(["matplotlib", "seaborn"]);
});

test("a file becomes a folder, and a folder a file", async () => {
  await run("bob", 'import os; os.mkdir("x"); open("x/y", "w").write("1"); open("z", "w").write("2")');
  await run(
    "bob",
    'import os, shutil; shutil.rmtree("x"); open("x", "w").write("3"); os.remove("z"); os.mkdir("z"); open("z/w", "w").write("4")',
  );
  expect(await files("bob")).toEqual(["/home/pyodide/x", "/home/pyodide/z/w"]);
});

test("a link to a file of the host brings nothing out and nothing in", async () => {
  await run(
    "carol",
    'import os; os.symlink("/etc/passwd", "link"); os.symlink("/etc", "/tmp/etc"); open("real", "w").write("r")',
  );
  expect(await files("carol")).toEqual(["/home/pyodide/real"]);
  expect(await run("carol", 'import os; [os.path.lexists("link"), os.path.lexists("/tmp/etc")]')).toEqual([
    false,
    false,
  ]);
});

test("names are data: none reaches the host's file system", async () => {
  const names = ["..%2f..%2fescape", "C:\\escape", "a\nb", "__proto__", "é".normalize("NFD"), "escape;rm -rf"];
  const code = `for name in ${JSON.stringify(names)}: open(name, "w").write(name)`;
  await run("dave", code);
  expect(await files("dave")).toEqual(names.map((name) => `/home/pyodide/${name}`).sort());
  expect(await run("dave", 'import os; sorted(os.listdir("."))')).toEqual([...names].sort());
  expect(existsSync(path.join(config.DATA_DIR, "escape"))).toBe(false);
});

test("two principals see nothing of each other", async () => {
  await run("erin", 'open("/tmp/secret", "w").write("erin")');
  expect(await run("frank", 'import os; os.listdir("/tmp")')).toEqual([]);
});

test("two executions at once both keep what they wrote", async () => {
  const write = (name: string) =>
    run("grace", `open("${name}", "w").write("${name}"); open("both", "w").write("${name}")`);
  await Promise.all(["one", "two"].map(write));
  expect(await files("grace")).toEqual(["/home/pyodide/both", "/home/pyodide/one", "/home/pyodide/two"]);
});

test("a full workspace is an error in Python, and the host agrees with what still fits", async () => {
  const outcome = await run(
    "heidi",
    'open("fits", "wb").write(b"x" * 900_000); open("more", "wb").write(b"x" * 200_000)',
  );
  expect(outcome).toMatch(/No space left on device/);
  expect(await store.of("heidi").stat("/home/pyodide/fits")).toMatchObject({ size: 900_000 });
  expect((await store.of("heidi").usage()).bytes).toBeLessThanOrEqual(1024 * 1024);
});

test("a time that no Date can hold does not make the listing unprintable", async () => {
  await run("ivan", 'import os; open("t", "w").close(); os.utime("t", (1e15, 1e15))');
  const entry = await store.of("ivan").stat("/home/pyodide/t");
  expect(new Date(entry?.mtimeMs ?? Number.NaN).toISOString()).toBe("+275760-09-13T00:00:00.000Z");
});
