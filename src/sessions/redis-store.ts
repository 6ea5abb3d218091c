import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { type Blob, sha256Hex } from "../shared/blob-folder.ts";
import { ClientError } from "../shared/errors.ts";
import { type RedisConnection, unavailable } from "../shared/redis-connection.ts";
import { KEY_PREFIX as PREFIX } from "../shared/redis-keys.ts";
import { steadyClock, steadyNowMs } from "../shared/steady-clock.ts";
import { SCRIPTS } from "./redis-scripts.ts";
import { type SessionShares, shareTaken } from "./shares.ts";
import {
  endsAtMs,
  type Interrupted,
  MissingBlobError,
  type NewSnapshot,
  type SessionLease,
  type SessionRecord,
  type SessionStore,
  snapshotsOf,
} from "./store.ts";

export interface RedisSessionsOptions {
  readonly connection: RedisConnection;
  /** A server that has not been heard of for so long has lost its sessions to others; default 10,000 ms. */
  readonly leaseMs?: number;
  /** A full Redis is Redis's own affair; here only the most of one principal counts. */
  readonly shares: Pick<SessionShares, "maxBytesOfPrincipal">;
}

const INTERRUPTS = `${PREFIX}interrupts`;
const DEFAULT_LEASE_MS = 10_000;
/** How long a caller waits for a session that another server has. */
const MAX_WAIT_MS = 30_000;
const FIRST_POLL_MS = 20;
const LONGEST_POLL_MS = 250;

/**
 * Sessions in Redis or Valkey, shared by many servers.
 *
 *     session:<id>    hash: record, principal, fence, `b:<hash>` states and contents, `f:<hash>` the files of a state
 *     lease:<id>      who has it, for as long as they say so in time
 *     principal:<id>  sorted set of its sessions, by when they end
 *     usage:<id>      hash: what each of its sessions takes, bytes; `.total` all of them
 *
 * Each lease draws a number from the session's `fence`. A change names its number, and one that is not the last drawn is
 * refused: a server that was away for so long that another took over can do no harm, whatever it still believes. A change
 * also names the time by which Redis must have had it: one that was given up on is not made later.
 */
export class RedisSessions implements SessionStore {
  onInterrupt: (id: string, what: Interrupted) => void = () => {};
  readonly #name = randomBytes(8).toString("hex");
  readonly leaseMs: number;
  readonly maxBytesOfPrincipal: number;
  readonly #connection: RedisConnection;

