import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { DiskSessions } from "./disk-sessions.ts";
import type { NewSnapshot, SessionRecord, SnapshotRef } from "./session-store.ts";

let directory: string;
let store: DiskSessions;

beforeEach(async () => {
  directory = await fs.mkdtemp(path.join(os.tmpdir(), "sessions-"));
  store = await DiskSessions.open({ directory, maxBytes: 1_000_000 });
});

afterEach(async () => {
  await store.close().catch(() => {});
  await fs.rm(directory, { recursive: true, force: true });
});

function record(id: string, more: Partial<SessionRecord> = {}): SessionRecord {
  const now = Date.now();
  return {
    id,
    principal: "alice",
    environment: "stdlib",
    createdAtMs: now,
    lastUsedAtMs: now,
    ttlMs: 60_000,
    revision: 0,
    executions: 0,
    reseed: true,
    head: null,
    previous: null,
    checkpoints: [],
    ...more,
  };
}

const blobOf = (bytes: Uint8Array) => ({
  sha256: createHash("sha256").update(bytes).digest("hex"),
  size: bytes.length,
});

function snapshot(text: string, ...files: string[]): { ref: SnapshotRef; stored: NewSnapshot } {
  const bytes = Buffer.from(text);
  const blob = blobOf(bytes);
  const contents = new Map(files.map((file) => [blobOf(Buffer.from(file)).sha256, Buffer.from(file)]));
  const stored = { blob, bytes, files: files.map((file) => blobOf(Buffer.from(file))), contents };
  return { ref: { ...blob, fileBytes: 0, executions: 0, createdAtMs: 0 }, stored };
}

async function lease(id: string) {
  const lease = await store.acquire(id, "alice");
  if (!lease) throw new Error("no lease");
  return lease;
}

const blobs = async () => (await fs.readdir(path.join(directory, "blobs"))).length;

/** Blobs are deleted behind the reply. */
async function settled(): Promise<void> {
  await store.close();
  store = await DiskSessions.open({ directory, maxBytes: 1_000_000 });
}

