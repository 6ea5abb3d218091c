import path from "node:path";
import type { Logger } from "pino";
import type { PackageRecords } from "../packages/package-records.ts";
import { DiskPackageRecords } from "../packages/package-records.ts";
import { RedisPackageRecords } from "../packages/redis-package-records.ts";
import { RedisSecrets } from "../secrets/redis-secrets.ts";
import { DiskSecrets, type SecretRecords } from "../secrets/secret-records.ts";
import { DiskSessions } from "../sessions/disk-store.ts";
import { RedisSessions } from "../sessions/redis-store.ts";
import { sharesOf } from "../sessions/shares.ts";
import type { SessionStore } from "../sessions/store.ts";
import { RedisConnection } from "../shared/redis-connection.ts";
import type { Config } from "../shared/settings.ts";
import { DiskStatistics } from "../statistics/disk-store.ts";
import { RedisStatistics } from "../statistics/redis-store.ts";
import type { StatisticsStore } from "../statistics/store.ts";
import { DiskWorkspaces } from "../workspaces/disk-workspaces.ts";
import { RedisWorkspaces } from "../workspaces/redis-workspaces.ts";
import { workspaceLimits } from "../workspaces/workspace-index.ts";
import type { WorkspaceStore } from "../workspaces/workspaces.ts";
import { principalsOf } from "./principals.ts";

/** @returns null: this server shares nothing. */
export function connectToRedis(config: Config, logger: Logger): RedisConnection | null {
  const { REDIS_URL, SESSION_STORE_MAX_MB, WORKSPACE_MAX_MB } = config;
  if (REDIS_URL === "") return null;
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

/** Where what outlives a server is kept. Each is opened at most once. */
export interface Stores {
  sessions(): Promise<SessionStore>;
  workspaces(): WorkspaceStore;
  statistics(): StatisticsStore;
  packageRecords(): PackageRecords;
  secrets(): SecretRecords;
}

/** The one choice between this server's disk and Redis. @param redis null: this server shares nothing. */
export function storesOf(config: Config, redis: RedisConnection | null): Stores {
  return redis === null ? onDisk(config) : onRedis(config, redis);
}

function onDisk(config: Config): Stores {
  const { DATA_DIR } = config;
  return {
    sessions: async () =>
      await DiskSessions.open({ directory: path.join(DATA_DIR, "sessions"), shares: sessionShares(config) }),
    workspaces: () => new DiskWorkspaces({ directory: path.join(DATA_DIR, "workspaces"), ...workspaceLimits(config) }),
    statistics: () => new DiskStatistics(DATA_DIR),
    packageRecords: () => new DiskPackageRecords(path.join(DATA_DIR, "packages", "principals")),
    secrets: () => new DiskSecrets(path.join(DATA_DIR, "secrets")),
  };
}

function onRedis(config: Config, connection: RedisConnection): Stores {
  const { DATA_DIR, SESSION_LEASE_MS } = config;
  return {
    sessions: async () => new RedisSessions({ connection, leaseMs: SESSION_LEASE_MS, shares: sessionShares(config) }),
    workspaces: () => new RedisWorkspaces({ connection, ...workspaceLimits(config) }),
    statistics: () => new RedisStatistics({ connection, dir: DATA_DIR }),
    packageRecords: () => new RedisPackageRecords(connection),
    secrets: () => new RedisSecrets(connection),
  };
}

function sessionShares(config: Config) {
  return sharesOf(
    config.SESSION_STORE_MAX_MB * 2 ** 20,
    principalsOf(config).size,
    config.SESSION_STORE_PRINCIPAL_MAX_MB * 2 ** 20,
  );
}
