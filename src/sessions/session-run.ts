import type { ExecutionRequest } from "../executor/execution.ts";
import { type ExecutionResult, notKept, type SessionNote } from "../sandbox/outcome.ts";
import type { Capture } from "../sandbox/running-job.ts";
import { ClientError } from "../shared/errors.ts";
import type { NamespacePlace } from "../wire/messages.ts";
import { WorkspaceIndex, type WorkspaceLimits } from "../workspaces/workspace-index.ts";
import type { WorkspaceStore } from "../workspaces/workspaces.ts";
import { SessionFormatError, type SessionSnapshot } from "./format.ts";
import type { LiveSession } from "./live-session.ts";
import { countsOf, countsWithOne, DEFAULT_NAMESPACE, numberOf, placeOf, withNamespace } from "./namespaces.ts";
import {
  executeInSession,
  NotLoadedError,
  notLoaded,
  type SessionExecution,
  type SessionOutcome,
  type SessionPool,
} from "./run.ts";
import { openContentsOf, staleFilesOf } from "./shared-files.ts";
import { readFile, readState, toStored } from "./states.ts";
import type { Counts, NewSnapshot, SessionLease, SessionRecord, SessionStore } from "./store.ts";
import { AS_BEFORE, next, type SessionTurns } from "./turns.ts";
import { mib } from "./views.ts";

export interface SessionRunOptions {
  readonly pool: SessionPool;
  readonly store: SessionStore;
  readonly turns: SessionTurns;
  /** Names the image of an environment: memory that differs from one cannot be put on another. */
  readonly identityOf: (environment: string) => string;
  /** When a state is stored: before the reply, or between it and the session's next execution. */
  readonly durability: "commit" | "after-reply";
  /** Largest stored state of one session, files included, bytes. */
  readonly maxBytes: number;
  readonly files: WorkspaceLimits;
  /** What sessions without files of their own work on. */
  readonly workspaces: WorkspaceStore;
}

/** What an execution left on its sandbox. */
type Left = NonNullable<SessionOutcome["left"]>;

type Step =
  | { readonly at: "begin" }
  /** The code has run, and the sandbox holds what it left. */
  | { readonly at: "ran"; readonly left: Left }
  /** The sandbox has said what the session is now, or why it cannot say. */
  | { readonly at: "captured"; readonly left: Left; readonly capture: Capture }
  | End;

type End =
  /** The store has the new state. */
  | { readonly at: "stored" }
  /** The reply has been sent, the store is away, and this server keeps the new state until it is back. */
  | { readonly at: "pending"; readonly record: SessionRecord; readonly snapshot: NewSnapshot }
  /** The new state cannot leave its sandbox: it is as durable as that. */
  | { readonly at: "pinned"; readonly reason: string }
  /** The session is as it was before; the caller is told why. */
  | { readonly at: "reverted"; readonly reason: string; readonly cause?: ClientError }
  /** As `reverted`, where an error says it. */
  | { readonly at: "failed"; readonly error: unknown };

/** Something to run in a session. */
interface TurnRun extends Pick<SessionExecution, "namespace" | "number" | "reseed" | "onBegin"> {
  /** Its environment is the session's. */
  readonly request: ExecutionRequest;
}

/**
 * Runs code, or a question, in the turn that is under way: on the session's sandbox or, where none holds it, from its stored state. What
 * ends the turn stops it.
 *
 * @returns as {@link executeInSession}. The session is in no sandbox from `onBegin` on: what is left is the caller's to make of.
 * @throws {ClientError} where the session could not be loaded.
 */
export async function runInTurn(
  { pool, store, identityOf, files: limits, workspaces }: SessionRunOptions,
  live: LiveSession,
  { record, lost }: Pick<SessionLease, "record" | "lost">,
  { request, onBegin, ...run }: TurnRun,
): Promise<SessionOutcome> {
  const { environment } = record;
  const { resident, turn } = live;
  using workspace = record.files === "workspace" ? workspaces.of(record.principal).forExecution() : null;
  const abort = new AbortController();
  live.running = abort;
  live.isWaiting = request.isWaiting ?? null;
  const signals = [abort.signal, lost, turn?.signal, request.signal].filter((signal) => signal !== undefined);
  let snapshot: Promise<SessionSnapshot> | undefined;
  try {
    return await executeInSession(pool, {
      ...run,
      request: { ...request, environment, signal: AbortSignal.any(signals) },
      id: live.id,
      resident,
      load: () => (snapshot ??= readState(store, record, identityOf(environment))),
      workspace,
      readFile: (files, path) => readFile(store, record, files, path),
      start: record.start,
      limits,
      onBegin: () => {
        live.resident = null;
        onBegin();
      },
      onKept: (key) => live.renameResident(resident, key),
      lost,
    });
  } catch (error) {
    throw error instanceof NotLoadedError ? notLoaded(error) : error;
  } finally {
    live.running = null;
    live.isWaiting = null;
  }
}

