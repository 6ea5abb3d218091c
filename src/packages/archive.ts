import { createHash, randomUUID } from "node:crypto";
import { open, rename, rm } from "node:fs/promises";
import path from "node:path";
import { setImmediate } from "node:timers/promises";
import { archiveName, temporaryName } from "../shared/cache-layout.ts";
import { makeFolder } from "../shared/make-folder.ts";
import { type ArchiveEntry, encodeArchiveHeader } from "../wire/archive-format.ts";
import { PackageError, storageError } from "./package-error.ts";
import { sourcePath } from "./pyc.ts";

/** What goes into an archive together: an open wheel, or a zip of shared libraries. */
export interface ArchivePart {
  readonly filename: string;
  readonly files: readonly ArchivePartFile[];
  read(file: ArchivePartFile): Promise<Buffer>;
  /** What its sources are compiled to: each stands beside its source, where that one is taken. */
  readonly bytecode?: ArchivePart;
}

export interface ArchivePartFile {
  /** In the archive. */
  readonly path: string;
  /** In the zip. */
  readonly zipPath: string;
  readonly size: number;
  readonly hash: string | null;
}

export interface BuiltArchive {
  readonly path: string;
  /** Of the whole file, hex; also its name. */
  readonly sha256: string;
  readonly bytes: number;
  readonly entries: readonly ArchiveEntry[];
  /** Paths that two parts have with different contents; the first part's was taken. */
  readonly shadowed: readonly string[];
}

/** More, in one turn of the event loop, would keep the server from all else. */
const HASHED_AT_ONCE_BYTES = 1024 * 1024;
const WASM_MAGIC = Buffer.from("\0asm", "latin1");

/**
 * Writes a package archive. The same parts in the same order give the same bytes, and so the same name.
 *
 * Files are copied one at a time, so memory is bounded by the largest of them.
 *
 * @param folder where `<sha256>.pkgs` appears once it is complete.
 * @param onProgress called with the bytes written so far.
 * @throws {PackageError} if a part is damaged, or two parts cannot stand side by side; nothing is left behind.
 */
export async function buildArchive(
  parts: readonly ArchivePart[],
  folder: string,
  onProgress?: (progress: { readonly writtenBytes: number; readonly totalBytes: number }) => void,
): Promise<BuiltArchive> {
  const origins = new Map<string, { part: ArchivePart; file: ArchivePartFile }>();
  const shadowed: string[] = [];
  const files: Omit<ArchiveEntry, "offset">[] = [];
  for (const part of parts) {
    const { bytecode } = part;
    const bytecodeOf = new Map(bytecode?.files.map((file) => [sourcePath(file.path), file]));
    for (const file of part.files) {
      const taken = origins.get(file.path);
      if (taken !== undefined) {
        if (taken.file.hash === null || taken.file.hash !== file.hash) shadowed.push(file.path);
        continue;
      }
      origins.set(file.path, { part, file });
      const isLibrary = isLibraryName(file.path) && isWebAssembly(await part.read(file));
      files.push({ path: file.path, size: file.size, ...(isLibrary ? { kind: "library" as const } : {}) });
      const compiled = bytecodeOf.get(file.path);
      if (bytecode === undefined || compiled === undefined) continue;
      origins.set(compiled.path, { part: bytecode, file: compiled });
      files.push({ path: compiled.path, size: compiled.size });
    }
  }
  // Each step over all files takes a turn of its own.
  await setImmediate();
  const { header, entries } = layOut(files);
  await setImmediate();
  const totalBytes = header.length + files.reduce((sum, { size }) => sum + size, 0);
  const hash = createHash("sha256");
  const temporary = path.join(folder, temporaryName(randomUUID()));
  try {
    await makeFolder(folder).catch((cause) => {
      throw storageError(cause) ?? new PackageError("package_storage", NO_FOLDER, { cause });
    });
    const output = await open(temporary, "wx");
    try {
      let writtenBytes = 0;
      const write = async (bytes: Uint8Array) => {
        for (let start = 0; start < bytes.length; start += HASHED_AT_ONCE_BYTES) {
          if (start > 0) await setImmediate();
          hash.update(bytes.subarray(start, start + HASHED_AT_ONCE_BYTES));
        }
        await output.writeFile(bytes);
        writtenBytes += bytes.length;
        onProgress?.({ writtenBytes, totalBytes });
      };
      await write(header);
      for (const entry of entries) {
        const origin = origins.get(entry.path);
        if (origin !== undefined) await write(await origin.part.read(origin.file));
      }
      await output.sync();
    } finally {
      await output.close();
    }
    const sha256 = hash.digest("hex");
    const target = path.join(folder, archiveName(sha256));
    await rename(temporary, target);
    return { path: target, sha256, bytes: totalBytes, entries, shadowed: [...new Set(shadowed)].toSorted() };
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {});
    throw storageError(error) ?? error;
  }
}

const NO_FOLDER = "The server cannot store packages: its package folder cannot be made.";

function layOut(files: readonly Omit<ArchiveEntry, "offset">[]) {
  try {
    return encodeArchiveHeader(files);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : "";
    throw new PackageError("package_conflict", `These packages cannot be installed together: ${why}.`, { cause });
  }
}

/** What is called so may be a shared library. */
export function isLibraryName(path: string): boolean {
  return /\.so(\.\d+)*$/.test(path);
}

/** A `.so` of another platform, as some pure wheels carry, is only a file here. */
export function isWebAssembly(bytes: Buffer): boolean {
  return bytes.subarray(0, WASM_MAGIC.length).equals(WASM_MAGIC);
}
