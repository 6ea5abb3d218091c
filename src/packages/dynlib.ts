import type { ArchivePart, ArchivePartFile } from "./archive.ts";
import { SafeZip } from "./safe-zip.ts";

/**
 * A zip of shared libraries that Pyodide's lock file lists (`libopenblas`, …). It has no RECORD: the hash in the lock file
 * stands for all of it.
 */
export class DynlibZip implements ArchivePart {
  readonly filename: string;
  readonly files: readonly ArchivePartFile[];
  readonly #zip: SafeZip;

  private constructor(filename: string, zip: SafeZip) {
    this.filename = filename;
    this.#zip = zip;
    this.files = zip.files.map(({ path, size }) => ({ path: `dynlib/${path}`, zipPath: path, size, hash: null }));
  }

  /** @throws {PackageError} as {@link SafeZip.open}. */
  static async open(filePath: string, filename: string): Promise<DynlibZip> {
    return new DynlibZip(filename, await SafeZip.open(filePath, filename));
  }

  async read({ zipPath }: ArchivePartFile): Promise<Buffer> {
    return await this.#zip.read(zipPath);
  }

  close(): void {
    this.#zip.close();
  }
}
