import { createReadStream } from "node:fs";
import type { Blob } from "../shared/blob-folder.ts";
import { ClientError } from "../shared/errors.ts";
import type { FileChanges } from "../wire/guest-messages.ts";
import type { Workspace } from "../wire/host-calls.ts";
import type { FileEntry } from "../wire/messages.ts";
import { addressChanges, addressFiles } from "./addressed-changes.ts";
import { HOME, nameOf, parentOf, workspacePath } from "./paths.ts";
import type { HeldWorkspace, Snapshot } from "./storage.ts";
import {
  fileEntry,
  tooManyBytes,
  type UploadRecord,
  WorkspaceIndex,
  type WorkspaceLimits,
  type WorkspaceUsage,
  type Written,
} from "./workspace-index.ts";

/** Where a content comes from. A `hostFile` is copied and stays where it is. */
export type ContentSource = Uint8Array | AsyncIterable<Uint8Array> | { readonly hostFile: string };

/**
 * Every principal's files, at rest and durable once a call has returned: on this server's disk, or in Redis, where all
 * servers of a fleet have the same.
 *
 * **Two executions of one principal at once** each see the files as they were when they listed them, whatever the other
 * does. What they did is merged path by path in the order in which they finish: the later one wins a path that both
 * wrote, and only paths that an execution deleted itself are deleted. Nothing is ever written in part.
 */
export interface WorkspaceStore {
  /** @param principal id of whom the files belong to; any text. */
  of(principal: string): PrincipalWorkspace;
  /** Waits for the changes that have begun. Later calls fail. */
  close(): Promise<void>;
}

/**
 * One principal's files, for the HTTP endpoints. Paths are the sandbox's: `/home/pyodide/data.csv`.
 *
 * **Uploads** are a file in the home folder, which code reads, changes and removes, and a record that it came. The two go
 * separate ways from there: deleting the record leaves the file, deleting the file leaves the record, and a new upload of
 * the same name replaces both.
 *
 * Every method throws {@link ClientError}: 400 `invalid_path`, 413 `workspace_full`, what it names itself, and with Redis
 * 503 `store_unavailable` and 507 `store_full`.
 */
export class PrincipalWorkspace {
  readonly #hold: () => Promise<HeldWorkspace>;
  readonly #limits: WorkspaceLimits;

  constructor(hold: () => Promise<HeldWorkspace>, limits: WorkspaceLimits) {
    this.#hold = hold;
    this.#limits = limits;
  }

