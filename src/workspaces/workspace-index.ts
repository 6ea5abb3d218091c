import path from "node:path";
import { z } from "zod";
import type { Blob } from "../shared/blob-folder.ts";
import { ClientError } from "../shared/errors.ts";
import type { Config } from "../shared/settings.ts";
import type { FileEntry } from "../wire/messages.ts";
import { FIXED_FOLDERS, HOME, parentOf, workspacePath } from "./paths.ts";

type IndexedFolder = { readonly kind: "folder"; readonly mtimeMs: number };
type IndexedFile = { readonly kind: "file"; readonly mtimeMs: number } & Blob;
type IndexEntry = IndexedFolder | IndexedFile;

/** That a file came by upload, and what it was then: `sha256` and `size` stay, whatever becomes of the file. */
export interface UploadRecord extends Blob {
  /** What the workspace calls it; one record for each name. */
  readonly filename: string;
  /** What the client called it. Data only: it is no path of anything. */
  readonly originalName: string;
  /** ms since 1970. */
  readonly uploadedAtMs: number;
}

export interface WorkspaceLimits {
  /** Bytes of all files; contents that are equal count each time. */
  readonly maxBytes: number;
  /** Files, folders (the fixed ones aside) and upload records together. */
  readonly maxFiles: number;
}

export function workspaceLimits({
  WORKSPACE_MAX_MB,
  WORKSPACE_MAX_FILES,
}: Pick<Config, "WORKSPACE_MAX_MB" | "WORKSPACE_MAX_FILES">): WorkspaceLimits {
  return { maxBytes: WORKSPACE_MAX_MB * 2 ** 20, maxFiles: WORKSPACE_MAX_FILES };
}

export interface WorkspaceUsage {
  readonly bytes: number;
  readonly files: number;
  /** UTF-8 bytes of all paths. */
  readonly pathBytes: number;
}

/** Files and folders to add or replace; a file's content is in its blob. */
export type Written = { readonly path: string } & IndexEntry;

// The index is rewritten with each change, so its size is bounded too: 10,000 paths of 400 bytes.
const MAX_PATH_BYTES_TOTAL = 4 * 1024 * 1024;
const MAX_ORIGINAL_NAME_CHARACTERS = 255;
// A session is stored after each execution, most of which change no file.
const MAX_KEPT_JSON_CHARACTERS = 64 * 1024;
// Beyond these a Date is invalid, and printing it throws.
const MAX_TIME_MS = 8.64e15;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const size = z.number().int().nonnegative();
const indexFile = z.object({
  version: z.literal(1),
  /** For a person who looks at the folder. */
  principal: z.string(),
  /** `[path, mtimeMs]` is a folder, `[path, mtimeMs, size, sha256]` a file. */
  entries: z.array(z.union([z.tuple([z.string(), z.number()]), z.tuple([z.string(), z.number(), size, sha256])])),
  uploads: z.array(
    z.object({ filename: z.string(), originalName: z.string(), uploadedAtMs: z.number(), size, sha256 }),
  ),
});

/**
 * What is in one workspace at one moment. Immutable: a change makes a new one, so a reference is a snapshot.
 *
 * Each entry's parent is a folder in it, up to one of the fixed folders.
 */
export class WorkspaceIndex {
  readonly uploads: ReadonlyMap<string, UploadRecord>;
  readonly usage: WorkspaceUsage;
  readonly #entries: ReadonlyMap<string, IndexEntry>;
  #listing: readonly FileEntry[] | undefined;
  #blobs: ReadonlySet<string> | undefined;
  #json: { readonly principal: string; readonly text: string } | undefined;

  constructor(
    entries: ReadonlyMap<string, IndexEntry>,
    uploads: ReadonlyMap<string, UploadRecord>,
    usage: WorkspaceUsage,
  ) {
    this.#entries = entries;
    this.uploads = uploads;
    this.usage = usage;
  }

