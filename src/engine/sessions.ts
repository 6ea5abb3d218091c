import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { ClientError, notFound } from "../errors.ts";
import type { FileEntry } from "../sandbox/protocol.ts";
import { sha256Hex } from "../store/blob-folder.ts";
import { SessionFormatError, type SessionSnapshot } from "../store/session-format.ts";
import {
  type CheckpointRef,
  endsAtMs,
  type SessionLease,
  type SessionRecord,
  type SessionStore,
  type SnapshotRef,
} from "../store/session-store.ts";
import type { WorkspaceIndex, WorkspaceLimits, Written } from "../store/workspace-index.ts";
import { workspacePath } from "../store/workspace-path.ts";
import { toExecutionResult } from "./engine.ts";
import type { ExecutionRequest, ExecutionResult, SessionNote } from "./execution.ts";
import { LiveSession } from "./live-session.ts";
import type { SandboxPool } from "./pool.ts";
import { executeInSession, NotLoadedError, type SessionOutcome } from "./session-execution.ts";
import { checkState, PREVIOUS, pristine, readFile, readFiles, readState, toStored } from "./session-states.ts";

export interface SessionsOptions {
  readonly pool: SandboxPool;
  readonly store: SessionStore;
  /** Names the image of an environment: memory that differs from one cannot be put on another. */
  readonly identityOf: (environment: string) => string;
  /** When a state is stored: before the reply, or between it and the session's next execution. */
  readonly durability: "commit" | "after-reply";
  readonly defaultTtlMs: number;
  /** Largest stored state of one session, files included, bytes. */
  readonly maxBytes: number;
  readonly maxOfPrincipal: number;
  readonly files: WorkspaceLimits;
  /** Told of what no caller is told. */
  readonly onError: (error: unknown, session: string) => void;
}

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
  /** Of its stored state. */
  readonly memoryBytes: number;
  readonly fileBytes: number;
  readonly executions: number;
  readonly checkpoints: number;
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

const PLAIN_NAME = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/;
const MAX_CHECKPOINTS = 32;
const SWEEP_INTERVAL_MS = 60_000;
/** A wall clock that has moved so much against the monotonic one was set. */
const CLOCK_JUMP_MS = 60_000;
const CLOCK_JUMP_GRACE_MS = 3_600_000;
const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 30_000;
/** States that wait in memory for a store that is away, all together. */
const MAX_UNSTORED_BYTES = 512 * 1024 * 1024;

/**
 * Sessions: interpreters that stay between executions, whatever becomes of the process they run in.
 *
 * A session at rest is a record and a state in the store. To run, its lease is taken, the state is loaded into a sandbox
 * (or found still there), and after the execution captured and stored under the next revision. The sandbox keeps its copy
 * until somebody else waits for it. Executions and changes of one session take turns in the order in which they came.
 */
export class Sessions {
  readonly #options: SessionsOptions;
  readonly #live = new Map<string, LiveSession>();
  readonly #sweeper: NodeJS.Timeout;
  #unstoredBytes = 0;
  #stopping = false;
  #clock = { wallMs: Date.now(), monotonicMs: performance.now(), trustedFromMs: 0 };

