import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs/promises";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { DiskSessions } from "./disk-store.ts";
import { INDEX_BYTES_PER_CONTENT, sharesOf } from "./shares.ts";
import type { NewSnapshot, SessionRecord, SnapshotRef } from "./store.ts";

/** Of alice and bob each: 1 MB. */
const shares = sharesOf(2_000_000, 2);

const SESSIONS_BEFORE = `
  CREATE TABLE sessions (
    id TEXT PRIMARY KEY, principal TEXT NOT NULL, last_used_at_ms REAL NOT NULL, ends_at_ms REAL NOT NULL, record TEXT NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX sessions_principal ON sessions (principal, ends_at_ms);
  CREATE INDEX sessions_end ON sessions (ends_at_ms);`;
const REFS_OF_VERSION_0 = `
  CREATE TABLE IF NOT EXISTS refs (
    session TEXT NOT NULL, snapshot TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (session, snapshot, sha256)
  ) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS refs_blob ON refs (sha256);`;
const REFS_OF_VERSION_1 = `
  CREATE TABLE owners (id INTEGER PRIMARY KEY, principal TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL);
  CREATE TABLE refs (
    session TEXT NOT NULL, snapshot TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL, owner INTEGER NOT NULL,
    PRIMARY KEY (session, snapshot, sha256)
  ) WITHOUT ROWID;
  CREATE INDEX refs_content ON refs (owner, sha256);`;

let directory: string;
let store: DiskSessions;

beforeEach(async () => {
  directory = temporaryFolder("sessions");
  store = await DiskSessions.open({ directory, shares });
});

