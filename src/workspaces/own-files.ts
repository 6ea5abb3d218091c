import { type Blob, sha256Hex } from "../shared/blob-folder.ts";
import { ClientError } from "../shared/errors.ts";
import type { FileChanges } from "../wire/guest-messages.ts";
import type { Workspace } from "../wire/host-calls.ts";
import type { FileEntry } from "../wire/messages.ts";
import { addressChanges, addressFiles } from "./addressed-changes.ts";
import { nameOf, workspacePath } from "./paths.ts";
import { WorkspaceIndex, type WorkspaceLimits, type Written } from "./workspace-index.ts";

/** A content that is kept elsewhere. It is read when code opens its file: executions that wait for a sandbox have none of theirs in memory. */
export interface KeptContent extends Blob {
  /** @throws {ClientError} if it is gone. */
  read(): Promise<Uint8Array>;
}

/** Files of one execution alone: those that it begins with, and after it, in memory, those that it has left. */
export class OwnFiles implements Workspace {
  readonly #limits: WorkspaceLimits;
  readonly #contents: Map<string, Uint8Array>;
  /** By SHA-256. */
  readonly #kept: ReadonlyMap<string, KeptContent>;
  readonly #before: WorkspaceIndex;
  #index: WorkspaceIndex;

  private constructor(
    index: WorkspaceIndex,
    contents: Map<string, Uint8Array>,
    kept: ReadonlyMap<string, KeptContent>,
    limits: WorkspaceLimits,
  ) {
    this.#limits = limits;
    this.#contents = contents;
    this.#kept = kept;
    this.#before = index;
    this.#index = index;
  }

  /**
   * @param files by their paths in the sandbox: `/home/pyodide/data.csv`. Folders on the way are made.
   * @param kept further ones.
   * @throws {ClientError} 400 `invalid_path`, `invalid_changes`; 413 `workspace_full`.
   */
  static async of(
    files: ReadonlyMap<string, Uint8Array>,
    limits: WorkspaceLimits,
    kept: ReadonlyMap<string, KeptContent> = new Map(),
  ): Promise<OwnFiles> {
    const { written, contents } = await addressFiles(files, limits);
    const mtimeMs = Date.now();
    const keptFiles = Array.from(kept, ([path, { sha256, size }]): Written => {
      return { path: workspacePath(path), kind: "file", mtimeMs, sha256, size };
    });
    const index = WorkspaceIndex.empty(mtimeMs).merge([...written, ...keptFiles], [], limits);
    return new OwnFiles(index, contents, new Map(Array.from(kept.values(), (one) => [one.sha256, one])), limits);
  }

  async list(): Promise<readonly FileEntry[]> {
    return this.#index.listing;
  }

  async quota(): Promise<{ bytes: number; files: number }> {
    return { bytes: this.#limits.maxBytes, files: this.#limits.maxFiles };
  }

  async read(path: string): Promise<Uint8Array> {
    const entry = this.#index.get(path);
    if (entry?.kind !== "file") throw new ClientError("not_found", `File ${nameOf(path)} not found`);
    const own = this.#contents.get(entry.sha256);
    if (own !== undefined) return own;
    const kept = await this.#kept.get(entry.sha256)?.read();
    // What is kept may have been replaced since the execution was asked for.
    if (kept === undefined || (await sha256Hex(kept)) !== entry.sha256) throw new ClientError("content_gone");
    return kept;
  }

  async apply(changes: FileChanges, bodies: readonly Uint8Array[]): Promise<void> {
    const { written, contents } = await addressChanges(changes, bodies, this.#limits);
    this.#index = this.#index.merge(written, changes.deleted, this.#limits);
    for (const [sha256, content] of contents) this.#contents.set(sha256, content);
  }

  has(path: string): boolean {
    return this.#index.get(path)?.kind === "file";
  }

  /** @returns undefined: there is no such file, or it is one that is kept elsewhere, as it was. */
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
