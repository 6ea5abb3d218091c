import fs from "node:fs";
import path from "node:path";

const MAX_BYTES = 4 * 1024 * 1024;
const MIN_BYTES = 256 * 1024;
const STEP_BYTES = 64 * 1024;

/**
 * Room on a disk for what gives room back: a file that is emptied when something has to be deleted and there is no room to
 * write down that it is. Synchronous: for the thread of a database.
 */
export class ReserveFile {
  readonly #file: string;

  constructor(file: string) {
    this.#file = file;
  }

  /** Takes the room, or as much of it as there is. A small disk is asked for less: a sixteenth of it. */
  keep(): void {
    let fd: number | undefined;
    try {
      const { blocks, bsize } = fs.statfsSync(path.dirname(this.#file));
      const wanted = Math.max(MIN_BYTES, Math.min(MAX_BYTES, Math.floor((blocks * bsize) / 16)));
      const taken = fs.statSync(this.#file, { throwIfNoEntry: false });
      if (taken && taken.size >= wanted && taken.blocks * 512 >= wanted) return;
      fd = fs.openSync(this.#file, "a", 0o600);
      const step = Buffer.alloc(STEP_BYTES, " ");
      for (let size = taken?.size ?? 0; size < wanted; )
        size += fs.writeSync(fd, step, 0, Math.min(step.length, wanted - size));
    } catch {
      // A full disk: what was taken so far has to do.
    } finally {
      if (fd !== undefined) fs.closeSync(fd);
    }
  }

  /** Gives the room to whatever is written next. */
  release(): void {
    try {
      fs.truncateSync(this.#file, 0);
    } catch {
      // There was none.
    }
  }
}
