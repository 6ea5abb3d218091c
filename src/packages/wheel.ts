import { createHash, timingSafeEqual } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { PackageError } from "./package-error.ts";
import { readMetadataText } from "./package-texts.ts";
import type { CoreMetadata } from "./pep/metadata.ts";
import { normaliseName } from "./pep/requirements.ts";
import { satisfies } from "./pep/versions.ts";
import { parseWheelName } from "./pep/wheel-name.ts";
import { SafeZip, ZIP_LIMITS, type ZipLimits } from "./safe-zip.ts";

/** One file of a wheel, and where it is installed. */
export interface WheelFile {
  /** In the package archive: `site-packages/numpy/__init__.py`. */
  readonly path: string;
  /** In the zip. */
  readonly zipPath: string;
  /** Bytes. */
  readonly size: number;
  /** `sha256=…` as RECORD has it; null for RECORD and its signatures. */
  readonly hash: string | null;
}

const MAX_RECORD_BYTES = 6 * 1024 * 1024;
const MAX_RECORD_LINES = 2 * ZIP_LIMITS.maxEntries;
const MAX_RECORD_LINE_CHARACTERS = 10_000;
/** Lines that are read in one turn of the event loop. */
const LINES_OF_A_TURN = 2_000;
const MAX_METADATA_BYTES = 8 * 1024 * 1024;
const MAX_WHEEL_FILE_BYTES = 64 * 1024;
const HASHES = ["sha256", "sha384", "sha512"];

/**
 * An open wheel: its directory, METADATA, WHEEL and RECORD are read and agree with each other and the file's name. Nothing
 * in it is ever run. Call {@link Wheel.close} when done.
 */
export class Wheel {
  readonly filename: string;
  readonly metadata: CoreMetadata;
  /** What gets installed, sorted by path. Scripts and C headers are left out: nothing could use them. */
  readonly files: readonly WheelFile[];
  readonly #zip: SafeZip;

  private constructor(filename: string, zip: SafeZip, metadata: CoreMetadata, files: readonly WheelFile[]) {
    this.filename = filename;
    this.#zip = zip;
    this.metadata = metadata;
    this.files = files;
  }

  /**
   * @param filename the wheel's own name; the file at `filePath` may be called anything.
   * @throws {PackageError} `package_damaged` or `package_too_large`, saying what is wrong.
   */
  static async open(filePath: string, filename: string, limits: ZipLimits = ZIP_LIMITS): Promise<Wheel> {
    const name = parseWheelName(filename);
    if (name === null) throw new PackageError("package_damaged", `"${filename}" is no file name of a wheel.`);
    const zip = await SafeZip.open(filePath, filename, limits);
    try {
      const folder = distInfoFolder(zip, filename, name.key);
      const metadata = await readMetadata(zip, folder, filename);
      if (metadata.key !== name.key) throw damaged(filename, `its METADATA is that of "${metadata.name}"`);
      if (!satisfies(metadata.version, `==${name.version}`))
        throw damaged(filename, `its METADATA says version ${metadata.version}`);
      await checkWheelVersion(zip, folder, filename);
      const files = await layOut(zip, folder, filename);
      return new Wheel(filename, zip, metadata, files);
    } catch (error) {
      zip.close();
      throw error;
    }
  }

  /**
   * @returns the file's bytes, whose hash is the one in RECORD.
   * @throws {PackageError} `package_damaged` if it is not.
   */
  async read(file: WheelFile): Promise<Buffer> {
    if (file.hash === null) return await this.#zip.read(file.zipPath);
    const [algorithm = "", expected = ""] = splitHash(file.hash);
    const hash = createHash(algorithm);
    const bytes = await this.#zip.read(file.zipPath, hash);
    const actual = hash.digest();
    const wanted = Buffer.from(expected, "base64url");
    if (wanted.length !== actual.length || !timingSafeEqual(wanted, actual))
      throw damaged(this.filename, `"${file.zipPath}" does not match its hash in RECORD`);
    return bytes;
  }

  close(): void {
    this.#zip.close();
  }
}

/**
 * Reads METADATA of a wheel without looking at the rest of it.
 *
 * @throws {PackageError} `package_damaged` if there is none.
 */
export async function readWheelMetadata(filePath: string, filename: string): Promise<CoreMetadata> {
  const name = parseWheelName(filename);
  if (name === null) throw new PackageError("package_damaged", `"${filename}" is no file name of a wheel.`);
  const zip = await SafeZip.open(filePath, filename);
  try {
    return await readMetadata(zip, distInfoFolder(zip, filename, name.key), filename);
  } finally {
    zip.close();
  }
}

