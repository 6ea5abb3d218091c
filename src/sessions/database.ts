// Over 400 lines: the statements of one database, each beside the rule that it keeps.
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Blob } from "../shared/blob-folder.ts";
import { ClientError } from "../shared/errors.ts";
import { ReserveFile } from "../shared/reserve-file.ts";
import { openDatabase } from "../shared/shared-index.ts";
import { troubleOf } from "../shared/storage-trouble.ts";
import { checkShare, INDEX_BYTES_PER_CONTENT, type SessionShares } from "./shares.ts";
import { STATEMENTS } from "./statements.ts";
import { endsAtMs, type SessionRecord, snapshotsOf } from "./store.ts";

/** A content for the store: its bytes, or the name of a file that has them. */
export interface GivenContent extends Blob {
  readonly bytes: Uint8Array | null;
  readonly file: string | null;
}

/** What is asked of the database; see `SessionStore`. Plain data, for another thread. */
export type SessionChange =
  | {
      readonly type: "create";
      readonly record: SessionRecord;
      readonly maxOfPrincipal: number;
      /** Id of the session that has the record's states already. */
      readonly from: string | null;
      readonly nowMs: number;
    }
  | {
      readonly type: "commit";
      readonly record: SessionRecord;
      readonly snapshot: {
        readonly sha256: string;
        /** Every content that it needs, its own bytes among them. */
        readonly needs: readonly Blob[];
        /** Of those, the ones that may not be stored yet. */
        readonly given: readonly GivenContent[];
      } | null;
      /** It may use the room that is kept for deletions. */
      readonly isDeletion: boolean;
    }
  | { readonly type: "delete"; readonly id: string }
  /** Moves all times. */
  | { readonly type: "move"; readonly stepMs: number };

export type SessionQuery =
  | { readonly type: "get"; readonly id: string }
  | { readonly type: "list"; readonly principal: string; readonly nowMs: number }
  | { readonly type: "ended"; readonly nowMs: number }
  | { readonly type: "read"; readonly id: string; readonly sha256: string };

/** Where a stored content is. */
export type StoredContent = Pick<GivenContent, "bytes" | "file">;

/** Names of files that nothing refers to any more. */
export interface Dropped {
  readonly files: readonly string[];
}

export type Outcome<T> = { readonly value: T } | { readonly error: unknown };

const VERSION = 2;
const BUSY_TIMEOUT_MS = 1000;
const SQLITE_CORRUPT = 11;
/** A mode of auto_vacuum. */
const INCREMENTAL = 2;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, principal TEXT NOT NULL, last_used_at_ms REAL NOT NULL, ends_at_ms REAL NOT NULL, record TEXT NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS sessions_principal ON sessions (principal, ends_at_ms);
  CREATE INDEX IF NOT EXISTS sessions_end ON sessions (ends_at_ms);
  -- Principals that have stored something, and what it takes: their contents, and rows of uses.
  CREATE TABLE IF NOT EXISTS owners (id INTEGER PRIMARY KEY, principal TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL);
  -- States and contents of files, once for each principal.
  CREATE TABLE contents (
    id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    -- Large ones are in a file of this name, and the others here.
    file TEXT, bytes BLOB
  );
  CREATE UNIQUE INDEX contents_name ON contents (owner, sha256);
  CREATE INDEX contents_file ON contents (file) WHERE file IS NOT NULL;
  -- Which contents each stored state of each session needs, its own bytes among them.
  CREATE TABLE uses (
    session TEXT NOT NULL, snapshot TEXT NOT NULL, content INTEGER NOT NULL, PRIMARY KEY (session, snapshot, content)
  ) WITHOUT ROWID;
  CREATE INDEX uses_content ON uses (content);
  -- A server of version 0 would take every file for garbage. A view in place of a table of its makes it refuse the folder.
  CREATE VIEW refs AS SELECT 'the sessions are those of a later version' AS reason;
