import { createHash } from "node:crypto";
import path from "node:path";
import { FolderLock } from "../shared/folder-lock.ts";
import { WorkspaceCache } from "./cache.ts";
import { DiskWorkspace } from "./disk-storage.ts";
import type { WorkspaceLimits } from "./workspace-index.ts";
import { PrincipalWorkspace, type WorkspaceStore } from "./workspaces.ts";

export interface DiskWorkspacesOptions extends WorkspaceLimits {
  /** Host folder, `DATA_DIR/workspaces`; made if it is not there. One process at a time. */
  readonly directory: string;
  /** Most files and folders whose index entries stay in memory while their principals do nothing; default 200,000. */
  readonly maxCachedEntries?: number;
}

/**
 * Workspaces on this server's disk:
 *
 *     <directory>/lock                             held while a process uses the folder
 *     <directory>/<SHA-256 of the principal's id>/
 *         index.json                               paths, times, upload records, and which blob belongs to which
 *         blobs/<SHA-256 of the content>           one for each different content of this workspace
 *         incoming/                                what is being written; emptied at start
 *
 * No name that a client or user code chose is part of a host path. A change first makes its blobs durable, then replaces
 * the index by a rename, and only then removes blobs without a reference: a crash at any point leaves the state before the
 * change or after it.
 */
export class DiskWorkspaces implements WorkspaceStore {
  readonly #options: DiskWorkspacesOptions;
  readonly #lock: FolderLock;
  readonly #workspaces: WorkspaceCache<DiskWorkspace>;
  #closed = false;

  /** @throws {StartupError} if another process uses the folder. */
  constructor(options: DiskWorkspacesOptions) {
    this.#options = options;
    this.#lock = new FolderLock(options.directory);
    this.#workspaces = new WorkspaceCache((principal) => {
      const id = createHash("sha256").update(principal).digest("hex");
      return DiskWorkspace.load(path.join(options.directory, id), principal);
    }, options.maxCachedEntries);
  }

  of(principal: string): PrincipalWorkspace {
    return new PrincipalWorkspace(() => this.#workspaces.hold(principal), this.#options);
  }

  /** Lets the folder go as well. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#workspaces.close();
    this.#lock[Symbol.dispose]();
  }
}
