import fs from "node:fs";
import path from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { ClientError, StartupError } from "../errors.ts";
import { type Blob, type BlobFolder, sha256Hex } from "./blob-folder.ts";
import { openBlobs, prepareIndex } from "./disk-sessions-index.ts";
import { FolderLock } from "./folder-lock.ts";
import { checkShare, INDEX_BYTES_PER_CONTENT, type SessionShares, storeFull } from "./session-shares.ts";
import {
  endsAtMs,
  MissingBlobError,
  type NewSnapshot,
  type SessionLease,
  type SessionRecord,
  type SessionStore,
  snapshotsOf,
} from "./session-store.ts";

export interface DiskSessionsOptions {
  /** Host folder, `DATA_DIR/sessions`; made if it is not there. One process at a time. */
  readonly directory: string;
  readonly shares: SessionShares;
}

interface Change {
  readonly action: () => void;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** A principal that has stored something. */
interface Owner {
  /** In the index. */
  readonly id: number;
  readonly blobs: BlobFolder;
}

/**
 * Sessions on this machine's disk, durable once a call has returned:
 *
 *     <directory>/lock                   held while a process uses the folder
 *     <directory>/index.sqlite           sessions, and which of them needs which blob
 *     <directory>/blobs/<owner>/<hash>   states and contents of files; sessions of one principal share them
 *     <directory>/incoming/              what is being written; emptied at start
 *
 * Equal contents of two principals are two blobs: neither time nor usage tells one of them what the other has.
 * Blobs are durable before the index names them, and go only when it names them no more: a crash at any point leaves a
 * session before a change or after it.
 */
export class DiskSessions implements SessionStore {
  onInterrupt: (id: string) => void = () => {};
  readonly #lock: FolderLock;
  readonly #database: DatabaseSync;
  readonly #directory: string;
  /** By principal. */
  readonly #owners = new Map<string, Owner>();
  readonly #shares: SessionShares;
  readonly #sql: Record<keyof typeof STATEMENTS, StatementSync>;
  readonly #leases = new Map<string, DiskLease>();
  /** Blobs (`<owner>/<hash>`) that a change under way needs, and how many do: they stay though the index may not name them yet. */
  readonly #needed = new Map<string, number>();
  readonly #deleting = new Map<string, Promise<void>>();
  readonly #changes: Change[] = [];

  private constructor(options: DiskSessionsOptions, lock: FolderLock, database: DatabaseSync) {
    this.#directory = options.directory;
    this.#shares = options.shares;
    this.#lock = lock;
    this.#database = database;
    const prepare = ([name, sql]: [string, string]) => [name, database.prepare(sql)];
    this.#sql = Object.fromEntries(Object.entries(STATEMENTS).map(prepare));
  }

  /** @throws {StartupError} if another process uses the folder, or the index is damaged. */
  static async open(options: DiskSessionsOptions): Promise<DiskSessions> {
    const { directory } = options;
    const lock = new FolderLock(directory);
    const file = path.join(directory, "index.sqlite");
    let database: DatabaseSync | undefined;
    try {
      database = new DatabaseSync(file);
      database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
      const [check] = database.prepare("PRAGMA quick_check(1)").all() as { quick_check: string }[];
      if (check?.quick_check !== "ok") throw new Error(check?.quick_check);
      fs.chmodSync(file, 0o600);
      await prepareIndex(database, directory);
      return new DiskSessions(options, lock, database);
    } catch (cause) {
      database?.close();
      lock[Symbol.dispose]();
      throw new StartupError(
        `The sessions in ${directory} cannot be opened: ${(cause as Error).message}. ` +
          "Restore the folder from a backup, or move it away to start without sessions.",
        { cause },
      );
    }
  }

  async create(record: SessionRecord, maxOfPrincipal: number, from?: SessionLease): Promise<void> {
    const owner = await this.#owner(record.principal);
    await this.#change(() => {
      if (this.#sql.get.get(record.id)) throw new ClientError(409, "session_exists", "Session already exists");
      const { count } = this.#sql.count.get(record.principal, Date.now()) as { count: number };
      if (count >= maxOfPrincipal) {
        const message = `Session limit reached: at most ${maxOfPrincipal} for each principal. Delete sessions first.`;
        throw new ClientError(429, "session_limit", message);
      }
      this.#put(record);
      if (!from) return;
      let rows = 0;
      for (const { sha256 } of snapshotsOf(record)) {
        rows += Number(this.#sql.copyRefs.run(record.id, from.record.id, sha256).changes);
      }
      this.#charge(owner, rows * INDEX_BYTES_PER_CONTENT);
    });
  }

