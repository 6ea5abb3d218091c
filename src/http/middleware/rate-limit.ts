import type { RequestHandler } from "express";
import { type RateLimiterAbstract, RateLimiterMemory, RateLimiterRedis } from "rate-limiter-flexible";
import { ClientError, StartupError } from "../../shared/errors.ts";
import type { RedisConnection } from "../../shared/redis-connection.ts";
import { KEY_PREFIX } from "../../shared/redis-keys.ts";
import type { Config } from "../../shared/settings.ts";
import { principalOf } from "./authentication.ts";
import { ClientNetworks } from "./client-networks.ts";
import { consume, countingConnection } from "./counting-connection.ts";

// Node fires a timer that is set for longer at once, and the memory limiter would forget its counts with it.
const MAX_WINDOW_MS = 2 ** 31 - 1;
/** Counts of one principal that are held at a time; what comes from further networks has one count together. */
const MAX_NETWORKS_OF_PRINCIPAL = 1000;

/**
 * Where requests are counted: in this process, or where servers share a Redis, there, so that a limit is the fleet's.
 *
 * A Redis that does not answer at once, or is full, must neither stop all requests nor let all through: until it is back
 * each server counts for itself, from zero.
 *
 * @param redis null: there is none.
 * @returns undefined if `RATE_LIMIT_MAX_REQUESTS` is 0: no limit.
 * @throws {StartupError} if the window is over 24 days.
 */
export function requestLimiter(
  config: Pick<Config, "RATE_LIMIT_WINDOW_MS" | "RATE_LIMIT_MAX_REQUESTS">,
  redis: RedisConnection | null,
): RateLimiterAbstract | undefined {
  const ofThisProcess = memoryLimiter(config);
  if (redis === null || ofThisProcess === undefined) return ofThisProcess;
  return new RateLimiterRedis({
    ...countingConnection(redis),
    insuranceLimiter: ofThisProcess,
    points: ofThisProcess.points,
    // It counts in whole seconds, and takes 0 for one that never ends.
    duration: Math.ceil(ofThisProcess.duration),
    keyPrefix: `${KEY_PREFIX}requests`,
  });
}

function memoryLimiter({
  RATE_LIMIT_MAX_REQUESTS,
  RATE_LIMIT_WINDOW_MS,
}: Parameters<typeof requestLimiter>[0]): RateLimiterAbstract | undefined {
  if (RATE_LIMIT_MAX_REQUESTS === 0) return undefined;
  if (RATE_LIMIT_WINDOW_MS > MAX_WINDOW_MS) {
    throw new StartupError(`RATE_LIMIT_WINDOW_MS must be at most ${MAX_WINDOW_MS} (24 days).`);
  }
  return new RateLimiterMemory({
    points: RATE_LIMIT_MAX_REQUESTS,
    duration: RATE_LIMIT_WINDOW_MS / 1000,
    keyPrefix: "requests",
  });
}

/**
 * Limits the requests of one principal from one address in a fixed window, and says in each reply what is left:
 * `RateLimit-Limit`, `RateLimit-Remaining`, `RateLimit-Reset` (seconds) and `RateLimit-Policy`, as in
 * draft-ietf-httpapi-ratelimit-headers-06, which clients' libraries read.
 *
 * Runs behind `authenticate`. The address is Express's `req.ip`, so `trust proxy` decides whether a header can change it;
 * of an IPv6 address the first 64 bits count, which is what one customer has.
 *
 * @param limiter where requests are counted, from {@link requestLimiter}. None: no limit.
 * @returns middleware that fails with {@link ClientError} 429 `rate_limited` and `retryAfterS`; if the limiter itself
 *   fails, with its error.
 */
export function rateLimit(limiter: RateLimiterAbstract | undefined): RequestHandler {
  if (!limiter) return (_request, _response, next) => next();
  const { points, duration } = limiter;
  const count = counter(limiter);
  return async (request, response, next) => {
    const { remaining, resetS, refusal } = await count(principalOf(response).id, request.ip);
    response.set({
      "RateLimit-Limit": String(points),
      "RateLimit-Remaining": String(remaining),
      "RateLimit-Reset": String(resetS),
      "RateLimit-Policy": `${points};w=${Math.ceil(duration)}`,
    });
    if (refusal === null) return next();
    throw refusal;
  };
}

/** As {@link rateLimit}, for a message of a connection that is open: it counts as a request does. */
export function messageLimit(
  limiter: RateLimiterAbstract | undefined,
): (principal: string, ip: string | null) => Promise<void> {
  if (!limiter) return async () => {};
  const count = counter(limiter);
  return async (principal, ip) => {
    const { refusal } = await count(principal, ip ?? undefined);
    if (refusal !== null) throw refusal;
  };
}

/** What counts one more of a principal's from an address, and says what is left, or why it is too many. */
function counter(limiter: RateLimiterAbstract) {
  const { points, duration } = limiter;
  const networks = new ClientNetworks({ maxOfOwner: MAX_NETWORKS_OF_PRINCIPAL, keepMs: duration * 1000 });
  return async (principal: string, ip: string | undefined) => {
    const outcome = await consume(limiter, `${principal}|${networks.nameOf(ip, principal)}`);
    const resetS = Math.max(1, Math.ceil(outcome.msBeforeNext / 1000));
    const refusal = outcome.consumedPoints <= points ? null : new ClientError("rate_limited", { retryAfterS: resetS });
    return { remaining: outcome.remainingPoints, resetS, refusal };
  };
}
