import { randomUUID } from "node:crypto";
import type { ExecutionRequest } from "../executor/execution.ts";
import { toJob } from "../executor/executor.ts";
import type { Checkout } from "../executor/pool.ts";
import type { UseOptions } from "../executor/pool-options.ts";
import type { PooledSandbox } from "../executor/slot.ts";
import type { Execution, ExecutionResult } from "../sandbox/outcome.ts";
import type { Capture, Job } from "../sandbox/running-job.ts";
import { ClientError } from "../shared/errors.ts";
import type { SessionState, Verdict } from "../wire/guest-messages.ts";
import type { Workspace } from "../wire/host-calls.ts";
import type { FileListing, NamespacePlace, PackageListing, SessionStart } from "../wire/messages.ts";
import { addressChanges } from "../workspaces/addressed-changes.ts";
import type { WorkspaceIndex, WorkspaceLimits } from "../workspaces/workspace-index.ts";
import type { ExecutionWorkspace } from "../workspaces/workspaces.ts";
import type { SessionSnapshot } from "./format.ts";
import type { Resident } from "./live-session.ts";
import { fitted, staleFilesOf } from "./shared-files.ts";

/** What a session needs of a sandbox process; `Sandbox` is one. */
export interface SessionSandbox extends PooledSandbox {
  /** After an execution has its result: what the session is now. */
  readonly captured: Promise<Capture>;
  execute(job: Job): Promise<Execution>;
  load(
    capture: { readonly state: SessionState; readonly memory: Uint8Array } | null,
    files: FileListing,
    packages: PackageListing | null,
  ): Promise<Verdict>;
}

/** What sessions need of a pool; a `SandboxPool` is one. */
export interface SessionPool {
  use<T>(options: UseOptions, use: (sandbox: SessionSandbox, checkout: Checkout) => Promise<T>): Promise<T>;
  holds(key: string): boolean;
  keeps(key: string): boolean;
  evict(key: string): void;
  on(event: "evicted", listener: (key: string) => void): unknown;
}

/** A state did not fit any sandbox, or took two with it. */
export class NotLoadedError extends Error {
  override readonly name = "NotLoadedError";
}

/** What the caller is told of it. */
export function notLoaded({ message }: NotLoadedError): ClientError {
  return new ClientError(
    "session_unloadable",
    `The session cannot be loaded: ${message}. Restore a checkpoint, or start a new session.`,
  );
}

/** The sandbox that held an older copy of a session cannot be used again, and is gone. */
class NotRewoundError extends Error {
  override readonly name = "NotRewoundError";
}

export interface SessionExecution {
  readonly request: ExecutionRequest;
  readonly id: string;
  /** The sandbox's copy, if one may still have it. */
  readonly resident: Resident | null;
  /** The stored state, for when none has. */
  readonly load: () => Promise<SessionSnapshot>;
  /** The workspace that it works on; null: it has files of its own. */
  readonly workspace: ExecutionWorkspace | null;
  /** A stored content of one of its own `files`. */
  readonly readFile: (files: WorkspaceIndex, path: string) => Promise<Uint8Array>;
  readonly reseed: boolean;
  /** What it has where nothing has run in it. */
  readonly start: SessionStart | undefined;
  /** Whose global variables its code has. */
  readonly namespace: NamespacePlace | undefined;
  /** How many the namespace has had, this one included. */
  readonly number: number;
  readonly limits: WorkspaceLimits;
  /** Called before the sandbox does anything: from now on its copy is not the stored state any more. */
  readonly onBegin: () => void;
  /** Called instead where nothing is done, and the sandbox is to go on holding the session. @returns whether it may, under the new key. */
  readonly onKept: (key: string) => boolean;
  /** Aborted when another server may have the session: nothing is written to the workspace any more. */
  readonly lost: AbortSignal;
}

