import fs from "node:fs/promises";
import path from "node:path";
import { Readable } from "node:stream";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { temporaryFolder } from "../../shared/testing/temporary-folder.ts";
import type { Workspace } from "../../wire/host-calls.ts";
import { FIXED_FOLDERS } from "../paths.ts";
import type { ExecutionWorkspace, PrincipalWorkspace, WorkspaceStore } from "../workspaces.ts";

export const MIB = 1024 * 1024;

export interface WorkspaceStoreUnderTest {
  /** Opens the store on what is there; by default for 1 MiB and 50 files. */
  open(options?: { maxBytes?: number; maxFiles?: number; maxCachedEntries?: number }): WorkspaceStore;
  /** Names of all that is stored now: host files, or keys. */
  stored(): Promise<string[]>;
  /** Makes it empty again, after the store has been closed. */
  clean(): Promise<void>;
}

export const bytes = (text: string) => Buffer.from(text);
export const text = async (workspace: Pick<Workspace, "read">, file: string) =>
  Buffer.from(await workspace.read(file)).toString();

/** Does what an execution that wrote and deleted these files would do. */
export function apply(workspace: Workspace, written: Record<string, string>, deleted: string[] = [], mtimeMs = 1000) {
  const contents = Object.values(written).map(bytes);
  const entries = Object.keys(written).map((path, i) => {
    return { path, kind: "file" as const, size: contents[i]?.length ?? 0, mtimeMs };
  });
  return workspace.apply({ written: entries, deleted }, contents);
}

export async function startedIn(workspace: PrincipalWorkspace): Promise<ExecutionWorkspace> {
  const execution = workspace.forExecution();
  await execution.list();
  return execution;
}

/** The files that are there, without folders. */
export async function filesOf(workspace: Pick<Workspace, "list">): Promise<string[]> {
  return (await workspace.list()).filter(({ kind }) => kind === "file").map(({ path }) => path);
}