  constructor({ connection, leaseMs = DEFAULT_LEASE_MS, shares }: RedisSessionsOptions) {
    this.maxBytesOfPrincipal = shares.maxBytesOfPrincipal;
    this.#connection = connection;
    this.leaseMs = leaseMs;
    // It reconnects by itself, and subscribes again.
    const subscriber = connection.duplicate({ maxRetriesPerRequest: null, commandTimeout: undefined });
    subscriber.on("message", (_channel, message) => {
      const [id = "", what = "running", from] = message.split(" ");
      if (from !== this.#name) this.onInterrupt(id, what as Interrupted);
    });
    subscriber.subscribe(INTERRUPTS).catch(() => {});
  }

  async create(record: SessionRecord, maxOfPrincipal: number, from?: SessionLease): Promise<void> {
    const { id, principal, head } = record;
    const parent = from ? sessionKey(from.record.id) : sessionKey(id);
    const keys = [sessionKey(id), principalKey(principal), parent, usageKey(principal)];
    const answer = await this.run("create", keys, [
      JSON.stringify(record),
      principal,
      id,
      this.endsAtMs(record),
      this.#connection.nowMs(),
      maxOfPrincipal,
      head?.sha256 ?? "",
      this.maxBytesOfPrincipal,
    ]);
    if (answer === "full") throw shareTaken(this.maxBytesOfPrincipal);
    if (answer === "exists") throw new ClientError("session_exists");
    if (answer === "limit") {
      const message = `Session limit reached: at most ${maxOfPrincipal} for each principal. Delete sessions first.`;
      throw new ClientError("session_limit", message);
    }
  }

  async get(id: string): Promise<SessionRecord | undefined> {
    const text = await this.#connection.attempt((redis) => redis.hget(sessionKey(id), "record"));
    return text === null ? undefined : JSON.parse(text);
  }

  async list(principal: string): Promise<readonly SessionRecord[]> {
    const ids = await this.#connection.attempt((redis) =>
      redis.zrangebyscore(principalKey(principal), this.#connection.nowMs(), "+inf"),
    );
    const texts = await this.#connection.attempt((redis) => {
      const pipeline = redis.pipeline();
      for (const id of ids) pipeline.hget(sessionKey(id), "record");
      return pipeline.exec();
    });
    const records: SessionRecord[] = [];
    for (const [error, text] of texts ?? []) {
      if (error) throw unavailable(error);
      if (typeof text === "string") records.push(JSON.parse(text));
    }
    return records.sort((a, b) => b.lastUsedAtMs - a.lastUsedAtMs);
  }

  async read(id: string, { sha256, size }: Blob): Promise<Uint8Array> {
    const bytes = await this.#connection.attempt((redis) => redis.hgetBuffer(sessionKey(id), `b:${sha256}`));
    if (bytes?.length !== size) throw new MissingBlobError("a content is missing or cut off");
    if ((await sha256Hex(bytes)) !== sha256) throw new MissingBlobError("a content's checksum is wrong");
    return bytes;
  }

  async acquire(id: string, principal: string, signal?: AbortSignal): Promise<SessionLease | undefined> {
    const deadline = performance.now() + MAX_WAIT_MS;
    const holder = randomBytes(16).toString("hex");
    for (let pauseMs = FIRST_POLL_MS; ; pauseMs = Math.min(LONGEST_POLL_MS, pauseMs * 1.5)) {
      const answer = await this.run("acquire", [sessionKey(id), leaseKey(id)], [holder, this.leaseMs, principal]);
      if (answer === null) return undefined;
      if (Array.isArray(answer)) {
        const [text, fence, timeMs] = answer as [string, number, number];
        this.#connection.setClock(timeMs);
        return new RedisLease(this, JSON.parse(text), fence, holder);
      }
      if (performance.now() > deadline) {
        throw new ClientError("session_busy");
      }
      await sleep(pauseMs, undefined, signal && { signal });
    }
  }

  async ended(): Promise<readonly { id: string }[]> {
    // Redis deletes them itself.
    return [];
  }

  async followClock(stepMs: number): Promise<void> {
    // Redis ends sessions, by its own clock. Here is only what is shown.
    steadyClock.follow(stepMs);
  }

  async deleteEnded(): Promise<void> {}

  async announceInterrupt(id: string, what: Interrupted): Promise<void> {
    // No id has a space in it. Redis sends it to this server too, which has done it already.
    await this.#connection.attempt((redis) => redis.publish(INTERRUPTS, `${id} ${what} ${this.#name}`));
  }

  /** The connection is not its own, and stays. */
  async close(): Promise<void> {}

  deadlineMs(): number {
    return this.#connection.deadlineMs();
  }

  refuseLate(): Promise<never> {
    return this.#connection.refuseLate();
  }

  /** By Redis's clock: one server's that was set must not end a session, nor keep it. */
  endsAtMs(record: SessionRecord): number {
    return Math.round(this.#connection.nowMs() + endsAtMs(record) - steadyNowMs());
  }

  /**
   * Runs one of the scripts. Each may be run again if its answer is lost.
   *
   * @throws {ClientError} 503 `store_unavailable`, 507 `store_full`.
   */
  async run(
    name: keyof typeof SCRIPTS,
    keys: readonly string[],
    parameters: readonly (string | number | Buffer)[],
  ): Promise<unknown> {
    return await this.#connection.run(SCRIPTS[name], keys, parameters);
  }
}

class RedisLease implements SessionLease {
  record: SessionRecord;
  readonly lost: AbortSignal;
  readonly #store: RedisSessions;
  readonly #fence: number;
  readonly #holder: string;
  readonly #lose = new AbortController();
  #renewal: NodeJS.Timeout;
  #validUntilMs: number;
  /** With its last change. */
  #isReleased = false;

