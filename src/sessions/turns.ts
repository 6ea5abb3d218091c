import { setTimeout as sleep } from "node:timers/promises";
import { backoffMs } from "../shared/backoff.ts";
import { ClientError } from "../shared/errors.ts";
import { steadyNowMs } from "../shared/steady-clock.ts";
import { goneWith, interrupted, LiveSession } from "./live-session.ts";
import type { SessionPool } from "./run.ts";
import type { Interrupted, NewSnapshot, RecordChanges, SessionLease, SessionRecord, SessionStore } from "./store.ts";

export interface SessionTurnsOptions {
  readonly pool: SessionPool;
  readonly store: SessionStore;
  /** Told of what no caller is told. */
  readonly onError: (error: unknown, session: string) => void;
  /** Whether code in the session waits for its client on another server; default: there is none. */
  readonly isWaitingElsewhere?: ((session: string) => Promise<boolean>) | undefined;
}

/** How often a change that waits looks whether the code before it does, ms. */
const LOOK_MS = 200;
const FIRST_RETRY_MS = 1000;
const LONGEST_RETRY_MS = 30_000;
/** States that wait in memory for a store that is away, all together. */
const MAX_UNSTORED_BYTES = 512 * 1024 * 1024;

export const AS_BEFORE = "The session is as it was before this execution";

/**
 * Who has a session, and for how long: executions and changes of one session take turns in the order in which they came,
 * each with the session's lease, and each with what could not be stored before stored first.
 */
export class SessionTurns {
  readonly #options: SessionTurnsOptions;
  readonly #live = new Map<string, LiveSession>();
  #unstoredBytes = 0;
  #stopping = false;

  constructor(options: SessionTurnsOptions) {
    this.#options = options;
    options.pool.on("evicted", (key) => this.#evicted(key));
    options.store.onInterrupt = (id, what) => this.#interrupt(id, what);
  }

  /** What this server knows of a session beyond what is stored; undefined: nothing. */
  live(id: string): LiveSession | undefined {
    return this.#live.get(id);
  }

  /** @throws {ClientError} 404 if there is none, or it is another principal's. */
  async record(principal: string, id: string): Promise<SessionRecord> {
    const record = await this.#options.store.get(id);
    if (record?.principal !== principal) throw sessionNotFound();
    return this.asChanged(record);
  }

  /** A stored record with what is to be stored of it. */
  asChanged(record: SessionRecord): SessionRecord {
    const changes = this.#live.get(record.id)?.changes;
    return changes == null ? record : { ...record, ...changes };
  }

  /**
   * Changes what is known of a session, also while code runs in it: then what the code leaves is stored with it.
   *
   * @param changesOf may be called again.
   * @returns the session as it is now, or will be when the turn that is under way is over.
   */
  async update(
    principal: string,
    id: string,
    changesOf: (record: SessionRecord) => RecordChanges,
  ): Promise<SessionRecord> {
    const before = await this.record(principal, id);
    const live = this.#live.get(id);
    if (!live || live.turns.length === 0) {
      return await this.run(principal, id, undefined, async (owned, lease) => {
        await this.change(owned, lease, changesOf(lease.record));
        return lease.record;
      });
    }
    live.changes = { ...live.changes, ...changesOf(before) };
    this.#emptyTurn(live)
      .catch((error) => {
        live.changes = null;
        if (!(error instanceof ClientError)) this.#options.onError(error, id);
      })
      .finally(() => this.#forget(live));
    return this.asChanged(before);
  }

  /**
   * Has the session to itself for one action, with what is not stored yet stored first.
   *
   * @param signal aborted when no client waits for the action any more: what it would have stored is let go.
   * @param onWait called if others have it, and this action has a place among those that wait.
   */
  async run<T>(
    principal: string,
    id: string,
    signal: AbortSignal | undefined,
    action: (live: LiveSession, lease: SessionLease) => Promise<T>,
    onWait?: () => void,
  ): Promise<T> {
    return await this.#turn(principal, id, (live) => {
      const turn = live.turns.run(() => this.#withLease(live, signal, action), signal);
      if (live.turns.length > 1) onWait?.();
      return turn;
    });
  }

  /**
   * As {@link run}, for what ends or pauses the session: what runs in it is interrupted, on this server and others, and what waits for
   * it is refused. Else it would have to wait until all of that had run.
   */
  async runInstead<T>(
    principal: string,
    id: string,
    signal: AbortSignal,
    what: Exclude<Interrupted, "running">,
    action: (live: LiveSession, lease: SessionLease) => Promise<T>,
  ): Promise<T> {
    await this.interrupt(principal, id, what);
    // Another server may have been asked for more meanwhile.
    const again = setInterval(() => void this.#options.store.announceInterrupt(id, what).catch(() => {}), LOOK_MS);
    try {
      return await this.#turn(principal, id, (live) => {
        const refusal = refusalOf(what);
        // Also what came while others were told.
        live.interrupt(refusal);
        const begin = (owned: LiveSession, lease: SessionLease) => {
          clearInterval(again);
          return action(owned, lease);
        };
        return live.turns.runInstead(() => this.#withLease(live, signal, begin, true), signal, refusal);
      });
    } finally {
      clearInterval(again);
    }
  }

  /** Interrupts what runs in a session as a timeout would. @returns whether something ran here. */
  async interrupt(principal: string, id: string, what: Interrupted): Promise<boolean> {
    await this.record(principal, id);
    const hasRun = this.#interrupt(id, what);
    if (!hasRun || what !== "running") await this.#options.store.announceInterrupt(id, what);
    return hasRun;
  }

  #interrupt(id: string, what: Interrupted): boolean {
    const live = this.#live.get(id);
    const hasRun = Boolean(live?.running);
    if (what === "running") live?.interrupt();
    else {
      const refusal = refusalOf(what);
      live?.interrupt(refusal);
      live?.turns.refuseWaiting(refusal);
    }
    return hasRun;
  }

