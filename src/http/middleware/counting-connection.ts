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