describe("sessions on disk", () => {
  test("are there after a restart, with what they need and nothing else", async () => {
    await store.create(record("s"), 10);
    const held = await lease("s");
    const one = snapshot("one", "file a", "file b");
    await held.commit({ ...held.record, revision: 1, head: one.ref }, one.stored);
    const two = snapshot("two", "file b");
    await held.commit({ ...held.record, revision: 2, head: two.ref, previous: one.ref }, two.stored);
    const three = snapshot("three", "file b");
    await held.commit({ ...held.record, revision: 3, head: three.ref, previous: two.ref }, three.stored);
    await settled();
    expect(await store.get("s")).toMatchObject({ revision: 3, head: three.ref, previous: two.ref });
    expect(Buffer.from(await store.read("s", three.ref)).toString()).toBe("three");
    expect(Buffer.from(await store.read("s", blobOf(Buffer.from("file b")))).toString()).toBe("file b");
    expect(await blobs()).toBe(3);
  });

  test("a fork keeps what its parent lets go", async () => {
    await store.create(record("parent"), 10);
    const held = await lease("parent");
    const one = snapshot("one", "file");
    await held.commit({ ...held.record, head: one.ref }, one.stored);
    await store.create(record("fork", { head: one.ref }), 10, held);
    await held.delete();
    await settled();
    expect(Buffer.from(await store.read("fork", one.ref)).toString()).toBe("one");
    expect(await blobs()).toBe(2);
    await (await lease("fork")).delete();
    await settled();
    expect(await blobs()).toBe(0);
  });

  test("the same content, dropped by one and stored by another at once, stays", async () => {
    for (const id of ["a", "b"]) await store.create(record(id), 10);
    const [a, b] = [await lease("a"), await lease("b")];
    const shared = snapshot("shared", "file");
    for (let round = 0; round < 30; round++) {
      await a.commit({ ...a.record, head: shared.ref }, shared.stored);
      await Promise.all([
        a.commit({ ...a.record, head: null }),
        b.commit({ ...b.record, head: shared.ref }, shared.stored),
      ]);
      expect(Buffer.from(await store.read("b", shared.ref)).toString()).toBe("shared");
      await b.commit({ ...b.record, head: null });
    }
  });

  test("have a limit for each principal, and ids of their own", async () => {
    await store.create(record("one"), 2);
    await expect(store.create(record("one"), 2)).rejects.toMatchObject({ status: 409, code: "session_exists" });
    await store.create(record("two"), 2);
    await expect(store.create(record("three"), 2)).rejects.toMatchObject({ status: 429, code: "session_limit" });
    await store.create(record("three", { principal: "bob" }), 2);
    expect((await store.list("alice")).map(({ id }) => id).sort()).toEqual(["one", "two"]);
    expect(await store.acquire("three", "alice")).toBeUndefined();
  });

  test("end when their time is over, and only then are they deleted", async () => {
    const now = Date.now();
    await store.create(record("old", { lastUsedAtMs: now - 70_000 }), 10);
    await store.create(record("new"), 10);
    expect(await store.get("old")).toBeUndefined();
    expect(await store.ended(now)).toEqual([{ id: "old" }]);
    await store.deleteEnded("new", now);
    await store.deleteEnded("old", now);
    expect(await store.ended(now)).toEqual([]);
    expect((await store.list("alice")).map(({ id }) => id)).toEqual(["new"]);
  });

  test("a full store refuses, and has changed nothing", async () => {
    await store.create(record("s"), 10);
    const held = await lease("s");
    const one = snapshot("one");
    await held.commit({ ...held.record, revision: 1, head: one.ref }, one.stored);
    const big = snapshot("x".repeat(1_000_001));
    await expect(held.commit({ ...held.record, revision: 2, head: big.ref }, big.stored)).rejects.toMatchObject({
      status: 507,
      code: "store_full",
    });
    expect(held.record).toMatchObject({ revision: 1 });
    await settled();
    expect(await store.get("s")).toMatchObject({ revision: 1 });
    expect(await blobs()).toBe(1);
    const again = await lease("s");
    const fits = snapshot("y".repeat(900_000));
    await again.commit({ ...again.record, revision: 2, head: fits.ref }, fits.stored);
  });

  test("a folder that cannot be written is an error that can be retried", async () => {
    await store.create(record("s"), 10);
    const held = await lease("s");
    const incoming = path.join(directory, "incoming");
    await fs.rm(incoming, { recursive: true });
    const one = snapshot("one");
    const commit = () => held.commit({ ...held.record, revision: 1, head: one.ref }, one.stored);
    await expect(commit()).rejects.toMatchObject({ status: 503, code: "store_unavailable" });
    await fs.mkdir(incoming);
    await commit();
    expect(Buffer.from(await store.read("s", one.ref)).toString()).toBe("one");
  });

  test("a content that is damaged at any byte, or gone, is not given out", async () => {
    await store.create(record("s"), 10);
    const held = await lease("s");
    const one = snapshot("some content");
    await held.commit({ ...held.record, head: one.ref }, one.stored);
    const file = path.join(directory, "blobs", one.ref.sha256);
    for (let at = 0; at < one.stored.bytes.length; at++) {
      const damaged = Buffer.from(one.stored.bytes);
      damaged[at] = (damaged[at] as number) ^ 1;
      await fs.writeFile(file, damaged);
      await expect(store.read("s", one.ref)).rejects.toThrow("checksum");
    }
    await fs.rm(file);
    await expect(store.read("s", one.ref)).rejects.toThrow("missing");
  });

  test("a second server is refused the folder, and a damaged index is named", async () => {
    await expect(DiskSessions.open({ directory, maxBytes: 1 })).rejects.toThrow("in use by another server");
    await store.create(record("s"), 10);
    await store.close();
    for (const name of await fs.readdir(directory)) if (/-wal|-shm/.test(name)) await fs.rm(path.join(directory, name));
    await fs.writeFile(path.join(directory, "index.sqlite"), randomBytes(8192));
    await expect(DiskSessions.open({ directory, maxBytes: 1 })).rejects.toThrow(/cannot be opened.*backup/s);
  });

  test("10,000 are made within a minute", { timeout: 120_000 }, async () => {
    const startedAt = performance.now();
    for (let i = 0; i < 10_000; i += 20) {
      await Promise.all(Array.from({ length: 20 }, (_, j) => store.create(record(`s${i + j}`), 10_000)));
    }
    expect(performance.now() - startedAt).toBeLessThan(60_000);
    await expect(store.create(record("more"), 10_000)).rejects.toMatchObject({ code: "session_limit" });
    expect(await store.list("alice")).toHaveLength(10_000);
  });
});
