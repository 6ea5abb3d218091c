/** Files, by JupyterLab's own library and as they must not be asked for. */
import { ContentsManager } from "@jupyterlab/services";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { jupyterSettings } from "../support/jupyter.ts";
import { openRawRequest } from "../support/raw-request.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

let server: TestServer;
let contents: ContentsManager;

beforeAll(async () => {
  server = await startTestServer();
  contents = new ContentsManager({ serverSettings: jupyterSettings(server.url) });
});
afterEach(async () => void (await server.post("/api/execute", { code: CLEAR })));
afterAll(async () => {
  contents.dispose();
  await server.stop(0);
});

const CLEAR = `
import os, shutil
for name in os.listdir("."):
    shutil.rmtree(name) if os.path.isdir(name) else os.remove(name)`;

const notebook = {
  cells: [{ cell_type: "code", execution_count: null, id: "a", metadata: {}, outputs: [], source: "1.0" }],
  metadata: { kernelspec: { name: "python3", display_name: "Python 3" } },
  nbformat: 4,
  nbformat_minor: 5,
};

const run = async (code: string) => (await server.post("/api/execute", { code })).body.result;

test("a notebook is saved as Jupyter would, and code sees it", async () => {
  const saved = await contents.save("a/one.ipynb", { type: "notebook", format: "json", content: notebook });
  expect(saved).toMatchObject({ name: "one.ipynb", path: "a/one.ipynb", type: "notebook" });
  const { content, ...model } = await contents.get("a/one.ipynb", { type: "notebook", content: true });
  expect(content).toEqual(notebook);
  expect(model).toMatchObject({ format: "json", writable: true, mimetype: null });
  expect(await run("open('a/one.ipynb').read().splitlines()[:3]")).toEqual(["{", ' "cells": [', "  {"]);
  const bare = await contents.get("a/one.ipynb", { content: false });
  expect(bare).toMatchObject({ content: null, format: null, type: "notebook" });
});

test("paths in bodies have the length of paths", async () => {
  const long = "a/".repeat(100_000);
  const refused = { status: 400, body: { message: "A path has at most 4096 bytes." } };
  expect(await server.post("/jupyter/api/contents", { copy_from: long })).toMatchObject(refused);
  const patch = {
    method: "PATCH",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ path: long }),
  };
  expect(await server.request("/jupyter/api/contents/a", patch)).toMatchObject(refused);
});

test("numbers of a notebook stay as they were written, however many there are", async () => {
  const values = `[1.0, 12345678901234567890, 1e400, ${Array.from({ length: 60_000 }, (_, index) => index).join(",")}]`;
  const body = `{"type": "notebook", "content": {"cells": [], "metadata": {"values": ${values}}, "nbformat": 4}}`;
  const saved = await server.put("/jupyter/api/contents/big.ipynb", body);
  expect(saved.status).toBe(201);
  const code =
    "import re\ntext = open('big.ipynb').read()\n[re.findall(r'^   ([^ ,]+)', text, re.M)[:4], len(text.splitlines()) > 60_000]";
  expect(await run(code)).toEqual([["1.0", "12345678901234567890", "1e400", "0"], true]);
});

test("a large file is not shown, and says how it is read", async () => {
  await run("open('large.txt', 'w').write('x' * (16 * 2**20 + 1))");
  const reply = await server.get("/jupyter/api/contents/large.txt");
  expect(reply.status).toBe(413);
  expect(reply.body.message).toBe(
    "large.txt has 16777217 bytes, and at most 16777216 are shown: download it by /api/files",
  );
  expect((await server.get("/jupyter/api/contents/large.txt?content=0")).body).toMatchObject({ size: 16777217 });
  await run("import json\njson.dump({'cells': ['x' * 2**24]}, open('large.ipynb', 'w'))");
  expect((await server.get("/jupyter/api/contents/large.ipynb")).status).toBe(413);
  expect((await server.get("/jupyter/files/large.ipynb")).status).toBe(200);
});

test("a text of many escapes, longer than one piece, is shown as it is", async () => {
  await run("open('escaped.txt', 'wb').write((''.join(map(chr, range(128))) + 'ü€😀').encode() * 2000)");
  const unit = String.fromCharCode(...Array.from({ length: 128 }, (_, code) => code));
  expect((await server.get("/jupyter/api/contents/escaped.txt")).body).toMatchObject({
    format: "text",
    content: `${unit}ü€😀`.repeat(2000),
  });
  const base64 = await server.get("/jupyter/api/contents/escaped.txt?format=base64");
  expect(Buffer.from(base64.body.content, "base64").toString()).toBe(`${unit}ü€😀`.repeat(2000));
});