/** What an execution has left on its sandbox. */
export interface SessionOutcome {
  readonly result: ExecutionResult;
  /** Null: the sandbox ended under the execution. */
  readonly left: {
    readonly key: string;
    readonly files: WorkspaceIndex;
    readonly contents: ReadonlyMap<string, Uint8Array>;
    /** The state, or why it cannot be captured. Resolves once the sandbox can be used again. */
    readonly captured: Promise<Capture | "lost">;
  } | null;
  /** Why what the execution wrote cannot be kept. */
  readonly refusedFiles: ClientError | null;
  /** The workspace has what the execution wrote to it. */
  readonly hasWritten: boolean;
  /** What the execution had open of the workspace when it began, and others had changed. */
  readonly staleFiles: readonly string[];
}

/**
 * Runs code on a session: on the sandbox that still holds it, else on any that loads it.
 *
 * @returns when there is a result; the state is captured after that.
 * @throws {NotLoadedError}; what `load` and `SandboxPool.use` throw.
 */
export async function executeInSession(pool: SessionPool, execution: SessionExecution): Promise<SessionOutcome> {
  const { request, resident } = execution;
  const { environment, principal, signal, onWait } = request;
  const options = { environment, principal, signal, onWait, ...(resident && { resident: resident.key }) };
  for (let failures = 0; ; ) {
    const isNeeded = resident === null || !pool.holds(resident.key);
    using ahead = isNeeded ? readAhead(pool) : null;
    if (ahead) await execution.load();
    try {
      return await pool.use(options, (sandbox, checkout) => {
        ahead?.[Symbol.dispose]();
        return runOn(sandbox, checkout, execution);
      });
    } catch (error) {
      if (error instanceof NotRewoundError) continue;
      // A sandbox may die of something else just then; two will not.
      if (!(error instanceof NotLoadedError) || ++failures === 2) throw error;
    }
  }
}

/** Of each pool: how many states are in memory whose executions wait for a sandbox. */
const statesAhead = new WeakMap<SessionPool, number>();
const MAX_STATES_AHEAD = 2;

/**
 * Has a state read before its sandbox is acquired: none is to stand idle while the disk is waited for. Few are at a time: a state may have
 * hundreds of megabytes, and most of many executions wait long. Others' are read once they have a sandbox.
 *
 * @returns to be disposed of when there is a sandbox, or none will be; null: enough are read ahead.
 */
function readAhead(pool: SessionPool): Disposable | null {
  const count = statesAhead.get(pool) ?? 0;
  if (count >= MAX_STATES_AHEAD) return null;
  statesAhead.set(pool, count + 1);
  let isOver = false;
  return {
    [Symbol.dispose]: () => {
      if (!isOver) statesAhead.set(pool, (statesAhead.get(pool) ?? 1) - 1);
      isOver = true;
    },
  };
}

