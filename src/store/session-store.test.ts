import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { DiskSessions } from "./disk-sessions.ts";
import { INDEX_BYTES_PER_CONTENT, sharesOf } from "./session-shares.ts";
import type { NewSnapshot, SessionRecord, SnapshotRef } from "./session-store.ts";

/** Of alice and bob each: 1 MB. */
const shares = sharesOf(2_000_000, 2);

let directory: string;
let store: DiskSessions;

beforeEach(async () => {
  directory = await fs.mkdtemp(path.join(os.tmpdir(), "sessions-"));
  store = await DiskSessions.open({ directory, shares });
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

async function lease(id: string, principal = "alice") {
  const lease = await store.acquire(id, principal);
  if (!lease) throw new Error("no lease");
  return lease;
}

/** Paths of all blobs. */
const blobFiles = async () => {
  const found = await fs.readdir(path.join(directory, "blobs"), { recursive: true, withFileTypes: true });
  return found.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
};
const blobs = async () => (await blobFiles()).length;

/** Blobs are deleted behind the reply. */
async function settled(): Promise<void> {
  await store.close();
  store = await DiskSessions.open({ directory, shares });
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
    const [file = ""] = await blobFiles();
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
    await expect(DiskSessions.open({ directory, shares })).rejects.toThrow("in use by another server");
    await store.create(record("s"), 10);
    await store.close();
    for (const name of await fs.readdir(directory)) if (/-wal|-shm/.test(name)) await fs.rm(path.join(directory, name));
    await fs.writeFile(path.join(directory, "index.sqlite"), randomBytes(8192));
    await expect(DiskSessions.open({ directory, shares })).rejects.toThrow(/cannot be opened.*backup/s);
  });

  test("one principal fills its share, and another stores as if it were alone", async () => {
    await store.create(record("a"), 10);
    await store.create(record("b", { principal: "bob" }), 10);
    const [a, b] = [await lease("a"), await lease("b", "bob")];
    const big = snapshot("a".repeat(990_000));
    await a.commit({ ...a.record, head: big.ref }, big.stored);
    const more = snapshot("more".repeat(5000));
    await expect(a.commit({ ...a.record, head: more.ref, previous: big.ref }, more.stored)).rejects.toMatchObject({
      status: 507,
      code: "store_full",
      message: expect.stringContaining("your share"),
    });
    const bobs = snapshot("b".repeat(990_000));
    await b.commit({ ...b.record, head: bobs.ref }, bobs.stored);
    // What makes it smaller is allowed, also to a principal that has too much.
    await a.commit({ ...a.record, head: null });
    await a.commit({ ...a.record, head: more.ref }, more.stored);
    await settled();
    expect(await blobs()).toBe(2);
  });

  test("a principal that has more than its share takes no room from another's", async () => {
    await store.create(record("a"), 10);
    const big = snapshot("a".repeat(990_000));
    const a = await lease("a");
    await a.commit({ ...a.record, head: big.ref }, big.stored);
    await store.close();
    store = await DiskSessions.open({ directory, shares: sharesOf(1_000_000, 4) });
    await store.create(record("b", { principal: "bob" }), 10);
    const b = await lease("b", "bob");
    const bobs = snapshot("b".repeat(200_000));
    await b.commit({ ...b.record, head: bobs.ref }, bobs.stored);
    const more = snapshot("b".repeat(60_000));
    await expect(b.commit({ ...b.record, head: more.ref, previous: bobs.ref }, more.stored)).rejects.toMatchObject({
      code: "store_full",
    });
    const again = await lease("a");
    await again.commit({ ...again.record, head: null });
  });

  test("shares that are larger than equal parts end where the store is full, equal parts do not", async () => {
    await store.close();
    store = await DiskSessions.open({ directory, shares: sharesOf(1_000_000, 2, 900_000) });
    await store.create(record("a"), 10);
    await store.create(record("b", { principal: "bob" }), 10);
    const [a, b] = [await lease("a"), await lease("b", "bob")];
    const big = snapshot("a".repeat(890_000));
    await a.commit({ ...a.record, head: big.ref }, big.stored);
    const equalPart = snapshot("b".repeat(490_000));
    await b.commit({ ...b.record, head: equalPart.ref }, equalPart.stored);
    const more = snapshot("b".repeat(100_000));
    const refused = { status: 507, message: "The session store is full. Delete sessions first." };
    await expect(b.commit({ ...b.record, head: more.ref, previous: equalPart.ref }, more.stored)).rejects.toMatchObject(
      refused,
    );
  });

  test("files without content take room, too: what the index needs for each", async () => {
    await store.close();
    store = await DiskSessions.open({ directory, shares: sharesOf(100 * INDEX_BYTES_PER_CONTENT, 1) });
    await store.create(record("s"), 10);
    const held = await lease("s");
    const many = snapshot("x", ...Array.from({ length: 100 }, (_, i) => String(i)));
    await expect(held.commit({ ...held.record, head: many.ref }, many.stored)).rejects.toMatchObject({ status: 507 });
  });

  test("what is counted is what is stored, after any sequence of changes, refusals and restarts", async () => {
    const stored = async () => {
      const sizes = await Promise.all((await blobFiles()).map(async (file) => (await fs.stat(file)).size));
      const index = new DatabaseSync(path.join(directory, "index.sqlite"), { readOnly: true });
      const { rows } = index.prepare("SELECT count(*) AS rows FROM refs").get() as { rows: number };
      const { counted } = index.prepare("SELECT sum(bytes) AS counted FROM owners").get() as { counted: number };
      index.close();
      return { counted, bytes: sizes.reduce((sum, size) => sum + size, 0) + rows * INDEX_BYTES_PER_CONTENT };
    };
    let seed = 12345;
    const random = (n: number) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
      return (seed >>> 8) % n;
    };
    const held = new Map<string, Awaited<ReturnType<typeof lease>>>();
    for (const id of ["a1", "a2", "b1", "b2"]) {
      const principal = id.startsWith("a") ? "alice" : "bob";
      await store.create(record(id, { principal }), 10);
      held.set(id, await lease(id, principal));
    }
    for (let step = 0; step < 150; step++) {
      const changes = Array.from(held.values(), async (session) => {
        const { ref, stored } = snapshot(
          `${random(4)}`.repeat(200_000 * (1 + random(3))),
          `f${random(5)}`,
          `g${random(5)}`,
        );
        const kept = random(3) === 0 ? null : session.record.head;
        await session.commit({ ...session.record, head: ref, previous: kept }, stored).catch((error) => {
          if (error.code !== "store_full") throw error;
        });
      });
      await Promise.all(changes);
    }
    await settled();
    const { counted, bytes } = await stored();
    expect(counted).toBe(bytes);
    expect(counted).toBeGreaterThan(0);
  });

  test("equal contents of two principals are two, equal ones of one principal are one", async () => {
    for (const [id, principal] of [
      ["a1", "alice"],
      ["a2", "alice"],
      ["b", "bob"],
    ] as const) {
      await store.create(record(id, { principal }), 10);
      const held = await lease(id, principal);
      const same = snapshot("state", "the same file");
      await held.commit({ ...held.record, head: same.ref }, same.stored);
    }
    expect(await blobs()).toBe(4);
    // That another has a content is no help to a principal that names it without having it.
    await store.create(record("c", { principal: "carol" }), 10);
    const carols = await lease("c", "carol");
    const named = snapshot("state", "the same file");
    await expect(
      carols.commit({ ...carols.record, head: named.ref }, { ...named.stored, contents: new Map() }),
    ).rejects.toThrow("is nowhere");
    await expect(store.read("c", blobOf(Buffer.from("the same file")))).rejects.toThrow("missing");
  });

  describe("a store of version 0, in which principals shared contents", () => {
    const shared = snapshot("state", "the same file");

    /** As commit f14c18f has left it. */
    async function writeVersion0(): Promise<void> {
      await store.close();
      await fs.rm(directory, { recursive: true });
      await fs.mkdir(path.join(directory, "blobs"), { recursive: true });
      const index = new DatabaseSync(path.join(directory, "index.sqlite"));
      index.exec(`PRAGMA journal_mode = WAL;
        CREATE TABLE sessions (id TEXT PRIMARY KEY, principal TEXT NOT NULL, last_used_at_ms REAL NOT NULL, ends_at_ms REAL NOT NULL,
          record TEXT NOT NULL) WITHOUT ROWID;
        CREATE INDEX sessions_principal ON sessions (principal, ends_at_ms);
        CREATE INDEX sessions_end ON sessions (ends_at_ms);
        CREATE TABLE refs (session TEXT NOT NULL, snapshot TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
          PRIMARY KEY (session, snapshot, sha256)) WITHOUT ROWID;
        CREATE INDEX refs_blob ON refs (sha256);`);
      const addSession = index.prepare("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)");
      const addRef = index.prepare("INSERT INTO refs VALUES (?, ?, ?, ?)");
      const contents = new Map([[shared.ref.sha256, shared.stored.bytes], ...shared.stored.contents]);
      for (const principal of ["alice", "bob"]) {
        const { id, lastUsedAtMs, ttlMs, ...rest } = record(`of-${principal}`, { principal, head: shared.ref });
        addSession.run(
          id,
          principal,
          lastUsedAtMs,
          lastUsedAtMs + ttlMs,
          JSON.stringify({ id, lastUsedAtMs, ttlMs, ...rest }),
        );
        for (const [sha256, { length }] of contents) addRef.run(id, shared.ref.sha256, sha256, length);
      }
      index.close();
      for (const [sha256, bytes] of contents) await fs.writeFile(path.join(directory, "blobs", sha256), bytes);
    }

    async function expectAll(): Promise<void> {
      store = await DiskSessions.open({ directory, shares });
      for (const principal of ["alice", "bob"]) {
        const id = `of-${principal}`;
        expect(await store.get(id)).toMatchObject({ principal, head: shared.ref });
        expect(Buffer.from(await store.read(id, shared.ref)).toString()).toBe("state");
        expect(Buffer.from(await store.read(id, blobOf(Buffer.from("the same file")))).toString()).toBe(
          "the same file",
        );
      }
      expect(await blobs()).toBe(4);
      await (await lease("of-alice")).delete();
      await settled();
      expect(Buffer.from(await store.read("of-bob", shared.ref)).toString()).toBe("state");
      expect(await blobs()).toBe(2);
    }

    test("is brought to this one, and nothing is lost", async () => {
      await writeVersion0();
      await expectAll();
    });

    test("also where an attempt ended half way", async () => {
      await writeVersion0();
      store = await DiskSessions.open({ directory, shares });
      const places = await blobFiles();
      await writeVersion0();
      // One content has its new place already.
      const [place = ""] = places;
      await fs.mkdir(path.dirname(place), { recursive: true });
      await fs.link(path.join(directory, "blobs", path.basename(place)), place);
      await expectAll();
    });

    test("one of a later version is refused, and nothing of it is removed", async () => {
      await writeVersion0();
      const index = new DatabaseSync(path.join(directory, "index.sqlite"));
      index.exec("PRAGMA user_version = 99");
      index.close();
      await expect(DiskSessions.open({ directory, shares })).rejects.toThrow("version 99");
      expect(await blobs()).toBe(2);
    });
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