  constructor(options: SessionsOptions) {
    this.#options = options;
    options.pool.on("evicted", (key) => this.#evicted(key));
    options.store.onInterrupt = (id) => this.#live.get(id)?.running?.abort(interrupted());
    this.#sweeper = setInterval(() => void this.sweep(), SWEEP_INTERVAL_MS).unref();
  }

  /**
   * Makes a session. Nothing runs until its first execution.
   *
   * @param id 1 to 64 letters, digits, dots, hyphens and underscores, not beginning with a dot; default: 128 random bits.
   * @throws {ClientError} 400 `invalid_session_id`, 409 `session_exists`, 429 `session_limit`.
   */
  async create(
    principal: string,
    { environment, ttlMs, id }: { environment: string; ttlMs?: number | undefined; id?: string | undefined },
  ): Promise<SessionView> {
    this.#options.identityOf(environment);
    const now = Date.now();
    const record: SessionRecord = {
      id: id === undefined ? newId() : checkedName(id, "session id"),
      principal,
      environment,
      createdAtMs: now,
      lastUsedAtMs: now,
      ttlMs: ttlMs ?? this.#options.defaultTtlMs,
      revision: 0,
      executions: 0,
      reseed: true,
      head: null,
      previous: null,
      checkpoints: [],
    };
    await this.#options.store.create(record, this.#options.maxOfPrincipal);
    return this.#view(record);
  }

  async list(principal: string): Promise<readonly SessionView[]> {
    return (await this.#options.store.list(principal)).map((record) => this.#view(record));
  }

  /** @throws {ClientError} 404 if there is none, or it is another principal's. */
  async get(principal: string, id: string): Promise<SessionView> {
    return this.#view(await this.record(principal, id));
  }

  /** Stops what runs in it, and deletes it with all its states and files. */
  async delete(principal: string, id: string): Promise<void> {
    await this.record(principal, id);
    this.#live.get(id)?.running?.abort(interrupted());
    await this.#turn(principal, id, undefined, async (live, lease) => {
      await lease.delete();
      this.#evict(live);
      live.setback = null;
      live.unstored = null;
    });
  }