`;

/** From versions that had every content in a file. These stay where they are. */
const MIGRATION = {
  /** Equal contents of all principals are one file. */
  fromVersion0: `
    INSERT INTO owners (principal, bytes) SELECT DISTINCT principal, 0 FROM sessions;
    INSERT INTO contents (owner, sha256, size, file)
      SELECT DISTINCT owners.id, sha256, size, sha256
      FROM old_refs JOIN sessions ON sessions.id = session JOIN owners USING (principal);
    INSERT INTO uses (session, snapshot, content)
      SELECT session, snapshot, contents.id FROM old_refs
      JOIN sessions ON sessions.id = session JOIN owners USING (principal)
      JOIN contents ON contents.owner = owners.id AND contents.sha256 = old_refs.sha256;
    UPDATE owners SET bytes =
      (SELECT coalesce(sum(size), 0) FROM contents WHERE owner = owners.id) +
      (SELECT ${INDEX_BYTES_PER_CONTENT} * count(*) FROM uses JOIN contents ON contents.id = content WHERE owner = owners.id);
  `,
  /** Each principal's are in a folder of its own; :folder. */
  fromVersion1: `
    INSERT INTO contents (owner, sha256, size, file)
      SELECT DISTINCT owner, sha256, size, :folder || '/' || sha256 FROM old_refs WHERE owner = :owner`,
  usesOfVersion1: `
    INSERT INTO uses (session, snapshot, content)
      SELECT session, snapshot, contents.id FROM old_refs
      JOIN contents ON contents.owner = old_refs.owner AND contents.sha256 = old_refs.sha256`,
} as const;

// Room that deleted sessions have left is given back in steps, when there is more of it.
const MAX_FREE_PAGES = 4096;
const FREE_STEP_PAGES = 1024;
/** On a full disk a deletion gives its room back at once, in steps that are small enough for it. */
const STEP_PAGES_WHERE_FULL = 32;
const MAX_STEPS_WHERE_FULL = 64;

/**
 * The sessions of one server in SQLite: who has which, and the bytes of all but large contents, so that a change is durable
 * with one wait for the disk. Every call waits for that disk, so a thread of its own makes them (`database-thread.ts`).
 */
export class SessionDatabase {
  readonly #database: DatabaseSync;
  readonly #shares: SessionShares;
  readonly #reserve: ReserveFile;
  readonly #sql: Record<keyof typeof STATEMENTS, StatementSync>;

  /** @throws {Error} if the file is no database, a damaged one, or a later version's. */
  constructor(file: string, shares: SessionShares) {
    this.#shares = shares;
    this.#reserve = new ReserveFile(path.join(path.dirname(file), "reserve"));
    // No other server opens it: the lock beside it sees to that. An operator's backup may.
    const database = openDatabase(file, BUSY_TIMEOUT_MS, (opened) => setUp(opened, file));
    this.#database = database;
    try {
      this.#migrate();
      for (const table of ["sessions", "uses"]) {
        // Contents are checked against their hashes when they are read.
        const [check] = database.prepare(`PRAGMA quick_check(${table})`).all() as { quick_check: string }[];
        if (check?.quick_check !== "ok")
          throw Object.assign(new Error(check?.quick_check), { errcode: SQLITE_CORRUPT });
      }
      const prepare = ([name, sql]: [string, string]) => [name, database.prepare(sql)];
      this.#sql = Object.fromEntries(Object.entries(STATEMENTS).map(prepare));
      this.#reserve.keep();
    } catch (error) {
      database.close();
      throw error;
    }
  }

  /** Names of the files in which contents are. */
  files(): string[] {
    return (this.#sql.files.all() as { file: string }[]).map(({ file }) => file);
  }

  /** Makes changes that share one wait for the disk. Each is made whole or not at all, and is durable on return. */
  change(changes: readonly SessionChange[]): Outcome<Dropped>[] {
    const [only] = changes;
    if (!only) return [];
    const outcomes: Outcome<Dropped>[] = [];
    try {
      this.#database.exec("BEGIN IMMEDIATE");
      for (const change of changes)
        outcomes.push(changes.length === 1 ? { value: this.#make(change) } : this.#attempt(change));
      this.#database.exec("COMMIT");
      return outcomes;
    } catch (error) {
      this.#rollBack();
      // One that has no room on the disk, say, takes no other with it.
      if (changes.length > 1) return changes.flatMap((change) => this.change([change]));
      return [troubleOf(error) === "full" ? this.#changeWhereFull(only, error) : { error }];
    }
  }

  /** Tries again a change for which there was no room on the disk: with what the log can give back, then with the reserve. */
  #changeWhereFull(change: SessionChange, first: unknown): Outcome<Dropped> {
    let outcome: Outcome<Dropped> = { error: first };
    if (this.#giveBack("PRAGMA wal_checkpoint(TRUNCATE)")) outcome = this.#makeAlone(change);
    const isDeletion = change.type === "delete" || (change.type === "commit" && change.isDeletion);
    if (!("error" in outcome) || troubleOf(outcome.error) !== "full" || !isDeletion) return outcome;
    this.#reserve.release();
    outcome = this.#makeAlone(change);
    // What it has freed becomes room for others first, then the next reserve.
    this.#giveBack("PRAGMA wal_checkpoint(TRUNCATE)");
    for (let step = 0; step < MAX_STEPS_WHERE_FULL && this.#freePages() > 0; step++) {
      if (!this.#giveBack(`PRAGMA incremental_vacuum(${STEP_PAGES_WHERE_FULL}); PRAGMA wal_checkpoint(TRUNCATE)`))
        break;
    }
    this.#reserve.keep();
    return outcome;
  }

  #makeAlone(change: SessionChange): Outcome<Dropped> {
    try {
      this.#database.exec("BEGIN IMMEDIATE");
      const value = this.#make(change);
      this.#database.exec("COMMIT");
      return { value };
    } catch (error) {
      this.#rollBack();
      return { error };
    }
  }

  /** @returns whether it could be done: also this may need room. */
  #giveBack(pragmas: string): boolean {
    try {
      this.#database.exec(pragmas);
      return true;
    } catch {
      return false;
    }
  }

  #freePages(): number {
    return (this.#sql.freePages.get() as { freelist_count: number }).freelist_count;
  }

  query(query: SessionQuery): unknown {
    switch (query.type) {
      case "get":
        return recordsOf(this.#sql.get.all(query.id))[0];
      case "list":
        return recordsOf(this.#sql.list.all(query.principal, query.nowMs));
      case "ended":
        return (this.#sql.ended.all(query.nowMs) as { id: string }[]).map(({ id }) => ({ id }));
      case "read": {
        const row = this.#sql.readContent.get(query.sha256, query.id) as StoredContent | undefined;
        return row && { file: row.file, bytes: row.bytes };
      }
    }
  }

  /** What can wait until nothing else is to be done. @returns whether there is more of it. */
  rest(): boolean {
    this.#database.exec("PRAGMA wal_checkpoint(PASSIVE)");
    this.#reserve.keep();
    if (this.#freePages() <= MAX_FREE_PAGES) return false;
    this.#database.exec(`PRAGMA incremental_vacuum(${FREE_STEP_PAGES})`);
    return true;
  }

  close(): void {
    this.#database.close();
  }

  #migrate(): void {
    const database = this.#database;
    const { user_version: version } = database.prepare("PRAGMA user_version").get() as { user_version: number };
    if (version > VERSION) throw new Error(`they are those of a later version (${version})`);
    if (version === VERSION) return;
    const old = database.prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'refs'").get();
    database.exec("BEGIN IMMEDIATE");
    if (old) database.exec("ALTER TABLE refs RENAME TO old_refs");
    database.exec(SCHEMA);
    if (old) {
      if (version === 0) database.exec(MIGRATION.fromVersion0);
      else this.#takeOverVersion1();
      database.exec("DROP TABLE old_refs");
    }
    database.exec(`PRAGMA user_version = ${VERSION}; COMMIT`);
    if (!old) return;
    try {
      // Only this makes a file that was there before one that can shrink.
      database.exec("VACUUM");
    } catch {
      // It needs room. What is deleted is used again all the same.
    }
  }

  #takeOverVersion1(): void {
    const owners = this.#database.prepare("SELECT id, principal FROM owners").all() as {
      id: number;
      principal: string;
    }[];
    const take = this.#database.prepare(MIGRATION.fromVersion1);
    for (const { id, principal } of owners) {
      const folder = createHash("sha256").update(principal).digest("hex").slice(0, 32);
      take.run({ ":folder": folder, ":owner": id });
    }
    this.#database.exec(MIGRATION.usesOfVersion1);
  }

  /** Makes one of several changes: if it fails, the others stay. @throws {Error} if SQLite has given up all of them. */
  #attempt(change: SessionChange): Outcome<Dropped> {
    this.#database.exec("SAVEPOINT change");
    try {
      const value = this.#make(change);
      this.#database.exec("RELEASE change");
      return { value };
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
      this.#database.exec("ROLLBACK TO change; RELEASE change");
      return { error };
    }
  }

  #rollBack(): void {
    try {
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
    } catch {
      // The first error says more.
    }
  }

  #make(change: SessionChange): Dropped {
    switch (change.type) {
      case "create":
        return this.#create(change);
      case "commit":
        return this.#commit(change);
      case "delete":
        return this.#delete(change.id);
      case "move":
        this.#sql.move.run({ ":step": change.stepMs });
        return { files: [] };
    }
  }

  #create({ record, maxOfPrincipal, from, nowMs }: Extract<SessionChange, { type: "create" }>): Dropped {
    const { id, principal, lastUsedAtMs } = record;
    if (this.#sql.get.get(id)) throw new ClientError("session_exists");
    const { count } = this.#sql.count.get(principal, nowMs) as { count: number };
    if (count >= maxOfPrincipal) {
      const message = `Session limit reached: at most ${maxOfPrincipal} for each principal. Delete sessions first.`;
      throw new ClientError("session_limit", message);
    }
    this.#sql.add.run(id, principal, lastUsedAtMs, endsAtMs(record), JSON.stringify(record));
    if (from === null) return { files: [] };
    let uses = 0;
    for (const { sha256 } of snapshotsOf(record)) uses += Number(this.#sql.copyUses.run(id, from, sha256).changes);
    this.#charge(this.#owner(principal), uses * INDEX_BYTES_PER_CONTENT);
    return { files: [] };
  }

  #commit({ record, snapshot }: Extract<SessionChange, { type: "commit" }>): Dropped {
    const owner = this.#owner(record.principal);
    const surplus: string[] = [];
    let added = 0;
    if (snapshot) {
      const given = new Map(snapshot.given.map((content) => [content.sha256, content]));
      for (const { sha256 } of snapshot.needs) {
        const content = given.get(sha256);
        let id = (this.#sql.findContent.get(owner, sha256) as { id: number } | undefined)?.id;
        if (id === undefined) {
          if (!content) throw new Error(`content ${sha256} of a session's file is nowhere`);
          const { size, file, bytes } = content;
          id = Number(this.#sql.addContent.run(owner, sha256, size, file, bytes).lastInsertRowid);
          added += size;
        } else if (content?.file != null) {
          surplus.push(content.file);
        }
        added += Number(this.#sql.addUse.run(record.id, snapshot.sha256, id).changes) * INDEX_BYTES_PER_CONTENT;
      }
    }
    const { changes } = this.#sql.put.run(record.lastUsedAtMs, endsAtMs(record), JSON.stringify(record), record.id);
    if (changes === 0) throw new ClientError("session_not_found");
    const kept = snapshotsOf(record).map(({ sha256 }) => sha256);
    const dropped = this.#drop(record.id, kept);
    this.#charge(owner, added - dropped.bytes);
    return { files: [...surplus, ...dropped.files] };
  }

  #delete(id: string): Dropped {
    const row = this.#sql.principalOf.get(id) as { principal: string } | undefined;
    if (!row) return { files: [] };
    this.#sql.delete.run(id);
    const { files, bytes } = this.#drop(id, []);
    this.#charge(this.#owner(row.principal), -bytes);
    return { files };
  }

  /** Drops the states of a session that it does not keep, and contents that nothing else needs. @returns what that gives back. */
  #drop(session: string, kept: readonly string[]): Dropped & { bytes: number } {
    const files: string[] = [];
    const rows = this.#sql.dropUses.all(session, JSON.stringify(kept)) as { content: number }[];
    let bytes = rows.length * INDEX_BYTES_PER_CONTENT;
    for (const content of new Set(rows.map((row) => row.content))) {
      const dropped = this.#sql.dropContent.get(content, content) as { size: number; file: string | null } | undefined;
      if (!dropped) continue;
      bytes += dropped.size;
      if (dropped.file !== null && !this.#sql.isFileUsed.get(dropped.file)) files.push(dropped.file);
    }
    return { files, bytes };
  }

  /** Adds to what a principal takes. @throws {ClientError} 507 `store_full` if it would be too much. */
  #charge(owner: number, bytes: number): void {
    if (bytes === 0) return;
    if (bytes > 0) {
      const { own, others } = this.#sql.usage.get({ ":id": owner }) as { own: number; others: number };
      checkShare(this.#shares, own + bytes, own + others + bytes);
    }
    this.#sql.charge.run(bytes, owner);
  }

  #owner(principal: string): number {
    return (this.#sql.owner.get(principal) as { id: number }).id;
  }
}

/** What holds for every version of the file. */
function setUp(database: DatabaseSync, file: string): void {
  fs.chmodSync(file, 0o600);
  // To set it writes, also where it is set already.
  const { auto_vacuum: mode } = database.prepare("PRAGMA auto_vacuum").get() as { auto_vacuum: number };
  if (mode !== INCREMENTAL) database.exec("PRAGMA auto_vacuum = INCREMENTAL");
  // Not in the middle of a burst of changes if it can be helped; `rest` does it in a pause.
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000");
  database.prepare("SELECT count(*) FROM sqlite_schema").get();
}

function recordsOf(rows: readonly unknown[]): SessionRecord[] {
  return (rows as { record: string }[]).map(({ record }) => JSON.parse(record));
}
