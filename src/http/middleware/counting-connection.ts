import { type RateLimiterAbstract, RateLimiterRes } from "rate-limiter-flexible";
import type { RedisConnection } from "../../shared/redis-connection.ts";

const REDIS_PATIENCE_MS = 500;
const countingConnections = new WeakMap<RedisConnection, ReturnType<RedisConnection["duplicate"]>>();

/** How limiters reach Redis: by a connection of their own, since a request must not wait behind another's file only to be counted. */
export function countingConnection(redis: RedisConnection) {
  const known = countingConnections.get(redis);
  const options = { commandTimeout: REDIS_PATIENCE_MS, maxRetriesPerRequest: 0, enableOfflineQueue: false };
  const storeClient = known ?? redis.duplicate(options);
  countingConnections.set(redis, storeClient);
  return { storeClient, rejectIfRedisNotReady: true };
}

/** What a limiter says, be it above its points or not. @throws what the limiter itself fails with. */
export async function consume(limiter: RateLimiterAbstract, key: string): Promise<RateLimiterRes> {
  return await limiter.consume(key).catch((refusal: unknown) => {
    if (refusal instanceof RateLimiterRes) return refusal;
    throw refusal;
  });
}
