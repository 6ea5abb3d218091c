import type { Hash } from "node:crypto";
import type { Readable } from "node:stream";
import { setImmediate } from "node:timers/promises";
import { crc32 } from "node:zlib";
import yauzl from "yauzl";
import { archivePathProblem, folderConflict } from "../wire/archive-format.ts";
import { PackageError } from "./package-error.ts";

/** What one zip file may hold. */
export interface ZipLimits {
  readonly maxEntries: number;
  /** Of all paths together. */
  readonly maxPathCharacters: number;
  /** Unpacked, one file. */
  readonly maxFileBytes: number;
  /** Unpacked, all files. */
  readonly maxTotalBytes: number;
  /** Most unpacked bytes for one packed byte, asked of files over 1 MiB; code compresses 3 to 30 fold. */
  readonly maxRatio: number;
}

export const ZIP_LIMITS: ZipLimits = {
  maxEntries: 20_000,
  maxPathCharacters: 2_000_000,
  maxFileBytes: 256 * 1024 * 1024,
  maxTotalBytes: 1024 * 1024 * 1024,
  maxRatio: 200,
};

const RATIO_MATTERS_BYTES = 1024 * 1024;
const SYMLINK = 0o120000;
const FILE_TYPE_MASK = 0o170000;
const UNIX = 3;

export interface ZipFileEntry {
  /** Relative and normalised: never absolute, no `..`, no backslash, no control character. */
  readonly path: string;
  /** Unpacked bytes, as declared; reading fails if that was a lie. */
  readonly size: number;
}

/**
 * A zip file from an untrusted source. Nothing is ever written to disk under an entry's name; entries are looked at
 * all together before the first is read, and read whole, one at a time.
 */
export class SafeZip {
  /** Files only, in the order of the zip's directory. */
  readonly files: readonly ZipFileEntry[];
  readonly totalBytes: number;
  readonly #label: string;
  readonly #zip: yauzl.ZipFile;
  readonly #entries: ReadonlyMap<string, yauzl.Entry>;

  private constructor(label: string, zip: yauzl.ZipFile, entries: ReadonlyMap<string, yauzl.Entry>) {
    this.#label = label;
    this.#zip = zip;
    this.#entries = entries;
    this.files = [...entries].map(([path, entry]) => ({ path, size: entry.uncompressedSize }));
    this.totalBytes = this.files.reduce((sum, file) => sum + file.size, 0);
  }

  /**
   * @param label what messages call the file.
   * @throws {PackageError} `package_damaged` if it is no zip file, is truncated, or has an entry that could harm;
   * `package_too_large` if it goes beyond a limit.
   */
  static async open(filePath: string, label: string, limits: ZipLimits = ZIP_LIMITS): Promise<SafeZip> {
    let zip: yauzl.ZipFile;
    try {
      zip = await yauzl.openPromise(filePath, { lazyEntries: true, autoClose: false, strictFileNames: true });
    } catch (cause) {
      if (isMissing(cause)) throw cause;
      throw new PackageError("package_damaged", `${label} is no zip file, or it is truncated.`, { cause });
    }
    try {
      return new SafeZip(label, zip, await readDirectory(zip, label, limits));
    } catch (cause) {
      zip.close();
      if (cause instanceof PackageError) throw cause;
      throw new PackageError("package_damaged", `${label} cannot be unpacked: ${zipProblem(cause)}.`, { cause });
    }
  }

  has(path: string): boolean {
    return this.#entries.has(path);
  }

