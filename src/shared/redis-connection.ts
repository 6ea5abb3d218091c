import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis, type RedisOptions } from "ioredis";
import { backoffMs } from "./backoff.ts";
import { ClientError } from "./errors.ts";
import { KEY_PREFIX } from "./redis-keys.ts";
import { type ConnectionOptions, parseRedisUrl } from "./redis-url.ts";
import { storageFull } from "./storage-trouble.ts";

export interface RedisConnectionOptions {
  /** As {@link parseRedisUrl} reads it. */
  readonly url: string;
  /** Told once when Redis is lost, and once when it can be used again; `trouble` says why, null: it can. */
  readonly onConnection?: (trouble: string | null) => void;
  /** Told of what an operator should change. */
  readonly onWarning?: (message: string) => void;
  /** Answer "unavailable" when Redis has not answered by then; default 3000 ms. */
  readonly timeoutMs?: number;
  /** What stores promise to keep in it, bytes: a Redis with less is warned of. */
  readonly promisedBytes?: number;
}

const DEFAULT_TIMEOUT_MS = 3000;
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 500;
const FIRST_RECONNECT_MS = 50;
const LONGEST_RECONNECT_MS = 1000;
/** A Redis that cannot be used yet, a replica that is to become the master, is looked at again after this time. */
const LOOK_AGAIN_MS = 500;

/** How often it is asked whether Redis is still there, and how long its answer is waited for. */
const WATCH_MS = 1000;
const LONGEST_SILENCE_MS = 2000;

const CLUSTER = "it is a node of a Redis Cluster, which is not supported";

/**
 * The connection to Redis or Valkey, and what is done when it fails: a request is tried again within `timeoutMs`, then refused
 * with an error that says when to come back; the connection comes back by itself, after a failover to the new master.
 *
 * One of these serves all that a server shares with others.
 */
export class RedisConnection {
  readonly timeoutMs: number;
  readonly #redis: Redis;
  readonly #duplicates: Redis[] = [];
  readonly #onConnection: (trouble: string | null) => void;
  readonly #onWarning: (message: string) => void;
  /** SHA-1 by script, once it was sent: Redis then takes the hash for the text. */
  readonly #hashes = new Map<string, string>();
  /** Redis's clock less ours, which is the monotonic one: when this machine's time is set, nothing changes. */
  #clockOffsetMs = performance.timeOrigin;
  /** Since when there is no connection, and since when there is none that can be used; ms of the monotonic clock. */
  #awaySinceMs: number | undefined = performance.now();
  #unusableSinceMs: number | undefined = performance.now();
  #trouble: string | null = "it has not answered yet";
  #isTold = false;
  #policy = "";
  readonly #promisedBytes: number;
  #warnedOfBytes = 0;
  #isClosed = false;
  #lookAgain: NodeJS.Timeout | undefined;
  readonly #watch: NodeJS.Timeout;
  #isAsked = false;

