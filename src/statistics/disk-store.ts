import { randomUUID } from "node:crypto";
import path from "node:path";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { makeFolderSync } from "../shared/make-folder.ts";
import { openDatabase } from "../shared/shared-index.ts";
import { StorageStartupError } from "../shared/storage-startup-error.ts";
import {
  type Counters,
  EVERYBODY,
  getOrMake,
  MAX_NAMES,
  NAMED_KINDS,
  OTHER,
  type StatisticsEvent,
  shownSince,
  sumUp,
} from "./counters.ts";
import type { StatisticsStore } from "./store.ts";

const SCHEMA_VERSION = 1;
const SCHEMA = `
  -- What happened, in order. Rows beyond state.folded are not in the counters yet.
  CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    type TEXT NOT NULL,
    principal TEXT NOT NULL,
    ip TEXT NOT NULL,
    agent TEXT NOT NULL,
    success INTEGER NOT NULL,
    error TEXT,
    time_ms REAL NOT NULL
  ) STRICT;
  CREATE TABLE counters (
    principal TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    count REAL NOT NULL,
    PRIMARY KEY (principal, kind, name)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE state (folded INTEGER NOT NULL) STRICT;
  INSERT INTO state VALUES (0);
  PRAGMA user_version = ${SCHEMA_VERSION};
`;

const BUSY_TIMEOUT_MS = 250;
const MAX_EVENTS_KEPT = 1000;
const MAX_BATCH_EVENTS = 1000;

export interface EventBatch {
  readonly name: string;
  /** In the order in which they happened. */
  readonly events: readonly StatisticsEvent[];
}

interface EventRow {
  readonly id: number;
  readonly at_ms: number;
  readonly type: StatisticsEvent["type"];
  readonly principal: string;
  readonly ip: string;
  readonly agent: string;
  readonly success: number;
  readonly error: string | null;
  readonly time_ms: number;
}

/**
 * Events and the counters made of them, in `statistics.sqlite`.
 *
 * An event is one inserted row; those of one batch are one transaction: its commit costs as much as inserting three. Then they are safe
 * from the death of the server. (A power cut may take the last moments: WAL with `synchronous=NORMAL` syncs at checkpoints; it never
 * breaks the file.) `fold` adds many events to the counters in one transaction that also marks them as added, so that each counts
 * once, whatever happens.
 *
 * For a fleet it only keeps the events until they are in Redis: {@link takeBatch} and {@link finishBatch} instead of `fold`.
 *
 * Every method throws what SQLite throws: a full disk, a lock that another process holds for over 250 ms.
 */
export class DiskStatistics implements StatisticsStore {
  readonly #database: DatabaseSync;
  readonly #insert: StatementSync;
  readonly #unfolded: StatementSync;
  readonly #add: StatementSync;
  readonly #countNames: StatementSync;

