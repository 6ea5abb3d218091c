import { setImmediate } from "node:timers/promises";
import { ClientError } from "../shared/errors.ts";
import { steadyNowMs } from "../shared/steady-clock.ts";
import { WorkspaceIndex } from "../workspaces/workspace-index.ts";
import {
  decodeSession,
  decodeSessionFiles,
  encodeSession,
  SessionFormatError,
  type SessionSnapshot,
} from "./format.ts";
import {
  MissingBlobError,
  type NewSnapshot,
  type SessionRecord,
  type SessionStore,
  type SnapshotRef,
} from "./store.ts";

const MANY_FILES = 1000;
/** How a caller names the state before the last change. */
export const PREVIOUS = "@previous";

/**
 * Reads the state that a session goes on from.
 *
 * @param environment identity of the image that is there to put under it.
 * @throws {ClientError} 409 `session_damaged`, or 409 `session_environment_changed`; the message says what can be done.
 */
export async function readState(
  store: SessionStore,
  record: SessionRecord,
  environment: string,
): Promise<SessionSnapshot> {
  const { head } = record;
  if (head === null) return pristine(environment);
  const snapshot = await decoded(store, record, head, decodeSession);
  if (snapshot.state !== null && snapshot.environment !== environment) {
    throw new ClientError(
      "session_environment_changed",
      `The session was made with another build of the environment "${record.environment}" ` +
        `(${snapshot.environment.slice(0, 12)}) than this server has (${environment.slice(0, 12)}). ` +
        "Its files can still be read; its variables cannot. Start a new session.",
    );
  }
  return snapshot;
}

/** The files of the state a session goes on from, whatever became of its environment. @throws as {@link readState}. */
export async function readFiles(store: SessionStore, record: SessionRecord): Promise<WorkspaceIndex> {
  if (record.head === null) return WorkspaceIndex.empty(record.createdAtMs);
  return await decoded(store, record, record.head, decodeSessionFiles);
}

/** A file's content in the state a session goes on from. @throws {ClientError} 404, 409 `session_damaged`. */
export async function readFile(
  store: SessionStore,
  record: SessionRecord,
  files: WorkspaceIndex,
  path: string,
  onSize?: (bytes: number) => void,
): Promise<Uint8Array> {
  const entry = files.get(path);
  if (entry?.kind !== "file") throw new ClientError("not_found", "File not found");
  onSize?.(entry.size);
  try {
    return await store.read(record.id, entry);
  } catch (error) {
    throw explained(error, record);
  }
}

/** Checks that a stored state is whole. @throws as {@link readState}. */
export async function checkState(store: SessionStore, record: SessionRecord, ref: SnapshotRef): Promise<void> {
  await decoded(store, record, ref, decodeSession);
}

export function pristine(environment: string): SessionSnapshot {
  return {
    environment,
    state: null,
    memory: new Uint8Array(0),
    files: WorkspaceIndex.empty(Date.now()),
    openFiles: null,
    executions: 0,
  };
}

/**
 * Prepares a state for the store.
 *
 * @param contents contents of files that the store may not have yet.
 * @throws {SessionFormatError} if the sandbox described something impossible.
 */
export async function toStored(
  snapshot: SessionSnapshot,
  contents: ReadonlyMap<string, Uint8Array>,
): Promise<{ ref: SnapshotRef; stored: NewSnapshot }> {
  // To have merged many files, and to write them down, each takes a turn of the event loop.
  if (snapshot.files.entryCount > MANY_FILES) await setImmediate();
  const { bytes, sha256 } = await encodeSession(snapshot);
  if (snapshot.files.entryCount > MANY_FILES) await setImmediate();
  const blob = { sha256, size: bytes.length };
  const files = new Map<string, { sha256: string; size: number }>();
  for (const [, entry] of snapshot.files.entries()) if (entry.kind === "file") files.set(entry.sha256, entry);
  return {
    ref: {
      ...blob,
      fileBytes: snapshot.files.usage.bytes,
      executions: snapshot.executions,
      createdAtMs: steadyNowMs(),
    },
    stored: {
      blob,
      bytes,
      files: Array.from(files.values(), ({ sha256, size }) => ({ sha256, size })),
      contents: new Map([...contents].filter(([sha256]) => files.has(sha256))),
    },
  };
}

async function decoded<T>(
  store: SessionStore,
  record: SessionRecord,
  ref: SnapshotRef,
  decode: (bytes: Uint8Array) => T | Promise<T>,
): Promise<T> {
  try {
    return await decode(await store.read(record.id, ref));
  } catch (error) {
    throw explained(error, record);
  }
}

function explained(error: unknown, record: SessionRecord): unknown {
  if (!(error instanceof SessionFormatError) && !(error instanceof MissingBlobError)) return error;
  const names = [...(record.previous ? [PREVIOUS] : []), ...record.checkpoints.map(({ name }) => name).reverse()];
  const offer =
    names.length === 0
      ? "There is no checkpoint before it."
      : `Restore a checkpoint before it: ${names.map((name) => `"${name}"`).join(", ")}.`;
  return new ClientError("session_damaged", `The session's stored state is damaged: ${error.message}. ${offer}`, {
    cause: error,
  });
}