  static empty(nowMs: number): WorkspaceIndex {
    const folders = [...FIXED_FOLDERS].map((path) => [path, { kind: "folder", mtimeMs: nowMs }] as const);
    return new WorkspaceIndex(new Map(folders), new Map(), { bytes: 0, files: 0, pathBytes: 0 });
  }

  /** @throws {Error} if the text is not an index that {@link toJson} wrote. */
  static parse(text: string): WorkspaceIndex {
    const file = indexFile.parse(JSON.parse(text));
    const draft = new Draft(WorkspaceIndex.empty(0));
    for (const [path, mtimeMs, size, sha256] of file.entries) {
      draft.set(
        workspacePath(path),
        size === undefined || sha256 === undefined
          ? { kind: "folder", mtimeMs }
          : { kind: "file", mtimeMs, size, sha256 },
      );
    }
    for (const upload of file.uploads) draft.addUpload(upload);
    return draft.finish();
  }

  toJson(principal: string): string {
    if (this.#json?.principal === principal) return this.#json.text;
    const entries = Array.from(this.#entries, ([path, entry]) =>
      entry.kind === "folder" ? [path, entry.mtimeMs] : [path, entry.mtimeMs, entry.size, entry.sha256],
    );
    const text = JSON.stringify({ version: 1, principal, entries, uploads: [...this.uploads.values()] });
    if (text.length <= MAX_KEPT_JSON_CHARACTERS) this.#json = { principal, text };
    return text;
  }

  get(path: string): IndexEntry | undefined {
    return this.#entries.get(path);
  }

  entries(): Iterable<readonly [string, IndexEntry]> {
    return this.#entries;
  }

  /** Files and folders, by which the cache bounds the memory of many indexes. */
  get entryCount(): number {
    return this.#entries.size + this.uploads.size;
  }

  /** All files and folders, parents before children. */
  get listing(): readonly FileEntry[] {
    this.#listing ??= Array.from(this.#entries, ([path, entry]) => fileEntry(path, entry)).sort((a, b) =>
      a.path < b.path ? -1 : 1,
    );
    return this.#listing;
  }

