import { turn } from "../../executor/testing/fake-sandbox.ts";
import { sha256Hex } from "../../shared/blob-folder.ts";
import { ClientError } from "../../shared/errors.ts";
import type { HeldWorkspace, NewContents, ReceivedBlob, Snapshot, WorkspaceStorage } from "../../workspaces/storage.ts";
import { WorkspaceIndex } from "../../workspaces/workspace-index.ts";
import { PrincipalWorkspace, type WorkspaceStore } from "../../workspaces/workspaces.ts";

/** The one workspace that outlives every server. */
export interface WorkspaceDisk {
  index: WorkspaceIndex;
  readonly contents: Map<string, Uint8Array>;
}

export const newWorkspaceDisk = (): WorkspaceDisk => ({ index: WorkspaceIndex.empty(0), contents: new Map() });

/** One server's way to a workspace. The test says when it is away, and when the server crashes. */
export class FakeWorkspaces implements WorkspaceStore {
  isAway = false;
  readonly #disk: WorkspaceDisk;
  #isCrashed = false;

  constructor(disk: WorkspaceDisk) {
    this.#disk = disk;
  }

  /** As `kill -9` does: no call returns any more. */
  crash(): void {
    this.#isCrashed = true;
  }

  of(): PrincipalWorkspace {
    const held: HeldWorkspace = { storage: this.#storage, [Symbol.dispose]: () => {} };
    return new PrincipalWorkspace(async () => held, { maxBytes: 1e6, maxFiles: 100 });
  }

  async close(): Promise<void> {}

  readonly #storage: WorkspaceStorage = {
    current: async () => {
      await this.#step();
      return this.#disk.index;
    },
    snapshot: async (): Promise<Snapshot> => {
      await this.#step();
      const { index } = this.#disk;
      return {
        index,
        read: async ({ sha256 }) => this.#disk.contents.get(sha256) as Uint8Array,
        release: async () => {},
      };
    },
    receive: async (source): Promise<ReceivedBlob> => {
      const pieces: Uint8Array[] = [];
      for await (const piece of source) pieces.push(piece);
      const bytes = Buffer.concat(pieces);
      const sha256 = await sha256Hex(bytes);
      this.#disk.contents.set(sha256, bytes);
      return { sha256, size: bytes.length, drop: async () => {} };
    },
    change: async (plan, { bytes = new Map() }: NewContents = {}) => {
      await this.#step();
      this.#disk.index = plan(this.#disk.index);
      for (const [sha256, content] of bytes) this.#disk.contents.set(sha256, content);
      // A server may crash after the change was made, and before it knows.
      await turn();
      if (this.#isCrashed) await new Promise(() => {});
    },
  };

  async #step(): Promise<void> {
    await turn();
    if (this.#isCrashed) await new Promise(() => {});
    if (this.isAway) throw new ClientError("store_unavailable", "The store is away.");
  }
}
