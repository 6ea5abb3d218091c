import fs from "node:fs";
import path from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { ClientError, StartupError } from "../errors.ts";
import { type Blob, BlobFolder, sha256Hex } from "./blob-folder.ts";
import { FolderLock } from "./folder-lock.ts";
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
  /** Most that all states and files may take together, bytes. */
  readonly maxBytes: number;
}

interface Change {
  readonly action: () => void;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

const SCHEMA = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, principal TEXT NOT NULL, last_used_at_ms REAL NOT NULL, ends_at_ms REAL NOT NULL, record TEXT NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS sessions_principal ON sessions (principal, ends_at_ms);
  CREATE INDEX IF NOT EXISTS sessions_end ON sessions (ends_at_ms);
  -- Which blobs each stored state of each session needs, its own bytes among them.
  CREATE TABLE IF NOT EXISTS refs (
    session TEXT NOT NULL, snapshot TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (session, snapshot, sha256)
  ) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS refs_blob ON refs (sha256);
`;

/**
 * Sessions on this machine's disk, durable once a call has returned:
 *
 *     <directory>/lock           held while a process uses the folder
 *     <directory>/index.sqlite   sessions, and which of them needs which blob
 *     <directory>/blobs/<hash>   states and contents of files; forks share them
 *     <directory>/incoming/      what is being written; emptied at start
 *
 * Blobs are durable before the index names them, and go only when it names them no more: a crash at any point leaves a
 * session before a change or after it.
 */
export class DiskSessions implements SessionStore {
  onInterrupt: (id: string) => void = () => {};
  readonly #lock: FolderLock;
  readonly #database: DatabaseSync;
  readonly #blobs: BlobFolder;
  readonly #maxBytes: number;
  readonly #sql: Record<keyof typeof STATEMENTS, StatementSync>;
  readonly #leases = new Map<string, DiskLease>();
  /** Blobs that a change under way needs, and how many do: they stay though the index may not name them yet. */
  readonly #needed = new Map<string, number>();
  readonly #deleting = new Map<string, Promise<void>>();
  #bytes: number;
  readonly #changes: Change[] = [];

  private constructor(options: DiskSessionsOptions, lock: FolderLock, database: DatabaseSync, blobs: BlobFolder) {
    this.#maxBytes = options.maxBytes;
    this.#lock = lock;
    this.#database = database;
    this.#blobs = blobs;
    const prepare = ([name, sql]: [string, string]) => [name, database.prepare(sql)];
    this.#sql = Object.fromEntries(Object.entries(STATEMENTS).map(prepare));
    this.#bytes = Number((this.#sql.totalBytes.get() as { bytes: number | null }).bytes ?? 0);
  }

  /** @throws {StartupError} if another process uses the folder, or the index is damaged. */
  static async open(options: DiskSessionsOptions): Promise<DiskSessions> {
    const { directory } = options;
    const lock = new FolderLock(directory);
    const file = path.join(directory, "index.sqlite");
    let database: DatabaseSync | undefined;
    try {
      database = new DatabaseSync(file);
      database.exec(SCHEMA);
      const [check] = database.prepare("PRAGMA quick_check(1)").all() as { quick_check: string }[];
      if (check?.quick_check !== "ok") throw new Error(check?.quick_check);
      fs.chmodSync(file, 0o600);
      const referenced = database.prepare("SELECT DISTINCT sha256 FROM refs").all() as { sha256: string }[];
      const blobs = new BlobFolder(path.join(directory, "blobs"), path.join(directory, "incoming"));
      await blobs.prepare(new Set(referenced.map(({ sha256 }) => sha256)));
      return new DiskSessions(options, lock, database, blobs);
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
    await this.#change(() => {
      if (this.#sql.get.get(record.id)) throw new ClientError(409, "session_exists", "Session already exists");
      const { count } = this.#sql.count.get(record.principal, Date.now()) as { count: number };
      if (count >= maxOfPrincipal) {
        const message = `Session limit reached: at most ${maxOfPrincipal} for each principal. Delete sessions first.`;
        throw new ClientError(429, "session_limit", message);
      }
      this.#put(record);
      if (!from) return;
      for (const { sha256 } of snapshotsOf(record)) this.#sql.copyRefs.run(record.id, from.record.id, sha256);
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
    const row = this.#guard(() => this.#sql.get.get(id)) as { record: string } | undefined;
    if (!row || this.#leases.has(id) || endsAtMs(JSON.parse(row.record)) > nowMs) return;
    await this.delete(id);
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

  async read(_id: string, blob: Blob): Promise<Uint8Array> {
    const bytes = await this.#blobs.read(blob).catch((cause: unknown) => {
      throw new MissingBlobError("a content is missing or cut off", { cause });
    });
    if ((await sha256Hex(bytes)) !== blob.sha256) throw new MissingBlobError("a content's checksum is wrong");
    return bytes;
  }

  async commit(record: SessionRecord, snapshot: NewSnapshot | undefined): Promise<void> {
    const needed = snapshot ? [snapshot.blob, ...snapshot.files] : [];
    for (const { sha256 } of needed) this.#needed.set(sha256, (this.#needed.get(sha256) ?? 0) + 1);
    let dropped: Blob[] = [];
    const added: Blob[] = [];
    try {
      if (snapshot) await this.#writeBlobs(snapshot, added);
      await this.#change(() => {
        this.#put(record);
        for (const { sha256, size } of needed) {
          this.#sql.addRef.run(record.id, snapshot?.blob.sha256 ?? "", sha256, size);
        }
        const kept = JSON.stringify(snapshotsOf(record).map(({ sha256 }) => sha256));
        dropped = this.#sql.dropRefs.all(record.id, kept) as unknown as Blob[];
      });
    } catch (error) {
      // What was refused for want of room has taken none, and must give none back.
      dropped = added;
      throw error;
    } finally {
      for (const { sha256 } of needed) {
        const left = (this.#needed.get(sha256) ?? 1) - 1;
        if (left > 0) this.#needed.set(sha256, left);
        else this.#needed.delete(sha256);
      }
      this.#sweep(dropped);
    }
  }

  async delete(id: string): Promise<void> {
    let dropped: Blob[] = [];
    await this.#change(() => {
      this.#sql.delete.run(id);
      dropped = this.#sql.dropRefs.all(id, "[]") as unknown as Blob[];
    });
    this.#sweep(dropped);
  }

  release(id: string): void {
    this.#leases.delete(id);
  }

  /** @param added gets the blobs that count as stored from now on, whether or not the rest succeeds. */
  async #writeBlobs({ blob, bytes, files, contents }: NewSnapshot, added: Blob[]): Promise<void> {
    const missing = new Map<string, Uint8Array>();
    const isStored = (sha256: string) => this.#sql.hasBlob.get(sha256) !== undefined;
    await Promise.all([blob, ...files].map(({ sha256 }) => this.#deleting.get(sha256)));
    if (!isStored(blob.sha256)) missing.set(blob.sha256, bytes);
    for (const { sha256 } of files) {
      if (isStored(sha256)) continue;
      const content = contents.get(sha256);
      if (!content) throw new Error(`content ${sha256} of a session's file is nowhere`);
      missing.set(sha256, content);
    }
    const addedBytes = missing.values().reduce((sum, { length }) => sum + length, 0);
    if (this.#bytes + addedBytes > this.#maxBytes) throw storeFull();
    this.#bytes += addedBytes;
    for (const [sha256, { length: size }] of missing) added.push({ sha256, size });
    try {
      await this.#blobs.write(missing);
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** Deletes the blobs that nothing refers to any more. */
  #sweep(blobs: readonly Blob[]): void {
    for (const { sha256, size } of blobs) {
      if (this.#needed.has(sha256) || this.#deleting.has(sha256)) continue;
      if (this.#sql.hasBlob.get(sha256)) continue;
      const deleting = this.#blobs
        .delete(sha256)
        .then(() => {
          this.#bytes = Math.max(0, this.#bytes - size);
        })
        // It is found again at the next start.
        .catch(() => {})
        .finally(() => this.#deleting.delete(sha256));
      this.#deleting.set(sha256, deleting);
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
  get: "SELECT record FROM sessions WHERE id = ?",
  put: "INSERT OR REPLACE INTO sessions (id, principal, last_used_at_ms, ends_at_ms, record) VALUES (?, ?, ?, ?, ?)",
  delete: "DELETE FROM sessions WHERE id = ?",
  count: "SELECT count(*) AS count FROM sessions WHERE principal = ? AND ends_at_ms > ?",
  list: "SELECT record FROM sessions WHERE principal = ? AND ends_at_ms > ? ORDER BY last_used_at_ms DESC",
  ended: "SELECT id FROM sessions WHERE ends_at_ms <= ? ORDER BY ends_at_ms LIMIT 100",
  hasBlob: "SELECT 1 FROM refs WHERE sha256 = ? LIMIT 1",
  addRef: "INSERT OR IGNORE INTO refs (session, snapshot, sha256, size) VALUES (?, ?, ?, ?)",
  copyRefs:
    "INSERT OR IGNORE INTO refs (session, snapshot, sha256, size) SELECT ?, snapshot, sha256, size FROM refs WHERE session = ? AND snapshot = ?",
  dropRefs:
    "DELETE FROM refs WHERE session = ? AND snapshot NOT IN (SELECT value FROM json_each(?)) RETURNING sha256, size",
  totalBytes: "SELECT sum(size) AS bytes FROM (SELECT DISTINCT sha256, size FROM refs)",
} as const;

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
    await this.#store.delete(this.record.id);
    this.#store.release(this.record.id);
  }

  async release(): Promise<void> {
    this.#store.release(this.record.id);
  }
}

function storeFull(cause?: unknown): ClientError {
  return new ClientError(507, "store_full", "The session store is full. Delete sessions first.", { cause });
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