  constructor(store: RedisSessions, record: SessionRecord, fence: number, holder: string) {
    this.#store = store;
    this.record = record;
    this.#fence = fence;
    this.#holder = holder;
    this.lost = this.#lose.signal;
    this.#validUntilMs = performance.now() + store.leaseMs;
    this.#renewal = this.#keepRenewing();
  }

  async commit(record: SessionRecord, snapshot?: NewSnapshot, isLast = false): Promise<void> {
    // A renewal that came after it would take again what it has given back.
    if (isLast) clearInterval(this.#renewal);
    try {
      await this.#commit(record, snapshot, isLast);
      this.#isReleased = isLast;
    } catch (error) {
      if (isLast && !this.lost.aborted) this.#renewal = this.#keepRenewing();
      throw error;
    }
  }

  async #commit(record: SessionRecord, snapshot: NewSnapshot | undefined, isLast: boolean): Promise<void> {
    const { id, principal } = record;
    const contents: (string | Buffer)[] = [];
    if (snapshot) {
      contents.push(snapshot.blob.sha256, asBuffer(snapshot.bytes));
      for (const [sha256, bytes] of snapshot.contents) contents.push(sha256, asBuffer(bytes));
    }
    const isDeletion = !snapshot || (snapshot.isDeletion ?? false);
    const answer = await this.#store.run(
      isDeletion ? "commitDeletion" : "commit",
      [sessionKey(id), principalKey(principal), usageKey(principal), leaseKey(id)],
      [
        this.#fence,
        this.#store.deadlineMs(),
        id,
        JSON.stringify(record),
        this.#store.endsAtMs(record),
        JSON.stringify(snapshotsOf(record).map(({ sha256 }) => sha256)),
        snapshot?.blob.sha256 ?? "",
        JSON.stringify(snapshot?.files.map(({ sha256 }) => sha256) ?? []),
        this.#store.maxBytesOfPrincipal,
        isLast ? this.#holder : "",
        ...contents,
      ],
    );
    if (answer === "late") return await this.#store.refuseLate();
    if (answer === "missing") throw new Error("a content of a session's file is nowhere");
    if (answer === "full") throw shareTaken(this.#store.maxBytesOfPrincipal);
    if (answer !== "stored") this.#moved();
    this.record = record;
  }

  async delete(): Promise<void> {
    const { id, principal } = this.record;
    clearInterval(this.#renewal);
    const keys = [sessionKey(id), principalKey(principal), leaseKey(id), usageKey(principal)];
    if ((await this.#store.run("delete", keys, [this.#fence, id])) !== "deleted") this.#moved();
  }

  async release(): Promise<void> {
    clearInterval(this.#renewal);
    if (this.#isReleased) return;
    await this.#store.run("release", [leaseKey(this.record.id)], [this.#holder]);
  }

  #keepRenewing(): NodeJS.Timeout {
    return setInterval(() => void this.#renew(), this.#store.leaseMs / 4).unref();
  }

  async #renew(): Promise<void> {
    const askedAtMs = performance.now();
    const { id } = this.record;
    try {
      const keys = [sessionKey(id), leaseKey(id)];
      const answer = await this.#store.run("renew", keys, [this.#fence, this.#holder, this.#store.leaseMs]);
      if (answer === "renewed") this.#validUntilMs = askedAtMs + this.#store.leaseMs;
      else this.#validUntilMs = 0;
    } catch {
      // Redis may be back before the lease is over.
    }
    if (performance.now() < this.#validUntilMs || this.lost.aborted) return;
    clearInterval(this.#renewal);
    this.#lose.abort(moved());
  }

  #moved(): never {
    clearInterval(this.#renewal);
    this.#lose.abort(moved());
    throw moved();
  }
}

function sessionKey(id: string): string {
  return `${PREFIX}session:${id}`;
}

function leaseKey(id: string): string {
  return `${PREFIX}lease:${id}`;
}

function principalKey(principal: string): string {
  return `${PREFIX}principal:${principal}`;
}

function usageKey(principal: string): string {
  return `${PREFIX}usage:${principal}`;
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}

function moved(): ClientError {
  return new ClientError("session_moved");
}
