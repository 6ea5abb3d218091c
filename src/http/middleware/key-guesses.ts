import { type RateLimiterAbstract, RateLimiterMemory, RateLimiterRedis } from "rate-limiter-flexible";
import { backoffMs } from "../../shared/backoff.ts";
import { ClientError } from "../../shared/errors.ts";
import type { RedisConnection } from "../../shared/redis-connection.ts";
import { KEY_PREFIX } from "../../shared/redis-keys.ts";
import { ClientNetworks, clientNetwork, OTHER_NETWORKS } from "./client-networks.ts";
import { consume, countingConnection } from "./counting-connection.ts";

export interface KeyGuessesOptions {
  /** Wrong keys from one network in {@link WINDOW_S} before it has to wait; 0: no limit. */
  readonly maxFailures: number;
  /** Null: counted by this process alone. */
  readonly redis: RedisConnection | null;
  /** ms, monotonic; default `performance.now`. */
  readonly now?: () => number;
}

const WINDOW_S = 600;
const FIRST_WAIT_MS = 30_000;
const LONGEST_WAIT_MS = 3_600_000;
/** A network that has not guessed for so long begins anew, s. */
const FORGET_WAITS_S = 86_400;
/** Networks that are counted apart. */
const MAX_NETWORKS = 10_000;
/** Networks from which one key is remembered to have been used: of each key so many, so that no key's use forgets another's. */
const MAX_NETWORKS_OF_KEY = 1000;

/**
 * Limits guesses of keys: a network that has sent too many wrong ones waits, twice as long each time, and whatever key it sends
 * meanwhile is not looked at.
 *
 * Save one: a key that was accepted from that network before goes on being accepted. Else anybody behind the same address
 * translator, or the same proxy, could lock all others there out. What is left to guess from there at any rate is such a key,
 * and those are long.
 */
export class KeyGuesses {
  readonly #maxFailures: number;
  /** Counts at once: of guesses that come together none is looked at beyond the limit. */
  readonly #failures: RateLimiterAbstract;
  /** Counts those of all servers that share Redis. */
  readonly #failuresOfAll: RateLimiterAbstract | null;
  readonly #waits: RateLimiterAbstract;
  readonly #now: () => number;
  readonly #networks: ClientNetworks;
  /** Until when a network waits. */
  readonly #waiting = new Map<string, number>();
  /** By digest, of keys that were accepted: the networks they came from, the one unused for longest first. */
  readonly #known = new Map<string, Set<string>>();

  constructor({ maxFailures, redis, now = () => performance.now() }: KeyGuessesOptions) {
    this.#maxFailures = maxFailures;
    this.#now = now;
    this.#networks = new ClientNetworks({ maxOfOwner: MAX_NETWORKS, keepMs: FORGET_WAITS_S * 1000, now });
    const inMemory = (name: string, duration: number) =>
      new RateLimiterMemory({ points: Math.max(1, maxFailures), duration, keyPrefix: `${KEY_PREFIX}${name}` });
    const shared = (insuranceLimiter: RateLimiterMemory): RateLimiterAbstract | null => {
      if (redis === null) return null;
      const { points, duration, keyPrefix } = insuranceLimiter;
      return new RateLimiterRedis({ points, duration, keyPrefix, insuranceLimiter, ...countingConnection(redis) });
    };
    this.#failures = inMemory("wrong-keys", WINDOW_S);
    this.#failuresOfAll = shared(inMemory("wrong-keys", WINDOW_S));
    const waits = inMemory("waits", FORGET_WAITS_S);
    this.#waits = shared(waits) ?? waits;
  }

  /**
   * @param digest of the key, where what was presented is one or stands for one; else of what was presented.
   * @throws {ClientError} 429 `too_many_wrong_keys` while the network has to wait, unless the key was accepted from there before.
   */
  check(ip: string | undefined, digest: Buffer): void {
    if (this.#waiting.size === 0) return;
    const network = this.#networks.knownNameOf(ip);
    const untilMs = network === undefined ? undefined : this.#waiting.get(network);
    if (network === undefined || untilMs === undefined) return;
    const leftMs = untilMs - this.#now();
    if (leftMs <= 0) this.#waiting.delete(network);
    else if (!this.#known.get(nameOf(digest))?.has(clientNetwork(ip))) throw tooMany(leftMs);
  }

  /** @param digest of one of the server's keys, of which there are few. */
  succeeded(ip: string | undefined, digest: Buffer): void {
    if (this.#maxFailures === 0) return;
    const name = nameOf(digest);
    const networks = this.#known.getOrInsertComputed(name, () => new Set<string>());
    const network = clientNetwork(ip);
    networks.delete(network);
    networks.add(network);
    if (networks.size <= MAX_NETWORKS_OF_KEY) return;
    const [oldest] = networks;
    networks.delete(oldest as string);
  }

  /** @throws {ClientError} 429 `too_many_wrong_keys` if that was one too many. */
  async failed(ip: string | undefined): Promise<void> {
    if (this.#maxFailures === 0) return;
    const network = this.#networks.nameOf(ip);
    // Thousands of networks guess at once. All others would be locked out if these waited as one.
    if (network === OTHER_NETWORKS) return;
    const own = await consume(this.#failures, network);
    if (own.consumedPoints > this.#maxFailures) return await this.#beginWait(network);
    if (this.#failuresOfAll === null) return;
    const { consumedPoints, msBeforeNext } = await consume(this.#failuresOfAll, network);
    if (consumedPoints <= this.#maxFailures) return;
    if (consumedPoints === this.#maxFailures + 1) return await this.#beginWait(network);
    // Another server has begun it.
    this.#wait(network, msBeforeNext);
  }

  async #beginWait(network: string): Promise<never> {
    // One that came at the same time has.
    const leftMs = (this.#waiting.get(network) ?? 0) - this.#now();
    if (leftMs > 0) throw tooMany(leftMs);
    this.#waiting.set(network, this.#now() + FIRST_WAIT_MS);
    const { consumedPoints } = await consume(this.#waits, network);
    const waitMs = backoffMs(consumedPoints - 1, { firstMs: FIRST_WAIT_MS, longestMs: LONGEST_WAIT_MS });
    await Promise.all([this.#failures.delete(network), this.#failuresOfAll?.block(network, waitMs / 1000)]);
    return this.#wait(network, waitMs);
  }

  #wait(network: string, waitMs: number): never {
    this.#waiting.set(network, this.#now() + waitMs);
    if (this.#waiting.size > MAX_NETWORKS) {
      for (const [other, untilMs] of this.#waiting) if (untilMs <= this.#now()) this.#waiting.delete(other);
    }
    throw tooMany(waitMs);
  }
}

function nameOf(digest: Buffer): string {
  return digest.toString("latin1");
}

function tooMany(leftMs: number): ClientError {
  const retryAfterS = Math.max(1, Math.ceil(leftMs / 1000));
  return new ClientError("too_many_wrong_keys", {
    retryAfterS,
  });
}