/** What holds for workspaces wherever they are kept. */
export function describeWorkspaces({ open, stored, clean }: WorkspaceStoreUnderTest): void {
  let store: WorkspaceStore;
  let alice: PrincipalWorkspace;

  beforeEach(() => openStore());

  afterEach(async () => {
    await store.close();
    await clean();
  });

  function openStore(options: Parameters<typeof open>[0] = {}): void {
    store = open(options);
    alice = store.of("alice");
  }

  async function reopenStore(options: Parameters<typeof openStore>[0] = {}): Promise<void> {
    await store.close();
    openStore(options);
  }

  const started = (workspace = alice) => startedIn(workspace);
  const files = (workspace: Pick<Workspace, "list"> = alice) => filesOf(workspace);

  describe("a new workspace", () => {
    test("holds the fixed folders, parents first", async () => {
      const listing = await alice.list();
      expect(listing.map(({ path }) => path)).toEqual([...FIXED_FOLDERS].sort());
      expect(listing.every(({ kind, size }) => kind === "folder" && size === 0)).toBe(true);
    });

    test("belongs to one principal, whatever its name", async () => {
      const names = ["alice", "Alice", "../alice", "/", "", "a/../alice", "x".repeat(5000), "nul\0"];
      for (const name of names) await store.of(name).put("/tmp/owner", bytes(name));
      for (const name of names) expect(await text(store.of(name), "/tmp/owner")).toBe(name);
    });
  });

  describe("an execution's changes", () => {
    test("are there for the next one and after a restart, with their times", async () => {
      await apply(alice.forExecution(), { "/home/pyodide/a.txt": "A", "/plots/matplotlib/b.png": "B" }, [], 1234.5);
      await reopenStore();
      const execution = await started();
      expect(await files(execution)).toEqual(["/home/pyodide/a.txt", "/plots/matplotlib/b.png"]);
      expect(await text(execution, "/home/pyodide/a.txt")).toBe("A");
      expect(await alice.stat("/plots/matplotlib/b.png")).toEqual({
        path: "/plots/matplotlib/b.png",
        kind: "file",
        size: 1,
        mtimeMs: 1234.5,
      });
    });

    test("a copy has the content of what it was made of, whatever becomes of that", async () => {
      const { size } = await alice.put("/tmp/a", bytes("A"));
      expect(await alice.copy("/tmp/a", "/home/pyodide/b/c")).toMatchObject({ path: "/home/pyodide/b/c", size });
      await alice.copy("/tmp/a", "/tmp/a");
      await alice.put("/tmp/a", bytes("later"));
      await alice.remove("/tmp/a");
      await reopenStore();
      expect(await text(alice, "/home/pyodide/b/c")).toBe("A");
      await expect(alice.copy("/tmp/a", "/tmp/d")).rejects.toMatchObject({ status: 404 });
      await expect(alice.copy("/home/pyodide/b/c", "/home/pyodide/b")).rejects.toMatchObject({ code: "not_a_file" });
      await expect(alice.copy("/home/pyodide/b/c", "/etc/x")).rejects.toMatchObject({ status: 400 });
    });

    test("include empty folders and empty files", async () => {
      const written = [
        { path: "/tmp/folder", kind: "folder", size: 0, mtimeMs: 7 },
        { path: "/tmp/empty", kind: "file", size: 0, mtimeMs: 8 },
      ] as const;
      await alice.forExecution().apply({ written, deleted: [] }, [bytes(""), bytes("")]);
      await reopenStore();
      expect(await alice.stat("/tmp/folder")).toEqual(written[0]);
      expect(await alice.read("/tmp/empty")).toHaveLength(0);
    });

    test.each<[string, Parameters<typeof apply>[1], string[]]>([
      ["a path outside", { "/home/pyodide/ok": "1", "/etc/passwd": "x" }, []],
      ["a path that climbs", { "/home/pyodide/ok": "1", "/tmp/../../x": "x" }, []],
      ["a deletion outside", { "/home/pyodide/ok": "1" }, ["/etc/passwd"]],
      ["too many bytes", { "/home/pyodide/ok": "1", "/tmp/big": "x".repeat(MIB) }, []],
      ["too many files", Object.fromEntries(Array.from({ length: 51 }, (_, i) => [`/tmp/${i}`, "x"])), []],
      ["a file in a file", { "/home/pyodide/ok": "1", "/home/pyodide/ok/no": "x" }, []],
    ])("are refused as a whole for %s", async (_name, written, deleted) => {
      await alice.put("/tmp/before", bytes("before"));
      const before = await stored();
      const status = /too many/.test(_name) ? 413 : 400;
      await expect(apply(alice.forExecution(), written, ["/tmp/before", ...deleted])).rejects.toMatchObject({ status });
      expect(await files()).toEqual(["/tmp/before"]);
      expect(await stored()).toEqual(before);
      await reopenStore();
      expect(await files()).toEqual(["/tmp/before"]);
    });

    test("are refused if a size is not that of the content", async () => {
      const written = [{ path: "/tmp/a", kind: "file", size: 5, mtimeMs: 1 }] as const;
      const lie = alice.forExecution().apply({ written, deleted: [] }, [bytes("four")]);
      await expect(lie).rejects.toMatchObject({ status: 400, code: "invalid_changes" });
    });

    test.each(["link", "symlink", "device", undefined])("are refused for a %s", async (kind) => {
      const written = [{ path: "/tmp/a", kind: kind as "file", size: 0, mtimeMs: 1 }];
      const refused = alice.forExecution().apply({ written, deleted: [] }, [bytes("")]);
      await expect(refused).rejects.toMatchObject({ status: 400, code: "invalid_changes" });
      expect(await files()).toEqual([]);
    });

    test("say in plain words what is full", async () => {
      const error = await apply(alice.forExecution(), { "/tmp/big": "x".repeat(MIB + 1) }).catch((e: Error) => e);
      expect(error).toMatchObject({
        code: "workspace_full",
        message: "The workspace is full: it may hold at most 1 MiB. Delete files first.",
      });
    });
  });

  describe("two executions at once", () => {
    test("each see the files of their start, though the other removed them", async () => {
      await apply(alice.forExecution(), { "/tmp/shared": "old", "/tmp/gone": "gone" });
      const [first, second] = [await started(), await started()];
      await apply(first, { "/tmp/shared": "new" }, ["/tmp/gone"]);
      expect(await files(alice)).toEqual(["/tmp/shared"]);
      expect(await text(second, "/tmp/shared")).toBe("old");
      expect(await text(second, "/tmp/gone")).toBe("gone");
      expect(await text(alice, "/tmp/shared")).toBe("new");
      await expect(alice.read("/tmp/gone")).rejects.toMatchObject({ status: 404 });
    });

    test("are merged path by path: the last to finish wins, and deletes only what it deleted", async () => {
      await apply(alice.forExecution(), { "/tmp/both": "0", "/tmp/a": "0", "/tmp/b": "0" });
      const [first, second] = [await started(), await started()];
      await apply(second, { "/tmp/both": "second", "/tmp/new2": "2" }, ["/tmp/b"]);
      await apply(first, { "/tmp/both": "first", "/tmp/new1": "1" }, ["/tmp/a"]);
      expect(await files()).toEqual(["/tmp/both", "/tmp/new1", "/tmp/new2"]);
      expect(await text(alice, "/tmp/both")).toBe("first");
    });

    test("are told what their own folders hold, whatever the other did", async () => {
      const changes = (path: string, content: string, deleted: string[] = []) =>
        [
          { written: [{ path, kind: "file" as const, size: content.length, mtimeMs: 1000 }], deleted },
          [bytes(content)],
        ] as const;
      await apply(alice.forExecution(), { "/tmp/gone": "0" });
      const [first, second] = [alice.forExecution(), alice.forExecution()];
      const listed = await first.look();
      await second.look();
      expect(await second.keep({ written: [], deleted: [] }, [])).toBe(listed);
      const ofFirst = await first.keep(...changes("/tmp/a", "1", ["/tmp/gone"]));
      const ofSecond = await second.keep(...changes("/tmp/b", "2"));
      expect(ofFirst.listing.map(({ path }) => path).filter((path) => path.startsWith("/tmp/"))).toEqual(["/tmp/a"]);
      expect(ofSecond.listing.map(({ path }) => path).filter((path) => path.startsWith("/tmp/"))).toEqual([
        "/tmp/b",
        "/tmp/gone",
      ]);
      expect(await files()).toEqual(["/tmp/a", "/tmp/b"]);
      const now = await second.look();
      expect([listed, ofFirst, ofSecond].map((other) => now.hasSameFiles(other))).toEqual([false, false, false]);
      await reopenStore();
      expect((await alice.forExecution().look()).hasSameFiles(now)).toBe(true);
    });

    test("finishing in the same moment lose nothing of each other", async () => {
      const executions = await Promise.all(Array.from({ length: 20 }, () => started()));
      await Promise.all(
        executions.map((execution, i) => apply(execution, { [`/tmp/${i}`]: `${i}`, "/tmp/all": `${i}` })),
      );
      await reopenStore();
      for (const i of executions.keys()) expect(await text(alice, `/tmp/${i}`)).toBe(`${i}`);
      expect(await files()).toHaveLength(21);
    });

    test("that together exceed the quota: the later one is told, and has changed nothing", async () => {
      const [first, second] = [await started(), await started()];
      await apply(first, { "/tmp/first": "1".repeat(0.6 * MIB) });
      const late = apply(second, { "/tmp/second": "2".repeat(0.6 * MIB) }, ["/tmp/first/none"]);
      await expect(late).rejects.toMatchObject({ status: 413 });
      expect(await files()).toEqual(["/tmp/first"]);
    });

    test("an execution that lists again sees the files of then", async () => {
      const execution = await started();
      await alice.put("/tmp/later", bytes("later"));
      expect(await files(execution)).toEqual(["/tmp/later"]);
      expect(await text(execution, "/tmp/later")).toBe("later");
    });
  });

  describe("contents", () => {
    test("that come back while an old snapshot still holds them survive its end", async () => {
      await alice.put("/tmp/a", bytes("again"));
      const execution = await started();
      await alice.remove("/tmp/a");
      await alice.put("/tmp/b", bytes("again"));
      execution[Symbol.dispose]();
      await alice.put("/tmp/c", bytes("c"));
      expect(await text(alice, "/tmp/b")).toBe("again");
    });
  });

  describe("put, stat, remove, clear", () => {
    test("take bytes, streams and host files", async () => {
      const hostFile = path.join(temporaryFolder(), "upload.tmp");
      await fs.writeFile(hostFile, "from a file");
      await alice.put("/tmp/bytes", bytes("from bytes"));
      await alice.put("/tmp/stream", Readable.from([bytes("from "), bytes("a stream")]));
      const entry = await alice.put("/tmp/deep/er/file", { hostFile });
      expect(await text(alice, "/tmp/bytes")).toBe("from bytes");
      expect(await text(alice, "/tmp/stream")).toBe("from a stream");
      expect(await text(alice, "/tmp/deep/er/file")).toBe("from a file");
      expect(await alice.stat("/tmp/deep/er/file")).toEqual(entry);
      expect(await fs.readFile(hostFile, "utf8")).toBe("from a file");
    });

    test("several files are put all or none", async () => {
      const put = (contents: Record<string, string>) =>
        alice.putAll(new Map(Object.entries(contents).map(([path, content]) => [path, bytes(content)])));
      expect(await put({ "/tmp/a": "1", "/tmp/deep/b": "22" })).toMatchObject([
        { path: "/tmp/a", kind: "file", size: 1 },
        { path: "/tmp/deep/b", kind: "file", size: 2 },
      ]);
      await expect(put({ "/tmp/c": "3", "/tmp/deep": "a folder" })).rejects.toMatchObject({ code: "not_a_file" });
      await expect(put({ "/tmp/c": "3", "/etc/d": "4" })).rejects.toMatchObject({ code: "invalid_path" });
      await expect(put({ "/tmp/c": "3", "/tmp/e": "x".repeat(1.2 * MIB) })).rejects.toMatchObject({ status: 413 });
      expect(await files()).toEqual(["/tmp/a", "/tmp/deep/b"]);
      expect(await text(alice, "/tmp/deep/b")).toBe("22");
    });

    test("a stream that breaks or is too long leaves nothing", async () => {
      async function* broken() {
        yield bytes("half");
        throw new Error("the client went away");
      }
      await expect(alice.put("/tmp/a", broken())).rejects.toThrow("the client went away");
      let pulled = 0;
      async function* endless() {
        for (;;) {
          pulled += 1;
          yield Buffer.alloc(MIB / 4);
        }
      }
      await expect(alice.put("/tmp/a", endless())).rejects.toMatchObject({ status: 413 });
      expect(pulled).toBe(5);
      expect(await files()).toEqual([]);
      expect(await stored()).toEqual([]);
    });

    test.each(["/etc/passwd", "/tmp/../etc/passwd", "relative", "/tmp/a\0"])("refuse %j", async (name) => {
      const refused = { status: 400, code: "invalid_path" };
      await expect(alice.put(name, bytes("x"))).rejects.toMatchObject(refused);
      await expect(alice.read(name)).rejects.toMatchObject(refused);
      await expect(alice.stat(name)).rejects.toMatchObject(refused);
      await expect(alice.remove(name)).rejects.toMatchObject(refused);
    });

    test("do not confuse files and folders", async () => {
      await alice.put("/tmp/folder/file", bytes("x"));
      const refused = { status: 409, code: "not_a_file" };
      await expect(alice.put("/tmp/folder", bytes("x"))).rejects.toMatchObject(refused);
      await expect(alice.put("/tmp/folder/file/below", bytes("x"))).rejects.toMatchObject(refused);
      await expect(alice.put("/plots", bytes("x"))).rejects.toMatchObject(refused);
      await expect(alice.remove("/tmp/folder")).rejects.toMatchObject(refused);
      await expect(alice.read("/tmp/folder")).rejects.toMatchObject({ status: 404, message: "File folder not found" });
      await expect(alice.remove("/tmp/none")).rejects.toMatchObject({ status: 404, message: "File none not found" });
    });

    test("clear removes all and says how much", async () => {
      await alice.upload(bytes("1"), { filename: "a.csv", originalName: "a.csv", alsoAs: ["uploaded_file.csv"] });
      await alice.put("/plots/matplotlib/a.png", bytes("2"));
      await store.of("bob").put("/tmp/bob", bytes("3"));
      expect(await alice.clear()).toEqual({ uploads: 1, files: 3 });
      expect(await files()).toEqual([]);
      expect(await alice.uploads()).toEqual([]);
      expect(await alice.usage()).toMatchObject({ bytes: 0, files: 0 });
      expect(await files(store.of("bob"))).toEqual(["/tmp/bob"]);
    });
  });

  describe("uploads", () => {
    test("are a file and a record that go separate ways", async () => {
      await alice.upload(bytes("a,b\n"), {
        filename: "sales_2024.csv",
        originalName: "sales 2024.csv",
        alsoAs: ["uploaded_file.csv"],
      });
      expect(await files()).toEqual(["/home/pyodide/sales_2024.csv", "/home/pyodide/uploaded_file.csv"]);
      await apply(alice.forExecution(), { "/home/pyodide/sales_2024.csv": "changed" });
      await alice.remove("/home/pyodide/sales_2024.csv");
      expect(await alice.uploads()).toMatchObject([
        { filename: "sales_2024.csv", originalName: "sales 2024.csv", size: 4 },
      ]);
      await alice.removeUpload("sales_2024.csv");
      expect(await files()).toEqual(["/home/pyodide/uploaded_file.csv"]);
      const gone = { status: 404, message: "File not found" };
      await expect(alice.removeUpload("sales_2024.csv")).rejects.toMatchObject(gone);
    });

    test("whose names become the same keep both; the same name again replaces its own", async () => {
      const upload = async (originalName: string, content: string) =>
        (await alice.upload(bytes(content), { filename: "__.csv", originalName })).filename;
      expect(await upload("日本.csv", "1")).toBe("__.csv");
      expect(await upload("中国.csv", "2")).toBe("__-2.csv");
      expect(await upload("한국.csv", "3")).toBe("__-3.csv");
      expect(await upload("中国.csv", "4")).toBe("__-2.csv");
      expect(await upload("日本.csv", "5")).toBe("__.csv");
      const contents = ["__.csv", "__-2.csv", "__-3.csv"].map((name) => text(alice, `/home/pyodide/${name}`));
      expect(await Promise.all(contents)).toEqual(["5", "4", "3"]);
      expect((await alice.uploads()).map(({ originalName }) => originalName)).toEqual([
        "日本.csv",
        "中国.csv",
        "한국.csv",
      ]);
      // A number takes no place of a file that came in another way.
      await alice.put("/home/pyodide/__-4.csv", bytes("code's"));
      expect(await upload("台灣.csv", "6")).toBe("__-5.csv");
      expect(await text(alice, "/home/pyodide/__-4.csv")).toBe("code's");
    });

    test("at once with names that become the same keep all", async () => {
      const names = ["あ.csv", "い.csv", "う.csv", "え.csv"];
      const stored = await Promise.all(
        names.map((originalName) => alice.upload(bytes(originalName), { filename: "_.csv", originalName })),
      );
      for (const { filename, originalName } of stored) {
        expect(await text(alice, `/home/pyodide/${filename}`)).toBe(originalName);
      }
      expect(new Set(stored.map(({ filename }) => filename)).size).toBe(names.length);
    });

    test("are listed newest first, one for each name, also after a restart", async () => {
      for (const [filename, content] of Object.entries({ "a.csv": "1", "b.csv": "2", "c.csv": "3" })) {
        await alice.upload(bytes(content), { filename, originalName: filename });
      }
      await alice.upload(bytes("new"), { filename: "a.csv", originalName: "a.csv" });
      await reopenStore();
      expect((await alice.uploads()).map(({ originalName }) => originalName)).toEqual(["a.csv", "c.csv", "b.csv"]);
      expect(await text(alice, "/home/pyodide/a.csv")).toBe("new");
    });

    test("count towards the quota, and leave the sandbox what is left", async () => {
      await alice.upload(Buffer.alloc(0.4 * MIB), { filename: "a.csv", originalName: "a.csv" });
      expect(await alice.usage()).toMatchObject({ bytes: Math.floor(0.4 * MIB), files: 2 });
      expect(await alice.forExecution().quota()).toEqual({ bytes: MIB, files: 49 });
      const second = alice.upload(Buffer.alloc(0.7 * MIB), { filename: "b.csv", originalName: "b.csv" });
      await expect(second).rejects.toMatchObject({ status: 413, code: "workspace_full" });
      expect(await alice.uploads()).toHaveLength(1);
      expect(await files()).toEqual(["/home/pyodide/a.csv"]);
    });

    test.each(["../a.csv", "a/b.csv", "", "..", "nul\0.csv"])("refuse the name %j", async (filename) => {
      await expect(alice.upload(bytes("x"), { filename, originalName: "x" })).rejects.toMatchObject({ status: 400 });
      expect(await files()).toEqual([]);
      expect(await alice.uploads()).toEqual([]);
    });
  });

  describe("the store", () => {
    test("forgets indexes it has no room for, and loses nothing by it", async () => {
      await reopenStore({ maxCachedEntries: 12 });
      const names = Array.from({ length: 8 }, (_, i) => `principal ${i}`);
      const execution = await started(store.of("principal 0"));
      await Promise.all(names.map((name) => store.of(name).put("/tmp/name", bytes(name))));
      await Promise.all(names.map((name) => apply(store.of(name).forExecution(), { "/tmp/more": "more" })));
      for (const name of names) expect(await text(store.of(name), "/tmp/name")).toBe(name);
      expect(await files(store.of("principal 0"))).toEqual(["/tmp/more", "/tmp/name"]);
      execution[Symbol.dispose]();
    });

    test("keeps the index that a running execution holds, even with room for none", async () => {
      await reopenStore({ maxCachedEntries: 0 });
      await alice.put("/tmp/a", bytes("of its start"));
      const execution = await started();
      await store.of("bob").list();
      await alice.remove("/tmp/a");
      expect(await text(execution, "/tmp/a")).toBe("of its start");
      execution[Symbol.dispose]();
    });

    test("does nothing after it was closed", async () => {
      const execution = await started();
      await store.close();
      await expect(alice.list()).rejects.toThrow("closed");
      await expect(apply(execution, { "/tmp/a": "A" })).rejects.toThrow("closed");
      openStore();
      expect(await files()).toEqual([]);
    });
  });
}