  /** @throws {StartupError} if the file cannot be used. */
  constructor(dir: string) {
    this.#database = open(path.join(dir, "statistics.sqlite"));
    this.#insert = this.#database.prepare(
      "INSERT INTO events (at_ms, type, principal, ip, agent, success, error, time_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    );
    this.#unfolded = this.#database.prepare("SELECT * FROM events WHERE id > (SELECT folded FROM state) ORDER BY id");
    this.#countNames = this.#database.prepare(
      "SELECT count(*) AS names FROM counters WHERE principal = ? AND kind = ?",
    );
    this.#add = this.#database.prepare(
      "INSERT INTO counters VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
    );
  }

  insert(events: readonly StatisticsEvent[]): void {
    this.#inTransaction(() => {
      for (const { atMs, type, principal, ip, agent, success, error, timeMs } of events)
        this.#insert.run(atMs, type, principal, ip, agent, Number(success), error, timeMs);
    });
  }

  /** Brings the counters up to date, and forgets what is older than the trend shows. */
  fold(nowMs: number): void {
    this.#inTransaction(() => {
      const events = this.#unfolded.all() as unknown as EventRow[];
      const last = events.at(-1);
      if (last === undefined) return;
      for (const [principal, kinds] of sumUp(events.map(toEvent))) {
        for (const [kind, names] of kinds) {
          for (const [name, count] of names) this.#add.run(principal, kind, name, count);
          if (NAMED_KINDS.includes(kind)) this.#limitNames(principal, kind);
        }
      }
      this.#database.prepare("UPDATE state SET folded = ?").run(last.id);
      this.#database.prepare("DELETE FROM events WHERE id <= ?").run(last.id - MAX_EVENTS_KEPT);
      const forget = this.#database.prepare("DELETE FROM counters WHERE kind = ? AND CAST(name AS INTEGER) < ?");
      for (const [kind, first] of shownSince(nowMs)) forget.run(kind, first);
    });
  }

  countersOf(principal: string): Counters {
    const counters = new Map<string, Map<string, number>>();
    const rows = this.#database.prepare("SELECT kind, name, count FROM counters WHERE principal = ?").all(principal);
    for (const { kind, name, count } of rows as { kind: string; name: string; count: number }[]) {
      getOrMake(counters, kind).set(name, count);
    }
    return counters;
  }

  /** Newest first. */
  latestExecutions(principal: string, limit: number): StatisticsEvent[] {
    const rows = this.#database
      .prepare(
        `SELECT * FROM events WHERE type = 'execution' AND (:principal = '' OR principal = :principal)
           AND id > coalesce((SELECT count FROM counters WHERE principal = :principal AND kind = 'cleared'), 0)
         ORDER BY id DESC LIMIT :limit`,
      )
      .all({ ":principal": principal, ":limit": limit }) as unknown as EventRow[];
    return rows.map(toEvent);
  }

  /** Forgets one principal's counters and leaves everybody's as they are; EVERYBODY: forgets all there is. */
  clear(principal: string): void {
    this.#inTransaction(() => {
      if (principal === EVERYBODY) {
        this.#database.exec("DELETE FROM counters; DELETE FROM events; UPDATE state SET folded = 0");
        return;
      }
      this.#database.prepare("DELETE FROM counters WHERE principal = ?").run(principal);
      this.#database
        .prepare("INSERT INTO counters SELECT ?, 'cleared', 'id', coalesce(max(id), 0) FROM events")
        .run(principal);
    });
  }

  /**
   * The oldest events that no counters have yet, under a name. It is the same name and the same events until they are
   * finished, also after a restart, so that a server that counts them can tell whether it has done so.
   *
   * @returns null if there are none.
   */
  takeBatch(): EventBatch | null {
    return this.#inTransaction(() => {
      const query = (sql: string, ...values: (string | number)[]) => this.#database.prepare(sql).get(...values);
      // From a time when there was a fleet, if events have been folded here since.
      this.#database.exec("DELETE FROM batch WHERE last_event <= (SELECT folded FROM state)");
      if (query("SELECT * FROM batch") === undefined) {
        const { last } = query(
          "SELECT max(id) AS last FROM (SELECT id FROM events WHERE id > (SELECT folded FROM state) ORDER BY id LIMIT ?)",
          MAX_BATCH_EVENTS,
        ) as { last: number | null };
        if (last === null) return null;
        this.#database.prepare("INSERT INTO batch VALUES (?, ?)").run(randomUUID(), last);
      }
      const { name, last_event } = query("SELECT * FROM batch") as { name: string; last_event: number };
      const rows = this.#database
        .prepare("SELECT * FROM events WHERE id > (SELECT folded FROM state) AND id <= ? ORDER BY id")
        .all(last_event) as unknown as EventRow[];
      return { name, events: rows.map(toEvent) };
    });
  }

  /** Forgets the batch that was taken, and its events. */
  finishBatch(): void {
    this.#inTransaction(() => {
      this.#database.exec(`
        UPDATE state SET folded = (SELECT last_event FROM batch);
        -- The last one stays: SQLite counts on from the largest id there is.
        DELETE FROM events WHERE id < (SELECT folded FROM state);
        DELETE FROM batch`);
    });
  }

  close(): void {
    if (this.#database.isOpen) this.#database.close();
  }

  #limitNames(principal: string, kind: string): void {
    if ((this.#countNames.get(principal, kind) as { names: number }).names <= 2 * MAX_NAMES) return;
    const rare = this.#database
      .prepare(
        `SELECT name, count FROM counters WHERE principal = ? AND kind = ? AND name <> ?
         ORDER BY count DESC, name LIMIT -1 OFFSET ?`,
      )
      .all(principal, kind, OTHER, MAX_NAMES) as { name: string; count: number }[];
    const remove = this.#database.prepare("DELETE FROM counters WHERE principal = ? AND kind = ? AND name = ?");
    for (const { name } of rare) remove.run(principal, kind, name);
    const folded = rare.reduce((sum, row) => sum + row.count, 0);
    this.#add.run(principal, kind, OTHER, folded);
  }

  #inTransaction<T>(work: () => T): T {
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      const result = work();
      this.#database.exec("COMMIT");
      return result;
    } catch (error) {
      // A full disk may have rolled back already.
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }
}

function open(file: string): DatabaseSync {
  try {
    makeFolderSync(path.dirname(file));
    return openDatabase(file, BUSY_TIMEOUT_MS, setUp);
  } catch (cause) {
    throw new StorageStartupError({
      what: `The statistics in ${file}`,
      folder: path.dirname(file),
      setting: "DATA_DIR",
      damaged: "Move the file away to begin with empty statistics.",
      cause,
    });
  }
}

function setUp(database: DatabaseSync): void {
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL");
  const version = (database.prepare("PRAGMA user_version").get() as { user_version: number }).user_version;
  if (version === 0) database.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT`);
  else if (version !== SCHEMA_VERSION) throw new Error(`it is of version ${version}, not ${SCHEMA_VERSION}`);
  // Came later than the rest, and changes nothing for a version that does not know it.
  const hasBatch = database.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'batch'").get();
  if (!hasBatch) database.exec("CREATE TABLE batch (name TEXT NOT NULL, last_event INTEGER NOT NULL) STRICT");
}

function toEvent({ at_ms, type, principal, ip, agent, success, error, time_ms }: EventRow): StatisticsEvent {
  return { atMs: at_ms, type, principal, ip, agent, success: success === 1, error, timeMs: time_ms };
}
