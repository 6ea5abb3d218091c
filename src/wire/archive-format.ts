/**
 * The package archive: one read-only file that holds an environment's or a principal's packages.
 *
 *     8 bytes  "PYEXPKGS"
 *     u32 le   format version
 *     u32 le   length of the index, bytes
 *     index    JSON in UTF-8: [{path, offset, size, kind?}], sorted by path (UTF-16 code units)
 *     data     the files' bytes, one after another in the order of the index; offsets count from here
 *
 * The host writes it (`packages/archive.ts`), the sandbox mounts it; both check it with this module, which therefore
 * imports nothing. Files are read one by one, so that mounting a large archive costs its index only.
 */

const MAGIC = "PYEXPKGS";
export const ARCHIVE_VERSION = 1;
const PREFIX_BYTES = 16;
/** Some 200 bytes for each of the most files that an archive has. */
const MAX_INDEX_BYTES = 12 * 1024 * 1024;
const MAX_FILES = 60_000;

/** Folders at the archive's top: `site-packages` belongs on `sys.path`, `dynlib` holds libraries that others link to. */
export const ARCHIVE_ROOTS = ["site-packages", "dynlib", "data"] as const;

export interface ArchiveEntry {
  /** Relative, `/` between names: `site-packages/numpy/__init__.py`. */
  readonly path: string;
  /** Bytes from the beginning of the data. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  /** A shared library (`.so`); absent for anything else. */
  readonly kind?: "library";
}

/** The bytes are no archive, or a damaged one; nothing of it may be used. */
export class ArchiveFormatError extends Error {
  override readonly name = "ArchiveFormatError";
}

/** Reads exactly `length` bytes that begin at `offset` of the file; fewer only at its end. */
export type ReadAt = (offset: number, length: number) => Uint8Array;

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/**
 * @param files in any order; the index is sorted here.
 * @returns the bytes that stand before the data, and the entries in the order in which their data must follow.
 * @throws {ArchiveFormatError} if the paths could not stand in one archive.
 */
