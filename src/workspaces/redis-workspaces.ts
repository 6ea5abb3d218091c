import { createHash } from "node:crypto";
import type { RedisConnection } from "../shared/redis-connection.ts";
import { KEY_PREFIX } from "../shared/redis-keys.ts";
import { WorkspaceCache } from "./cache.ts";
import { RedisWorkspace } from "./redis-storage.ts";
import type { WorkspaceLimits } from "./workspace-index.ts";
import { PrincipalWorkspace, type WorkspaceStore } from "./workspaces.ts";

export interface RedisWorkspacesOptions extends WorkspaceLimits {
  readonly connection: RedisConnection;
  /** As for workspaces on disk; default 200,000. */
  readonly maxCachedEntries?: number;
  /** How long contents without a reference stay for executions that began before; default 10 minutes. */
  readonly keepGarbageMs?: number;
}

/** Workspaces in Redis or Valkey, the same ones for every server; {@link RedisWorkspace} says how they lie there. */
export class RedisWorkspaces implements WorkspaceStore {
  readonly #options: RedisWorkspacesOptions;
  readonly #workspaces: WorkspaceCache<RedisWorkspace>;

  constructor(options: RedisWorkspacesOptions) {
    this.#options = options;
    this.#workspaces = new WorkspaceCache(async (principal) => {
      const id = createHash("sha256").update(principal).digest("hex");
      return new RedisWorkspace({ ...options, principal, key: `${KEY_PREFIX}workspace:${id}` });
    }, options.maxCachedEntries);
  }

  of(principal: string): PrincipalWorkspace {
    return new PrincipalWorkspace(() => this.#workspaces.hold(principal), this.#options);
  }

  /** The connection is not its own, and stays. */
  async close(): Promise<void> {
    await this.#workspaces.close();
  }
}
