import type { NetworkInput } from "../egress/network-rules.ts";
import type { Blob } from "../shared/blob-folder.ts";
import type { ToolInput } from "../tools/definitions.ts";
import type { SessionStart } from "../wire/messages.ts";

/** A stored state of a session: a blob in the session format, and what a listing says about it. */
export interface SnapshotRef extends Blob {
  /** Bytes of all files in it. */
  readonly fileBytes: number;
  /** Executions up to then. */
  readonly executions: number;
  /** ms since 1970. */
  readonly createdAtMs: number;
  /** Of the session then. Absent as there. */
  readonly namespaces?: Namespaces | undefined;
}

/** Sets of global variables in one session. */
export interface Namespaces {
  /** `__main__`. */
  readonly default: Pick<NamespaceRecord, "key" | "executions">;
  readonly others: readonly NamespaceRecord[];
}

export interface NamespaceRecord {
  readonly name: string;
  /** Of no other that the session has had. */
  readonly key: string;
  /** How many it has had. */
  readonly executions: number;
  readonly createdAtMs: number;
  /** Working directory that it begins in; absent: it has the session's. */
  readonly cwd?: string | undefined;
}

export interface CheckpointRef extends SnapshotRef {
  readonly name: string;
}

/** What is known of a session without its memory. */
export interface SessionRecord {
  readonly id: string;
  readonly principal: string;
  /** Name of the package set. */
  readonly environment: string;
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
  /** Unused for so long, it ends; ms. */
  readonly ttlMs: number;
  /** When it ends, used or not; default: `ttlMs` alone says it. */
  readonly endsAtMs?: number | undefined;
  /** What its executions may reach, of what the server allows; default: all of that. It was checked, and names secrets, not values. */
  readonly network?: NetworkInput | undefined;
  /** What its client offers to each of its executions that says nothing else. */
  readonly tools?: ToolInput | undefined;
  /** `workspace`: its code works on its principal's workspace. Absent: on files of its own, which are part of its states. */
  readonly files?: "workspace" | undefined;
  /** What its owner has written on it. Absent in records of versions that did not know it. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** What it has before its first execution, and after a reset. Absent as `metadata` is. */
  readonly start?: SessionStart | undefined;
  /** Absent: there is the default one alone, whose executions are all. */
  readonly namespaces?: Namespaces | undefined;
  /** What the adapter of a foreign protocol knows of it: JSON, of the protocol of this name. Absent as `metadata` is. */
  readonly adapter?: { readonly protocol: string; readonly state: unknown } | undefined;
  /** Counts up with every change. */
  readonly revision: number;
  readonly executions: number;
  /** The next execution draws new random seeds. */
  readonly reseed: boolean;
  /** The state it goes on from; null: the environment's image, no files. */
  readonly head: SnapshotRef | null;
  /** The state before that, for when the head is damaged. */
  readonly previous: SnapshotRef | null;
  readonly checkpoints: readonly CheckpointRef[];
}

/** How many executions a session has had, and each of its namespaces. */
export type Counts = Pick<SessionRecord, "executions" | "namespaces">;

/** A state to be stored, with the contents its files need and the store may not have. */
export interface NewSnapshot {
  readonly blob: Blob;
  readonly bytes: Uint8Array;
  /** Every content that its files refer to. */
  readonly files: readonly Blob[];
  /** By SHA-256; those that the session's stored states have already may be missing. */
  readonly contents: ReadonlyMap<string, Uint8Array>;
  /** There is less than before: it may use the room that is kept for deletions. */
  readonly isDeletion?: boolean;
}

/**
 * The right to run and change a session. One at a time has it, over all servers that share the store.
 *
 * Every method throws {@link ClientError} 503 `store_unavailable` while the store cannot be reached.
 */
export interface SessionLease {
  /** The session as it was when the lease was had, or as this lease has last changed it. */
  readonly record: SessionRecord;
  /** Aborted when another may have the session. */
  readonly lost: AbortSignal;
  /**
   * Changes the session, all or nothing; durable when it returns. States that the record no longer names are dropped.
   *
   * @param isLast the lease may be given back with the change, which saves a round trip; `release` it all the same.
   * @throws {ClientError} 409 `session_moved` if the lease was lost (nothing has changed), 507 `store_full` for a share, `storage_full` for the disk or Redis.
   */
  commit(record: SessionRecord, snapshot?: NewSnapshot, isLast?: boolean): Promise<void>;
  /** Deletes the session. The lease ends with it. */
  delete(): Promise<void>;
  release(): Promise<void>;
}

/** What a session's record names is not in the store as it was put there. */
export class MissingBlobError extends Error {
  override readonly name = "MissingBlobError";
}

/** What an interrupt is for: what runs alone, also what waits for its turn, or all because the session is deleted. */
export type Interrupted = "running" | "all" | "deleted";

/** Sessions at rest. */
export interface SessionStore {
  /**
   * Makes a session.
   *
   * @param maxOfPrincipal most sessions that its principal may have, this one included.
   * @param from the session that has the record's states already.
   * @throws {ClientError} 409 `session_exists`, 429 `session_limit`, 503 `store_unavailable`, 507 `store_full`.
   */
  create(record: SessionRecord, maxOfPrincipal: number, from?: SessionLease): Promise<void>;
  /** @returns undefined if there is none, or it has ended. */
  get(id: string): Promise<SessionRecord | undefined>;
  /**
   * A content of one of a session's stored states.
   *
   * @throws {MissingBlobError} if it is not there, or not whole.
   */
  read(id: string, blob: Blob): Promise<Uint8Array>;
  /** A principal's sessions, the last used first. */
  list(principal: string): Promise<readonly SessionRecord[]>;
  /**
   * Waits until no other holder has the session.
   *
   * @returns undefined if there is no such session of that principal.
   * @throws {ClientError} 503 `session_busy` if another server keeps it too long.
   */
  acquire(id: string, principal: string, signal?: AbortSignal): Promise<SessionLease | undefined>;
  /** Sessions that have ended; at most a hundred. */
  ended(nowMs: number): Promise<readonly { id: string }[]>;
  /** Moves all times of sessions by a step of this machine's clock, which the steady one then follows. */
  followClock(stepMs: number): Promise<void>;
  /** Deletes a session, provided that it has ended. */
  deleteEnded(id: string, nowMs: number): Promise<void>;
  /** Has other servers that run something in the session, or let it wait, interrupt it. Not waited for. */
  announceInterrupt(id: string, what: Interrupted): Promise<void>;
  /** Called for each interrupt that another server announced. */
  onInterrupt: (id: string, what: Interrupted) => void;
  close(): Promise<void>;
}

/** What of a record may be changed while code runs in the session: nothing of it comes from the code. */
export type RecordChanges = Partial<Pick<SessionRecord, "ttlMs" | "endsAtMs" | "network" | "adapter">>;

export function endsAtMs({
  lastUsedAtMs,
  ttlMs,
  endsAtMs: fixed,
}: Pick<SessionRecord, "lastUsedAtMs" | "ttlMs" | "endsAtMs">): number {
  return fixed ?? lastUsedAtMs + ttlMs;
}

/** All states that a record names. */
export function snapshotsOf({ head, previous, checkpoints }: SessionRecord): SnapshotRef[] {
  return [head, previous, ...checkpoints].filter((snapshot) => snapshot !== null);
}
