import { ClientError } from "../shared/errors.ts";
import type { FileEntry } from "../wire/messages.ts";
import { addressFiles } from "../workspaces/addressed-changes.ts";
import { workspacePath } from "../workspaces/paths.ts";
import type { WorkspaceIndex, WorkspaceLimits, Written } from "../workspaces/workspace-index.ts";
import type { PrincipalWorkspace, WorkspaceStore } from "../workspaces/workspaces.ts";
import { readFile, readFiles, readState, toStored } from "./states.ts";
import type { SessionRecord, SessionStore } from "./store.ts";
import type { SessionTurns } from "./turns.ts";
import { mib, refusePinned } from "./views.ts";

export interface SessionFilesOptions {
  readonly turns: SessionTurns;
  readonly store: SessionStore;
  /** Names the image of an environment. */
  readonly identityOf: (environment: string) => string;
  readonly limits: WorkspaceLimits;
  /** Largest stored state of one session, files included, bytes. */
  readonly maxBytes: number;
  readonly workspaces: WorkspaceStore;
}

/** What becomes of files and folders, all at once. */
export interface FileChange {
  /** What is moved has the content that it had. */
  readonly written: readonly Written[];
  readonly deleted: readonly string[];
}

/** The files that a session's code works on, from outside of it: its own, or its principal's workspace. Paths are the sandbox's. */
export class SessionFiles {
  readonly #options: SessionFilesOptions;

  constructor(options: SessionFilesOptions) {
    this.#options = options;
  }

  /** Files and folders, parents before children. */
  async list(principal: string, id: string): Promise<readonly FileEntry[]> {
    return (await this.index(principal, id)).listing;
  }

  /** As {@link list}, with the contents' hashes. */
  async index(principal: string, id: string): Promise<WorkspaceIndex> {
    const { record, workspace } = await this.#open(principal, id);
    return workspace ? await workspace.index() : await readFiles(this.#options.store, record);
  }

  /** @param onSize as of {@link PrincipalWorkspace.read}. @throws {ClientError} 404 `File not found`. */
  async read(principal: string, id: string, path: string, onSize?: (bytes: number) => void): Promise<Uint8Array> {
    const { store } = this.#options;
    const { record, workspace } = await this.#open(principal, id);
    if (workspace) return await workspace.read(path, onSize);
    return await readFile(store, record, await readFiles(store, record), workspacePath(path), onSize);
  }

  async write(
    principal: string,
    id: string,
    signal: AbortSignal,
    path: string,
    content: Uint8Array,
  ): Promise<FileEntry> {
    const [entry] = await this.writeAll(principal, id, signal, new Map([[path, content]]));
    return entry as FileEntry;
  }

  /** Writes several files, all or none. @param contents by their paths. */
  async writeAll(
    principal: string,
    id: string,
    signal: AbortSignal,
    contents: ReadonlyMap<string, Uint8Array>,
  ): Promise<readonly FileEntry[]> {
    const { workspace } = await this.#open(principal, id);
    if (workspace) return await workspace.putAll(contents);
    const addressed = await addressFiles(contents, this.#options.limits);
    await this.#changeOwn(principal, id, signal, addressed.contents, (files) => {
      if (addressed.entries.some(({ path }) => files.get(path)?.kind === "folder"))
        throw new ClientError("not_a_file", "There is a folder of this name");
      return { written: addressed.written, deleted: [] };
    });
    return addressed.entries;
  }

  /** @throws {ClientError} 404 `File not found`, 409 `file_open` while the session has it open, if it is its own. */
  async delete(principal: string, id: string, signal: AbortSignal, path: string): Promise<void> {
    const { workspace } = await this.#open(principal, id);
    if (workspace) return await workspace.remove(path);
    await this.#changeOwn(principal, id, signal, null, (files) => {
      if (files.get(workspacePath(path))?.kind !== "file") throw new ClientError("not_found", "File not found");
      return { written: [], deleted: [path] };
    });
  }

  /**
   * Changes files and folders, all of them or none.
   *
   * @param contents of what is new, by SHA-256; null: nothing is.
   * @param plan called again where others change a workspace at the same time.
   * @throws {ClientError} 409 `file_open` where the session has a file of its own open that is deleted, 413 and 507 where there is no room.
   */
  async change(
    principal: string,
    id: string,
    signal: AbortSignal,
    contents: ReadonlyMap<string, Uint8Array> | null,
    plan: (files: WorkspaceIndex) => FileChange,
  ): Promise<void> {
    const { workspace } = await this.#open(principal, id);
    if (workspace) return await workspace.change(contents ?? new Map(), plan);
    await this.#changeOwn(principal, id, signal, contents, plan);
  }

  async #changeOwn(
    principal: string,
    id: string,
    signal: AbortSignal,
    contents: ReadonlyMap<string, Uint8Array> | null,
    plan: (files: WorkspaceIndex) => FileChange,
  ): Promise<void> {
    const { turns, store, identityOf, maxBytes, limits } = this.#options;
    await turns.runChange(principal, id, signal, async (live, lease) => {
      refusePinned(live, "given other files");
      const { record } = lease;
      const snapshot = await readState(store, record, identityOf(record.environment));
      const { written, deleted } = plan(snapshot.files);
      const gone = new Set(deleted);
      if (snapshot.state?.streams.some(({ path }) => gone.has(path))) throw new ClientError("file_open");
      const files = snapshot.files.merge(written, deleted, limits);
      const { ref, stored } = await toStored({ ...snapshot, files }, contents ?? new Map());
      if (ref.size + ref.fileBytes > maxBytes) {
        throw new ClientError("session_full", `A session may take at most ${mib(maxBytes)} MiB.`);
      }
      turns.evict(live);
      await turns.change(
        live,
        lease,
        { head: ref, previous: record.head },
        { ...stored, isDeletion: contents === null },
      );
    });
  }

  /** @returns with a workspace of null: the session has files of its own. */
  async #open(
    principal: string,
    id: string,
  ): Promise<{ readonly record: SessionRecord; readonly workspace: PrincipalWorkspace | null }> {
    const { turns, workspaces } = this.#options;
    const record = await turns.record(principal, id);
    return { record, workspace: record.files === "workspace" ? workspaces.of(principal) : null };
  }
}
