import path from "node:path";
import type { PackageRecords } from "../packages/package-records.ts";
import { DiskPackageRecords } from "../packages/package-records.ts";
import { DiskSecrets, type SecretRecords } from "../secrets/secret-records.ts";
import { DiskSessions } from "../sessions/disk-store.ts";
import { sharesOf } from "../sessions/shares.ts";
import type { SessionStore } from "../sessions/store.ts";
import type { Config } from "../shared/settings.ts";
import { DiskStatistics } from "../statistics/disk-store.ts";
import type { StatisticsStore } from "../statistics/store.ts";
import { DiskWorkspaces } from "../workspaces/disk-workspaces.ts";
import { workspaceLimits } from "../workspaces/workspace-index.ts";
import type { WorkspaceStore } from "../workspaces/workspaces.ts";
import { principalsOf } from "./principals.ts";

/** Where what outlives a server is kept. Each is opened at most once. */
export interface Stores {
  sessions(): Promise<SessionStore>;
  workspaces(): WorkspaceStore;
  statistics(): StatisticsStore;
  packageRecords(): PackageRecords;
  secrets(): SecretRecords;
}

/** All on this server's disk. */
export function diskStores(config: Config): Stores {
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

export function sessionShares(config: Config) {
  return sharesOf(
    config.SESSION_STORE_MAX_MB * 2 ** 20,
    principalsOf(config).size,
    config.SESSION_STORE_PRINCIPAL_MAX_MB * 2 ** 20,
  );
}
