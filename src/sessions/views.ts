import { ClientError } from "../shared/errors.ts";
import { steadyClock } from "../shared/steady-clock.ts";
import type { LiveSession } from "./live-session.ts";
import { endsAtMs, type NamespaceRecord, type SessionRecord, type SnapshotRef } from "./store.ts";

export type SessionStatus = "resident" | "running" | "pinned" | "hibernated";

/** A session as its owner sees it. Times are ms since 1970. */
export interface SessionView {
  readonly id: string;
  readonly environment: string;
  /** On this server. `pinned`: what it holds cannot be stored, see `pinned`. */
  readonly state: SessionStatus;
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
  readonly expiresAtMs: number;
  /** What its code works on: files of its own, or its principal's workspace. */
  readonly files: "own" | "workspace";
  /** Of its stored state. */
  readonly memoryBytes: number;
  readonly fileBytes: number;
  readonly executions: number;
  readonly checkpoints: number;
  readonly metadata: Readonly<Record<string, string>>;
  /** Why it cannot leave its sandbox; what it did since it last could is lost with that. */
  readonly pinned?: string;
}

export interface CheckpointView {
  readonly name: string;
  readonly createdAtMs: number;
  readonly executions: number;
  readonly memoryBytes: number;
  readonly fileBytes: number;
}

export interface NamespaceView {
  readonly name: string;
  readonly executions: number;
  readonly createdAtMs: number;
  /** Working directory that it begins in; absent: it has the session's. */
  readonly cwd?: string | undefined;
}

/** Less is the drift of clocks that nothing has set. */
const SHOWN_STEP_MS = 1000;

/** A name that a caller may give to something of its own. */
export const PLAIN_NAME = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/;

export function viewOf(record: SessionRecord, live: LiveSession | undefined): SessionView {
  const { id, environment, createdAtMs, lastUsedAtMs, head, executions, checkpoints, files, metadata = {} } = record;
  const pinned = live?.resident?.pinned ?? null;
  const state = live?.running ? "running" : pinned !== null ? "pinned" : live?.resident ? "resident" : "hibernated";
  // By the clock that this machine shows.
  const stepMs = steadyClock.stepMs();
  const shown = (timeMs: number) => (Math.abs(stepMs) < SHOWN_STEP_MS ? timeMs : timeMs + stepMs);
  return {
    id,
    environment,
    state,
    createdAtMs: shown(createdAtMs),
    lastUsedAtMs: shown(lastUsedAtMs),
    expiresAtMs: shown(endsAtMs(record)),
    files: files ?? "own",
    memoryBytes: head?.size ?? 0,
    fileBytes: head?.fileBytes ?? 0,
    executions,
    checkpoints: checkpoints.length,
    metadata,
    ...(pinned !== null && { pinned }),
  };
}

export function viewOfCheckpoint(checkpoint: SnapshotRef & { name: string }): CheckpointView {
  const { name, createdAtMs, executions, size, fileBytes } = checkpoint;
  return { name, createdAtMs, executions, memoryBytes: size, fileBytes };
}

export function viewOfNamespace({ name, executions, createdAtMs, cwd }: NamespaceRecord): NamespaceView {
  return { name, executions, createdAtMs, ...(cwd !== undefined && { cwd }) };
}

const INVALID_NAME = {
  "session id": "invalid_session_id",
  "checkpoint name": "invalid_checkpoint_name",
  "namespace name": "invalid_namespace_name",
} as const;

export function checkedName(name: string, what: keyof typeof INVALID_NAME): string {
  if (PLAIN_NAME.test(name)) return name;
  throw new ClientError(
    INVALID_NAME[what],
    `Invalid ${what}. Use 1 to 64 letters, digits, dots, hyphens and underscores, and no dot first.`,
  );
}

export function refusePinned({ resident }: LiveSession, participle: string): void {
  if (resident?.pinned == null) return;
  throw new ClientError("session_pinned", `The session cannot be ${participle} now: it holds ${resident.pinned}.`);
}

export function mib(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