test("text and bytes are read and written, and large ones in pieces", async () => {
  await contents.save("a.txt", { type: "file", format: "text", content: "grün\n" });
  expect(await contents.get("a.txt")).toMatchObject({
    format: "text",
    content: "grün\n",
    mimetype: "text/plain",
    size: 6,
  });
  await contents.save("b.bin", {
    type: "file",
    format: "base64",
    content: Buffer.from([255, 0, 1]).toString("base64"),
  });
  expect(await contents.get("b.bin")).toMatchObject({ format: "base64", content: "/wAB", size: 3 });
  await expect(contents.get("b.bin", { format: "text", content: true })).rejects.toThrow("b.bin is not UTF-8 encoded");
  for (const [chunk, text] of [
    [1, "one "],
    [2, "two "],
    [-1, "three"],
  ] as const) {
    const content = Buffer.from(text).toString("base64");
    await contents.save("c.txt", { type: "file", format: "base64", content, chunk } as never);
  }
  expect((await contents.get("c.txt")).content).toBe("one two three");
});

test("a file is no larger than an upload may be, in however many pieces it comes", async () => {
  const save = async (content: string, chunk?: number) =>
    await server.put("/api/contents/pieces.txt", JSON.stringify({ type: "file", format: "text", content, chunk }));
  expect((await save("x".repeat(10_485_761))).status).toBe(413);
  expect((await save("x".repeat(10_485_760), 1)).status).toBe(201);
  expect(await save("x", 2)).toMatchObject({ status: 413, body: { reason: "file_too_large" } });
  expect((await contents.get("pieces.txt", { content: false })).size).toBe(10_485_760);
});

test("what document has a kernel is bounded as metadata is", async () => {
  const text = "\x01".repeat(4096);
  const document = { path: text, name: text, type: text };
  expect((await server.post("/jupyter/api/sessions", document)).status).toBe(400);
  expect((await server.get("/jupyter/api/sessions")).body).toEqual([]);
  const { status, body } = await server.post("/jupyter/api/sessions", { path: "a.ipynb", name: "a", type: "notebook" });
  expect(status).toBe(201);
  expect(
    (await server.request(`/jupyter/api/sessions/${body.id}`, { method: "PATCH", body: JSON.stringify(document) }))
      .status,
  ).toBe(400);
  expect((await server.get("/jupyter/api/sessions")).body).toMatchObject([{ path: "a.ipynb" }]);
  await server.delete(`/jupyter/api/sessions/${body.id}`);
});

test("folders list what is in them, but for what is hidden", async () => {
  await contents.save("folder", { type: "directory" });
  await contents.save("folder/x.py", { type: "file", format: "text", content: "1" });
  await contents.save("folder/.hidden", { type: "file", format: "text", content: "1" });
  await contents.save("n.ipynb", { type: "notebook", format: "json", content: notebook });
  const folder = await contents.get("folder");
  expect(folder).toMatchObject({ type: "directory", format: "json", size: null });
  expect(folder.content.map(({ path, type }: { path: string; type: string }) => [path, type])).toEqual([
    ["folder/x.py", "file"],
  ]);
  const root = await contents.get("");
  expect([root.name, root.path]).toEqual(["", ""]);
  const names = root.content.map(({ name, type }: { name: string; type: string }) => [name, type]);
  expect(names.sort()).toEqual([
    ["folder", "directory"],
    ["n.ipynb", "notebook"],
  ]);
});

test("new files and folders have names that are free, and copies theirs", async () => {
  const make = async (type: "notebook" | "file" | "directory", ext = "") =>
    (await contents.newUntitled({ path: "", type, ext })).path;
  expect([await make("notebook"), await make("notebook")]).toEqual(["Untitled.ipynb", "Untitled1.ipynb"]);
  expect([await make("directory"), await make("directory")]).toEqual(["Untitled Folder", "Untitled Folder 1"]);
  expect([await make("file", ".py"), await make("file", ".py")]).toEqual(["untitled.py", "untitled1.py"]);
  expect((await contents.copy("Untitled.ipynb", "")).path).toBe("Untitled-Copy1.ipynb");
  expect((await contents.copy("Untitled-Copy1.ipynb", "Untitled Folder")).path).toBe(
    "Untitled Folder/Untitled-Copy1.ipynb",
  );
  expect((await contents.copy("Untitled-Copy1.ipynb", "")).path).toBe("Untitled-Copy2.ipynb");
});

