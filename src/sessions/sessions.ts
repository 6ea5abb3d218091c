import { randomBytes } from "node:crypto";
import type { ExecutionRequest } from "../executor/execution.ts";
import type { ExecutionResult } from "../sandbox/outcome.ts";
import { ClientError } from "../shared/errors.ts";
import { steadyClock, steadyNowMs } from "../shared/steady-clock.ts";
import { SessionCheckpoints } from "./checkpoints.ts";
import { SessionFiles } from "./files.ts";
import { SessionNamespaces } from "./namespaces.ts";
import { ask, patience } from "./questions.ts";
import { SessionRun, type SessionRunOptions } from "./session-run.ts";
import type { RecordChanges, SessionRecord } from "./store.ts";
import { SessionTurns, type SessionTurnsOptions } from "./turns.ts";
import { checkedName, refusePinned, type SessionView, viewOf } from "./views.ts";

export interface SessionsOptions extends Omit<SessionRunOptions, "turns"> {
  readonly defaultTtlMs: number;
  readonly maxOfPrincipal: number;
  /** Told of what no caller is told. */
  readonly onError: (error: unknown, session: string) => void;
  readonly isWaitingElsewhere?: SessionTurnsOptions["isWaitingElsewhere"];
}

/** What a session is made with. */
export interface NewSession {
  readonly environment: string;
  readonly ttlMs?: number | undefined;
  readonly endsAtMs?: SessionRecord["endsAtMs"];
  readonly id?: string | undefined;
  /** Checked by who calls. */
  readonly network?: SessionRecord["network"];
  readonly tools?: SessionRecord["tools"];
  readonly metadata?: SessionRecord["metadata"];
  readonly start?: SessionRecord["start"];
  readonly adapter?: SessionRecord["adapter"];
  /** Default: it has files of its own. */
  readonly files?: SessionRecord["files"];
}

/** What is different about a fork. */
export type ForkChanges = RecordChanges & Partial<Pick<SessionRecord, "id" | "metadata">>;

/** Of what is said of one session, as JSON: each listing reads it for all of them. */
const MAX_SAID_CHARACTERS = 512 * 1024;
const SWEEP_INTERVAL_MS = 60_000;
/** A machine's clock that has moved so much against the monotonic one was set. */
const CLOCK_STEP_MS = 60_000;

/**
 * Sessions: interpreters that stay between executions, whatever becomes of the process they run in.
 *
 * A session at rest is a record and a state in the store. To run, its lease is taken, the state is loaded into a sandbox
 * (or found still there), and after the execution captured and stored under the next revision. The sandbox keeps its copy
 * until another execution waits for it. Executions and changes of one session take turns in the order in which they came.
 */
export class Sessions {
  readonly checkpoints: SessionCheckpoints;
  readonly files: SessionFiles;
  readonly namespaces: SessionNamespaces;
  readonly #options: SessionsOptions;
  readonly #turns: SessionTurns;
  readonly #run: SessionRunOptions;
  readonly #sweeper: NodeJS.Timeout;

