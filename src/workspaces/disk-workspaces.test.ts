import { createHash } from "node:crypto";
import fs from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { DiskWorkspaces } from "./disk-workspaces.ts";
import { apply, bytes, describeWorkspaces, filesOf, MIB, startedIn, text } from "./testing/workspace-contract.ts";
import type { PrincipalWorkspace } from "./workspaces.ts";

let directory: string;

beforeAll(async () => {
  directory = path.join(temporaryFolder("workspaces"), "workspaces");
});

const clean = () => fs.rm(directory, { recursive: true, force: true });

/** Every path on the host below the store's folder, relative to it; the lock aside. */
async function hostFiles(): Promise<string[]> {
  const entries = await fs.readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => !entry.isDirectory() && !entry.name.startsWith("lock"))
    .map((entry) => path.relative(directory, path.join(entry.parentPath, entry.name)));
}

describe("workspaces on disk", () => {
  describeWorkspaces({
    open: (options) => new DiskWorkspaces({ directory, maxBytes: MIB, maxFiles: 50, ...options }),
    stored: hostFiles,
    clean,
  });
});

describe("on disk", () => {
  let store: DiskWorkspaces;
  let alice: PrincipalWorkspace;

  beforeEach(() => openStore());

  afterEach(async () => {
    await store.close();
    await clean();
  });

  function openStore(): void {
    store = new DiskWorkspaces({ directory, maxBytes: MIB, maxFiles: 50 });
    alice = store.of("alice");
  }

  const blobsOnDisk = async () => (await hostFiles()).filter((name) => name.includes("/blobs/")).length;

  test("leave nothing behind when the disk refuses", async () => {
    await alice.put("/tmp/before", bytes("before"));
    const [folder] = await workspaceFolders();
    const incoming = path.join(folder ?? "", "incoming");
    await fs.rm(incoming, { recursive: true });
    await expect(apply(alice.forExecution(), { "/tmp/a": "A" }, ["/tmp/before"])).rejects.toMatchObject({
      code: "ENOENT",
    });
    expect(await filesOf(alice)).toEqual(["/tmp/before"]);
    await fs.mkdir(incoming);
    await apply(alice.forExecution(), { "/tmp/a": "A" }, ["/tmp/before"]);
    expect(await filesOf(alice)).toEqual(["/tmp/a"]);
  });

  test("are named by their content only, once for each content", async () => {
    const names = ["..", "%2e%2e%2fetc", "a\nb", "C:\\x", "__proto__", "ünï"].map((name) => `x${name}`);
    await apply(alice.forExecution(), Object.fromEntries(names.map((name) => [`/tmp/${name}`, "same"])));
    const hash = createHash("sha256").update("same").digest("hex");
    const owner = createHash("sha256").update("alice").digest("hex");
    const expected = [`${owner}/blobs/${hash}`, `${owner}/index.json`, `${owner}/index.json.spare`];
    expect((await hostFiles()).sort()).toEqual(expected);
    expect(await filesOf(alice)).toHaveLength(names.length);
  });

  test("go when no file, no upload and no running execution needs them", async () => {
    await alice.upload(bytes("content"), { filename: "a.csv", originalName: "a.csv" });
    const execution = await startedIn(alice);
    await alice.remove("/home/pyodide/a.csv");
    expect(await blobsOnDisk()).toBe(1);
    await alice.removeUpload("a.csv");
    expect(await blobsOnDisk()).toBe(1);
    expect(await text(execution, "/home/pyodide/a.csv")).toBe("content");
    execution[Symbol.dispose]();
    // The next change takes its turn after the removal that disposing began.
    await alice.put("/tmp/next", bytes("next"));
    expect(await blobsOnDisk()).toBe(1);
    expect(await text(alice, "/tmp/next")).toBe("next");
  });

  test("that are missing or cut short are an error that shows no host path", async () => {
    await alice.put("/tmp/a", bytes("content"));
    const [folder = ""] = await workspaceFolders();
    const blob = path.join(folder, "blobs", createHash("sha256").update("content").digest("hex"));
    await fs.truncate(blob, 3);
    await expect(alice.read("/tmp/a")).rejects.toThrow(/3 bytes, not 7/);
    await fs.rm(blob);
    await expect(alice.read("/tmp/a")).rejects.toThrow(/^blob [0-9a-f]{64} cannot be read$/);
  });

  test("left by a crash are removed at the next start", async () => {
    await alice.put("/tmp/a", bytes("kept"));
    await store.close();
    const [folder = ""] = await workspaceFolders();
    await fs.writeFile(path.join(folder, "blobs", "0".repeat(64)), "orphan");
    await fs.writeFile(path.join(folder, "incoming", "half"), "half");
    openStore();
    expect(await text(alice, "/tmp/a")).toBe("kept");
    expect(await blobsOnDisk()).toBe(1);
    expect(await fs.readdir(path.join(folder, "incoming"))).toEqual([]);
  });

  test("lets only one server use the folder", async () => {
    expect(() => new DiskWorkspaces({ directory, maxBytes: 1, maxFiles: 1 })).toThrow(/in use by another server/);
    await store.close();
    openStore();
    expect(await filesOf(alice)).toEqual([]);
  });

  test("does not mistake a damaged index for an empty workspace", async () => {
    await alice.put("/tmp/a", bytes("kept"));
    await store.close();
    const [folder = ""] = await workspaceFolders();
    const index = path.join(folder, "index.json");
    const whole = await fs.readFile(index);
    await fs.writeFile(index, whole.subarray(0, 50));
    openStore();
    await expect(alice.list()).rejects.toThrow("is damaged");
    await expect(alice.put("/tmp/b", bytes("b"))).rejects.toThrow("is damaged");
    await fs.writeFile(index, whole);
    expect(await text(alice, "/tmp/a")).toBe("kept");
  });

  test("each principal has a folder, whatever its name", async () => {
    const names = ["alice", "../alice", "/", "", "nul\0"];
    for (const name of names) await store.of(name).put("/tmp/owner", bytes(name));
    const folders = (await workspaceFolders()).map((folder) => path.basename(folder));
    expect(folders.filter((name) => /^[0-9a-f]{64}$/.test(name))).toHaveLength(names.length);
  });

  test("clear leaves no blob", async () => {
    await alice.upload(bytes("1"), { filename: "a.csv", originalName: "a.csv" });
    await alice.put("/tmp/a", bytes("2"));
    await alice.clear();
    expect(await blobsOnDisk()).toBe(0);
  });

  async function workspaceFolders(): Promise<string[]> {
    const entries = await fs.readdir(directory, { withFileTypes: true });
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => path.join(directory, name));
  }
});
