// Deno's own object is gone from the realm when it is needed here.
const { openSync, SeekMode } = Deno;

/** A file that stays open: reading from it needs no permission later. */
export class ReadableFile {
  readonly bytes: number;
  readonly #file: Deno.FsFile;

  constructor(path: string) {
    this.#file = openSync(path);
    this.bytes = this.#file.seekSync(0, SeekMode.End);
  }

  /** Fills `target` from `position` on. @returns how many bytes there were. */
  readInto(target: Uint8Array, position: number): number {
    this.#file.seekSync(position, SeekMode.Start);
    let filled = 0;
    while (filled < target.length) {
      const count = this.#file.readSync(target.subarray(filled));
      if (count === null) break;
      filled += count;
    }
    return filled;
  }

  /** @returns `length` bytes from `position` on; fewer where the file ends. */
  read(position: number, length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(Math.max(0, Math.min(length, this.bytes - position)));
    return bytes.subarray(0, this.readInto(bytes, position));
  }

  close(): void {
    this.#file.close();
  }
}
