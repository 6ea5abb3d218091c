import { constants } from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import { syncFolder, writeDurably } from "./durable-file.ts";
import { troubleOf } from "./storage-trouble.ts";

const BLOCK_BYTES = 4096;
/** Times get longer in text, so that an index of fewer files may have more bytes. */
const SLACK_BYTES = 1024;

/**
 * A file whose content is replaced as a whole and durably, also on a disk that is full, if it does not grow: a second file,
 * `<name>.spare`, holds the room for that. Nothing else can take this room, for it is never given back to the file system.
 */
export class ReplaceableFile {
  readonly #file: string;
  readonly #incoming: string;
  /** Bytes that the spare is known to have; null: not looked at yet. */
  #spareBytes: number | null = null;

  /** @param incoming folder on the same file system for what is being written. */
  constructor(file: string, incoming: string) {
    this.#file = file;
    this.#incoming = incoming;
  }

  /**
   * Has room for any content up to this size, however full the disk gets.
   *
   * @throws the file system's error.
   */
  async reserve(bytes: number): Promise<void> {
    const wanted = Math.ceil((bytes + SLACK_BYTES) / BLOCK_BYTES) * BLOCK_BYTES;
    this.#spareBytes ??= await sizeOf(this.#spare);
    if (this.#spareBytes >= wanted) return;
    this.#spareBytes = null;
    // Not an empty file of this size: that would have no room on the disk. In place: what it has already, it never gives back.
    const handle = await fs.open(this.#spare, constants.O_WRONLY | constants.O_CREAT, 0o600);
    try {
      await handle.writeFile(Buffer.alloc(wanted, " "));
    } finally {
      await handle.close();
    }
    this.#spareBytes = wanted;
  }

  /** @throws the file system's error; then the content is as it was. */
  async replace(text: string): Promise<void> {
    try {
      await writeDurably(this.#file, this.#incoming, text);
    } catch (error) {
      if (troubleOf(error) !== "full" || !(await this.#replaceBySpare(Buffer.from(text)))) throw error;
    }
    await syncFolder(path.dirname(this.#file));
  }

  async #replaceBySpare(bytes: Buffer): Promise<boolean> {
    this.#spareBytes = null;
    if ((await sizeOf(this.#spare)) < bytes.length) return false;
    const handle = await fs.open(this.#spare, "r+");
    try {
      await handle.writeFile(bytes);
      await handle.truncate(bytes.length);
      await handle.sync();
    } finally {
      await handle.close();
    }
    // What is replaced becomes the next spare: were its room given back for a moment, the log could take it.
    await fs.rm(this.#replaced, { force: true });
    const isKept = await fs.link(this.#file, this.#replaced).then(
      () => true,
      () => false,
    );
    await fs.rename(this.#spare, this.#file);
    if (isKept) await fs.rename(this.#replaced, this.#spare);
    return true;
  }

  /** Here for a moment; one that a crash has left is of no use. */
  get #replaced(): string {
    return `${this.#file}.replaced`;
  }

  get #spare(): string {
    return `${this.#file}.spare`;
  }
}

/** What a file has on the disk, bytes; 0 if there is none. */
async function sizeOf(file: string): Promise<number> {
  const found = await fs.stat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return null;
    throw error;
  });
  return found === null ? 0 : Math.min(found.size, found.blocks * 512);
}
