import fs from "node:fs";
import path from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { StartupError } from "../errors.ts";
import { bucketOf } from "./time-histogram.ts";

/** Something that happened. `ip`, `agent`, `error` and `timeMs` say something only of an execution. */
export interface StatisticsEvent {
  readonly atMs: number;
  readonly type: "execution" | "package" | "upload";
  readonly principal: string;
  readonly ip: string;
  readonly agent: string;
  readonly success: boolean;
  readonly error: string | null;
  readonly timeMs: number;
}

/** Kind → name → count. */
export type Counters = ReadonlyMap<string, ReadonlyMap<string, number>>;

/** Stands for all principals together, and is none. */
export const EVERYBODY = "";
/** The name that holds what has no name of its own any more. */
export const OTHER = "(other)";
export const MINUTE_MS = 60_000;
export const HOUR_MS = 3_600_000;
export const TREND_HOURS = 24;

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

/** Kinds whose names clients choose. Over twice this many, all but this many of the most frequent become one. */
const NAMED_KINDS: readonly string[] = ["ip", "agent", "error"];
const MAX_NAMES = 500;
const MAX_EVENTS_KEPT = 1000;

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
 * An event is one inserted row: committed at once, some 20 µs, safe from the death of the server. (A power cut may take
 * the last moments: WAL with `synchronous=NORMAL` syncs at checkpoints; it never breaks the file.) `fold` adds many
 * events to the counters in one transaction that also marks them as added, so that each counts once, whatever happens.
 *
 * Every method throws what SQLite throws: a full disk, a lock that another process holds for over 250 ms.
 */
export class StatisticsStore {
  readonly #database: DatabaseSync;
  readonly #insert: StatementSync;
  readonly #unfolded: StatementSync;
  readonly #add: StatementSync;

  /** @throws {StartupError} if the file cannot be used. */
  constructor(dir: string) {
    this.#database = open(path.join(dir, "statistics.sqlite"));
    this.#insert = this.#database.prepare(
      "INSERT INTO events (at_ms, type, principal, ip, agent, success, error, time_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    );
    this.#unfolded = this.#database.prepare("SELECT * FROM events WHERE id > (SELECT folded FROM state) ORDER BY id");
    this.#add = this.#database.prepare(
      "INSERT INTO counters VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
    );
  }

  insert({ atMs, type, principal, ip, agent, success, error, timeMs }: StatisticsEvent): void {
    this.#insert.run(atMs, type, principal, ip, agent, Number(success), error, timeMs);
  }

  /** Brings the counters up to date, and forgets what is older than the trend shows. */
  fold(nowMs: number): void {
    this.#inTransaction(() => {
      const events = this.#unfolded.all() as unknown as EventRow[];
      const last = events.at(-1);
      if (last === undefined) return;
      for (const [principal, kinds] of sumUp(events)) {
        for (const [kind, names] of kinds) {
          for (const [name, count] of names) this.#add.run(principal, kind, name, count);
          if (NAMED_KINDS.includes(kind)) this.#limitNames(principal, kind);
        }
      }
      this.#database.prepare("UPDATE state SET folded = ?").run(last.id);
      this.#database.prepare("DELETE FROM events WHERE id <= ?").run(last.id - MAX_EVENTS_KEPT);
      const forget = this.#database.prepare("DELETE FROM counters WHERE kind = ? AND CAST(name AS INTEGER) < ?");
      forget.run("hour", Math.floor(nowMs / HOUR_MS) - TREND_HOURS);
      for (const kind of ["minute", "minuteSuccess"]) forget.run(kind, Math.floor((nowMs - HOUR_MS) / MINUTE_MS));
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
    return rows.map((row) => ({ ...row, atMs: row.at_ms, success: row.success === 1, timeMs: row.time_ms }));
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

  close(): void {
    if (this.#database.isOpen) this.#database.close();
  }

  #limitNames(principal: string, kind: string): void {
    const count = this.#database.prepare("SELECT count(*) AS names FROM counters WHERE principal = ? AND kind = ?");
    if ((count.get(principal, kind) as { names: number }).names <= 2 * MAX_NAMES) return;
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

  #inTransaction(work: () => void): void {
    this.#database.exec("BEGIN IMMEDIATE");
    try {
      work();
      this.#database.exec("COMMIT");
    } catch (error) {
      // A full disk may have rolled back already.
      if (this.#database.isTransaction) this.#database.exec("ROLLBACK");
      throw error;
    }
  }
}

function open(file: string): DatabaseSync {
  try {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    const database = new DatabaseSync(file, { timeout: 250 });
    database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL");
    const version = (database.prepare("PRAGMA user_version").get() as { user_version: number }).user_version;
    if (version === 0) database.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT`);
    else if (version !== SCHEMA_VERSION) throw new Error(`it is of version ${version}, not ${SCHEMA_VERSION}`);
    return database;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new StartupError(
      `The statistics in ${file} cannot be used: ${reason}. Move the file away to begin with empty statistics.`,
    );
  }
}

/** Principal → kind → name → count, each event counted for its principal and for everybody. */
function sumUp(events: readonly EventRow[]): Map<string, Map<string, Map<string, number>>> {
  const sums = new Map<string, Map<string, Map<string, number>>>();
  for (const event of events) {
    for (const principal of new Set([EVERYBODY, event.principal])) {
      let kinds = sums.get(principal);
      if (kinds === undefined) {
        kinds = new Map();
        sums.set(principal, kinds);
      }
      for (const [kind, name, count] of countsOf(event)) {
        const names = getOrMake(kinds, kind);
        names.set(String(name), (names.get(String(name)) ?? 0) + count);
      }
    }
  }
  return sums;
}

function countsOf(event: EventRow): [kind: string, name: string | number, count: number][] {
  if (event.type === "package") return [["total", "packages", 1]];
  if (event.type === "upload") return [["total", "uploads", 1]];
  const minute = Math.floor(event.at_ms / MINUTE_MS);
  return [
    ["total", "executions", 1],
    ["total", "timeMs", event.time_ms],
    ["time", bucketOf(event.time_ms), 1],
    ["hour", Math.floor(event.at_ms / HOUR_MS), 1],
    ["minute", minute, 1],
    ["ip", event.ip, 1],
    ["agent", event.agent, 1],
    ["total", "successes", event.success],
    ["minuteSuccess", minute, event.success],
    ...(event.success === 1 ? [] : [["error", event.error ?? "Error", 1] satisfies [string, string, number]]),
  ];
}

function getOrMake(groups: Map<string, Map<string, number>>, key: string): Map<string, number> {
  let group = groups.get(key);
  if (group === undefined) {
    group = new Map();
    groups.set(key, group);
  }
  return group;
}
