import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { Archive } from "../wire/archive-format.ts";
import { MAX_PACKAGE_READ_BYTES, type PackageListing } from "../wire/messages.ts";

const MAX_OPEN_ARCHIVES = 64;

interface OpenArchive {
  readonly fd: number;
  readonly archive: Archive;
  readonly listing: PackageListing;
}

/** Reads package archives on behalf of sandboxes, which may open no file. */
export class ArchiveReader {
  /** Least recently used first. */
  readonly #open = new Map<string, OpenArchive>();

  /** What a sandbox needs in order to mount the archive. */
  listing(archive: { readonly path: string; readonly sha256: string }): PackageListing {
    return this.#opened(archive).listing;
  }

  /**
   * @param offset counted from the beginning of the archive's data.
   * @param length at most {@link MAX_PACKAGE_READ_BYTES}.
   */
  read(archive: { readonly path: string; readonly sha256: string }, offset: number, length: number): Uint8Array {
    const { fd, archive: opened } = this.#opened(archive);
    const valid = [offset, length].every((value) => Number.isSafeInteger(value) && value >= 0);
    if (!valid || length > MAX_PACKAGE_READ_BYTES) throw new RangeError("not a part of the archive");
    const bytes = new Uint8Array(length);
    const count = readSync(fd, bytes, 0, length, opened.dataStart + offset);
    return bytes.subarray(0, count);
  }

  close(): void {
    for (const { fd } of this.#open.values()) closeSync(fd);
    this.#open.clear();
  }

  #opened({ path, sha256 }: { readonly path: string; readonly sha256: string }): OpenArchive {
    let opened = this.#open.get(sha256);
    if (opened) {
      this.#open.delete(sha256);
    } else {
      const fd = openSync(path, "r");
      const readAt = (offset: number, length: number) => {
        const bytes = new Uint8Array(length);
        return bytes.subarray(0, readSync(fd, bytes, 0, length, offset));
      };
      const archive = new Archive(readAt, fstatSync(fd).size);
      opened = { fd, archive, listing: { sha256, entries: archive.entries } };
    }
    this.#open.set(sha256, opened);
    for (const [oldest, { fd }] of this.#open) {
      if (this.#open.size <= MAX_OPEN_ARCHIVES) break;
      this.#open.delete(oldest);
      closeSync(fd);
    }
    return opened;
  }
}