  async get(id: string): Promise<SessionRecord | undefined> {
    return this.#read(id);
  }

  async list(principal: string): Promise<readonly SessionRecord[]> {
    const rows = this.#guard(() => this.#sql.list.all(principal, Date.now())) as { record: string }[];
    return rows.map(({ record }) => JSON.parse(record));
  }

  async acquire(id: string, principal: string): Promise<SessionLease | undefined> {
    // This process is the only one, and the engine lets one turn at a time have a session.
    if (this.#leases.has(id)) throw new Error("a session's lease is asked for twice");
    const record = this.#read(id);
    if (record?.principal !== principal) return undefined;
    const lease = new DiskLease(this, record);
    this.#leases.set(id, lease);
    return lease;
  }

  async ended(nowMs: number): Promise<readonly { id: string }[]> {
    return this.#guard(() => this.#sql.ended.all(nowMs)) as { id: string }[];
  }

  async deleteEnded(id: string, nowMs: number): Promise<void> {
    const row = this.#guard(() => this.#sql.get.get(id)) as { principal: string; record: string } | undefined;
    if (!row || this.#leases.has(id) || endsAtMs(JSON.parse(row.record)) > nowMs) return;
    await this.delete(id, row.principal);
  }

  async announceInterrupt(): Promise<void> {
    // There is no other server.
  }

  async close(): Promise<void> {
    if (this.#changes.length > 0) this.#applyChanges();
    await Promise.all(this.#deleting.values());
    this.#database.close();
    this.#lock[Symbol.dispose]();
  }

  async read(id: string, blob: Blob): Promise<Uint8Array> {
    const row = this.#guard(() => this.#sql.get.get(id)) as { principal: string } | undefined;
    if (row === undefined) throw new MissingBlobError("its session is gone");
    const { blobs } = await this.#owner(row.principal);
    const bytes = await blobs.read(blob).catch((cause: unknown) => {
      throw new MissingBlobError("a content is missing or cut off", { cause });
    });
    if ((await sha256Hex(bytes)) !== blob.sha256) throw new MissingBlobError("a content's checksum is wrong");
    return bytes;
  }

  async commit(record: SessionRecord, snapshot: NewSnapshot | undefined): Promise<void> {
    const owner = await this.#owner(record.principal);
    const needed = snapshot ? [snapshot.blob, ...snapshot.files] : [];
    const keys = needed.map(({ sha256 }) => keyOf(owner, sha256));
    for (const key of keys) this.#needed.set(key, (this.#needed.get(key) ?? 0) + 1);
    const written: string[] = [];
    // After a failure: what was written for nothing.
    let unused: readonly string[] = written;
    try {
      if (snapshot) await this.#writeBlobs(owner, snapshot, written);
      await this.#change(() => {
        this.#put(record);
        const added = this.#addRefs(owner, record.id, snapshot?.blob.sha256 ?? "", needed);
        const kept = JSON.stringify(snapshotsOf(record).map(({ sha256 }) => sha256));
        const dropped = this.#dropRefs(owner, record.id, kept);
        this.#charge(owner, added - dropped.bytes);
        unused = dropped.unused;
      });
    } finally {
      for (const key of keys) {
        const left = (this.#needed.get(key) ?? 1) - 1;
        if (left > 0) this.#needed.set(key, left);
        else this.#needed.delete(key);
      }
      this.#sweep(owner, unused);
    }
  }

  async delete(id: string, principal: string): Promise<void> {
    const owner = await this.#owner(principal);
    let unused: readonly string[] = [];
    await this.#change(() => {
      this.#sql.delete.run(id);
      const dropped = this.#dropRefs(owner, id, "[]");
      this.#charge(owner, -dropped.bytes);
      unused = dropped.unused;
    });
    this.#sweep(owner, unused);
  }

  release(id: string): void {
    this.#leases.delete(id);
  }

  /** @param written gets the hashes of what may lie in the folder from now on, whether or not the rest succeeds. */
  async #writeBlobs(owner: Owner, { blob, bytes, files, contents }: NewSnapshot, written: string[]): Promise<void> {
    const missing = new Map<string, Uint8Array>();
    await Promise.all([blob, ...files].map(({ sha256 }) => this.#deleting.get(keyOf(owner, sha256))));
    if (!this.#hasContent(owner, blob.sha256)) missing.set(blob.sha256, bytes);
    for (const { sha256 } of files) {
      if (this.#hasContent(owner, sha256)) continue;
      const content = contents.get(sha256);
      if (!content) throw new Error(`content ${sha256} of a session's file is nowhere`);
      missing.set(sha256, content);
    }
    // Before anything is written; the change itself counts exactly.
    this.#checkRoom(
      owner,
      missing.values().reduce((sum, { length }) => sum + length, 0),
    );
    written.push(...missing.keys());
    try {
      await owner.blobs.write(missing);
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** @returns what the new rows and contents take, bytes. */
  #addRefs(owner: Owner, session: string, state: string, blobs: readonly Blob[]): number {
    let added = 0;
    for (const { sha256, size } of blobs) {
      if (!this.#hasContent(owner, sha256)) added += size;
      const { changes } = this.#sql.addRef.run(session, state, sha256, size, owner.id);
      added += Number(changes) * INDEX_BYTES_PER_CONTENT;
    }
    return added;
  }

  /** @returns what that gives back, bytes, and the hashes of contents that nothing refers to any more. */
  #dropRefs(owner: Owner, session: string, keptStates: string): { bytes: number; unused: readonly string[] } {
    const dropped = this.#sql.dropRefs.all(session, keptStates) as unknown as Blob[];
    const unused = new Map<string, number>();
    for (const { sha256, size } of dropped) if (!this.#hasContent(owner, sha256)) unused.set(sha256, size);
    const contentBytes = unused.values().reduce((sum, size) => sum + size, 0);
    return { bytes: contentBytes + dropped.length * INDEX_BYTES_PER_CONTENT, unused: [...unused.keys()] };
  }

  /** Adds to what a principal takes. @throws {ClientError} 507 `store_full` if it would be too much. */
  #charge(owner: Owner, bytes: number): void {
    if (bytes > 0) this.#checkRoom(owner, bytes);
    if (bytes !== 0) this.#sql.charge.run(bytes, owner.id);
  }

  #checkRoom(owner: Owner, addedBytes: number): void {
    const { own, others } = this.#sql.usage.get({ ":id": owner.id }) as { own: number; others: number };
    if (addedBytes > 0) checkShare(this.#shares, own + addedBytes, own + others + addedBytes);
  }

  #hasContent(owner: Owner, sha256: string): boolean {
    return this.#sql.hasContent.get(owner.id, sha256) !== undefined;
  }

  async #owner(principal: string): Promise<Owner> {
    const known = this.#owners.get(principal);
    if (known) return known;
    try {
      const blobs = await openBlobs(this.#directory, principal);
      const { id } = this.#sql.owner.get(principal) as { id: number };
      const owner = { id, blobs };
      this.#owners.set(principal, owner);
      return owner;
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** Deletes the blobs that nothing refers to any more. */
  #sweep(owner: Owner, hashes: readonly string[]): void {
    for (const sha256 of hashes) {
      const key = keyOf(owner, sha256);
      if (this.#needed.has(key) || this.#deleting.has(key) || this.#hasContent(owner, sha256)) continue;
      const deleting = owner.blobs
        .delete(sha256)
        // It is found again at the next start.
        .catch(() => {})
        .finally(() => this.#deleting.delete(key));
      this.#deleting.set(key, deleting);
    }
  }

  #put(record: SessionRecord): void {
    const { id, principal, lastUsedAtMs } = record;
    this.#sql.put.run(id, principal, lastUsedAtMs, endsAtMs(record), JSON.stringify(record));
  }

  #read(id: string): SessionRecord | undefined {
    const row = this.#guard(() => this.#sql.get.get(id)) as { record: string } | undefined;
    const record: SessionRecord | undefined = row && JSON.parse(row.record);
    return record && endsAtMs(record) > Date.now() ? record : undefined;
  }

  /**
   * Changes the index, all or nothing, durably. Changes that are asked for at once share one transaction, and so one wait
   * for the disk.
   */
  #change(action: () => void): Promise<void> {
    if (this.#changes.length === 0) setImmediate(() => this.#applyChanges());
    return new Promise((resolve, reject) => this.#changes.push({ action, resolve, reject }));
  }

  #applyChanges(): void {
    const changes = this.#changes.splice(0);
    const done: (() => void)[] = [];
    try {
      this.#database.exec("BEGIN IMMEDIATE");
      for (const { action, resolve, reject } of changes) {
        this.#database.exec("SAVEPOINT change");
        try {
          action();
          done.push(resolve);
        } catch (error) {
          this.#database.exec("ROLLBACK TO change");
          done.push(() => reject(error instanceof ClientError ? error : unavailable(error)));
        }
        this.#database.exec("RELEASE change");
      }
      this.#database.exec("COMMIT");
    } catch (error) {
      try {
        if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      } catch {
        // The first error says more.
      }
      for (const { reject } of changes) reject(unavailable(error));
      return;
    }
    for (const settle of done) settle();
  }

  #guard<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      if (error instanceof ClientError) throw error;
      throw unavailable(error);
    }
  }
}

const STATEMENTS = {
  get: "SELECT principal, record FROM sessions WHERE id = ?",
  put: "INSERT OR REPLACE INTO sessions (id, principal, last_used_at_ms, ends_at_ms, record) VALUES (?, ?, ?, ?, ?)",
  delete: "DELETE FROM sessions WHERE id = ?",
  count: "SELECT count(*) AS count FROM sessions WHERE principal = ? AND ends_at_ms > ?",
  list: "SELECT record FROM sessions WHERE principal = ? AND ends_at_ms > ? ORDER BY last_used_at_ms DESC",
  ended: "SELECT id FROM sessions WHERE ends_at_ms <= ? ORDER BY ends_at_ms LIMIT 100",
  owner:
    "INSERT INTO owners (principal, bytes) VALUES (?, 0) ON CONFLICT (principal) DO UPDATE SET bytes = bytes RETURNING id",
  usage: `SELECT coalesce(sum(bytes) FILTER (WHERE id = :id), 0) AS own, coalesce(sum(bytes) FILTER (WHERE id <> :id), 0) AS others
    FROM owners`,
  charge: "UPDATE owners SET bytes = max(0, bytes + ?) WHERE id = ?",
  hasContent: "SELECT 1 FROM refs WHERE owner = ? AND sha256 = ? LIMIT 1",
  addRef: "INSERT OR IGNORE INTO refs (session, snapshot, sha256, size, owner) VALUES (?, ?, ?, ?, ?)",
  copyRefs: `INSERT OR IGNORE INTO refs (session, snapshot, sha256, size, owner)
    SELECT ?, snapshot, sha256, size, owner FROM refs WHERE session = ? AND snapshot = ?`,
  dropRefs:
    "DELETE FROM refs WHERE session = ? AND snapshot NOT IN (SELECT value FROM json_each(?)) RETURNING sha256, size",
} as const;

function keyOf(owner: Owner, sha256: string): string {
  return `${owner.id}/${sha256}`;
}

class DiskLease implements SessionLease {
  record: SessionRecord;
  // Nobody else can have it while the process lives.
  readonly lost = new AbortController().signal;
  readonly #store: DiskSessions;

  constructor(store: DiskSessions, record: SessionRecord) {
    this.#store = store;
    this.record = record;
  }

  async commit(record: SessionRecord, snapshot?: NewSnapshot): Promise<void> {
    await this.#store.commit(record, snapshot);
    this.record = record;
  }

  async delete(): Promise<void> {
    await this.#store.delete(this.record.id, this.record.principal);
    this.#store.release(this.record.id);
  }

  async release(): Promise<void> {
    this.#store.release(this.record.id);
  }
}

function unavailable(cause: unknown): Error {
  const { code, errcode } = cause as { code?: string; errcode?: number };
  const SQLITE_FULL = 13;
  if (code === "ENOSPC" || code === "EDQUOT" || errcode === SQLITE_FULL) return storeFull(cause);
  if (code === undefined) return cause as Error;
  return new ClientError(503, "store_unavailable", "The session store cannot be used at the moment.", {
    cause,
    retryAfterS: 5,
  });
}