export function encodeArchiveHeader(files: readonly Omit<ArchiveEntry, "offset">[]): {
  header: Uint8Array;
  entries: readonly ArchiveEntry[];
} {
  let offset = 0;
  const sorted = files.toSorted((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  const entries = sorted.map(({ path, size, kind }): ArchiveEntry => {
    const entry = { path, offset, size, ...(kind === undefined ? {} : { kind }) };
    offset += size;
    return entry;
  });
  checkEntries(entries, offset);
  const index = encoder.encode(JSON.stringify(entries));
  if (index.length > MAX_INDEX_BYTES)
    throw new ArchiveFormatError(`their names take ${index.length} bytes, over the limit of ${MAX_INDEX_BYTES}`);
  const header = new Uint8Array(PREFIX_BYTES + index.length);
  encoder.encodeInto(MAGIC, header);
  const view = new DataView(header.buffer);
  view.setUint32(8, ARCHIVE_VERSION, true);
  view.setUint32(12, index.length, true);
  header.set(index, PREFIX_BYTES);
  return { header, entries };
}

/** An archive whose header and index are sound. Contents are read when asked for. */
export class Archive {
  readonly entries: readonly ArchiveEntry[];
  /** Where the first file's bytes stand in the archive's file. */
  readonly dataStart: number;
  readonly #readAt: ReadAt;

  /**
   * @param totalBytes size of the whole file.
   * @param listing the entries, where they are known already: then `readAt` counts from the data's beginning.
   * @throws {ArchiveFormatError} naming the first thing that is wrong.
   */
  constructor(readAt: ReadAt, totalBytes: number, listing?: readonly ArchiveEntry[]) {
    this.#readAt = readAt;
    if (listing !== undefined) {
      this.dataStart = 0;
      this.entries = checkEntries(listing, totalBytes);
      return;
    }
    const prefix = readExactly(readAt, 0, PREFIX_BYTES);
    if (latin1(prefix.subarray(0, 8)) !== MAGIC) throw new ArchiveFormatError("not a package archive");
    const view = new DataView(prefix.buffer, prefix.byteOffset, PREFIX_BYTES);
    const version = view.getUint32(8, true);
    if (version !== ARCHIVE_VERSION) throw new ArchiveFormatError(`archive version ${version}, not ${ARCHIVE_VERSION}`);
    const indexBytes = view.getUint32(12, true);
    if (indexBytes > MAX_INDEX_BYTES || PREFIX_BYTES + indexBytes > totalBytes)
      throw new ArchiveFormatError("the index is longer than the archive");
    let index: unknown;
    try {
      index = JSON.parse(decoder.decode(readExactly(readAt, PREFIX_BYTES, indexBytes)));
    } catch (cause) {
      if (cause instanceof ArchiveFormatError) throw cause;
      throw new ArchiveFormatError("the index is not JSON in UTF-8", { cause });
    }
    this.dataStart = PREFIX_BYTES + indexBytes;
    this.entries = checkEntries(index, totalBytes - this.dataStart);
  }

  /**
   * @param position first byte of the file to read; default: its beginning.
   * @param length default: all that follows `position`; cut at the file's end.
   * @throws {RangeError} if `position` or `length` is negative.
   */
  read(entry: ArchiveEntry, position = 0, length: number = entry.size): Uint8Array {
    if (position < 0 || length < 0) throw new RangeError("position and length cannot be negative");
    const count = Math.max(0, Math.min(length, entry.size - position));
    if (count === 0) return new Uint8Array(0);
    return readExactly(this.#readAt, this.dataStart + entry.offset + position, count);
  }
}

/**
 * Opens an archive whose entries came from elsewhere than its file.
 *
 * @param readData reads bytes counted from the beginning of the data.
 */
export function openListing(entries: readonly ArchiveEntry[], readData: ReadAt): Archive {
  const dataBytes = entries.reduce((sum, entry) => sum + entry.size, 0);
  return new Archive(readData, dataBytes, entries);
}

/** Opens an archive that is in memory as a whole. */
export function parseArchive(bytes: Uint8Array): Archive {
  return new Archive((offset, length) => bytes.subarray(offset, offset + length), bytes.length);
}

/**
 * Relative, and the same for every reader: no empty name, `.`, `..`, backslash or control character.
 *
 * @returns why the path cannot stand in an archive; null: it can.
 */
export function archivePathProblem(path: string): string | null {
  if (path === "") return "an empty name";
  if (path.length > 4096) return "a name of over 4096 characters";
  if (path.startsWith("/")) return "an absolute path";
  let depth = 1;
  let name = 0;
  // One look at each character: an archive has tens of thousands of paths, and each server and interpreter looks at all of them.
  for (let index = 0; index <= path.length; index++) {
    const code = index === path.length ? SLASH : path.charCodeAt(index);
    if (code === SLASH) {
      const length = index - name;
      if (length === 0 || (length === 1 && path[name] === ".")) return "an empty name";
      if (length === 2 && path.startsWith("..", name)) return "a path that leaves its folder";
      if (length > 255) return "a name of over 255 characters";
      name = index + 1;
      if (index < path.length && ++depth > MAX_DEPTH) return `more than ${MAX_DEPTH} folders deep`;
    } else if (code === BACKSLASH) return "a backslash";
    else if (code < 0x20 || code === 0x7f) return "a control character";
  }
  return path.isWellFormed() ? null : "a name that is not Unicode";
}

const SLASH = 0x2f;
const BACKSLASH = 0x5c;

/** Packages are some ten deep. */
const MAX_DEPTH = 64;
/** More than any package has: each is an object in every interpreter that the archive is mounted in. */
const MAX_FOLDERS = 20_000;

/**
 * Looks at the folders that files are in, each once.
 *
 * @returns why the files cannot stand in one archive; null: they can.
 */
export function folderConflict(files: Iterable<string> & { has(path: string): boolean }): string | null {
  const folders = new Set<string>();
  for (const path of files) {
    for (let slash = path.lastIndexOf("/"); slash !== -1; slash = path.lastIndexOf("/", slash - 1)) {
      const folder = path.slice(0, slash);
      // Those above it were looked at with it.
      if (folders.has(folder)) break;
      if (files.has(folder)) return `${JSON.stringify(folder)} is a file and a folder`;
      if (folders.add(folder).size > MAX_FOLDERS) return `there are more than ${MAX_FOLDERS} folders`;
    }
  }
  return null;
}

function checkEntries(index: unknown, dataBytes: number): readonly ArchiveEntry[] {
  if (!Array.isArray(index)) throw new ArchiveFormatError("the index is not a list");
  if (index.length > MAX_FILES) throw new ArchiveFormatError(`there are more than ${MAX_FILES} files`);
  const files = new Set<string>();
  let previous = "";
  let expectedOffset = 0;
  for (const entry of index as unknown[]) {
    if (typeof entry !== "object" || entry === null) throw new ArchiveFormatError("an entry is not an object");
    const { path, offset, size, kind } = entry as Record<string, unknown>;
    if (typeof path !== "string") throw new ArchiveFormatError("an entry without a path");
    const problem = archivePathProblem(path);
    if (problem !== null) throw new ArchiveFormatError(`${JSON.stringify(path)}: ${problem}`);
    if (files.size > 0 && path <= previous) throw new ArchiveFormatError(`${JSON.stringify(path)} is out of order`);
    if (!Number.isSafeInteger(size) || (size as number) < 0)
      throw new ArchiveFormatError(`${JSON.stringify(path)} has no size`);
    if (offset !== expectedOffset)
      throw new ArchiveFormatError(`${JSON.stringify(path)} does not follow the one before`);
    if (kind !== undefined && kind !== "library") throw new ArchiveFormatError(`${JSON.stringify(path)}: unknown kind`);
    expectedOffset += size as number;
    previous = path;
    files.add(path);
  }
  const conflict = folderConflict(files);
  if (conflict !== null) throw new ArchiveFormatError(conflict);
  if (expectedOffset !== dataBytes)
    throw new ArchiveFormatError(`the index tells of ${expectedOffset} bytes, the archive holds ${dataBytes}`);
  return index as ArchiveEntry[];
}

function readExactly(readAt: ReadAt, offset: number, length: number): Uint8Array {
  const bytes = readAt(offset, length);
  if (bytes.length !== length) throw new ArchiveFormatError("the archive is truncated");
  return bytes;
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}
