import type { Readable } from "node:stream";
import { crc32 } from "node:zlib";
import yauzl from "yauzl";
import { archivePathProblem } from "../sandbox/archive-format.ts";
import { PackageError } from "./package-error.ts";

/** What one zip file may hold. */
export interface ZipLimits {
  readonly maxEntries: number;
  /** Unpacked, one file. */
  readonly maxFileBytes: number;
  /** Unpacked, all files. */
  readonly maxTotalBytes: number;
  /** Most unpacked bytes for one packed byte, asked of files over 1 MiB; code compresses 3 to 30 fold. */
  readonly maxRatio: number;
}

export const ZIP_LIMITS: ZipLimits = {
  maxEntries: 50_000,
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
 * A zip file by somebody who may mean harm. Nothing is ever written to disk under an entry's name; entries are looked at
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
   * @throws {PackageError} `package_damaged` if the bytes are not of the declared length or checksum.
   * @throws {RangeError} if there is no such file.
   */
  async read(path: string): Promise<Buffer> {
    const entry = this.#entries.get(path);
    if (entry === undefined) throw new RangeError(`${this.#label} has no ${path}`);
    let bytes: Buffer;
    try {
      bytes = await readAll(await this.#zip.openReadStreamPromise(entry), entry.uncompressedSize);
    } catch (cause) {
      throw new PackageError("package_damaged", `${this.#label} is damaged: "${path}" cannot be unpacked.`, { cause });
    }
    if (crc32(bytes) !== entry.crc32)
      throw new PackageError("package_damaged", `${this.#label} is damaged: "${path}" has a wrong checksum.`);
    return bytes;
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
  for await (const entry of zip.eachEntry()) {
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
  for (const path of entries.keys())
    for (let slash = path.indexOf("/"); slash !== -1; slash = path.indexOf("/", slash + 1))
      if (entries.has(path.slice(0, slash))) throw refuse(path.slice(0, slash), "a file and a folder");
  return entries;
}

/** Memory is bounded by the declared size: what comes beyond it is counted, not kept, and yauzl ends the stream there. */
async function readAll(stream: Readable, expectedBytes: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(expectedBytes);
  let offset = 0;
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    chunk.copy(bytes, offset);
    offset += chunk.length;
  }
  if (offset !== expectedBytes) throw new Error("another length than declared");
  return bytes;
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