test("a rename takes along what is in a folder, and what was kept of a file", async () => {
  await contents.save("a/b/x.txt", { type: "file", format: "text", content: "x" });
  await contents.createCheckpoint("a/b/x.txt");
  await contents.rename("a/b/x.txt", "a/b/y.txt");
  expect(await contents.listCheckpoints("a/b/y.txt")).toHaveLength(1);
  expect((await contents.rename("a/b", "c")).path).toBe("c");
  expect((await contents.get("c/y.txt")).content).toBe("x");
  await expect(contents.get("a/b")).rejects.toThrow("No such file or directory: a/b");
  await contents.save("z.txt", { type: "file", format: "text", content: "z" });
  await expect(contents.rename("z.txt", "c/y.txt")).rejects.toThrow("File already exists: c/y.txt");
  await expect(contents.rename("c", "c/d")).rejects.toThrow("Cannot move");
  await expect(contents.rename("c", "z.txt/c")).rejects.toThrow("is a file");
  expect((await contents.get("c/y.txt")).content).toBe("x");
});

test("a file is deleted, a folder only if it is empty", async () => {
  await contents.save("a/x.txt", { type: "file", format: "text", content: "x" });
  await contents.createCheckpoint("a/x.txt");
  await expect(contents.delete("a")).rejects.toThrow("Directory a not empty");
  await contents.delete("a/x.txt");
  await contents.delete("a");
  expect(await run("__import__('os').listdir('.')")).toEqual([]);
  await expect(contents.delete("a")).rejects.toThrow("No such file or directory");
});

test("a checkpoint is kept, and gone back to", async () => {
  await contents.save("x.txt", { type: "file", format: "text", content: "before" });
  expect(await contents.listCheckpoints("x.txt")).toEqual([]);
  const { id } = await contents.createCheckpoint("x.txt");
  await contents.save("x.txt", { type: "file", format: "text", content: "after" });
  await contents.restoreCheckpoint("x.txt", id);
  expect((await contents.get("x.txt")).content).toBe("before");
  await contents.deleteCheckpoint("x.txt", id);
  expect(await contents.listCheckpoints("x.txt")).toEqual([]);
  await expect(contents.restoreCheckpoint("x.txt", "other")).rejects.toThrow("Checkpoint does not exist");
});

test.each([
  ["a folder as a file", "/jupyter/api/contents?type=file", 400, " is not a file"],
  ["a file that is not there", "/jupyter/api/contents/none.txt", 404, "No such file or directory: none.txt"],
  ["a notebook that is none", "/jupyter/api/contents/bad.ipynb", 400, "Unreadable Notebook: bad.ipynb"],
  ["what is above the home folder", "/jupyter/api/contents/%2e%2e/%2e%2e/etc/passwd", 400, "Not a path of a workspace"],
  ["a path with NUL", "/jupyter/api/contents/a%00b", 400, "Not a path of a workspace"],
])("%s is refused", async (_, path, status, message) => {
  await run("open('bad.ipynb', 'w').write('{')");
  const asked = await openRawRequest(server.url, [`GET ${path} HTTP/1.1`]);
  const response = await asked.reply();
  expect(response).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
  expect(response).toContain(message);
});

test.each([
  [{ type: "notebook", content: { cells: 5 } }, "list of cells"],
  [{ type: "notebook", content: "text" }, "list of cells"],
  [{ type: "file", content: { a: 1 } }, "content of a file is a text"],
  [{ type: "file", format: "base64", content: "§" }, "not base64"],
  [{ type: "socket", content: "" }, "Type must be"],
  [{ type: "file", content: "", chunk: "x" }, "Chunk must be"],
  [[1], "Invalid JSON"],
])("a file of %j is not saved", async (body, message) => {
  const saved = await server.put("/jupyter/api/contents/x", JSON.stringify(body));
  expect([saved.status, saved.body.message]).toEqual([400, expect.stringContaining(message)]);
  expect((await server.get("/jupyter/api/contents/x")).status).toBe(404);
});

test("a file cannot take the place of a folder, nor be one", async () => {
  await contents.save("a/x.txt", { type: "file", format: "text", content: "x" });
  await expect(contents.save("a", { type: "file", format: "text", content: "x" })).rejects.toThrow("a is a folder");
  await expect(contents.save("a/x.txt", { type: "directory" })).rejects.toThrow("Not a directory");
  await expect(contents.save("a/x.txt/y", { type: "file", format: "text", content: "x" })).rejects.toThrow("is a file");
});

test("a download is a file to be saved, never a page of ours", async () => {
  await server.put("/api/files/a/page.html", "<script>alert(1)</script>");
  const response = await fetch(await contents.getDownloadUrl("a/page.html"));
  expect([response.status, await response.text()]).toEqual([200, "<script>alert(1)</script>"]);
  expect(response.headers.get("content-disposition")).toBe("attachment; filename=page.html");
  expect(response.headers.get("content-type")).toMatch(/^application\/octet-stream/);
  expect(response.headers.get("x-content-type-options")).toBe("nosniff");
  expect(response.headers.get("content-security-policy")).toBe("sandbox; default-src 'none'");
  expect((await fetch(await contents.getDownloadUrl("a/none.html"))).status).toBe(404);
});