/**
 * One execution in a session: Begin → Ran → Captured → Stored, or Reverted, as `README.md` draws it.
 *
 * The state that a reply speaks of is durable when the reply is sent, or the reply says that it is not; with `after-reply`
 * the next reply does.
 */
export class SessionRun {
  readonly #options: SessionRunOptions;
  readonly #live: LiveSession;
  readonly #lease: SessionLease;
  /** The session before the execution. */
  #before: SessionRecord;
  readonly #identity: string;
  readonly #request: ExecutionRequest;
  readonly #reply: (result: ExecutionResult) => void;
  /** Of executions, this one included once it has begun and is counted. */
  #counts: Counts;
  readonly #asBefore: string;
  /** Why the session is not as its last reply left it; told with this reply. */
  #setback: string | null;
  /** By which the pool knows what the execution left. */
  #key: string | null = null;
  #result: SessionOutcome["result"] | null = null;
  #hasWritten = false;
  #staleFiles: readonly string[] = [];
  #isAnswered = false;

  /** @param reply called once, when the caller is to have its result; not called where `run` throws before. */
  constructor(
    options: SessionRunOptions,
    live: LiveSession,
    lease: SessionLease,
    request: ExecutionRequest,
    reply: (result: ExecutionResult) => void,
  ) {
    this.#options = options;
    this.#live = live;
    this.#lease = lease;
    this.#before = lease.record;
    this.#identity = options.identityOf(lease.record.environment);
    this.#request = request;
    this.#reply = reply;
    this.#counts = countsOf(lease.record, live.resident?.counts);
    const wasPinned = live.resident?.pinned != null;
    this.#asBefore = wasPinned ? "The session is as it was when it could last be stored" : AS_BEFORE;
    this.#setback = live.takeSetback();
  }

  /** @throws {ClientError} where the session could not be loaded, and then it is as it was; what a store throws. */
  async run(): Promise<void> {
    let step: Step = { at: "begin" };
    for (;;) {
      switch (step.at) {
        case "begin":
          step = await this.#begin();
          break;
        case "ran":
          step = await this.#ran(step.left);
          break;
        case "captured":
          step = await this.#captured(step.left, step.capture);
          break;
        default:
          this.#end(step);
          return;
      }
    }
  }

  async #begin(): Promise<Step> {
    const live = this.#live;
    if (live.resident?.isAltered) this.#options.turns.evict(live);
    const namespace = await this.#enter(this.#request.namespace ?? DEFAULT_NAMESPACE);
    if (this.#request.isCounted !== false) this.#counts = countsWithOne(this.#counts, namespace?.key);
    const number = numberOf(this.#counts, namespace?.key);
    let outcome: SessionOutcome;
    try {
      outcome = await runInTurn(this.#options, live, this.#lease, {
        request: this.#request,
        namespace,
        number,
        reseed: this.#before.reseed,
        onBegin: () => {
          // It may have lost its sandbox while it waited for it.
          this.#setback ??= live.takeSetback();
        },
      });
    } catch (error) {
      live.setback ??= this.#setback;
      throw error;
    }
    const { result, left, refusedFiles, hasWritten, staleFiles } = outcome;
    this.#hasWritten = hasWritten;
    this.#staleFiles = staleFiles;
    this.#result = { ...result, executionCount: number };
    if (left === null) {
      const why = result.status === "sandbox_died" ? "the sandbox ended" : "the execution had to be killed";
      return this.#reverted(`${why}.`);
    }
    this.#key = left.key;
    // What waited for its client was in the middle of something, and the client knows of no part of it.
    if (result.status === "tool_wait_expired") return this.#reverted("its client has left a call without an answer.");
    return refusedFiles ? this.#reverted(refusedFiles.message, refusedFiles) : { at: "ran", left };
  }

