import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis, type RedisOptions } from "ioredis";
import { ClientError, StartupError } from "./errors.ts";
import { storageFull } from "./store/storage-trouble.ts";

/** Before every key of ours, so that a Redis can serve others too. */
export const KEY_PREFIX = "pyodide-express:";

export interface RedisConnectionOptions {
  /** `redis://[user:password@]host:port/db`, `rediss://` for TLS. */
  readonly url: string;
  /** Told when the connection is lost or had again. */
  readonly onConnection?: (connected: boolean, reason: string) => void;
  /** Answer "unavailable" when Redis has not answered by then; default 3000 ms. */
  readonly timeoutMs?: number;
}

const DEFAULT_TIMEOUT_MS = 3000;
const ATTEMPTS = 3;
const LONGEST_RECONNECT_MS = 2000;

/**
 * The connection to Redis or Valkey, and what is done when it fails: a request is tried again a few times within
 * `timeoutMs`, then refused with an error that says when to come back; the connection comes back by itself.
 *
 * One of these serves all that a server shares with others.
 */
export class RedisConnection {
  readonly timeoutMs: number;
  readonly #redis: Redis;
  readonly #duplicates: Redis[] = [];
  /** By script: what Redis calls it once it has been sent. */
  readonly #hashes = new Map<string, string>();
  /** Redis's clock less ours, which is the monotonic one: when somebody sets this machine's time, nothing changes. */
  #clockOffsetMs = performance.timeOrigin;
  /** Since when there is no connection; ms of the monotonic clock. */
  #awaySinceMs: number | undefined = performance.now();

  /** @throws {StartupError} if the URL is none. */
  constructor({ url, onConnection, timeoutMs = DEFAULT_TIMEOUT_MS }: RedisConnectionOptions) {
    this.timeoutMs = timeoutMs;
    if (!/^rediss?:\/\//.test(url) || !URL.canParse(url)) {
      throw new StartupError("REDIS_URL: it must look like redis://host:6379 or rediss://user:password@host:6379/0.");
    }
    this.#redis = new Redis(url, {
      // Longer than a change is valid for, so that it is not made after it was given up.
      commandTimeout: timeoutMs * 1.5,
      connectTimeout: timeoutMs,
      maxRetriesPerRequest: 1,
      retryStrategy: (times) => Math.min(LONGEST_RECONNECT_MS, 50 * 2 ** Math.min(times, 10)),
    });
    let reason = "";
    this.#redis.on("error", (error: Error) => {
      reason = error.message;
    });
    this.#redis.on("ready", () => {
      this.#awaySinceMs = undefined;
      // Where it fails, the next connection reads it.
      this.#readClock().catch(() => {});
      onConnection?.(true, "");
    });
    this.#redis.on("close", () => {
      this.#awaySinceMs ??= performance.now();
      onConnection?.(false, reason);
    });
  }

  /** Another connection to the same Redis, for what must not wait behind the rest; ended by {@link close}. */
  duplicate(options: RedisOptions): Redis {
    const redis = this.#redis.duplicate(options);
    // The first connection's trouble has been told; this one's is the same.
    redis.on("error", () => {});
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
    for (let attempt = 1; ; attempt++) {
      try {
        return await action(this.#redis);
      } catch (error) {
        if (attempt === ATTEMPTS || performance.now() > deadline || isAnswer(error)) throw unavailable(error);
        await sleep(50 * 2 ** attempt);
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

  /** Redis's clock, which all servers share and which nobody's changed time moves; ms since 1970. */
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
   * For a change that came after its deadline: Redis was slow, or somebody has set its clock, which is therefore read again.
   *
   * @throws {ClientError} 503 `store_unavailable`, always.
   */
  async refuseLate(): Promise<never> {
    await this.#readClock().catch(() => {});
    throw unavailable(new Error("Redis had the change too late"));
  }

  close(): void {
    this.#redis.disconnect();
    for (const redis of this.#duplicates) redis.disconnect();
  }

  async #readClock(): Promise<void> {
    const [seconds, microseconds] = await this.#redis.time();
    this.setClock(Number(seconds) * 1000 + Math.floor(Number(microseconds) / 1000));
  }
}

/** Redis has answered, and will again say the same. */
function isAnswer(error: unknown): boolean {
  return (
    (error as Error).name === "ReplyError" && !/^(LOADING|MASTERDOWN|TRYAGAIN|BUSY)/.test((error as Error).message)
  );
}

/** What a client is told of a Redis that fails. */
export function unavailable(cause: unknown): Error {
  if (cause instanceof ClientError) return cause;
  if (/OOM command not allowed/.test((cause as Error).message)) {
    return storageFull(cause);
  }
  return new ClientError(503, "store_unavailable", "The store cannot be reached at the moment.", {
    cause,
    retryAfterS: 2,
  });
}
