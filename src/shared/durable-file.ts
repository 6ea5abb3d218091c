import { randomUUID } from "node:crypto";
import fs from "node:fs/promises";
import path from "node:path";

/**
 * Writes a file such that after a crash or power cut it has its old content or its new one, never a mixture.
 *
 * @param folder where the bytes are gathered; on the same file system as `target`.
 * @throws the file system's error; then `target` is as it was, and nothing is left in `folder`.
 */
export async function writeDurably(target: string, folder: string, bytes: Uint8Array | string): Promise<void> {
  const temporary = path.join(folder, randomUUID());
  try {
    await fs.writeFile(temporary, bytes, { flag: "wx", mode: 0o600, flush: true });
    await fs.rename(temporary, target);
  } catch (error) {
    await fs.rm(temporary, { force: true });
    throw error;
  }
}

/** Makes the names in a folder durable; a rename alone may be lost in a power cut. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await fs.open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