  /** @throws {StartupError} if the URL is none. */
  constructor({
    url,
    onConnection,
    onWarning,
    timeoutMs = DEFAULT_TIMEOUT_MS,
    promisedBytes = 0,
  }: RedisConnectionOptions) {
    this.#promisedBytes = promisedBytes;
    this.timeoutMs = timeoutMs;
    this.#onConnection = onConnection ?? (() => {});
    this.#onWarning = onWarning ?? (() => {});
    const options: ConnectionOptions = {
      ...parseRedisUrl(url),
      // Longer than a change is valid for, so that it is not made after it was given up.
      commandTimeout: timeoutMs * 1.5,
      connectTimeout: Math.min(timeoutMs, 2000),
      maxRetriesPerRequest: 1,
      retryStrategy: reconnectPauseMs,
      sentinelRetryStrategy: reconnectPauseMs,
      sentinelReconnectStrategy: reconnectPauseMs,
      sentinelCommandTimeout: 1000,
      // Looks at what it has connected to itself, and says more.
      enableReadyCheck: false,
    };
    this.#redis = new Redis(options);
    tolerateLateErrors(this.#redis);
    let reason: string | undefined;
    this.#redis.on("error", (error: Error) => {
      const found = plainReason(error);
      reason = found;
      // What ioredis does not end by itself: a wrong password.
      if (this.#redis.status === "ready") this.#lose(found);
    });
    this.#redis.on("ready", () => {
      // A replica can be read from.
      this.#awaySinceMs = undefined;
      void this.#look();
    });
    const watcher = this.duplicate({
      commandTimeout: LONGEST_SILENCE_MS,
      maxRetriesPerRequest: 0,
      enableOfflineQueue: false,
    });
    this.#watch = setInterval(() => void this.#askWhetherThere(watcher), WATCH_MS).unref();
    this.#redis.on("close", () => {
      this.#awaySinceMs ??= performance.now();
      // A connection that was closed because Redis could not be used leaves that reason.
      this.#lose(reason ?? (this.#isTold && this.#trouble !== null ? this.#trouble : "the connection was closed"));
      reason = undefined;
    });
  }

  /** Why Redis cannot be used at the moment, without its address; null: it can. */
  get trouble(): string | null {
    return this.#trouble;
  }

  /** Another connection to the same Redis, for what must not wait behind the rest; ended by {@link close}. */
  duplicate(options: RedisOptions): Redis {
    const redis = this.#redis.duplicate(options);
    // The first connection's trouble has been told; this one's is the same.
    redis.on("error", () => {});
    tolerateLateErrors(redis);
    this.#duplicates.push(redis);
    return redis;
  }

  /**
   * Does something that may be done again if its answer is lost.
   *
   * @throws {ClientError} 503 `store_unavailable`, 507 `storage_full`.
   */
  async attempt<T>(action: (redis: Redis) => Promise<T>): Promise<T> {
    const nowMs = performance.now();
    // Each request would wait for the same next try to connect.
    if (nowMs - (this.#awaySinceMs ?? nowMs) > this.timeoutMs) throw unavailable(new Error("Redis has been away"));
    const deadline = nowMs + this.timeoutMs;
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(LONGEST_PAUSE_MS, pauseMs * 2)) {
      try {
        return await action(this.#redis);
      } catch (error) {
        this.#learnFrom(error as Error);
        const isLost = performance.now() - (this.#unusableSinceMs ?? nowMs) > this.timeoutMs;
        if (isLost || performance.now() + pauseMs > deadline || isAnswer(error)) throw unavailable(error);
        await sleep(pauseMs);
      }
    }
  }

  /**
   * Runs a Lua script, which Redis does in one go. It may be run again if its answer is lost.
   *
   * @throws {ClientError} 503 `store_unavailable`, 507 `storage_full`.
   */
  async run(
    script: string,
    keys: readonly string[],
    parameters: readonly (string | number | Buffer)[],
  ): Promise<unknown> {
    let sha1 = this.#hashes.get(script);
    if (sha1 === undefined) {
      sha1 = createHash("sha1").update(script).digest("hex");
      this.#hashes.set(script, sha1);
    }
    const hash = sha1;
    return await this.attempt(async (redis) => {
      try {
        return await redis.evalsha(hash, keys.length, ...keys, ...parameters);
      } catch (error) {
        // Redis forgets scripts when it is restarted. A script that it does not know it has not begun.
        if (!(error as Error).message.startsWith("NOSCRIPT")) throw error;
        return await redis.eval(script, keys.length, ...keys, ...parameters);
      }
    });
  }

  /** Redis's clock, which all servers share and which a change of a server's time does not move; ms since 1970. */
  nowMs(): number {
    return performance.now() + this.#clockOffsetMs;
  }

  /** When, by Redis's clock, a change that is sent now comes too late: one that was given up on must not be made later. */
  deadlineMs(): number {
    return this.nowMs() + this.timeoutMs;
  }

  /** @param timeMs what Redis's clock has just said; ms since 1970. */
  setClock(timeMs: number): void {
    this.#clockOffsetMs = timeMs - performance.now();
  }

  /**
   * For a change that came after its deadline: Redis was slow, or its clock was set, so it is read again.
   *
   * @throws {ClientError} 503 `store_unavailable`, always.
   */
  async refuseLate(): Promise<never> {
    await this.#readClock().catch(() => {});
    throw unavailable(new Error("Redis had the change too late"));
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#lookAgain);
    clearInterval(this.#watch);
    this.#redis.disconnect();
    for (const redis of this.#duplicates) redis.disconnect();
  }

  async #readClock(redis = this.#redis): Promise<void> {
    const [seconds, microseconds] = await redis.time();
    this.setClock(Number(seconds) * 1000 + Math.floor(Number(microseconds) / 1000));
  }

  /**
   * A machine that is gone closes no connection, and a master that becomes a replica keeps those it has: only asking tells.
   * Asked on a connection of its own, for on the first one an answer may wait behind large contents.
   */
  async #askWhetherThere(watcher: Redis): Promise<void> {
    if (this.#isAsked || watcher.status !== "ready") return;
    this.#isAsked = true;
    try {
      const trouble = await this.#troubleOf(watcher);
      if (trouble === null || this.#trouble !== null) return;
      this.#lose(trouble);
      this.#reconnect();
    } catch (error) {
      if ((error as Error).message === "Command timed out") {
        this.#lose("it does not answer");
        this.#reconnect();
      }
    } finally {
      this.#isAsked = false;
    }
  }

  /** Connected: looks whether this Redis can be used. */
  async #look(): Promise<void> {
    const trouble = await this.#troubleOf(this.#redis).catch(plainReason);
    if (this.#isClosed) return;
    if (trouble === null) this.#regain();
    else {
      this.#lose(trouble);
      // The name may lead to the new master by then, or this one have become it.
      clearTimeout(this.#lookAgain);
      this.#lookAgain = setTimeout(() => this.#reconnect(), LOOK_AGAIN_MS).unref();
    }
  }

  /** Why this Redis cannot be used; null: it can. Warns of how it is set up. */
  async #troubleOf(redis: Redis): Promise<string | null> {
    await this.#readClock(redis);
    const info = await redis.info("memory", "cluster").catch((error: Error) => {
      // A user of its own may not have the right to ask.
      if (error.message.startsWith("NOPERM")) return "";
      throw error;
    });
    const fact = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(info)?.[1] ?? "";
    if (fact("cluster_enabled") === "1") return CLUSTER;
    try {
      // Whether it takes changes only a change tells. This one finds nothing to do, and a full Redis takes it.
      await redis.del(`${KEY_PREFIX}probe`);
    } catch (error) {
      if (!isReply(error)) throw error;
      return plainReason(error);
    }
    this.#warnOf(fact("maxmemory_policy"));
    this.#warnOfMemory(Number(fact("maxmemory")));
    return null;
  }

  #warnOf(policy: string): void {
    if (policy === "" || policy === this.#policy) return;
    this.#policy = policy;
    if (policy === "noeviction") return;
    this.#onWarning(
      `Redis has maxmemory-policy ${policy}: when it is full it drops sessions and files that it has promised to keep. ` +
        "Set maxmemory-policy noeviction.",
    );
  }

  /** @param maxBytes 0: no limit of its own. */
  #warnOfMemory(maxBytes: number): void {
    if (!(maxBytes > 0 && maxBytes < this.#promisedBytes) || maxBytes === this.#warnedOfBytes) return;
    this.#warnedOfBytes = maxBytes;
    const mib = (bytes: number) => Math.floor(bytes / 2 ** 20);
    this.#onWarning(
      `Redis has maxmemory ${mib(maxBytes)} MiB, and what principals may store in it is ${mib(this.#promisedBytes)} MiB together: ` +
        "one can be refused within its share. Raise maxmemory, or lower SESSION_STORE_MAX_MB and WORKSPACE_MAX_MB.",
    );
  }

  /** A connection may be there and lead nowhere: to a master that became a replica, or to a machine that is gone. */
  #learnFrom(error: Error): void {
    const { message } = error;
    if (/^(READONLY|MASTERDOWN|LOADING|NOREPLICAS|MISCONF|CLUSTERDOWN|MOVED)\b/.test(message)) {
      if (this.#trouble !== null) return;
      this.#lose(plainReason(error));
      this.#reconnect();
    } else if (message === "Command timed out" && this.#redis.status === "ready") {
      this.#lose("it does not answer");
      this.#reconnect();
    }
  }

  #reconnect(): void {
    if (this.#isClosed) return;
    for (const redis of [this.#redis, ...this.#duplicates]) {
      if (redis.status === "ready" || redis.status === "connect") redis.disconnect(true);
    }
  }

  #lose(trouble: string): void {
    this.#unusableSinceMs ??= performance.now();
    this.#trouble = trouble;
    if (this.#isTold || this.#isClosed) return;
    this.#isTold = true;
    this.#onConnection(trouble);
  }

  #regain(): void {
    this.#unusableSinceMs = undefined;
    this.#trouble = null;
    this.#isTold = false;
    this.#onConnection(null);
  }
}

const reconnectPauseMs = (times: number) =>
  backoffMs(times, { firstMs: FIRST_RECONNECT_MS, longestMs: LONGEST_RECONNECT_MS });

/** For the log, and for those who ask whether the server is ready: no address, no user, no key. */
function plainReason(error: Error): string {
  const { message } = error;
  const { code } = error as NodeJS.ErrnoException;
  if (/^READONLY/.test(message)) return "it is a replica, and cannot be written to";
  if (/^MASTERDOWN/.test(message)) return "it is a replica that has lost its master";
  if (/^LOADING/.test(message)) return "it is loading its data";
  if (/^(WRONGPASS|NOAUTH)/.test(message)) return "it refuses the user or the password of REDIS_URL";
  if (/^NOPERM/.test(message)) return "the user of REDIS_URL lacks a right";
  if (/^NOREPLICAS/.test(message)) return "it has fewer replicas than it needs to be written to";
  if (/^MISCONF/.test(message)) return "it cannot write to its own disk";
  if (/^(MOVED|CLUSTERDOWN|CROSSSLOT)/.test(message)) return CLUSTER;
  if (/sentinel/i.test(message)) return "no Sentinel names a master that can be reached";
  if (code !== undefined) return `the connection failed: ${code}`;
  return "the connection failed";
}

function isReply(error: unknown): error is Error {
  return (error as Error).name === "ReplyError";
}

/** Redis has answered, and will again say the same. What it refuses in a failover it has not done: it may be asked again. */
function isAnswer(error: unknown): boolean {
  const isPassing = /^(LOADING|MASTERDOWN|READONLY|TRYAGAIN|BUSY|NOREPLICAS|UNBLOCKED)\b/;
  return isReply(error) && !isPassing.test(error.message);
}

/** What a client is told of a Redis that fails. */
export function unavailable(cause: unknown): Error {
  if (cause instanceof ClientError) return cause;
  if (/OOM command not allowed/.test((cause as Error).message)) {
    return storageFull(cause);
  }
  return new ClientError("store_unavailable", "The store cannot be reached at the moment.", {
    cause,
    retryAfterS: 2,
  });
}

/**
 * ioredis listens for the first error of a socket only. A TLS socket may have a second (the certificate is not trusted, and then the
 * other end's alert), which without a listener would end the process.
 */
function tolerateLateErrors(redis: Redis): void {
  redis.on("error", () => {
    (redis as unknown as { readonly stream?: NodeJS.EventEmitter }).stream?.on("error", () => {});
  });
}
