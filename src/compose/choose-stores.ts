import type { Logger } from "pino";
import type { RedisConnection } from "../shared/redis-connection.ts";
import type { Config } from "../shared/settings.ts";
import { diskStores, type Stores } from "./stores.ts";

/** The one choice between this server's disk and Redis. @returns `redis` null: this server shares nothing. */
export async function chooseStores(
  config: Config,
  logger: Logger,
): Promise<{ readonly redis: RedisConnection | null; readonly stores: Stores }> {
  if (config.REDIS_URL === "") return { redis: null, stores: diskStores(config) };
  const { connectToRedis, redisStores } = await import("./redis-stores.ts");
  const redis = connectToRedis(config, logger);
  return { redis, stores: redisStores(config, redis) };
}
