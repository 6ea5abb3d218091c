/** What an execution may ask of the host while it runs. The host's parts implement these; the sandbox's messages name them. */
import type { FileChanges, FileEntry, PackageListing } from "./frames.ts";

/** Files that outlive an execution; `workspaces/workspaces.ts` keeps them on disk. */
export interface Workspace {
  /** All files and folders, parents before children. */
  list(): Promise<readonly FileEntry[]>;
  /** The most that the sandbox may let user code fill. */
  quota(): Promise<{ readonly bytes: number; readonly files: number }>;
  /** @throws {ClientError} 404 if there is no such file. */
  read(path: string): Promise<Uint8Array>;
  /** Takes over what an execution did, all or nothing. `contents[i]` belongs to `changes.written[i]`. */
  apply(changes: FileChanges, contents: readonly Uint8Array[]): Promise<void>;
}

/** Packages of a caller, besides those of the environment. */
export interface PackageArchive {
  readonly listing: PackageListing;
  /** @param offset counted from the beginning of the archive's data. */
  read(offset: number, length: number): Uint8Array;
}

/** What the host answers when user code asks it for something: JSON, and bytes. */
export interface HostAnswer {
  readonly value: unknown;
  readonly body?: Uint8Array;
}

/** HTTP on behalf of user code; `egress/exchange.ts` has its operations. */
export interface ExecutionNetwork {
  /** Largest argument of an operation, bytes of JSON. */
  readonly maxArgumentBytes: number;
  /**
   * @param operation begins with `http-`.
   * @param signal aborted when the execution is stopped; the answer then comes at once.
   */
  call(operation: string, argument: unknown, signal: AbortSignal): Promise<HostAnswer>;
}