function distInfoFolder(zip: SafeZip, filename: string, key: string): string {
  const folders = new Set(zip.files.map(({ path }) => /^([^/]+\.dist-info)\//.exec(path)?.[1]));
  folders.delete(undefined);
  const [folder, ...others] = [...folders] as string[];
  if (folder === undefined) throw damaged(filename, "it has no .dist-info folder");
  if (others.length > 0) throw damaged(filename, "it has more than one .dist-info folder");
  const owner = folder.slice(0, -".dist-info".length).split("-")[0] ?? "";
  if (normaliseName(owner) !== key) throw damaged(filename, `its .dist-info folder is that of "${owner}"`);
  return folder;
}

async function readMetadata(zip: SafeZip, folder: string, filename: string): Promise<CoreMetadata> {
  const text = await readText(zip, `${folder}/METADATA`, filename, MAX_METADATA_BYTES);
  return await readMetadataText(text, filename);
}

async function checkWheelVersion(zip: SafeZip, folder: string, filename: string): Promise<void> {
  const text = await readText(zip, `${folder}/WHEEL`, filename, MAX_WHEEL_FILE_BYTES);
  const version = /^Wheel-Version:\s*(\d+)\.\d+\s*$/im.exec(text)?.[1];
  // PEP 427: an installer must refuse a major version that it does not know.
  if (version !== "1") throw damaged(filename, "its wheel format is not version 1");
}

async function layOut(zip: SafeZip, folder: string, filename: string): Promise<WheelFile[]> {
  const recordPath = `${folder}/RECORD`;
  const record = await parseRecord(await readText(zip, recordPath, filename, MAX_RECORD_BYTES), filename);
  const unhashed = new Set([recordPath, `${recordPath}.jws`, `${recordPath}.p7s`]);
  const dataFolder = `${folder.slice(0, -".dist-info".length)}.data/`;
  const files: WheelFile[] = [];
  const installed = new Set<string>();
  for (const [index, { path, size }] of zip.files.entries()) {
    if (index % LINES_OF_A_TURN === LINES_OF_A_TURN - 1) await setImmediate();
    const listed = record.get(path);
    record.delete(path);
    if (!unhashed.has(path)) {
      if (listed === undefined) throw damaged(filename, `"${path}" is not listed in RECORD`);
      if (listed.hash === "") throw damaged(filename, `"${path}" has no hash in RECORD`);
      if (!HASHES.includes(splitHash(listed.hash)[0] ?? ""))
        throw damaged(filename, `"${path}" has a hash in RECORD that proves nothing`);
      if (listed.size !== null && listed.size !== size)
        throw damaged(filename, `"${path}" is of another size than RECORD says`);
    }
    const target = installPath(path, dataFolder);
    if (target === null) continue;
    if (installed.has(target)) throw damaged(filename, `it installs "${target}" twice`);
    installed.add(target);
    files.push({ path: target, zipPath: path, size, hash: unhashed.has(path) ? null : (listed?.hash ?? null) });
  }
  const missing = [...record.keys()].find((path) => !unhashed.has(path));
  if (missing !== undefined) throw damaged(filename, `"${missing}" is listed in RECORD, but it is not there`);
  return files.toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

/** @returns where a file of the zip goes; null: nowhere. */
function installPath(path: string, dataFolder: string): string | null {
  // Of the Python that the wheel was made with: an archive has bytecode of its own.
  if (path.split("/").includes("__pycache__")) return null;
  if (!path.startsWith(dataFolder)) return `site-packages/${path}`;
  const [scheme = "", ...rest] = path.slice(dataFolder.length).split("/");
  if (rest.length === 0) return null;
  if (scheme === "purelib" || scheme === "platlib") return `site-packages/${rest.join("/")}`;
  return scheme === "data" ? `data/${rest.join("/")}` : null;
}

interface RecordLine {
  readonly hash: string;
  readonly size: number | null;
}

async function parseRecord(text: string, filename: string): Promise<Map<string, RecordLine>> {
  const lines = new Map<string, RecordLine>();
  let count = 0;
  for (let start = 0, end = 0; start < text.length; start = end + 1) {
    const newline = text.indexOf("\n", start);
    end = newline === -1 ? text.length : newline;
    if (++count > MAX_RECORD_LINES || end - start > MAX_RECORD_LINE_CHARACTERS)
      throw damaged(filename, "its RECORD is too long");
    if (count % LINES_OF_A_TURN === 0) await setImmediate();
    const line = text.slice(start, text[end - 1] === "\r" ? end - 1 : end);
    if (line === "") continue;
    const fields = parseCsvLine(line);
    const [path = "", hash = "", size = ""] = fields ?? [];
    if (fields === null || fields.length !== 3 || path === "" || !/^\d*$/.test(size))
      throw damaged(filename, "its RECORD cannot be read");
    if (lines.has(path)) throw damaged(filename, `"${path}" is listed twice in RECORD`);
    lines.set(path, { hash, size: size === "" ? null : Number(size) });
  }
  return lines;
}

/** One line of RECORD, as Python's csv module writes it: a path with a comma or a quote stands in quotes. */
function parseCsvLine(line: string): string[] | null {
  const fields: string[] = [];
  const field = /(?:"((?:[^"]|"")*)"|([^",]*))(,|$)/y;
  for (;;) {
    const match = field.exec(line);
    if (match === null) return null;
    fields.push(match[1] === undefined ? (match[2] as string) : match[1].replaceAll('""', '"'));
    if (match[3] === "") return fields;
  }
}

/** `sha256=abc` → `["sha256", "abc"]`. */
function splitHash(hash: string): string[] {
  const equals = hash.indexOf("=");
  return equals === -1 ? [] : [hash.slice(0, equals).toLowerCase(), hash.slice(equals + 1)];
}

async function readText(zip: SafeZip, path: string, filename: string, maxBytes: number): Promise<string> {
  const entry = zip.files.find((file) => file.path === path);
  if (entry === undefined) throw damaged(filename, `it has no ${path}`);
  if (entry.size > maxBytes) throw damaged(filename, `its ${path} is too long`);
  return new TextDecoder("utf-8").decode(await zip.read(path));
}

function damaged(filename: string, why: string): PackageError {
  return new PackageError("package_damaged", `${filename} is refused: ${why}.`);
}