  async #turn<T>(principal: string, id: string, take: (live: LiveSession) => Promise<T>): Promise<T> {
    if (this.#stopping) throw new ClientError("server_stopping");
    // Before anybody can wait in another's queue.
    if (!this.#live.has(id)) await this.record(principal, id);
    const live = this.#live.get(id) ?? new LiveSession(id, principal);
    if (live.principal !== principal) throw sessionNotFound();
    this.#live.set(id, live);
    try {
      return await take(live);
    } finally {
      this.#forget(live);
    }
  }

  /**
   * As {@link run}, for a change of the session by its owner.
   *
   * @throws {ClientError} 409 `session_waiting` if code in it waits for its client.
   */
  async runChange<T>(
    principal: string,
    id: string,
    signal: AbortSignal,
    action: (live: LiveSession, lease: SessionLease) => Promise<T>,
  ): Promise<T> {
    // Before another principal is told anything.
    if (this.#options.isWaitingElsewhere || !this.#live.has(id)) await this.record(principal, id);
    const isWaiting = async () => {
      const live = this.#live.get(id);
      if (live?.principal === principal && live.isWaiting?.()) return true;
      return (await this.#options.isWaitingElsewhere?.(id)) ?? false;
    };
    if (await isWaiting()) throw new ClientError("session_waiting");
    // What it waits for may begin to wait itself, for minutes.
    const refused = new AbortController();
    const look = setInterval(() => {
      isWaiting().then(
        (found) => found && refused.abort(new ClientError("session_waiting")),
        () => {},
      );
    }, LOOK_MS);
    try {
      return await this.run(principal, id, AbortSignal.any([signal, refused.signal]), (live, lease) => {
        clearInterval(look);
        return action(live, lease);
      });
    } catch (error) {
      throw refused.signal.aborted ? refused.signal.reason : error;
    } finally {
      clearInterval(look);
    }
  }

  async change(
    live: LiveSession,
    lease: SessionLease,
    changes: Partial<SessionRecord>,
    stored?: NewSnapshot,
  ): Promise<void> {
    const record = next(lease.record, changes);
    await lease.commit(record, stored);
    // A change that leaves the head as it was leaves the sandbox's copy good.
    if (live.resident) live.resident = { ...live.resident, revision: record.revision };
  }

  /** Has the pool take a session's sandbox back; what is stored stays. */
  evict(live: LiveSession): void {
    const { resident } = live;
    live.resident = null;
    if (resident) this.#options.pool.evict(resident.key);
  }

  /** Keeps a state that could not be stored when its reply was sent, and tries again and again. */
  holdUnstored(live: LiveSession, record: SessionRecord, snapshot: NewSnapshot): void {
    const bytes = snapshot.bytes.length;
    if (this.#unstoredBytes + bytes > MAX_UNSTORED_BYTES) {
      this.evict(live);
      live.setback = `${AS_BEFORE}: it could not be stored.`;
      return;
    }
    this.#unstoredBytes += bytes;
    live.unstored = { record, snapshot, failures: 0 };
    this.#retryLater(live);
  }

  /** Gives up what this server has of a session that has ended, unless an operation on it runs. @returns whether it did. */
  drop(id: string): boolean {
    const live = this.#live.get(id);
    if (live && live.turns.length > 0) return false;
    if (live) this.evict(live);
    this.#live.delete(id);
    return true;
  }

  /** Refuses new turns and waits, for up to `graceMs`, until all states are stored. */
  async stop(graceMs: number): Promise<void> {
    this.#stopping = true;
    const deadline = performance.now() + graceMs;
    const isBusy = () => this.#live.values().some(({ turns, unstored }) => turns.length > 0 || unstored !== null);
    while (isBusy() && performance.now() < deadline) await sleep(10);
  }

  async #withLease<T>(
    live: LiveSession,
    signal: AbortSignal | undefined,
    action: (live: LiveSession, lease: SessionLease) => Promise<T>,
    isInstead = false,
  ): Promise<T> {
    const turn = isInstead ? null : new AbortController();
    live.turn = turn;
    if (live.lease?.lost.aborted) await this.#letGo(live, live.lease, "another server went on with it");
    const lease = live.lease ?? (await this.#options.store.acquire(live.id, live.principal, signal));
    if (!lease) {
      this.evict(live);
      live.setback = null;
      throw sessionNotFound();
    }
    live.lease = lease;
    try {
      await this.#storeUnstored(live, lease);
      if (live.resident && live.resident.revision !== lease.record.revision) this.evict(live);
      await this.#storeChanges(live, lease);
      turn?.signal.throwIfAborted();
      return await action(live, lease);
    } finally {
      live.turn = null;
      if (live.unstored === null && live.resident?.pinned == null && live.lease === lease) {
        live.lease = null;
        await lease.release().catch((error: unknown) => this.#options.onError(error, live.id));
      }
    }
  }

  /** Gives up what is only here. */
  async #letGo(live: LiveSession, lease: SessionLease, reason: string): Promise<void> {
    this.#dropUnstored(live);
    this.evict(live);
    live.lease = null;
    live.setback = `The session is as it was when it was last stored: ${reason}.`;
    await lease.release().catch(() => {});
  }

  /** Does what every turn begins and ends with: stores what is not stored yet, and gives the lease back where nothing needs it. */
  #emptyTurn(live: LiveSession): Promise<void> {
    return live.turns.run(() => this.#withLease(live, undefined, async () => {}), undefined);
  }

  #retryLater(live: LiveSession): void {
    const pauseMs = backoffMs(live.unstored?.failures ?? 0, { firstMs: FIRST_RETRY_MS, longestMs: LONGEST_RETRY_MS });
    setTimeout(() => {
      if (live.unstored === null) return;
      this.#emptyTurn(live)
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

  /** What was changed in a turn that did not store it. */
  async #storeChanges(live: LiveSession, lease: SessionLease): Promise<void> {
    const { changes } = live;
    if (changes === null) return;
    await this.change(live, lease, changes);
    if (live.changes === changes) live.changes = null;
  }

  #dropUnstored(live: LiveSession): void {
    this.#unstoredBytes -= live.unstored?.snapshot.bytes.length ?? 0;
    live.unstored = null;
  }

  /** The pool has taken a sandbox back. */
  #evicted(key: string): void {
    const live = this.#live.get(key.slice(0, key.lastIndexOf("#")));
    if (live?.resident?.key !== key) return;
    const { pinned } = live.resident;
    live.resident = null;
    if (pinned !== null) {
      live.setback = goneWith(pinned);
      this.#emptyTurn(live).then(
        () => this.#forget(live),
        (error) => this.#options.onError(error, live.id),
      );
    }
    this.#forget(live);
  }

  #forget(live: LiveSession): void {
    if (live.isForgettable && this.#live.get(live.id) === live) this.#live.delete(live.id);
  }
}

/** The record of a session after a change. */
export function next(record: SessionRecord, changes: Partial<SessionRecord>): SessionRecord {
  // Not less than before: the clock may have been set back.
  const lastUsedAtMs = Math.max(record.lastUsedAtMs, steadyNowMs());
  return { ...record, ...changes, lastUsedAtMs, revision: record.revision + 1 };
}

function refusalOf(what: Interrupted): ClientError {
  return what === "deleted" ? sessionNotFound() : interrupted();
}

function sessionNotFound(): ClientError {
  return new ClientError("session_not_found");
}
