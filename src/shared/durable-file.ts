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
  await replaceFile(target, path.join(folder, randomUUID()), bytes, { mode: 0o600, flag: "wx" });
}

/**
 * As {@link writeDurably}, by way of a file of this name: a reader sees the old content or the new one.
 *
 * @param options default: a mode that the process's mask leaves, for files that other users may read, and what a writer that was
 *   cut off has left under the name is overwritten.
 */
export async function replaceFile(
  target: string,
  temporary: string,
  bytes: Uint8Array | string,
  { mode = 0o666, flag = "w" }: { readonly mode?: number; readonly flag?: "w" | "wx" } = {},
): Promise<void> {
  try {
    await fs.writeFile(temporary, bytes, { flag, mode, flush: true });
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
