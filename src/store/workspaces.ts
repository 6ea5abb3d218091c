import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import path from "node:path";
import type { Workspace } from "../engine/execution.ts";
import { ClientError, notFound } from "../errors.ts";
import type { FileChanges, FileEntry } from "../sandbox/protocol.ts";
import { addressChanges } from "./addressed-changes.ts";
import type { Blob } from "./blob-folder.ts";
import { FolderLock } from "./folder-lock.ts";
import {
  fileEntry,
  tooManyBytes,
  type UploadRecord,
  WorkspaceIndex,
  type WorkspaceLimits,
  type WorkspaceUsage,
  type Written,
} from "./workspace-index.ts";
import { HOME, nameOf, parentOf, workspacePath } from "./workspace-path.ts";
import { type Snapshot, WorkspaceState } from "./workspace-state.ts";

export interface WorkspaceStoreOptions extends WorkspaceLimits {
  /** Host folder, `DATA_DIR/workspaces`; made if it is not there. One process at a time. */
  readonly directory: string;
  /** Most files and folders whose index entries stay in memory while their principals do nothing; default 200,000. */
  readonly maxCachedEntries?: number;
}

/** Where a content comes from. A `hostFile` is copied and stays where it is. */
export type ContentSource = Uint8Array | AsyncIterable<Uint8Array> | { readonly hostFile: string };

const DEFAULT_CACHED_ENTRIES = 200_000;

/**
 * Every principal's files, at rest on disk and durable once a call has returned:
 *
 *     <directory>/lock                             held while a process uses the folder
 *     <directory>/<SHA-256 of the principal's id>/
 *         index.json                               paths, times, upload records, and which blob belongs to which
 *         blobs/<SHA-256 of the content>           one for each different content of this workspace
 *         incoming/                                what is being written; emptied at start
 *
 * No name that a client or user code chose is part of a host path. A change first makes its blobs durable, then replaces
 * the index by a rename, and only then removes blobs that nobody needs: a crash at any point leaves the state before the
 * change or after it.
 *
 * **Two executions of one principal at once** each see the files as they were when they listed them, whatever the other
 * does. What they did is merged path by path in the order in which they finish: the later one wins a path that both
 * wrote, and only paths that an execution deleted itself are deleted. Nothing is ever written in part.
 */
export class WorkspaceStore {
  readonly #options: WorkspaceStoreOptions;
  readonly #lock: FolderLock;
  /** Least recently used first. */
  readonly #slots = new Map<string, Slot>();
  #cachedEntries = 0;
  #closed = false;

  /** @throws {StartupError} if another process uses the folder. */
  constructor(options: WorkspaceStoreOptions) {
    this.#options = options;
    this.#lock = new FolderLock(options.directory);
  }