  constructor(options: SessionsOptions) {
    const { pool, store, identityOf, maxBytes, files: limits, workspaces, onError } = options;
    this.#options = options;
    this.#turns = new SessionTurns({ pool, store, onError, isWaitingElsewhere: options.isWaitingElsewhere });
    this.#run = { ...options, turns: this.#turns };
    this.checkpoints = new SessionCheckpoints({ turns: this.#turns, store, identityOf });
    this.namespaces = new SessionNamespaces(this.#turns);
    this.files = new SessionFiles({ turns: this.#turns, store, identityOf, limits, maxBytes, workspaces });
    this.#sweeper = setInterval(() => void this.sweep(), SWEEP_INTERVAL_MS).unref();
  }

  /**
   * Makes a session. Nothing runs until its first execution.
   *
   * @param id 1 to 64 letters, digits, dots, hyphens and underscores, not beginning with a dot; default: 128 random bits.
   * @throws {ClientError} 400 `invalid_session_id`, 409 `session_exists`, 429 `session_limit`.
   */
  async create(principal: string, { environment, ttlMs, id, ...rest }: NewSession): Promise<SessionView> {
    this.#options.identityOf(environment);
    const now = steadyNowMs();
    const record: SessionRecord = {
      id: id === undefined ? newId() : checkedName(id, "session id"),
      principal,
      environment,
      createdAtMs: now,
      lastUsedAtMs: now,
      ttlMs: ttlMs ?? this.#options.defaultTtlMs,
      ...rest,
      revision: 0,
      executions: 0,
      reseed: true,
      head: null,
      previous: null,
      checkpoints: [],
    };
    await this.#options.store.create(bounded(record), this.#options.maxOfPrincipal);
    return this.#view(record);
  }

  async list(principal: string): Promise<readonly SessionView[]> {
    return (await this.records(principal)).map((record) => this.#view(record));
  }

  /** @throws {ClientError} 404 if there is none, or it is another principal's. */
  async get(principal: string, id: string): Promise<SessionView> {
    return this.#view(await this.record(principal, id));
  }

  /** Stops what runs in it, refuses what waits for it, and deletes it with all its states and its own files. */
  async delete(principal: string, id: string, signal: AbortSignal): Promise<void> {
    await this.#turns.runInstead(principal, id, signal, "deleted", async (live, lease) => {
      await lease.delete();
      this.#turns.evict(live);
      live.setback = null;
    });
  }

  /** @returns a new session that goes on from where this one is, with seeds of its own, but for what `changes` has. */
  async fork(
    principal: string,
    id: string,
    signal: AbortSignal,
    { id: forkId, ...changes }: ForkChanges = {},
  ): Promise<SessionView> {
    return await this.#turns.runChange(principal, id, signal, async (live, lease) => {
      refusePinned(live, "forked");
      const now = steadyNowMs();
      const { store, maxOfPrincipal } = this.#options;
      const fork: SessionRecord = {
        ...lease.record,
        ...changes,
        id: forkId ?? newId(),
        createdAtMs: now,
        lastUsedAtMs: now,
        revision: 0,
        reseed: true,
        previous: null,
        checkpoints: [],
      };
      await store.create(bounded(fork), maxOfPrincipal, lease);
      return this.#view(fork);
    });
  }

  /** Changes what is known of a session; see {@link SessionTurns.update}. */
  async update(
    principal: string,
    id: string,
    changesOf: (record: SessionRecord) => RecordChanges,
  ): Promise<SessionRecord> {
    return await this.#turns.update(principal, id, (record) => {
      const changes = changesOf(record);
      bounded({ ...record, ...changes });
      return changes;
    });
  }

