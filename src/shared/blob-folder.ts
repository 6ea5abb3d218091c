import { createHash, hash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import { syncFolder, writeDurably } from "./durable-file.ts";
import { makeFolder } from "./make-folder.ts";

/** A content, addressed by what it is. */
export interface Blob {
  /** SHA-256, lower-case hex. */
  readonly sha256: string;
  /** Bytes. */
  readonly size: number;
}

/** A content that lies on disk but is not yet part of the folder; `adopt` or `drop` it. */
export interface ReceivedBlob extends Blob {
  readonly temporary: string;
}

const SHA256_HEX = /^[0-9a-f]{64}$/;
const WRITES_AT_ONCE = 8;
/** As fast as more, and no turn of the event loop takes long. */
const READ_AT_ONCE_BYTES = 1024 * 1024;
// Above this, hashing in the thread pool beats blocking the event loop.
const HASH_INLINE_BYTES = 64 * 1024;

/**
 * Contents on disk, each in a file named by its SHA-256, so that no name a user chose is ever a host path.
 *
 * It counts no references: its owner says which blobs to keep.
 */
export class BlobFolder {
  readonly #blobs: string;
  readonly #incoming: string;

  /** @param incoming folder on the same file system for contents that are not complete yet. */
  constructor(blobs: string, incoming: string) {
    this.#blobs = blobs;
    this.#incoming = incoming;
  }

  async make(): Promise<void> {
    await makeFolder(this.#blobs, 0o700);
    await makeFolder(this.#incoming, 0o700);
  }

  /**
   * Removes what a crash left behind: half-received contents and blobs that nothing refers to. What a read-only disk does not
   * let go stays: it can be read all the same.
   */
  async clean(referenced: ReadonlySet<string>): Promise<void> {
    for (const [folder, isKept] of [
      [this.#incoming, () => false],
      [this.#blobs, (name: string) => referenced.has(name)],
    ] as const) {
      for (const name of await fs.readdir(folder).catch(() => [])) {
        if (!isKept(name)) await fs.rm(path.join(folder, name), { force: true }).catch(() => {});
      }
    }
  }

  /** @throws {Error} if the blob is gone or has another size: the disk was changed from outside. */
  async read({ sha256, size }: Blob): Promise<Uint8Array> {
    // The file system's message has the host's path in it, and this one may reach a sandbox.
    const bytes = await fs.readFile(this.#file(sha256)).catch((cause: unknown) => {
      throw new Error(`blob ${sha256} cannot be read`, { cause });
    });
    if (bytes.length !== size) throw new Error(`blob ${sha256} has ${bytes.length} bytes, not ${size}`);
    return bytes;
  }

  /** Stores contents durably. Until the owner's index is written they are garbage, and harmless. */
  async write(contents: ReadonlyMap<string, Uint8Array>): Promise<void> {
    if (contents.size === 0) return;
    const rest = contents.entries();
    const writer = async () => {
      for (const [sha256, bytes] of rest) await writeDurably(this.#file(sha256), this.#incoming, bytes);
    };
    const ends = await Promise.allSettled(Array.from({ length: WRITES_AT_ONCE }, writer));
    const failed = ends.find((end) => end.status === "rejected");
    if (failed) throw failed.reason;
    await syncFolder(this.#blobs);
  }

  /**
   * Takes a stream in without holding it in memory.
   *
   * @param tooLarge makes the error to throw once more than `maxBytes` have come.
   */
  async receive(
    source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    maxBytes: number,
    tooLarge: () => Error,
  ): Promise<ReceivedBlob> {
    const temporary = path.join(this.#incoming, randomUUID());
    const hash = createHash("sha256");
    let size = 0;
    try {
      const handle = await fs.open(temporary, "wx", 0o600);
      try {
        for await (const chunk of source) {
          size += chunk.length;
          if (size > maxBytes) throw tooLarge();
          hash.update(chunk);
          await handle.writeFile(chunk);
        }
        await handle.sync();
      } finally {
        await handle.close();
      }
    } catch (error) {
      await fs.rm(temporary, { force: true });
      throw error;
    }
    return { sha256: hash.digest("hex"), size, temporary };
  }

  async adopt({ temporary, sha256 }: ReceivedBlob): Promise<void> {
    await fs.rename(temporary, this.#file(sha256));
    await syncFolder(this.#blobs);
  }

  async drop({ temporary }: ReceivedBlob): Promise<void> {
    await fs.rm(temporary, { force: true });
  }

  async delete(sha256: string): Promise<void> {
    await fs.rm(this.#file(sha256), { force: true });
  }

  #file(sha256: string): string {
    if (!SHA256_HEX.test(sha256)) throw new Error("not a SHA-256");
    return path.join(this.#blobs, sha256);
  }
}

/** SHA-256 in lower-case hex. */
export async function sha256Hex(bytes: Uint8Array): Promise<string> {
  if (bytes.length <= HASH_INLINE_BYTES) return hash("sha256", bytes, "hex");
  const digest = await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>);
  return Buffer.from(digest).toString("hex");
}

/** SHA-256 of a file in lower-case hex, without having it in memory. */
export async function hashFile(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(file, { highWaterMark: READ_AT_ONCE_BYTES })) hash.update(chunk);
  return hash.digest("hex");
}