async function runOn(
  sandbox: SessionSandbox,
  checkout: Checkout,
  execution: SessionExecution,
): Promise<SessionOutcome> {
  const { request, limits, workspace, onBegin, readFile } = execution;
  let held = checkout.isResident ? execution.resident : null;
  const shared = workspace && (await lookAt(workspace, held, checkout, execution));
  // What cannot be read leaves the session as it was.
  if (held === null) await execution.load();
  onBegin();
  if (held && shared && !shared.hasSameFiles(held.files)) {
    // No file is exchanged under what the session has open: it is loaded anew.
    const verdict = await sandbox.rewind();
    if (verdict.state === "discard") throw new NotRewoundError(verdict.reason);
    held = null;
  }
  let files: WorkspaceIndex;
  let staleFiles = held?.staleFiles ?? [];
  let reseed = false;
  let start: SessionStart | undefined;
  if (held) {
    // It has drawn its seeds here, also if it could not be stored since.
    files = held.files;
  } else {
    const snapshot = await execution.load();
    files = shared ?? snapshot.files;
    const { memory, openFiles } = snapshot;
    const state = shared && snapshot.state ? fitted(snapshot.state, openFiles ?? new Map(), shared) : snapshot.state;
    staleFiles = shared && state ? staleFilesOf(state) : [];
    reseed = execution.reseed || state === null;
    if (state === null) start = execution.start;
    const maxFiles = Math.max(0, limits.maxFiles - files.uploads.size);
    const listing = { entries: files.listing, maxBytes: limits.maxBytes, maxFiles };
    const packages = request.packages?.listing ?? null;
    const verdict = await sandbox.load(state && { state, memory }, listing, packages);
    if (verdict.state === "discard") throw new NotLoadedError(verdict.reason);
  }
  const ownFiles: Pick<Workspace, "read"> = {
    read: async (path) => {
      const entry = files.get(path);
      const unstored = entry?.kind === "file" ? held?.contents.get(entry.sha256) : undefined;
      return unstored ?? (await readFile(files, path));
    },
  };
  request.onStart?.();
  const { number, namespace } = execution;
  const place = { execution: number, reseed, ...(start && { start }), ...(namespace && { namespace }) };
  const running = sandbox.execute(toJob({ ...request, workspace: workspace ?? ownFiles }, place, null));
  const { captured, idle } = sandbox;
  void captured.then((capture) => {
    // After a question no state is reported: it is where it was.
    const isOnlyHere = request.question === undefined ? capture.state === null : held?.pinned != null;
    if (isOnlyHere) checkout.pin();
  });
  const { result, files: written } = await running;
  if (written === null) return { result, left: null, refusedFiles: null, hasWritten: false, staleFiles };
  if (workspace) execution.lost.throwIfAborted();
  const key = newKey(execution);
  checkout.retain(key);
  const whole = Promise.all([captured, idle, checkout.released]).then(([capture, verdict]): Capture | "lost" =>
    capture.state === null && verdict.state !== "resident" ? "lost" : capture,
  );
  try {
    const { changes, contents } = written;
    if (workspace) {
      // An execution that is given up leaves nothing, and neither does a question.
      const isKept = result.status !== "tool_wait_expired" && request.question === undefined;
      const left = isKept ? await workspace.keep(changes, contents) : files;
      const hasWritten = isKept && changes.written.length + changes.deleted.length > 0;
      return {
        result,
        left: { key, files: left, contents: new Map(), captured: whole },
        refusedFiles: null,
        hasWritten,
        staleFiles,
      };
    }
    const addressed = await addressChanges(changes, contents, limits);
    const left = {
      key,
      files: files.merge(addressed.written, changes.deleted, limits),
      contents: new Map([...(held?.contents ?? []), ...addressed.contents]),
      captured: whole,
    };
    return { result, left, refusedFiles: null, hasWritten: false, staleFiles };
  } catch (error) {
    if (!(error instanceof ClientError)) throw error;
    const left = { key, files, contents: new Map(), captured: whole };
    return { result, left, refusedFiles: error, hasWritten: false, staleFiles };
  }
}

/** The workspace as it is now. @throws {ClientError} if its store cannot be used, or a session that exists in this sandbox alone does not fit it. */
async function lookAt(
  workspace: ExecutionWorkspace,
  held: Resident | null,
  checkout: Checkout,
  execution: SessionExecution,
): Promise<WorkspaceIndex> {
  try {
    const files = await workspace.look();
    if (held?.pinned == null || files.hasSameFiles(held.files)) return files;
    throw new ClientError(
      "session_pinned",
      `The workspace has changed, and the session cannot be loaded anew for that: it holds ${held.pinned}. ` +
        "Restore a checkpoint, or reset the session.",
    );
  } catch (error) {
    const key = newKey(execution);
    if (held && execution.onKept(key)) {
      checkout.retain(key);
      if (held.pinned !== null) checkout.pin();
    }
    throw error;
  }
}

function newKey({ id }: SessionExecution): string {
  return `${id}#${randomUUID()}`;
}