  /** @returns a new session that goes on from where this one is, with seeds of its own. */
  async fork(principal: string, id: string): Promise<SessionView> {
    return await this.#turn(principal, id, undefined, async (live, lease) => {
      refusePinned(live, "forked");
      const now = Date.now();
      const { store, maxOfPrincipal } = this.#options;
      const fork: SessionRecord = {
        ...lease.record,
        id: newId(),
        createdAtMs: now,
        lastUsedAtMs: now,
        revision: 0,
        reseed: true,
        previous: null,
        checkpoints: [],
      };
      await store.create(fork, maxOfPrincipal, lease);
      return this.#view(fork);
    });
  }

  /** @throws {ClientError} 400 `invalid_checkpoint_name`, 409 `checkpoint_exists`, 409 `checkpoint_limit`. */
  async checkpoint(principal: string, id: string, name?: string): Promise<CheckpointView> {
    return await this.#turn(principal, id, undefined, async (live, lease) => {
      refusePinned(live, "checkpointed");
      const { checkpoints } = lease.record;
      const free = (n: number): string =>
        checkpoints.some((c) => c.name === `checkpoint-${n}`) ? free(n + 1) : `checkpoint-${n}`;
      const chosen = name === undefined ? free(checkpoints.length + 1) : checkedName(name, "checkpoint name");
      if (checkpoints.some((other) => other.name === chosen)) {
        throw new ClientError(409, "checkpoint_exists", `Checkpoint "${chosen}" already exists`);
      }
      if (checkpoints.length >= MAX_CHECKPOINTS) {
        throw new ClientError(409, "checkpoint_limit", `A session may have at most ${MAX_CHECKPOINTS} checkpoints.`);
      }
      let { head } = lease.record;
      let stored: Awaited<ReturnType<typeof toStored>>["stored"] | undefined;
      if (head === null) {
        ({ ref: head, stored } = await toStored(pristine(this.#identity(lease.record)), new Map()));
      }
      const checkpoint: CheckpointRef = { ...head, name: chosen, createdAtMs: Date.now() };
      await this.#change(live, lease, { head, checkpoints: [...checkpoints, checkpoint] }, stored);
      return viewOfCheckpoint(checkpoint);
    });
  }

  async checkpoints(principal: string, id: string): Promise<readonly CheckpointView[]> {
    const { previous, checkpoints } = await this.record(principal, id);
    const automatic = previous ? [{ ...previous, name: PREVIOUS }] : [];
    return [...automatic, ...checkpoints].map(viewOfCheckpoint);
  }

  /**
   * Goes back to a checkpoint, or to the state before the last change (`@previous`).
   *
   * @throws {ClientError} 404 `Checkpoint not found`, 409 `session_damaged` if that one cannot be used either.
   */
  async restore(principal: string, id: string, name: string): Promise<SessionView> {
    return await this.#turn(principal, id, undefined, async (live, lease) => {
      const { record } = lease;
      const ref = name === PREVIOUS ? record.previous : record.checkpoints.find((other) => other.name === name);
      if (!ref) throw notFound("Checkpoint not found");
      await checkState(this.#options.store, record, ref);
      this.#evict(live);
      live.setback = null;
      const { sha256, size, fileBytes, executions, createdAtMs } = ref;
      await this.#change(live, lease, {
        head: { sha256, size, fileBytes, executions, createdAtMs },
        previous: record.head,
      });
      return this.#view(lease.record);
    });
  }

  /** Back to the image: no variable, no file. Checkpoints stay. */
  async reset(principal: string, id: string): Promise<SessionView> {
    return await this.#turn(principal, id, undefined, async (live, lease) => {
      this.#evict(live);
      live.setback = null;
      await this.#change(live, lease, { head: null, previous: lease.record.head, reseed: true });
      return this.#view(lease.record);
    });
  }

  /** Puts a session into another environment, if it has no state yet: that belongs to the one it was made in. */
  async move(principal: string, id: string, environment: string): Promise<SessionView> {
    this.#options.identityOf(environment);
    return await this.#turn(principal, id, undefined, async (live, lease) => {
      if (lease.record.head === null && !live.resident && !live.unstored)
        await this.#change(live, lease, { environment });
      return this.#view(lease.record);
    });
  }

  /** Stops what runs in it as a timeout would. @returns whether something ran here. */
  async interrupt(principal: string, id: string): Promise<boolean> {
    await this.record(principal, id);
    const running = this.#live.get(id)?.running;
    if (running) running.abort(interrupted());
    else await this.#options.store.announceInterrupt(id);
    return Boolean(running);
  }

  /** Files and folders, parents before children. */
  async listFiles(principal: string, id: string): Promise<readonly FileEntry[]> {
    return (await readFiles(this.#options.store, await this.record(principal, id))).listing;
  }

  /** @throws {ClientError} 404 `File not found`. */
  async readFile(principal: string, id: string, path: string): Promise<Uint8Array> {
    const { store } = this.#options;
    const record = await this.record(principal, id);
    return await readFile(store, record, await readFiles(store, record), workspacePath(path));
  }

  async writeFile(principal: string, id: string, path: string, content: Uint8Array): Promise<FileEntry> {
    const sha256 = await sha256Hex(content);
    const mtimeMs = Date.now();
    const { length: size } = content;
    await this.#changeFiles(principal, id, new Map([[sha256, content]]), (files) => {
      if (files.get(path)?.kind === "folder")
        throw new ClientError(409, "not_a_file", "There is a folder of this name");
      const written: Written = { path: workspacePath(path), kind: "file", mtimeMs, sha256, size };
      return files.merge([written], [], this.#options.files);
    });
    return { path, size, mtimeMs, kind: "file" };
  }

  /** @throws {ClientError} 404 `File not found`, 409 `file_open` while the session has it open. */
  async deleteFile(principal: string, id: string, path: string): Promise<void> {
    await this.#changeFiles(principal, id, new Map(), (files, snapshot) => {
      if (files.get(workspacePath(path))?.kind !== "file") throw notFound("File not found");
      const { state } = snapshot;
      if (state?.streams.some((stream) => stream.path === path)) {
        throw new ClientError(409, "file_open", "The session has this file open");
      }
      return files.merge([], [path], this.#options.files);
    });
  }

  /**
   * Runs code in a session. What `Engine.execute` says holds; `session` in the result tells what became of the session.
   *
   * @param request its environment is the session's (`record`).
   * @throws {ClientError} 404; 409 `session_damaged`, `session_environment_changed`, `session_unloadable`, `session_moved`;
   *   429; 503 and 507 where the store cannot be used, and then the session is as it was before.
   */
  async execute(id: string, request: ExecutionRequest): Promise<ExecutionResult> {
    const reply = Promise.withResolvers<ExecutionResult>();
    this.#turn(request.principal, id, request.signal, (live, lease) =>
      this.#execute(live, lease, request, reply.resolve),
    ).then(
      () => reply.reject(new Error("an execution ended without a result")),
      (error) => {
        reply.reject(error);
        // The reply may have been sent before this.
        if (!(error instanceof ClientError)) this.#options.onError(error, id);
      },
    );
    return await reply.promise;
  }

  /** @throws {ClientError} 404 if there is none, or it is another principal's. */
  async record(principal: string, id: string): Promise<SessionRecord> {
    const record = await this.#options.store.get(id);
    if (record?.principal !== principal) throw sessionNotFound();
    return record;
  }

  /** Deletes sessions that have ended, unless the clock was set lately: then it may be wrong. */
  async sweep(): Promise<void> {
    const wallMs = Date.now();
    const monotonicMs = performance.now();
    const jumpedMs = Math.abs(wallMs - this.#clock.wallMs - (monotonicMs - this.#clock.monotonicMs));
    const trustedFromMs = jumpedMs > CLOCK_JUMP_MS ? monotonicMs + CLOCK_JUMP_GRACE_MS : this.#clock.trustedFromMs;
    this.#clock = { wallMs, monotonicMs, trustedFromMs };
    if (monotonicMs < trustedFromMs || this.#stopping) return;
    try {
      for (const { id } of await this.#options.store.ended(wallMs)) {
        const live = this.#live.get(id);
        if (live && live.turns.length > 0) continue;
        if (live) this.#evict(live);
        this.#live.delete(id);
        await this.#options.store.deleteEnded(id, wallMs);
      }
    } catch (error) {
      this.#options.onError(error, "");
    }
  }

  /** Refuses new executions and waits, for up to `graceMs`, until all states are stored. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#sweeper);
    const deadline = performance.now() + graceMs;
    const isBusy = () => this.#live.values().some(({ turns, unstored }) => turns.length > 0 || unstored !== null);
    while (isBusy() && performance.now() < deadline) await sleep(10);
  }

  async #execute(
    live: LiveSession,
    lease: SessionLease,
    request: ExecutionRequest,
    reply: (result: ExecutionResult) => void,
  ): Promise<void> {
    const { pool, store, durability } = this.#options;
    const before = lease.record;
    const identity = this.#identity(before);
    const setback = live.takeSetback();
    const wasPinned = live.resident?.pinned != null;
    let snapshot: Promise<SessionSnapshot> | undefined;
    const abort = new AbortController();
    live.running = abort;
    const signals = [abort.signal, lease.lost, ...(request.signal ? [request.signal] : [])];
    let outcome: SessionOutcome;
    try {
      outcome = await executeInSession(pool, {
        request: { ...request, environment: before.environment, signal: AbortSignal.any(signals) },
        id: live.id,
        resident: live.resident,
        load: () => (snapshot ??= readState(store, before, identity)),
        readFile: (files, path) => readFile(store, before, files, path),
        reseed: before.reseed,
        limits: this.#options.files,
        onBegin: () => {
          live.resident = null;
        },
      });
    } catch (error) {
      live.setback ??= setback;
      if (!(error instanceof NotLoadedError)) throw error;
      throw new ClientError(
        409,
        "session_unloadable",
        `The session cannot be loaded: ${error.message}. Restore a checkpoint, or start a new session.`,
      );
    } finally {
      live.running = null;
    }
    const { result, left } = outcome;
    const answer = (note: Omit<SessionNote, "id">) => {
      const reason = note.reason ?? setback ?? undefined;
      reply(
        annotated(
          toExecutionResult(result, request.timeoutMs),
          {
            id: live.id,
            ...(reason !== undefined && { restored: true, reason }),
            ...(note.pinned !== undefined && { pinned: note.pinned }),
          },
          note.reason,
        ),
      );
    };
    const asBefore = wasPinned ? "The session is as it was when it could last be stored" : AS_BEFORE;
    if (left === null) {
      const why = result.end === "finished" ? "the sandbox ended" : "the execution had to be killed";
      answer({ reason: `${asBefore}: ${why}.` });
      return;
    }
    if (outcome.refusedFiles) {
      pool.evict(left.key);
      answer({ reason: `${asBefore}: ${outcome.refusedFiles.message}` });
      return;
    }
    live.resident = {
      key: left.key,
      revision: before.revision + 1,
      files: left.files,
      contents: left.contents,
      pinned: null,
    };
    const answersFirst = durability === "after-reply";
    if (answersFirst) answer({});
    const setBack = (reason: string) => {
      if (live.resident?.key === left.key) live.resident = null;
      pool.evict(left.key);
      if (answersFirst) live.setback = reason;
      else answer({ reason });
    };

    const capture = await left.captured;
    if (capture === "lost") return setBack(`${asBefore}: the interpreter could not go on.`);
    if (capture.state === null) {
      if (!live.resident) return setBack(`${asBefore}: ${capture.reason}, and its sandbox was needed.`);
      live.resident = { ...live.resident, revision: before.revision, pinned: capture.reason };
      if (!answersFirst) answer({ pinned: capture.reason });
      return;
    }
    const executions = before.executions + 1;
    let stored: Awaited<ReturnType<typeof toStored>>;
    try {
      const { state, memory } = capture;
      const after = { environment: identity, state, memory, files: left.files, executions };
      stored = await toStored(after, left.contents);
    } catch (error) {
      if (!(error instanceof SessionFormatError)) throw error;
      return setBack(`${asBefore}: ${error.message}.`);
    }
    const bytes = stored.ref.size + stored.ref.fileBytes;
    const { maxBytes } = this.#options;
    if (bytes > maxBytes) {
      return setBack(`${asBefore}: it would take ${mib(bytes)} MiB, and ${mib(maxBytes)} MiB is the most.`);
    }
    const record = this.#next(before, { head: stored.ref, previous: before.head, executions, reseed: false });
    try {
      await lease.commit(record, stored.stored);
    } catch (error) {
      if (!answersFirst || !(error instanceof ClientError) || error.code === "session_moved") {
        if (live.resident?.key === left.key) live.resident = null;
        pool.evict(left.key);
        if (!answersFirst) throw notStored(error);
        live.setback = `${AS_BEFORE}: it could not be stored.`;
        throw error;
      }
      this.#holdUnstored(live, record, stored.stored);
      return;
    }
    if (live.resident?.key === left.key) live.resident = { ...live.resident, contents: new Map() };
    if (!answersFirst) answer({});
  }

  async #changeFiles(
    principal: string,
    id: string,
    contents: ReadonlyMap<string, Uint8Array>,
    plan: (files: WorkspaceIndex, snapshot: SessionSnapshot) => WorkspaceIndex,
  ): Promise<void> {
    await this.#turn(principal, id, undefined, async (live, lease) => {
      refusePinned(live, "given other files");
      const { record } = lease;
      const snapshot = await readState(this.#options.store, record, this.#identity(record));
      const files = plan(snapshot.files, snapshot);
      const { ref, stored } = await toStored({ ...snapshot, files }, contents);
      if (ref.size + ref.fileBytes > this.#options.maxBytes) {
        throw new ClientError(413, "session_full", `A session may take at most ${mib(this.#options.maxBytes)} MiB.`);
      }
      this.#evict(live);
      await this.#change(live, lease, { head: ref, previous: record.head }, stored);
    });
  }

  async #change(
    live: LiveSession,
    lease: SessionLease,
    changes: Partial<SessionRecord>,
    stored?: Parameters<SessionLease["commit"]>[1],
  ): Promise<void> {
    const record = this.#next(lease.record, changes);
    await lease.commit(record, stored);
    // A change that leaves the head as it was leaves the sandbox's copy good.
    if (live.resident) live.resident = { ...live.resident, revision: record.revision };
  }

  #next(record: SessionRecord, changes: Partial<SessionRecord>): SessionRecord {
    // Not less than before: the clock may have been set back.
    const lastUsedAtMs = Math.max(record.lastUsedAtMs, Date.now());
    return { ...record, ...changes, lastUsedAtMs, revision: record.revision + 1 };
  }

  /** Has the session to itself for one action, with what is not stored yet stored first. */
  async #turn<T>(
    principal: string,
    id: string,
    signal: AbortSignal | undefined,
    action: (live: LiveSession, lease: SessionLease) => Promise<T>,
  ): Promise<T> {
    if (this.#stopping) throw new ClientError(503, "stopping", "The server is stopping.", { retryAfterS: 5 });
    // Before anybody can wait in another's queue.
    if (!this.#live.has(id)) await this.record(principal, id);
    const live = this.#live.get(id) ?? new LiveSession(id, principal);
    if (live.principal !== principal) throw sessionNotFound();
    this.#live.set(id, live);
    try {
      return await live.turns.run(() => this.#withLease(live, signal, action), signal);
    } finally {
      this.#forget(live);
    }
  }

  async #withLease<T>(
    live: LiveSession,
    signal: AbortSignal | undefined,
    action: (live: LiveSession, lease: SessionLease) => Promise<T>,
  ): Promise<T> {
    if (live.lease?.lost.aborted) await this.#letGo(live, live.lease, "another server went on with it");
    const lease = live.lease ?? (await this.#options.store.acquire(live.id, live.principal, signal));
    if (!lease) {
      this.#evict(live);
      live.setback = null;
      throw sessionNotFound();
    }
    live.lease = lease;
    try {
      await this.#storeUnstored(live, lease);
      if (live.resident && live.resident.revision !== lease.record.revision) this.#evict(live);
      return await action(live, lease);
    } finally {
      if (live.unstored === null && live.resident?.pinned == null && live.lease === lease) {
        live.lease = null;
        await lease.release().catch((error: unknown) => this.#options.onError(error, live.id));
      }
    }
  }

  /** Gives up what is only here. */
  async #letGo(live: LiveSession, lease: SessionLease, reason: string): Promise<void> {
    this.#dropUnstored(live);
    this.#evict(live);
    live.lease = null;
    live.setback = `The session is as it was when it was last stored: ${reason}.`;
    await lease.release().catch(() => {});
  }

  #holdUnstored(live: LiveSession, record: SessionRecord, snapshot: Parameters<SessionLease["commit"]>[1]): void {
    const bytes = snapshot?.bytes.length ?? 0;
    if (!snapshot || this.#unstoredBytes + bytes > MAX_UNSTORED_BYTES) {
      this.#evict(live);
      live.setback = `${AS_BEFORE}: it could not be stored.`;
      return;
    }
    this.#unstoredBytes += bytes;
    live.unstored = { record, snapshot, failures: 0 };
    this.#retryLater(live);
  }

  #retryLater(live: LiveSession): void {
    const pauseMs = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** (live.unstored?.failures ?? 0));
    setTimeout(() => {
      if (live.unstored === null) return;
      // An empty turn: the attempt is what every turn begins with.
      live.turns
        .run(() => this.#withLease(live, undefined, async () => {}))
        .catch(() => {
          if (live.unstored === null) return;
          live.unstored.failures++;
          this.#retryLater(live);
        })
        .finally(() => this.#forget(live));
    }, pauseMs).unref();
  }

  async #storeUnstored(live: LiveSession, lease: SessionLease): Promise<void> {
    const { unstored } = live;
    if (unstored === null) return;
    try {
      await lease.commit(unstored.record, unstored.snapshot);
    } catch (error) {
      if (error instanceof ClientError && error.code === "session_moved") {
        await this.#letGo(live, lease, "another server went on with it");
      }
      throw error;
    }
    this.#dropUnstored(live);
    if (live.resident) live.resident = { ...live.resident, contents: new Map() };
  }

  #dropUnstored(live: LiveSession): void {
    this.#unstoredBytes -= live.unstored?.snapshot.bytes.length ?? 0;
    live.unstored = null;
  }

  #evict(live: LiveSession): void {
    const { resident } = live;
    live.resident = null;
    if (resident) this.#options.pool.evict(resident.key);
  }

  /** The pool has taken a sandbox back. */
  #evicted(key: string): void {
    const live = this.#live.get(key.slice(0, key.lastIndexOf("#")));
    if (live?.resident?.key !== key) return;
    const { pinned } = live.resident;
    live.resident = null;
    if (pinned !== null) {
      live.setback = `The session is as it was when it could last be stored: it could not leave its sandbox (${pinned}), which is gone.`;
      // An empty turn gives the lease back.
      const nothing = () => this.#withLease(live, undefined, async () => {});
      live.turns.run(nothing).then(
        () => this.#forget(live),
        (error) => this.#options.onError(error, live.id),
      );
    }
    this.#forget(live);
  }

  #forget(live: LiveSession): void {
    if (live.isForgettable && this.#live.get(live.id) === live) this.#live.delete(live.id);
  }

  #identity({ environment }: SessionRecord): string {
    return this.#options.identityOf(environment);
  }

  #view(record: SessionRecord): SessionView {
    const { id, environment, createdAtMs, lastUsedAtMs, head, executions, checkpoints } = record;
    const live = this.#live.get(id);
    const pinned = live?.resident?.pinned ?? null;
    const state = live?.running ? "running" : pinned !== null ? "pinned" : live?.resident ? "resident" : "hibernated";
    return {
      id,
      environment,
      state,
      createdAtMs,
      lastUsedAtMs,
      expiresAtMs: endsAtMs(record),
      memoryBytes: head?.size ?? 0,
      fileBytes: head?.fileBytes ?? 0,
      executions,
      checkpoints: checkpoints.length,
      ...(pinned !== null && { pinned }),
    };
  }
}