  /**
   * @param hash takes in the bytes as they are unpacked, piece by piece: a large file at once would hold the event loop.
   * @throws {PackageError} `package_damaged` if the bytes are not of the declared length or checksum.
   * @throws {RangeError} if there is no such file.
   */
  async read(path: string, hash?: Hash): Promise<Buffer> {
    const entry = this.#entries.get(path);
    if (entry === undefined) throw new RangeError(`${this.#label} has no ${path}`);
    let read: Awaited<ReturnType<typeof readAll>>;
    try {
      read = await readAll(await this.#zip.openReadStreamPromise(entry), entry.uncompressedSize, hash);
    } catch (cause) {
      throw new PackageError("package_damaged", `${this.#label} is damaged: "${path}" cannot be unpacked.`, { cause });
    }
    if (read.checksum !== entry.crc32)
      throw new PackageError("package_damaged", `${this.#label} is damaged: "${path}" has a wrong checksum.`);
    return read.bytes;
  }

  close(): void {
    this.#zip.close();
  }
}

async function readDirectory(
  zip: yauzl.ZipFile,
  label: string,
  limits: ZipLimits,
): Promise<ReadonlyMap<string, yauzl.Entry>> {
  const refuse = (name: string, why: string) =>
    new PackageError("package_damaged", `${label} is refused: the entry ${JSON.stringify(name)} is ${why}.`);
  const tooLarge = (what: string) => new PackageError("package_too_large", `${label} is refused: it has ${what}.`);
  if (zip.entryCount > limits.maxEntries) throw tooLarge(`over ${limits.maxEntries} entries`);
  const entries = new Map<string, yauzl.Entry>();
  let totalBytes = 0;
  let pathCharacters = 0;
  for await (const entry of zip.eachEntry()) {
    pathCharacters += entry.fileName.length;
    if (pathCharacters > limits.maxPathCharacters)
      throw tooLarge(`names of over ${limits.maxPathCharacters} characters`);
    const isFolder = entry.fileName.endsWith("/");
    const path = isFolder ? entry.fileName.slice(0, -1) : entry.fileName;
    const problem = archivePathProblem(path);
    if (problem !== null) throw refuse(entry.fileName, problem);
    const mode = entry.versionMadeBy >>> 8 === UNIX ? entry.externalFileAttributes >>> 16 : 0;
    if ((mode & FILE_TYPE_MASK) === SYMLINK) throw refuse(path, "a symbolic link");
    if (isFolder) continue;
    if (entry.isEncrypted()) throw refuse(path, "encrypted");
    if (entry.compressionMethod !== 0 && entry.compressionMethod !== 8)
      throw refuse(path, "packed by a method other than deflate");
    if (entries.has(path)) throw refuse(path, "there twice");
    if (entry.uncompressedSize > limits.maxFileBytes) throw tooLarge(`a file of over ${limits.maxFileBytes} bytes`);
    totalBytes += entry.uncompressedSize;
    if (totalBytes > limits.maxTotalBytes) throw tooLarge(`over ${limits.maxTotalBytes} bytes unpacked`);
    if (entry.uncompressedSize > RATIO_MATTERS_BYTES && entry.uncompressedSize > entry.compressedSize * limits.maxRatio)
      throw refuse(path, "packed too tightly, as in a zip bomb");
    entries.set(path, entry);
  }
  // Each step over all entries takes a turn of its own.
  await setImmediate();
  const conflict = folderConflict(new Set(entries.keys()));
  if (conflict !== null) throw new PackageError("package_damaged", `${label} is refused: ${conflict}.`);
  await setImmediate();
  return entries;
}

/** Memory is bounded by the declared size: what comes beyond it is counted, not kept, and yauzl ends the stream there. */
async function readAll(
  stream: Readable,
  expectedBytes: number,
  hash: Hash | undefined,
): Promise<{ readonly bytes: Buffer; readonly checksum: number }> {
  const bytes = Buffer.allocUnsafe(expectedBytes);
  let offset = 0;
  let checksum = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    chunk.copy(bytes, offset);
    offset += chunk.length;
    checksum = crc32(chunk, checksum);
    hash?.update(chunk);
    // What has been unpacked meanwhile would be taken in the same turn.
    await setImmediate();
  }
  if (offset !== expectedBytes) throw new Error("another length than declared");
  return { bytes, checksum };
}

/** yauzl's own words, without what might be a path of this machine. */
function zipProblem(cause: unknown): string {
  const message = cause instanceof Error && !("path" in cause) ? cause.message : "its directory cannot be read";
  return message.replaceAll(/[^\x20-\x7e]/g, "?").slice(0, 200);
}

function isMissing(cause: unknown): boolean {
  const code = (cause as NodeJS.ErrnoException).code;
  return code === "ENOENT" || code === "EACCES" || code === "EISDIR";
}
