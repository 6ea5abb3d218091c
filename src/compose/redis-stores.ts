import type { Logger } from "pino";
import { RedisPackageRecords } from "../packages/redis-package-records.ts";
import { RedisSecrets } from "../secrets/redis-secrets.ts";
import { RedisSessions } from "../sessions/redis-store.ts";
import { RedisConnection } from "../shared/redis-connection.ts";
import type { Config } from "../shared/settings.ts";
import { RedisStatistics } from "../statistics/redis-store.ts";
import { RedisWorkspaces } from "../workspaces/redis-workspaces.ts";
import { workspaceLimits } from "../workspaces/workspace-index.ts";
import { principalsOf } from "./principals.ts";
import { type Stores, sessionShares } from "./stores.ts";

/** Loaded where there is a REDIS_URL: its modules take time at every start. */
export function connectToRedis(config: Config, logger: Logger): RedisConnection {
  const { REDIS_URL, SESSION_STORE_MAX_MB, WORKSPACE_MAX_MB } = config;
  return new RedisConnection({
    url: REDIS_URL,
    // A workspace that is replaced is there twice for a moment.
    promisedBytes: (SESSION_STORE_MAX_MB + 2 * principalsOf(config).size * WORKSPACE_MAX_MB) * 2 ** 20,
    onConnection: (reason) => {
      if (reason === null) logger.info("Redis can be used.");
      else logger.error({ reason }, "Redis cannot be used; trying again.");
    },
    onWarning: (message) => logger.warn(message),
  });
}

export function redisStores(config: Config, connection: RedisConnection): Stores {
  const { DATA_DIR, SESSION_LEASE_MS } = config;
  return {
    sessions: async () => new RedisSessions({ connection, leaseMs: SESSION_LEASE_MS, shares: sessionShares(config) }),
    workspaces: () => new RedisWorkspaces({ connection, ...workspaceLimits(config) }),
    statistics: () => new RedisStatistics({ connection, dir: DATA_DIR }),
    packageRecords: () => new RedisPackageRecords(connection),
    secrets: () => new RedisSecrets(connection),
  };
}
