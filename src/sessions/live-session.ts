import { ClientError } from "../shared/errors.ts";
import type { WorkspaceIndex } from "../workspaces/workspace-index.ts";
import type { Counts, NewSnapshot, RecordChanges, SessionLease, SessionRecord } from "./store.ts";
import { TurnQueue } from "./turn-queue.ts";

/** Executions and changes that may wait for one session. */
const MAX_TURNS = 256;

/** A session in a sandbox. */
export interface Resident {
  /** What the pool knows it by. */
  readonly key: string;
  /** The stored revision that it is, or will be once it is stored. */
  readonly revision: number;
  /** How many executions it has had. Of a copy that cannot be stored, more than the session's record says. */
  readonly counts: Counts;
  /** Its folders hold these: its own files, or those of its workspace as it has last seen and changed them. */
  readonly files: WorkspaceIndex;
  /** Contents of its own files that are not stored yet. */
  readonly contents: ReadonlyMap<string, Uint8Array>;
  /** It has answered questions, and may not be the stored state any more: it serves for further ones alone. */
  readonly isAltered?: boolean;
  /** Paths of files of its workspace that it has open and others have changed or deleted. */
  readonly staleFiles: readonly string[];
  /** Why it cannot be captured; null: it can, or that is not known yet. */
  pinned: string | null;
}

/** What this server knows of a session beyond what is stored. There is one as long as there is something to know. */
export class LiveSession {
  readonly id: string;
  readonly principal: string;
  readonly turns = new TurnQueue(MAX_TURNS);
  /** Stops what runs. */
  running: AbortController | null = null;
  /** Stops the turn that is under way, also before anything runs in it; null: there is none, or others give way to it. */
  turn: AbortController | null = null;
  /** Whether what runs waits for its client. */
  isWaiting: (() => boolean) | null = null;
  resident: Resident | null = null;
  /** Kept between turns while the session is more than what is stored. */
  lease: SessionLease | null = null;
  /** A state that could not be stored when its reply was sent. */
  unstored: { readonly record: SessionRecord; readonly snapshot: NewSnapshot; failures: number } | null = null;
  /** Of the record, to be stored with what the turn that is under way stores, or by the next. */
  changes: RecordChanges | null = null;
  /** Why the session is not as its last reply left it; told with the next. */
  setback: string | null = null;

  constructor(id: string, principal: string) {
    this.id = id;
    this.principal = principal;
  }

  get isForgettable(): boolean {
    const { turns, resident, lease, setback, changes } = this;
    return turns.length === 0 && resident === null && lease === null && setback === null && changes === null;
  }

  /** Says that the pool knows its sandbox by another key. @returns false where it has another sandbox by now, or none. */
  renameResident(known: Resident | null, key: string): boolean {
    if (this.resident === null || this.resident.key !== known?.key) return false;
    this.resident = { ...this.resident, key };
    return true;
  }

  /** Interrupts what runs; with a refusal, also stops the turn that is about to run something. */
  interrupt(refusal?: Error): void {
    this.running?.abort(interrupted());
    if (refusal) this.turn?.abort(refusal);
  }

  takeSetback(): string | null {
    const { setback } = this;
    this.setback = null;
    return setback;
  }
}

export function interrupted(): ClientError {
  return new ClientError("interrupted");
}

/** What is told of a session that could not be stored, when its sandbox is gone. @param pinned why it could not. */
export function goneWith(pinned: string): string {
  return `The session is as it was when it could last be stored: it could not leave its sandbox (${pinned}), which is gone.`;
}