  /** @param principal id of whom the files belong to; any text. */
  of(principal: string): PrincipalWorkspace {
    return new PrincipalWorkspace(() => this.#hold(principal), this.#options);
  }

  /** Waits for the changes that have begun, then lets the folder go. Later calls fail. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const states = await Promise.allSettled(Array.from(this.#slots.values(), (slot) => slot.loading));
    await Promise.all(states.map((state) => state.status === "fulfilled" && state.value.close()));
    this.#lock[Symbol.dispose]();
  }

  /** @returns the principal's workspace, which stays in memory at least until it is let go: there is only ever one. */
  async #hold(principal: string): Promise<HeldState> {
    if (this.#closed) throw new Error("the workspace store is closed");
    const id = createHash("sha256").update(principal).digest("hex");
    const slot = this.#slots.get(id) ?? {
      loading: WorkspaceState.load(path.join(this.#options.directory, id), principal),
      holders: 0,
      entries: 0,
    };
    this.#slots.delete(id);
    this.#slots.set(id, slot);
    slot.holders += 1;
    try {
      const state = await slot.loading;
      return { state, [Symbol.dispose]: () => this.#letGo(slot, state) };
    } catch (error) {
      if (this.#slots.get(id) === slot) this.#slots.delete(id);
      throw error;
    }
  }

  #letGo(slot: Slot, state: WorkspaceState): void {
    slot.holders -= 1;
    this.#cachedEntries += state.index.entryCount - slot.entries;
    slot.entries = state.index.entryCount;
    const maxEntries = this.#options.maxCachedEntries ?? DEFAULT_CACHED_ENTRIES;
    for (const [id, { holders, entries }] of this.#slots) {
      if (this.#cachedEntries <= maxEntries) break;
      if (holders > 0) continue;
      this.#slots.delete(id);
      this.#cachedEntries -= entries;
    }
  }
}

interface Slot {
  readonly loading: Promise<WorkspaceState>;
  /** Calls and snapshots that use the state now. */
  holders: number;
  /** Its share of the cached entries. */
  entries: number;
}

interface HeldState extends Disposable {
  readonly state: WorkspaceState;
}

/**
 * One principal's files, for the HTTP endpoints. Paths are the sandbox's: `/home/pyodide/data.csv`.
 *
 * **Uploads** are files twice over: in the home folder, where code reads, changes and removes them, and as a record with
 * a copy of what was uploaded. The two go separate ways from there. Deleting the record leaves the file, deleting the
 * file leaves the record, and a new upload of the same name replaces both. The copy counts towards the quota; on disk it
 * takes no room as long as the file is unchanged.
 *
 * Every method throws {@link ClientError}: 400 `invalid_path`, 413 `workspace_full`, and what it names itself.
 */
export class PrincipalWorkspace {
  readonly #hold: () => Promise<HeldState>;
  readonly #limits: WorkspaceLimits;

  constructor(hold: () => Promise<HeldState>, limits: WorkspaceLimits) {
    this.#hold = hold;
    this.#limits = limits;
  }

  /** The files as one execution sees and changes them. Dispose of it when the execution has ended. */
  forExecution(): ExecutionWorkspace {
    return new ExecutionWorkspace(this.#hold, this.#limits);
  }

  /** All files and folders, parents before children. */
  async list(): Promise<readonly FileEntry[]> {
    using held = await this.#hold();
    return held.state.index.listing;
  }

  async stat(filePath: string): Promise<FileEntry | undefined> {
    using held = await this.#hold();
    const entry = held.state.index.get(workspacePath(filePath));
    return entry && fileEntry(filePath, entry);
  }

  /** @throws {ClientError} 404 if there is no such file. */
  async read(filePath: string): Promise<Uint8Array> {
    using held = await this.#hold();
    const snapshot = held.state.snapshot();
    try {
      return await readFile(held.state, snapshot, workspacePath(filePath));
    } finally {
      await snapshot.release();
    }
  }

  /**
   * Writes one file; folders on the way to it are made.
   *
   * @throws {ClientError} 409 `not_a_file` if a folder is there, or a file is where a folder would have to be.
   */
  async put(filePath: string, source: ContentSource): Promise<FileEntry> {
    workspacePath(filePath);
    const mtimeMs = Date.now();
    const { size } = await this.#receive(source, (index, { sha256, size }) => {
      refuseConflict(index, filePath);
      return index.merge([{ path: filePath, kind: "file", mtimeMs, sha256, size }], [], this.#limits);
    });
    return { path: filePath, kind: "file", mtimeMs, size };
  }

  /** @throws {ClientError} 404 if there is no such file, 409 `not_a_file` for a folder. */
  async remove(filePath: string): Promise<void> {
    workspacePath(filePath);
    using held = await this.#hold();
    await held.state.change((index) => {
      const entry = index.get(filePath);
      if (!entry) throw fileNotFound(filePath);
      if (entry.kind === "folder") throw notAFile(filePath);
      return index.merge([], [filePath], this.#limits);
    });
  }

  /**
   * Removes all files, folders and upload records. What an execution that runs now writes comes after it, and stays.
   *
   * @returns how many upload records and files there were.
   */
  async clear(): Promise<{ uploads: number; files: number }> {
    using held = await this.#hold();
    let cleared = { uploads: 0, files: 0 };
    await held.state.change((index) => {
      const files = index.listing.filter(({ kind }) => kind === "file").length;
      cleared = { uploads: index.uploads.size, files };
      return WorkspaceIndex.empty(Date.now());
    });
    return cleared;
  }

  /**
   * Takes an upload in: the file in the home folder, its copies there under the names in `alsoAs`, and the record.
   *
   * @param names `filename` and `alsoAs` are single path components, made safe by `http/filenames.ts`; `originalName` is
   *   data only, and cut after 255 characters.
   * @throws {ClientError} 409 `not_a_file` if a folder has one of the names.
   */
  async upload(
    source: ContentSource,
    names: { readonly filename: string; readonly originalName: string; readonly alsoAs?: readonly string[] },
  ): Promise<UploadRecord> {
    const { filename, originalName, alsoAs = [] } = names;
    const paths = [filename, ...alsoAs].map((name) => workspacePath(`${HOME}/${name}`));
    const uploadedAtMs = Date.now();
    const { sha256, size } = await this.#receive(source, (index, { sha256, size }) => {
      for (const filePath of paths) refuseConflict(index, filePath);
      const written = paths.map((path): Written => ({ path, kind: "file", mtimeMs: uploadedAtMs, sha256, size }));
      return index.withUpload({ filename, originalName, uploadedAtMs, sha256, size }, written, this.#limits);
    });
    return { filename, originalName, uploadedAtMs, sha256, size };
  }

  /** Upload records, newest first. */
  async uploads(): Promise<readonly UploadRecord[]> {
    using held = await this.#hold();
    // A map keeps the order of insertion, which settles two uploads of one millisecond.
    return [...held.state.index.uploads.values()].reverse().sort((a, b) => b.uploadedAtMs - a.uploadedAtMs);
  }

  /** What was uploaded, as it was. @throws {ClientError} 404 if there is no such record. */
  async readUpload(filename: string): Promise<Uint8Array> {
    using held = await this.#hold();
    const snapshot = held.state.snapshot();
    try {
      return await held.state.blobs.read(uploadOf(snapshot.index, filename));
    } finally {
      await snapshot.release();
    }
  }

  /** Forgets an upload and its copy; the file in the home folder stays. @throws {ClientError} 404 if there is none. */
  async removeUpload(filename: string): Promise<void> {
    using held = await this.#hold();
    await held.state.change((index) => index.withoutUpload(uploadOf(index, filename).filename));
  }

  async usage(): Promise<WorkspaceUsage> {
    using held = await this.#hold();
    return held.state.index.usage;
  }

  async #receive(source: ContentSource, plan: (index: WorkspaceIndex, blob: Blob) => WorkspaceIndex): Promise<Blob> {
    using held = await this.#hold();
    const { blobs } = held.state;
    const received = await blobs.receive(chunksOf(source), this.#limits.maxBytes, () => tooManyBytes(this.#limits));
    try {
      await held.state.change(
        (index) => plan(index, received),
        async (isMissing) => {
          if (isMissing(received.sha256)) await blobs.adopt(received);
        },
      );
    } finally {
      await blobs.drop(received);
    }
    return received;
  }
}

/**
 * A principal's files for one execution: those of the moment at which it listed them, to the end of the execution.
 * {@link WorkspaceStore} says what happens when two run at once.
 */
export class ExecutionWorkspace implements Workspace, Disposable {
  readonly #hold: () => Promise<HeldState>;
  readonly #limits: WorkspaceLimits;
  #current: Promise<HeldSnapshot> | undefined;
  #disposed = false;

  constructor(hold: () => Promise<HeldState>, limits: WorkspaceLimits) {
    this.#hold = hold;
    this.#limits = limits;
  }

  /** Takes a new snapshot each time, so that an execution that has to be started again sees the files of then. */
  async list(): Promise<readonly FileEntry[]> {
    const before = this.#current;
    this.#current = this.#takeSnapshot();
    letGo(before);
    return (await this.#current).snapshot.index.listing;
  }

  async read(filePath: string): Promise<Uint8Array> {
    this.#current ??= this.#takeSnapshot();
    const { held, snapshot } = await this.#current;
    return readFile(held.state, snapshot, filePath);
  }

  /** What the sandbox may let user code fill: the limits less what upload copies take. */
  async quota(): Promise<{ bytes: number; files: number }> {
    using held = await this.#hold();
    const { uploads } = held.state.index;
    const uploadBytes = uploads.values().reduce((sum, { size }) => sum + size, 0);
    return {
      bytes: Math.max(0, this.#limits.maxBytes - uploadBytes),
      files: Math.max(0, this.#limits.maxFiles - uploads.size),
    };
  }

  /** @throws {ClientError} 400 `invalid_path` or `invalid_changes`, 413 `workspace_full`; then nothing has changed. */
  async apply(changes: FileChanges, contents: readonly Uint8Array[]): Promise<void> {
    if (changes.written.length === 0 && changes.deleted.length === 0) return;
    const { written, contents: blobs } = await addressChanges(changes, contents, this.#limits);
    using held = await this.#hold();
    await held.state.change(
      (index) => index.merge(written, changes.deleted, this.#limits),
      async (isMissing) => {
        for (const sha256 of blobs.keys()) if (!isMissing(sha256)) blobs.delete(sha256);
        await held.state.blobs.write(blobs);
      },
    );
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    letGo(this.#current);
    this.#current = undefined;
  }

  async #takeSnapshot(): Promise<HeldSnapshot> {
    if (this.#disposed) throw new Error("the execution has ended");
    const held = await this.#hold();
    return { held, snapshot: held.state.snapshot() };
  }
}

interface HeldSnapshot {
  readonly held: HeldState;
  readonly snapshot: Snapshot;
}

function letGo(taken: Promise<HeldSnapshot> | undefined): void {
  taken?.then(
    // Blobs are still being removed until `release` is through, so the state must not leave memory before.
    ({ held, snapshot }) => snapshot.release().then(() => held[Symbol.dispose]()),
    // Who asked for the snapshot has been told that there is none.
    () => {},
  );
}

function chunksOf(source: ContentSource): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
  if (source instanceof Uint8Array) return [source];
  return "hostFile" in source ? createReadStream(source.hostFile) : source;
}

function readFile(state: WorkspaceState, { index }: Snapshot, filePath: string): Promise<Uint8Array> {
  const entry = index.get(filePath);
  if (entry?.kind !== "file") throw fileNotFound(filePath);
  return state.blobs.read(entry);
}

function uploadOf(index: WorkspaceIndex, filename: string): UploadRecord {
  const upload = index.uploads.get(filename);
  if (!upload) throw notFound("File not found");
  return upload;
}

/** A client that puts a file somewhere means a file there; only merged executions may replace folders by files. */
function refuseConflict(index: WorkspaceIndex, filePath: string): void {
  if (index.get(filePath)?.kind === "folder") throw notAFile(filePath);
  for (let parent = parentOf(filePath); parent !== ""; parent = parentOf(parent)) {
    if (index.get(parent)?.kind === "file") throw new ClientError(409, "not_a_file", `${nameOf(parent)} is a file`);
  }
}

function fileNotFound(filePath: string): ClientError {
  return notFound(`File ${nameOf(filePath)} not found`);
}

function notAFile(filePath: string): ClientError {
  return new ClientError(409, "not_a_file", `${nameOf(filePath)} is a folder`);
}