const AS_BEFORE = "The session is as it was before this execution";

function annotated(result: ExecutionResult, session: SessionNote, added: string | undefined): ExecutionResult {
  const { errorInfo } = result;
  if (added === undefined) return { ...result, session };
  if (!errorInfo) {
    // The code has run: the caller gets its output, and is told that nothing else has come of it.
    const lost = { type: "SessionNotKept", message: added, traceback: "", line: null, column: null };
    return { ...result, session, success: false, error: added, errorInfo: lost };
  }
  return { ...result, session, errorInfo: { ...errorInfo, message: `${errorInfo.message} ${added}` } };
}

function newId(): string {
  return randomBytes(16).toString("base64url");
}

function checkedName(name: string, what: "session id" | "checkpoint name"): string {
  if (PLAIN_NAME.test(name)) return name;
  throw new ClientError(
    400,
    what === "session id" ? "invalid_session_id" : "invalid_checkpoint_name",
    `Invalid ${what}. Use 1 to 64 letters, digits, dots, hyphens and underscores, and no dot first.`,
  );
}

function refusePinned({ resident }: LiveSession, participle: string): void {
  if (resident?.pinned == null) return;
  throw new ClientError(409, "session_pinned", `The session cannot be ${participle} now: it holds ${resident.pinned}.`);
}

function sessionNotFound(): ClientError {
  return new ClientError(404, "session_not_found", "Session not found");
}

function interrupted(): ClientError {
  return new ClientError(409, "interrupted", "Execution was cancelled");
}

/** Says also that nothing has come of the execution. */
function notStored(error: unknown): unknown {
  if (!(error instanceof ClientError)) return error;
  const { status, code, message, retryAfterS, cause } = error;
  const options = { cause, ...(retryAfterS !== undefined && { retryAfterS }) };
  return new ClientError(status, code, `${message} ${AS_BEFORE}.`, options);
}

function viewOfCheckpoint(checkpoint: SnapshotRef & { name: string }): CheckpointView {
  const { name, createdAtMs, executions, size, fileBytes } = checkpoint;
  return { name, createdAtMs, executions, memoryBytes: size, fileBytes };
}

function mib(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