  /** The files as one execution sees and changes them. Dispose of it when the execution has ended. */
  forExecution(): ExecutionWorkspace {
    return new ExecutionWorkspace(this.#hold, this.#limits);
  }

  /** All files and folders, parents before children. */
  async list(): Promise<readonly FileEntry[]> {
    return (await this.index()).listing;
  }

  /** As {@link list}, with the contents' hashes. */
  async index(): Promise<WorkspaceIndex> {
    using held = await this.#hold();
    return await held.storage.current();
  }

  async stat(filePath: string): Promise<FileEntry | undefined> {
    using held = await this.#hold();
    const entry = (await held.storage.current()).get(workspacePath(filePath));
    return entry && fileEntry(filePath, entry);
  }

  /** @param onSize called before the content is read; what it throws is thrown. @throws {ClientError} 404 if there is no such file. */
  async read(filePath: string, onSize?: (bytes: number) => void): Promise<Uint8Array> {
    using held = await this.#hold();
    const snapshot = await held.storage.snapshot();
    try {
      return await readFile(snapshot, workspacePath(filePath), onSize);
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

  /** Writes a file with the content of another, which is not read for it. @throws {ClientError} 404 if there is no such file; as {@link put}. */
  async copy(from: string, to: string): Promise<FileEntry> {
    workspacePath(to);
    const mtimeMs = Date.now();
    let size = 0;
    await this.change(new Map(), (index) => {
      const entry = index.get(from);
      if (entry?.kind !== "file") throw fileNotFound(from);
      refuseConflict(index, to);
      ({ size } = entry);
      return { written: [{ ...entry, path: to, mtimeMs }], deleted: [] };
    });
    return { path: to, kind: "file", mtimeMs, size };
  }

  /** Writes several files, all or none. @param contents by their paths. @throws as {@link put}. */
  async putAll(contents: ReadonlyMap<string, Uint8Array>): Promise<readonly FileEntry[]> {
    const { entries, written, contents: bytes } = await addressFiles(contents, this.#limits);
    await this.change(bytes, (index) => {
      for (const { path } of entries) refuseConflict(index, path);
      return { written, deleted: [] };
    });
    return entries;
  }

  /**
   * Changes files and folders, all of them or none.
   *
   * @param contents of what is new, by SHA-256.
   * @param plan says from the current index what is written and deleted; called again where others change it at the same time.
   */
  async change(
    contents: ReadonlyMap<string, Uint8Array>,
    plan: (index: WorkspaceIndex) => { readonly written: readonly Written[]; readonly deleted: readonly string[] },
  ): Promise<void> {
    using held = await this.#hold();
    await held.storage.change(
      (index) => {
        const { written, deleted } = plan(index);
        return index.merge(written, deleted, this.#limits);
      },
      { bytes: contents },
    );
  }

  /** @throws {ClientError} 404 if there is no such file, 409 `not_a_file` for a folder. */
  async remove(filePath: string): Promise<void> {
    workspacePath(filePath);
    using held = await this.#hold();
    await held.storage.change((index) => {
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
    await held.storage.change((index) => {
      const files = index.listing.filter(({ kind }) => kind === "file").length;
      cleared = { uploads: index.uploads.size, files };
      const empty = WorkspaceIndex.empty(Date.now());
      return index.entryCount === empty.entryCount ? index : empty;
    });
    return cleared;
  }

  /**
   * Takes an upload in: the file in the home folder, its copies there under the names in `alsoAs`, and the record.
   *
   * @param names `filename` and `alsoAs` are single path components, made safe by `http/filenames.ts`; `originalName` is
   *   data only, and cut after 255 characters.
   * @returns the record, whose `filename` has a number where an upload with another original name has the name that was
   *   asked for: 日本.csv and 中国.csv both become `__.csv`, and the second `__-2.csv`.
   * @throws {ClientError} 409 `not_a_file` if a folder has one of the names.
   */
  async upload(
    source: ContentSource,
    names: { readonly filename: string; readonly originalName: string; readonly alsoAs?: readonly string[] },
  ): Promise<UploadRecord> {
    const { originalName, alsoAs = [] } = names;
    let { filename } = names;
    workspacePath(`${HOME}/${filename}`);
    const uploadedAtMs = Date.now();
    const { sha256, size } = await this.#receive(source, (index, { sha256, size }) => {
      filename = index.uploadName(names.filename, originalName);
      const paths = [filename, ...alsoAs].map((name) => workspacePath(`${HOME}/${name}`));
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
    return [...(await held.storage.current()).uploads.values()]
      .reverse()
      .sort((a, b) => b.uploadedAtMs - a.uploadedAtMs);
  }

  /** Forgets an upload; the file in the home folder stays. @throws {ClientError} 404 if there is none. */
  async removeUpload(filename: string): Promise<void> {
    using held = await this.#hold();
    await held.storage.change((index) => index.withoutUpload(uploadOf(index, filename).filename));
  }

  async usage(): Promise<WorkspaceUsage> {
    using held = await this.#hold();
    return (await held.storage.current()).usage;
  }

  async #receive(source: ContentSource, plan: (index: WorkspaceIndex, blob: Blob) => WorkspaceIndex): Promise<Blob> {
    using held = await this.#hold();
    const received = await held.storage.receive(chunksOf(source), this.#limits.maxBytes, () =>
      tooManyBytes(this.#limits),
    );
    try {
      await held.storage.change((index) => plan(index, received), { received });
    } finally {
      await received.drop();
    }
    return received;
  }
}

/**
 * A principal's files for one execution: those of the moment at which it listed them, to the end of the execution.
 * {@link WorkspaceStore} says what happens when two run at once.
 */
export class ExecutionWorkspace implements Workspace, Disposable {
  readonly #hold: () => Promise<HeldWorkspace>;
  readonly #limits: WorkspaceLimits;
  #current: Promise<HeldSnapshot> | undefined;
  #disposed = false;

  constructor(hold: () => Promise<HeldWorkspace>, limits: WorkspaceLimits) {
    this.#hold = hold;
    this.#limits = limits;
  }

  /** Takes a new snapshot each time, so that an execution that has to be started again sees the files of then. */
  async list(): Promise<readonly FileEntry[]> {
    return (await this.look()).listing;
  }

  /** As {@link list}, with the contents' hashes. */
  async look(): Promise<WorkspaceIndex> {
    const before = this.#current;
    this.#current = this.#takeSnapshot();
    letGo(before);
    return (await this.#current).snapshot.index;
  }

  async read(filePath: string): Promise<Uint8Array> {
    this.#current ??= this.#takeSnapshot();
    const { snapshot } = await this.#current;
    return readFile(snapshot, filePath);
  }

  /** What the sandbox may let user code fill: the limits less the upload records. */
  async quota(): Promise<{ bytes: number; files: number }> {
    using held = await this.#hold();
    const { uploads } = await held.storage.current();
    return { bytes: this.#limits.maxBytes, files: Math.max(0, this.#limits.maxFiles - uploads.size) };
  }

  /** @throws {ClientError} 400 `invalid_path` or `invalid_changes`, 413 `workspace_full`; then nothing has changed. */
  async apply(changes: FileChanges, contents: readonly Uint8Array[]): Promise<void> {
    await this.keep(changes, contents);
  }

  /**
   * As {@link apply}.
   *
   * @returns what the execution's own folders hold: the workspace's index, unless others have changed it since it was listed.
   */
  async keep({ written, deleted }: FileChanges, contents: readonly Uint8Array[]): Promise<WorkspaceIndex> {
    this.#current ??= this.#takeSnapshot();
    const { index: listed } = (await this.#current).snapshot;
    if (written.length === 0 && deleted.length === 0) return listed;
    const addressed = await addressChanges({ written, deleted }, contents, this.#limits);
    let own = listed;
    using held = await this.#hold();
    await held.storage.change(
      (index) => {
        const next = index.merge(addressed.written, deleted, this.#limits);
        own = index === listed ? next : listed.merge(addressed.written, deleted, UNLIMITED);
        return next;
      },
      { bytes: addressed.contents },
    );
    return own;
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    letGo(this.#current);
    this.#current = undefined;
  }

  async #takeSnapshot(): Promise<HeldSnapshot> {
    if (this.#disposed) throw new Error("the execution has ended");
    const held = await this.#hold();
    return { held, snapshot: await held.storage.snapshot() };
  }
}

/** Of what is only looked at: others may have made the room for it. */
const UNLIMITED: WorkspaceLimits = { maxBytes: Number.POSITIVE_INFINITY, maxFiles: Number.POSITIVE_INFINITY };

interface HeldSnapshot {
  readonly held: HeldWorkspace;
  readonly snapshot: Snapshot;
}

function letGo(taken: Promise<HeldSnapshot> | undefined): void {
  taken?.then(
    // Contents are still being removed until `release` is through, so the workspace must not leave memory before.
    ({ held, snapshot }) => snapshot.release().then(() => held[Symbol.dispose]()),
    // Who asked for the snapshot has been told that there is none.
    () => {},
  );
}

function chunksOf(source: ContentSource): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
  if (source instanceof Uint8Array) return [source];
  return "hostFile" in source ? createReadStream(source.hostFile) : source;
}

function readFile(snapshot: Snapshot, filePath: string, onSize?: (bytes: number) => void): Promise<Uint8Array> {
  const entry = snapshot.index.get(filePath);
  if (entry?.kind !== "file") throw fileNotFound(filePath);
  onSize?.(entry.size);
  return snapshot.read(entry);
}

function uploadOf(index: WorkspaceIndex, filename: string): UploadRecord {
  const upload = index.uploads.get(filename);
  if (!upload) throw new ClientError("not_found", "File not found");
  return upload;
}

/** A client that puts a file somewhere means a file there; only merged executions may replace folders by files. */
function refuseConflict(index: WorkspaceIndex, filePath: string): void {
  if (index.get(filePath)?.kind === "folder") throw notAFile(filePath);
  for (let parent = parentOf(filePath); parent !== ""; parent = parentOf(parent)) {
    if (index.get(parent)?.kind === "file") throw new ClientError("not_a_file", `${nameOf(parent)} is a file`);
  }
}

function fileNotFound(filePath: string): ClientError {
  return new ClientError("not_found", `File ${nameOf(filePath)} not found`);
}

function notAFile(filePath: string): ClientError {
  return new ClientError("not_a_file", `${nameOf(filePath)} is a folder`);
}