afterEach(async () => {
  await store.close().catch(() => {});
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

/** Opens the store's database while no server does. */
async function inDatabase<T>(action: (database: DatabaseSync) => T): Promise<T> {
  await store.close();
  const database = new DatabaseSync(path.join(directory, "index.sqlite"));
  const value = action(database);
  database.close();
  store = await DiskSessions.open({ directory, shares });
  return value;
}

async function settled(): Promise<void> {
  await store.close();
  store = await DiskSessions.open({ directory, shares });
}

/** Paths of all contents that are files. */
const contentFiles = async () => {
  const found = await fs.readdir(path.join(directory, "blobs"), { recursive: true, withFileTypes: true });
  return found.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
};

/** How many contents are stored, and how many of them in files. Those go behind the reply. */
async function contents(): Promise<{ all: number; files: number }> {
  const query = "SELECT count(*) AS n FROM contents";
  const all = await inDatabase((database) => Number((database.prepare(query).get() as { n: number }).n));
  return { all, files: (await contentFiles()).length };
}

const LARGE = 300_000;
const DAY_MS = 86_400_000;

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
    expect(await contents()).toEqual({ all: 3, files: 0 });
    expect(await store.get("s")).toMatchObject({ revision: 3, head: three.ref, previous: two.ref });
    expect(Buffer.from(await store.read("s", three.ref)).toString()).toBe("three");
    expect(Buffer.from(await store.read("s", blobOf(Buffer.from("file b")))).toString()).toBe("file b");
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
    expect(await contents()).toEqual({ all: 2, files: 0 });
    await (await lease("fork")).delete();
    expect(await contents()).toEqual({ all: 0, files: 0 });
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
    expect(await contents()).toEqual({ all: 1, files: 0 });
    const again = await lease("s");
    const fits = snapshot("y".repeat(900_000));
    await again.commit({ ...again.record, revision: 2, head: fits.ref }, fits.stored);
  });

  test("large contents are files, and are gone with what needs them", async () => {
    await store.create(record("s"), 10);
    const held = await lease("s");
    const one = snapshot("x".repeat(LARGE), "small", "y".repeat(LARGE));
    await held.commit({ ...held.record, revision: 1, head: one.ref }, one.stored);
    expect(await contents()).toEqual({ all: 3, files: 2 });
    expect(Buffer.from(await store.read("s", one.ref)).toString()).toBe("x".repeat(LARGE));
    const again = await lease("s");
    const two = snapshot("two", "y".repeat(LARGE));
    await again.commit({ ...again.record, revision: 2, head: two.ref }, two.stored);
    expect(await contents()).toEqual({ all: 2, files: 1 });
    expect(Buffer.from(await store.read("s", blobOf(Buffer.from("y".repeat(LARGE))))).length).toBe(LARGE);
  });

  test("a large content that is refused leaves no file", async () => {
    await store.create(record("s"), 10);
    const held = await lease("s");
    const one = snapshot("x".repeat(LARGE), "y".repeat(LARGE), "z".repeat(LARGE), "w".repeat(LARGE));
    const commit = held.commit({ ...held.record, revision: 1, head: one.ref }, one.stored);
    await expect(commit).rejects.toMatchObject({ status: 507, code: "store_full" });
    expect(await contents()).toEqual({ all: 0, files: 0 });
  });

  test("the same content of two principals is two, and neither goes with the other", async () => {
    await store.create(record("a"), 10);
    await store.create(record("b", { principal: "bob" }), 10);
    const one = snapshot("one", "file", "x".repeat(LARGE));
    for (const [id, principal] of [
      ["a", "alice"],
      ["b", "bob"],
    ] as const) {
      const held = await store.acquire(id, principal);
      await held?.commit({ ...held.record, head: one.ref }, one.stored);
    }
    expect(await contents()).toEqual({ all: 6, files: 2 });
    await (await lease("a")).delete();
    expect(await contents()).toEqual({ all: 3, files: 1 });
    expect(Buffer.from(await store.read("b", one.ref)).toString()).toBe("one");
    const large = blobOf(Buffer.from("x".repeat(LARGE)));
    expect((await store.read("b", large)).length).toBe(LARGE);
    await expect(store.read("a", large)).rejects.toThrow("missing");
  });

  test("changes at once are each made whole or refused, in one wait for the disk", async () => {
    const ids = Array.from({ length: 20 }, (_, i) => `s${i}`);
    await Promise.all(ids.map((id) => store.create(record(id), 100)));
    const held = await Promise.all(ids.map((id) => lease(id)));
    const ends = await Promise.allSettled(
      held.map(async (one, i) => {
        const { ref, stored } = snapshot(i % 3 === 0 ? "x".repeat(1_000_001 + i) : `state ${i}`);
        await one.commit({ ...one.record, revision: 1, head: ref }, stored);
      }),
    );
    expect(ends.map(({ status }) => status)).toEqual(ids.map((_, i) => (i % 3 === 0 ? "rejected" : "fulfilled")));
    await settled();
    for (const [i, id] of ids.entries()) {
      const known = await store.get(id);
      expect(known?.revision).toBe(i % 3 === 0 ? 0 : 1);
      if (known?.head) expect(Buffer.from(await store.read(id, known.head)).toString()).toBe(`state ${i}`);
    }
  });

  test("a folder that cannot be written is an error that can be retried", async () => {
    await store.create(record("s"), 10);
    const held = await lease("s");
    const incoming = path.join(directory, "incoming");
    await fs.rm(incoming, { recursive: true });
    const one = snapshot("x".repeat(LARGE));
    const commit = () => held.commit({ ...held.record, revision: 1, head: one.ref }, one.stored);
    await expect(commit()).rejects.toMatchObject({ status: 503, code: "store_unavailable" });
    await fs.mkdir(incoming);
    await commit();
    expect((await store.read("s", one.ref)).length).toBe(LARGE);
  });

  test.each(["small", "large"])("a %s content that is damaged at any byte, or gone, is not given out", async (size) => {
    await store.create(record("s"), 10);
    const held = await lease("s");
    const text = size === "small" ? "some content" : "x".repeat(LARGE);
    const one = snapshot(text);
    await held.commit({ ...held.record, head: one.ref }, one.stored);
    const [file = ""] = await fs.readdir(path.join(directory, "blobs"));
    const put = async (bytes: Buffer | null) => {
      if (size === "large") {
        const name = path.join(directory, "blobs", file);
        if (bytes) await fs.writeFile(name, bytes);
        else await fs.rm(name);
      } else {
        await inDatabase((database) => {
          if (bytes) database.prepare("UPDATE contents SET bytes = ?").run(bytes);
          else database.exec("DELETE FROM contents");
        });
      }
    };
    for (let at = 0; at < text.length; at += size === "small" ? 1 : 50_021) {
      const damaged = Buffer.from(text);
      damaged[at] = (damaged[at] as number) ^ 1;
      await put(damaged);
      await expect(store.read("s", one.ref)).rejects.toThrow("checksum");
    }
    await put(null);
    await expect(store.read("s", one.ref)).rejects.toThrow("missing");
  });

  test("a second server is refused the folder, and a damaged index is named", async () => {
    await expect(DiskSessions.open({ directory, shares })).rejects.toThrow("in use by another server");
    await store.create(record("s"), 10);
    await store.close();
    await expect(store.get("s")).rejects.toMatchObject({ status: 503 });
    for (const name of await fs.readdir(directory)) if (/-wal|-shm/.test(name)) await fs.rm(path.join(directory, name));
    await fs.writeFile(path.join(directory, "index.sqlite"), randomBytes(8192));
    await expect(DiskSessions.open({ directory, shares })).rejects.toThrow(/cannot be used.*backup/s);
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
    expect(await contents()).toEqual({ all: 2, files: 1 });
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
    const stored = () =>
      inDatabase((database) => {
        const { counted } = database.prepare("SELECT sum(bytes) AS counted FROM owners").get() as { counted: number };
        const { uses } = database.prepare("SELECT count(*) AS uses FROM uses").get() as { uses: number };
        const all = database.prepare("SELECT size, file, length(bytes) AS length FROM contents").all();
        const contents = all as { size: number; file: string | null; length: number | null }[];
        return { counted, uses, contents };
      });
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
          `${random(4)}`.repeat(150_000 * (1 + random(3))),
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
    const { counted, uses, contents } = await stored();
    const sizes = contents.map(({ length }) => length).filter((length) => length !== null);
    for (const file of await contentFiles()) sizes.push((await fs.stat(file)).size);
    expect(sizes.length).toBe(contents.length);
    const bytes = sizes.reduce((sum, size) => sum + size, 0);
    expect(contents.reduce((sum, { size }) => sum + size, 0)).toBe(bytes);
    expect(counted).toBe(bytes + uses * INDEX_BYTES_PER_CONTENT);
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
    // That another has a content is no help to a principal that names it without having it.
    await store.create(record("c", { principal: "carol" }), 10);
    const carols = await lease("c", "carol");
    const named = snapshot("state", "the same file");
    await expect(
      carols.commit({ ...carols.record, head: named.ref }, { ...named.stored, contents: new Map() }),
    ).rejects.toThrow("is nowhere");
    await expect(store.read("c", blobOf(Buffer.from("the same file")))).rejects.toThrow("missing");
    expect(await contents()).toEqual({ all: 4, files: 0 });
  });

  describe("a store of an older version", () => {
    const shared = snapshot("state", "the same file");
    const alone = snapshot("x".repeat(LARGE), "the same file");
    const contentsOf = ({ stored }: typeof shared) => [[stored.blob.sha256, stored.bytes] as const, ...stored.contents];
    const folderOf = (principal: string) => createHash("sha256").update(principal).digest("hex").slice(0, 32);
    const old = ["alice", "bob"].flatMap((principal) => [
      record(`of-${principal}`, { principal, ttlMs: DAY_MS, head: alone.ref, previous: shared.ref, revision: 7 }),
      record(`fork-of-${principal}`, { principal, ttlMs: DAY_MS, head: shared.ref }),
      record(`new-of-${principal}`, { principal, ttlMs: DAY_MS }),
    ]);

    /** As commits f14c18f (0) and ac4306e (1) have left it. */
    async function write(version: number): Promise<void> {
      await store.close();
      await fs.rm(directory, { recursive: true });
      await fs.mkdir(path.join(directory, "blobs"), { recursive: true });
      const index = new DatabaseSync(path.join(directory, "index.sqlite"));
      index.exec(
        `PRAGMA journal_mode = WAL; ${SESSIONS_BEFORE} ${version === 0 ? REFS_OF_VERSION_0 : REFS_OF_VERSION_1}`,
      );
      const addSession = index.prepare("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)");
      const addRef = index.prepare(`INSERT INTO refs VALUES (?, ?, ?, ?${version === 0 ? "" : ", ?"})`);
      const put = async (folder: string, [sha256, bytes]: readonly [string, Uint8Array]) => {
        await fs.mkdir(path.join(directory, "blobs", folder), { recursive: true });
        await fs.writeFile(path.join(directory, "blobs", folder, sha256), bytes);
      };
      if (version === 1) {
        // What it counted is 2 contents of states and 1 of a file, and 6 rows.
        const bytes = LARGE + "state".length + "the same file".length + 6 * INDEX_BYTES_PER_CONTENT;
        const addOwner = index.prepare("INSERT INTO owners VALUES (?, ?, ?)");
        for (const [id, principal] of ["alice", "bob"].entries()) addOwner.run(id + 1, principal, bytes);
      }
      for (const one of old) {
        const { id, principal, lastUsedAtMs, ttlMs, head, previous } = one;
        addSession.run(id, principal, lastUsedAtMs, lastUsedAtMs + ttlMs, JSON.stringify(one));
        for (const state of [shared, alone]) {
          if (![head?.sha256, previous?.sha256].includes(state.ref.sha256)) continue;
          for (const [sha256, bytes] of contentsOf(state)) {
            const owner = version === 0 ? [] : [principal === "alice" ? 1 : 2];
            addRef.run(id, state.ref.sha256, sha256, bytes.length, ...owner);
            await put(version === 0 ? "" : folderOf(principal), [sha256, bytes]);
          }
        }
      }
      index.exec(`PRAGMA user_version = ${version}`);
      index.close();
    }

    const expectStates = async (id: string, ...states: (typeof shared)[]) => {
      for (const state of states) {
        for (const [sha256, bytes] of contentsOf(state)) {
          const stored = await store.read(id, { sha256, size: bytes.length });
          expect(Buffer.compare(stored, bytes)).toBe(0);
        }
      }
    };

    test.each([0, 1])(
      "%i is brought to this one, nothing is lost, and files go when nothing needs them",
      async (version) => {
        await write(version);
        store = await DiskSessions.open({ directory, shares });
        for (const one of old) expect(await store.get(one.id)).toEqual(one);
        for (const principal of ["alice", "bob"]) {
          await expectStates(`of-${principal}`, shared, alone);
          await expectStates(`fork-of-${principal}`, shared);
        }
        const files = version === 0 ? 3 : 6;
        expect(await contents()).toEqual({ all: 6, files });
        const owners = await inDatabase((database) => database.prepare("SELECT principal, bytes FROM owners").all());
        const bytes = LARGE + "state".length + "the same file".length + 6 * INDEX_BYTES_PER_CONTENT;
        expect(owners).toEqual(["alice", "bob"].map((principal) => ({ principal, bytes })));
        await (await lease("of-alice")).delete();
        expect(await contents()).toEqual({ all: 5, files: version === 0 ? 3 : 5 });
        await expectStates("fork-of-alice", shared);
        await (await lease("fork-of-alice")).delete();
        expect(await contents()).toEqual({ all: 3, files: 3 });
        await expectStates("of-bob", shared, alone);
        const bobs = await lease("of-bob", "bob");
        const next = snapshot("next", "the same file");
        await bobs.commit({ ...bobs.record, head: next.ref, previous: null }, next.stored);
        await expectStates("of-bob", next);
        await expectStates("fork-of-bob", shared);
      },
    );

    test("can still be opened after an attempt that ended half way", async () => {
      await write(0);
      const full = new DatabaseSync(path.join(directory, "index.sqlite"));
      // What comes first in the new version is there already: as on a full disk, the attempt fails in the middle.
      full.exec("CREATE TABLE uses (x)");
      full.close();
      await expect(DiskSessions.open({ directory, shares })).rejects.toThrow("cannot be used");
      expect(await contentFiles()).toHaveLength(3);
      const index = new DatabaseSync(path.join(directory, "index.sqlite"));
      index.exec("DROP TABLE uses");
      index.close();
      store = await DiskSessions.open({ directory, shares });
      await expectStates("of-bob", shared, alone);
    });

    test("one of a later version is refused, and nothing of it is removed", async () => {
      await write(0);
      const index = new DatabaseSync(path.join(directory, "index.sqlite"));
      index.exec("PRAGMA user_version = 99");
      index.close();
      await expect(DiskSessions.open({ directory, shares })).rejects.toThrow("a later version (99)");
      expect(await contentFiles()).toHaveLength(3);
    });

    test("refuses what this one has stored", async () => {
      await inDatabase((database) =>
        expect(() => database.exec(REFS_OF_VERSION_0)).toThrow("views may not be indexed"),
      );
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