  /** As {@link update}, once what runs in it is interrupted, and what waits for it refused. */
  async updateInstead(
    principal: string,
    id: string,
    signal: AbortSignal,
    changesOf: (record: SessionRecord) => RecordChanges,
  ): Promise<void> {
    await this.#turns.runInstead(principal, id, signal, "all", async (live, lease) => {
      await this.#turns.change(live, lease, changesOf(lease.record));
    });
  }

  /** What is known of all of a principal's sessions, the last used first. */
  async records(principal: string): Promise<readonly SessionRecord[]> {
    return (await this.#options.store.list(principal)).map((record) => this.#turns.asChanged(record));
  }

  /** Waits for what was asked of a session before. @throws {ClientError} 404 if it is there no more. */
  async settled(principal: string, id: string, signal?: AbortSignal): Promise<void> {
    await this.#turns.run(principal, id, signal, async () => {});
  }

  /** Puts a session into another environment, if it has no state yet: that belongs to the one it was made in. */
  async move(principal: string, id: string, signal: AbortSignal, environment: string): Promise<SessionView> {
    this.#options.identityOf(environment);
    return await this.#turns.run(principal, id, signal, async (live, lease) => {
      if (live.resident?.isAltered) this.#turns.evict(live);
      if (lease.record.head === null && !live.resident) await this.#turns.change(live, lease, { environment });
      return this.#view(lease.record);
    });
  }

  /** Writes what its owner has on it anew, once nothing runs in it. */
  async annotate(principal: string, id: string, metadata: NonNullable<SessionRecord["metadata"]>): Promise<void> {
    await this.#turns.run(principal, id, undefined, async (live, lease) => {
      bounded({ ...lease.record, metadata });
      await this.#turns.change(live, lease, { metadata });
    });
  }

  /** Back to a checkpoint; see {@link SessionCheckpoints.restore}. */
  async restore(principal: string, id: string, signal: AbortSignal, name: string): Promise<SessionView> {
    return this.#view(await this.checkpoints.restore(principal, id, signal, name));
  }

  /** Back to the image: no variable, no file. Checkpoints stay. */
  async reset(principal: string, id: string, signal: AbortSignal): Promise<SessionView> {
    return this.#view(await this.checkpoints.reset(principal, id, signal));
  }

  /** Stops what runs in it as a timeout would. @returns whether something ran here. */
  async interrupt(principal: string, id: string): Promise<boolean> {
    return await this.#turns.interrupt(principal, id, "running");
  }

  /** Stops what runs in it, and refuses what waits for it, with `interrupted`. */
  async interruptAll(principal: string, id: string): Promise<void> {
    await this.#turns.interrupt(principal, id, "all");
  }

  /**
   * Runs code in a session. What `Executor.execute` says holds; `session` in the result tells what became of the session.
   *
   * @param request its environment is the session's (`record`).
   * @throws {ClientError} 404; 409 `session_damaged`, `session_environment_changed`, `session_unloadable`, `session_moved`;
   *   429; 503 and 507 where the store cannot be used, and then the session is as it was before.
   */
  async execute(id: string, request: ExecutionRequest): Promise<ExecutionResult> {
    const reply = Promise.withResolvers<ExecutionResult>();
    this.#turns
      .run(
        request.principal,
        id,
        request.signal,
        (live, lease) => new SessionRun(this.#run, live, lease, request, reply.resolve).run(),
        request.onWait,
      )
      .then(
        () => reply.reject(new Error("an execution ended without a result")),
        (error) => {
          reply.reject(error);
          // The reply may have been sent before this.
          if (!(error instanceof ClientError)) this.#options.onError(error, id);
        },
      );
    return await reply.promise;
  }

  /**
   * Answers an editor's question, `request.question`, on a session that stays as it is; see {@link ask}.
   *
   * @throws {ClientError} 503 `session_occupied` if something else runs in it for too long; what `execute` throws.
   */
  async ask(id: string, request: ExecutionRequest): Promise<ExecutionResult> {
    const { signal, end } = patience();
    const signals = [signal, ...(request.signal ? [request.signal] : [])];
    const asked = { ...request, signal: AbortSignal.any(signals) };
    try {
      return await this.#turns.run(request.principal, id, asked.signal, (live, lease) =>
        ask(this.#run, live, lease, asked, { end }),
      );
    } catch (error) {
      // What waits may have an error of its own for an abort.
      throw signal.aborted ? signal.reason : error;
    } finally {
      end();
    }
  }

  /** @throws {ClientError} 404 if there is none, or it is another principal's. */
  async record(principal: string, id: string): Promise<SessionRecord> {
    return await this.#turns.record(principal, id);
  }

  /** Deletes sessions that have ended, by a clock that goes on evenly; where this machine's has been set, they are moved with it. */
  async sweep(): Promise<void> {
    const { store } = this.#options;
    try {
      const stepMs = steadyClock.stepMs();
      if (Math.abs(stepMs) > CLOCK_STEP_MS) await store.followClock(stepMs);
      const nowMs = steadyNowMs();
      for (const { id } of await store.ended(nowMs)) {
        if (!this.#turns.drop(id)) continue;
        await store.deleteEnded(id, nowMs);
      }
    } catch (error) {
      this.#options.onError(error, "");
    }
  }

  /** Refuses new executions and waits, for up to `graceMs`, until all states are stored. */
  async stop(graceMs: number): Promise<void> {
    clearInterval(this.#sweeper);
    await this.#turns.stop(graceMs);
  }

  #view(record: SessionRecord): SessionView {
    return viewOf(record, this.#turns.live(record.id));
  }
}

function newId(): string {
  return randomBytes(16).toString("base64url");
}

/** Whatever its members are bounded by one by one. @throws {ClientError} 400 */
function bounded(record: SessionRecord): SessionRecord {
  const { network, tools, metadata, start, adapter } = record;
  if (JSON.stringify([network, tools, metadata, start, adapter]).length > MAX_SAID_CHARACTERS)
    throw new ClientError(
      "invalid_request",
      `Network, tools, metadata and variables of a session may have ${MAX_SAID_CHARACTERS} characters of JSON together.`,
    );
  return record;
}