  /** Makes the namespace where there is none of its name. */
  async #enter(name: string): Promise<NamespacePlace | undefined> {
    const namespaces = withNamespace(this.#before, name);
    if (namespaces !== null) {
      try {
        await this.#options.turns.change(this.#live, this.#lease, { namespaces });
      } catch (error) {
        this.#live.setback ??= this.#setback;
        throw error;
      }
      this.#before = this.#lease.record;
      this.#counts = countsOf(this.#before, this.#live.resident?.counts);
    }
    return placeOf(this.#before, name);
  }

  async #ran(left: Left): Promise<Step> {
    const { pool, durability } = this.#options;
    // Where a request waited, the sandbox may have gone on to it before this execution was told of its result.
    if (pool.keeps(left.key)) {
      const { key, files, contents } = left;
      const revision = this.#before.revision + 1;
      const [counts, staleFiles] = [this.#counts, this.#staleFiles];
      this.#live.resident = { key, revision, counts, files, contents, staleFiles, pinned: null };
    }
    if (durability === "after-reply") this.#answer({});
    const capture = await left.captured;
    return capture === "lost" ? this.#reverted("the interpreter could not go on.") : { at: "captured", left, capture };
  }

  async #captured(left: Left, capture: Capture): Promise<Step> {
    if (capture.state === null) {
      return this.#live.resident
        ? { at: "pinned", reason: capture.reason }
        : this.#reverted(`${capture.reason}, and its sandbox was needed.`);
    }
    const { executions, namespaces } = this.#counts;
    if (this.#live.resident) this.#live.resident = { ...this.#live.resident, staleFiles: staleFilesOf(capture.state) };
    let stored: Awaited<ReturnType<typeof toStored>>;
    try {
      const { state, memory } = capture;
      const files =
        this.#before.files === "workspace"
          ? { files: WorkspaceIndex.empty(0), openFiles: openContentsOf(state, left.files) }
          : { files: left.files, openFiles: null };
      const after = { environment: this.#identity, state, memory, ...files, executions };
      stored = await toStored(after, left.contents);
    } catch (error) {
      if (!(error instanceof SessionFormatError)) throw error;
      return this.#reverted(`${error.message}.`);
    }
    const bytes = stored.ref.size + stored.ref.fileBytes;
    const { maxBytes } = this.#options;
    if (bytes > maxBytes)
      return this.#reverted(`it would take ${mib(bytes)} MiB, and ${mib(maxBytes)} MiB is the most.`);
    const { changes: asked } = this.#live;
    const record = next(this.#before, {
      head: { ...stored.ref, ...(namespaces && { namespaces }) },
      previous: this.#before.head,
      ...this.#counts,
      reseed: false,
      ...asked,
    });
    try {
      await this.#lease.commit(record, stored.stored, true);
      if (this.#live.changes === asked) this.#live.changes = null;
      return { at: "stored" };
    } catch (error) {
      // Where another server has the session, or the store itself is wrong, there is nothing to go back to.
      if (!(error instanceof ClientError) || error.code === "session_moved") return { at: "failed", error };
      if (this.#isAnswered) return { at: "pending", record, snapshot: stored.stored };
      return { at: "reverted", reason: `${AS_BEFORE}: ${error.message}`, cause: error };
    }
  }

  #end(end: End): void {
    const live = this.#live;
    switch (end.at) {
      case "stored":
        if (live.resident?.key === this.#key) live.resident = { ...live.resident, contents: new Map() };
        if (!this.#isAnswered) this.#answer({});
        break;
      case "pending":
        this.#options.turns.holdUnstored(live, end.record, end.snapshot);
        break;
      case "pinned":
        if (live.resident) {
          live.resident = { ...live.resident, revision: this.#before.revision, pinned: end.reason };
        }
        if (!this.#isAnswered) this.#answer({ pinned: end.reason });
        break;
      case "reverted":
        this.#dropCopy();
        if (this.#isAnswered) live.setback = this.#butForFiles(end.reason);
        else this.#answer({ reason: this.#butForFiles(end.reason) }, end.cause);
        break;
      case "failed":
        this.#dropCopy();
        if (this.#isAnswered) live.setback = this.#butForFiles(`${AS_BEFORE}: it could not be stored.`);
        throw end.error;
    }
  }

  /** A workspace does not go back with its session. */
  #butForFiles(reason: string): string {
    return this.#hasWritten ? `${reason} What it wrote to the workspace stays.` : reason;
  }

  #reverted(why: string, cause?: ClientError): End {
    return { at: "reverted", reason: `${this.#asBefore}: ${why}`, ...(cause && { cause }) };
  }

  /** Has no sandbox go on with what the execution left. */
  #dropCopy(): void {
    if (this.#key === null) return;
    if (this.#live.resident?.key === this.#key) this.#live.resident = null;
    this.#options.pool.evict(this.#key);
  }

  #answer(note: Omit<SessionNote, "id">, cause?: ClientError): void {
    if (this.#result === null) throw new Error("an execution was answered before it had a result");
    this.#isAnswered = true;
    const reason = [note.reason, this.#setback].filter((text) => text != null).join(" And before that: ");
    const session: SessionNote = {
      id: this.#live.id,
      ...(reason !== "" && { restored: true, reason }),
      ...(note.pinned !== undefined && { pinned: note.pinned }),
      ...(this.#staleFiles.length > 0 && { staleFiles: this.#staleFiles }),
    };
    const outcome = { ...this.#result, session };
    this.#reply(note.reason === undefined ? outcome : notKept(outcome, "SessionNotKept", note.reason, cause));
  }
}
