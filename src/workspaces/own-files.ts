import { ClientError } from "../shared/errors.ts";
import type { FileChanges } from "../wire/guest-messages.ts";
import type { Workspace } from "../wire/host-calls.ts";
import type { FileEntry } from "../wire/messages.ts";
import { addressChanges, addressFiles } from "./addressed-changes.ts";
import { nameOf } from "./paths.ts";
import { WorkspaceIndex, type WorkspaceLimits } from "./workspace-index.ts";

/** Files of one execution alone, in memory: those that it begins with, and after it those that it has left. */
export class OwnFiles implements Workspace {
  readonly #limits: WorkspaceLimits;
  readonly #contents: Map<string, Uint8Array>;
  readonly #before: WorkspaceIndex;
  #index: WorkspaceIndex;

  private constructor(index: WorkspaceIndex, contents: Map<string, Uint8Array>, limits: WorkspaceLimits) {
    this.#limits = limits;
    this.#contents = contents;
    this.#before = index;
    this.#index = index;
  }

  /**
   * @param files by their paths in the sandbox: `/home/pyodide/data.csv`. Folders on the way are made.
   * @throws {ClientError} 400 `invalid_path`, `invalid_changes`; 413 `workspace_full`.
   */
  static async of(files: ReadonlyMap<string, Uint8Array>, limits: WorkspaceLimits): Promise<OwnFiles> {
    const { written, contents } = await addressFiles(files, limits);
    return new OwnFiles(WorkspaceIndex.empty(Date.now()).merge(written, [], limits), contents, limits);
  }

  async list(): Promise<readonly FileEntry[]> {
    return this.#index.listing;
  }

  async quota(): Promise<{ bytes: number; files: number }> {
    return { bytes: this.#limits.maxBytes, files: this.#limits.maxFiles };
  }

  async read(path: string): Promise<Uint8Array> {
    const content = this.contentOf(path);
    if (content === undefined) throw new ClientError("not_found", `File ${nameOf(path)} not found`);
    return content;
  }

  async apply(changes: FileChanges, bodies: readonly Uint8Array[]): Promise<void> {
    const { written, contents } = await addressChanges(changes, bodies, this.#limits);
    this.#index = this.#index.merge(written, changes.deleted, this.#limits);
    for (const [sha256, content] of contents) this.#contents.set(sha256, content);
  }

  /** @returns undefined: there is no such file. */
  contentOf(path: string): Uint8Array | undefined {
    const entry = this.#index.get(path);
    return entry?.kind === "file" ? this.#contents.get(entry.sha256) : undefined;
  }

  /** Files that are new, or have another content than before, by their paths. */
  get changed(): ReadonlyMap<string, Uint8Array> {
    const changed = new Map<string, Uint8Array>();
    for (const [path, entry] of this.#index.entries()) {
      if (entry.kind !== "file") continue;
      const before = this.#before.get(path);
      const content = this.#contents.get(entry.sha256);
      const isSame = before?.kind === "file" && before.sha256 === entry.sha256;
      if (!isSame && content !== undefined) changed.set(path, content);
    }
    return changed;
  }
}