  /** Whether a sandbox that was filled from one of the two has what the other lists. */
  hasSameFiles(other: WorkspaceIndex): boolean {
    if (other === this) return true;
    if (other.#entries.size !== this.#entries.size || other.uploads.size !== this.uploads.size) return false;
    return this.#entries.entries().every(([path, entry]) => isEqual(entry, other.#entries.get(path)));
  }

  /** SHA-256 of every content this index needs. */
  get blobs(): ReadonlySet<string> {
    if (this.#blobs) return this.#blobs;
    const blobs = new Set<string>();
    for (const entry of this.#entries.values()) if (entry.kind === "file") blobs.add(entry.sha256);
    this.#blobs = blobs;
    return blobs;
  }

  /**
   * The workspace after what one execution did, on top of what others did meanwhile. Path by path the later one wins:
   *
   * - Only the paths in `deleted` go, and a folder only if nothing is left in it: what another execution put there stays.
   * - A file that is written where a folder now is replaces it and all that is in it, and the other way round.
   * - Parents that are missing come back.
   * - The fixed folders stay.
   *
   * @throws {ClientError} 400 `invalid_path`, 400 `invalid_changes` (a file inside a file), 413 `workspace_full`.
   */
  merge(written: readonly Written[], deleted: readonly string[], limits: WorkspaceLimits): WorkspaceIndex {
    if (written.length === 0 && deleted.length === 0) return this;
    const draft = new Draft(this);
    draft.delete(deleted.map(workspacePath));
    draft.write(written, limits);
    return draft.finish(limits);
  }

  /**
   * The name for an upload: `filename`, or with a number before its extension where another upload already has that
   * name. The same original name again gets the name it had.
   */
  uploadName(filename: string, originalName: string): string {
    const original = storedName(originalName);
    const { name, ext } = path.parse(filename);
    for (let number = 1; ; number++) {
      const candidate = number === 1 ? filename : `${name}-${number}${ext}`;
      const upload = this.uploads.get(candidate);
      if (upload !== undefined ? upload.originalName === original : this.#isFree(candidate, number)) return candidate;
    }
  }

  /** A numbered name takes no other file's place; the plain one does, as the compatibility contract has it. */
  #isFree(filename: string, number: number): boolean {
    return number === 1 || !this.#entries.has(`${HOME}/${filename}`);
  }

  /** @throws {ClientError} 413 `workspace_full`. */
  withUpload(upload: UploadRecord, written: readonly Written[], limits: WorkspaceLimits): WorkspaceIndex {
    const draft = new Draft(this);
    draft.addUpload({ ...upload, originalName: storedName(upload.originalName) });
    draft.write(written, limits);
    return draft.finish(limits);
  }

  withoutUpload(filename: string): WorkspaceIndex {
    const draft = new Draft(this);
    draft.removeUpload(filename);
    return draft.finish();
  }
}

/** The next index while it is being made; the sums move along, so that no change can run far past a limit. */
class Draft {
  readonly #before: WorkspaceUsage;
  readonly #entries: Map<string, IndexEntry>;
  readonly #uploads: Map<string, UploadRecord>;
  #bytes: number;
  #pathBytes: number;

  constructor(index: WorkspaceIndex) {
    this.#entries = new Map(index.entries());
    this.#uploads = new Map(index.uploads);
    this.#before = index.usage;
    this.#bytes = index.usage.bytes;
    this.#pathBytes = index.usage.pathBytes;
  }

  set(path: string, entry: IndexEntry): void {
    const before = this.#entries.get(path);
    this.#bytes += sizeOf(entry) - sizeOf(before);
    if (before === undefined) this.#pathBytes += Buffer.byteLength(path);
    this.#entries.set(path, entry);
  }

  addUpload(upload: UploadRecord): void {
    workspacePath(`${HOME}/${upload.filename}`);
    if (upload.filename.includes("/")) throw new ClientError("invalid_path", "Invalid filename");
    // The last one is the newest.
    this.#uploads.delete(upload.filename);
    this.#uploads.set(upload.filename, upload);
  }

  removeUpload(filename: string): void {
    this.#uploads.delete(filename);
  }

  delete(paths: readonly string[]): void {
    if (paths.length === 0) return;
    const children = this.#countChildren();
    // Children's paths are longer than their folder's, so a folder has its turn when they are gone.
    for (const path of new Set(paths.toSorted((a, b) => b.length - a.length))) {
      if (FIXED_FOLDERS.has(path) || !this.#entries.has(path) || (children.get(path) ?? 0) > 0) continue;
      this.#remove(path);
      const parent = parentOf(path);
      children.set(parent, (children.get(parent) ?? 1) - 1);
    }
  }

  write(written: readonly Written[], limits: WorkspaceLimits): void {
    const files = new Set<string>();
    for (const { path, kind } of written) {
      workspacePath(path);
      if (kind === "file") files.add(path);
    }
    this.#emptyReplacedFolders(files);
    for (const { path, ...entry } of written) {
      if (FIXED_FOLDERS.has(path) && entry.kind === "file") throw invalidChanges(path);
      const timed = { ...entry, mtimeMs: validTime(entry.mtimeMs, path) };
      this.#makeParents(path, timed.mtimeMs, files);
      this.set(path, timed);
      this.#checkCounts(limits);
    }
  }

  /** @param limits none: the change can only have made it smaller, or it is as it was on disk. */
  finish(limits?: WorkspaceLimits): WorkspaceIndex {
    const usage = { bytes: this.#bytes, files: this.#files(), pathBytes: this.#pathBytes };
    if (limits) {
      // A limit that was lowered must not keep anybody from making room.
      if (usage.bytes > Math.max(limits.maxBytes, this.#before.bytes)) throw tooManyBytes(limits);
      this.#checkCounts(limits);
    }
    return new WorkspaceIndex(this.#entries, this.#uploads, usage);
  }

  #checkCounts({ maxFiles }: WorkspaceLimits): void {
    if (this.#files() > Math.max(maxFiles, this.#before.files)) {
      throw workspaceFull(`it may hold at most ${maxFiles} files and folders`);
    }
    if (this.#pathBytes > Math.max(MAX_PATH_BYTES_TOTAL, this.#before.pathBytes)) {
      throw workspaceFull("the names in it are too long taken together");
    }
  }

  #files(): number {
    return this.#entries.size - FIXED_FOLDERS.size + this.#uploads.size;
  }

  #remove(path: string): void {
    this.#bytes -= sizeOf(this.#entries.get(path));
    this.#pathBytes -= Buffer.byteLength(path);
    this.#entries.delete(path);
  }

  #countChildren(): Map<string, number> {
    const children = new Map<string, number>();
    for (const path of this.#entries.keys()) {
      const parent = parentOf(path);
      children.set(parent, (children.get(parent) ?? 0) + 1);
    }
    return children;
  }

  /** Removes all below those `files` that are folders now, in one pass, however many they are. */
  #emptyReplacedFolders(files: ReadonlySet<string>): void {
    const replaced = new Set([...files].filter((path) => this.#entries.get(path)?.kind === "folder"));
    if (replaced.size === 0) return;
    const fixed = replaced.values().find((path) => FIXED_FOLDERS.has(path));
    if (fixed !== undefined) throw invalidChanges(fixed);
    for (const path of [...this.#entries.keys()]) {
      for (let parent = parentOf(path); parent !== ""; parent = parentOf(parent)) {
        if (replaced.has(parent)) {
          this.#remove(path);
          break;
        }
      }
    }
  }

  #makeParents(path: string, mtimeMs: number, files: ReadonlySet<string>): void {
    if (FIXED_FOLDERS.has(path)) return;
    for (let parent = parentOf(path); ; parent = parentOf(parent)) {
      if (files.has(parent)) throw invalidChanges(path);
      if (this.#entries.get(parent)?.kind === "folder") return;
      this.set(parent, { kind: "folder", mtimeMs });
    }
  }
}

/** A client's name for a file, bounded. */
function storedName(originalName: string): string {
  return originalName.slice(0, MAX_ORIGINAL_NAME_CHARACTERS).toWellFormed();
}

/** How the executor and the sandbox see an entry. */
export function fileEntry(path: string, entry: IndexEntry): FileEntry {
  return { path, size: sizeOf(entry), mtimeMs: entry.mtimeMs, kind: entry.kind };
}

function isEqual(a: IndexEntry, b: IndexEntry | undefined): boolean {
  if (a.kind !== b?.kind || a.mtimeMs !== b.mtimeMs) return false;
  return a.kind === "folder" || b.kind === "folder" || (a.sha256 === b.sha256 && a.size === b.size);
}

function sizeOf(entry: IndexEntry | undefined): number {
  return entry?.kind === "file" ? entry.size : 0;
}

function validTime(mtimeMs: number, path: string): number {
  if (!Number.isFinite(mtimeMs)) throw invalidChanges(path);
  return Math.min(Math.max(mtimeMs, -MAX_TIME_MS), MAX_TIME_MS);
}

export function invalidChanges(path: string): ClientError {
  return new ClientError("invalid_changes", `Cannot write ${path}`);
}

export function tooManyBytes({ maxBytes }: WorkspaceLimits): ClientError {
  return workspaceFull(`it may hold at most ${Number((maxBytes / 1024 / 1024).toFixed(3))} MiB`);
}

function workspaceFull(reason: string): ClientError {
  return new ClientError("workspace_full", `The workspace is full: ${reason}. Delete files first.`);
}
