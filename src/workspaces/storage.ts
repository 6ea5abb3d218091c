import type { Blob } from "../shared/blob-folder.ts";
import type { WorkspaceIndex } from "./workspace-index.ts";

/** An index whose contents can be read until it is released. */
export interface Snapshot {
  readonly index: WorkspaceIndex;
  /** @throws {Error} if the content is gone or has another size. */
  read(blob: Blob): Promise<Uint8Array>;
  /** Ends when contents that only this snapshot needed are gone. Never rejects. */
  release(): Promise<void>;
}

/** A content that has been taken in, and belongs to the workspace once a change has named it. */
export interface ReceivedBlob extends Blob {
  /** Forgets it, unless a change has taken it. Never rejects. */
  drop(): Promise<void>;
}

/** Contents that a change needs, by SHA-256. Those that the workspace has already may be among them. */
export interface NewContents {
  readonly bytes?: ReadonlyMap<string, Uint8Array>;
  readonly received?: ReceivedBlob;
}

/**
 * Where one workspace is kept. {@link PrincipalWorkspace} says what it is for; there is one on disk and one in Redis.
 *
 * Every method throws {@link ClientError} 503 `store_unavailable` or 507 `store_full` where the store is another machine's.
 */
export interface WorkspaceStorage {
  /** The workspace as it is now. Its contents may be gone the next moment; who wants to read takes a {@link snapshot}. */
  current(): Promise<WorkspaceIndex>;
  snapshot(): Promise<Snapshot>;
  /**
   * Takes a stream in without holding it in memory.
   *
   * @param tooLarge makes the error to throw once more than `maxBytes` have come.
   */
  receive(
    source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    maxBytes: number,
    tooLarge: () => Error,
  ): Promise<ReceivedBlob>;
  /**
   * Changes the workspace durably, or not at all.
   *
   * @param plan makes the next index from the current one; what it throws, this throws. Called again where another
   *   change came first.
   */
  change(plan: (current: WorkspaceIndex) => WorkspaceIndex, contents?: NewContents): Promise<void>;
}

/** A workspace in use. It stays in memory at least until it is let go: there is only ever one of a principal in a process. */
export interface HeldWorkspace extends Disposable {
  readonly storage: WorkspaceStorage;
}
