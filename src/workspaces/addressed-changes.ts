import { setImmediate } from "node:timers/promises";
import { sha256Hex } from "../shared/blob-folder.ts";
import type { FileChanges } from "../wire/guest-messages.ts";
import type { FileEntry } from "../wire/messages.ts";
import { workspacePath } from "./paths.ts";
import { invalidChanges, tooManyBytes, type WorkspaceLimits, type Written } from "./workspace-index.ts";

const FILES_OF_A_TURN = 500;

/** What an execution wrote, its contents named by their hashes. */
export interface AddressedChanges {
  readonly written: readonly Written[];
  readonly contents: Map<string, Uint8Array>;
}

/** Whole files, as they are written now, named by the hashes of their contents. @param contents by their paths. @throws as {@link addressChanges}. */
export async function addressFiles(
  contents: ReadonlyMap<string, Uint8Array>,
  limits: WorkspaceLimits,
): Promise<AddressedChanges & { readonly entries: readonly FileEntry[] }> {
  const mtimeMs = Date.now();
  const entries = Array.from(contents, ([path, { length: size }]) => ({ path, size, mtimeMs, kind: "file" as const }));
  return { entries, ...(await addressChanges({ written: entries, deleted: [] }, [...contents.values()], limits)) };
}

/**
 * Names contents by their hashes, and takes nothing that a sandbox says about them on trust.
 *
 * @throws {ClientError} 400 `invalid_path` or `invalid_changes`, 413 `workspace_full`.
 */
export async function addressChanges(
  { written }: FileChanges,
  contents: readonly Uint8Array[],
  limits: WorkspaceLimits,
): Promise<AddressedChanges> {
  if (written.length !== contents.length) throw new Error("contents do not belong to the changes");
  const totalBytes = contents.reduce((sum, { length }) => sum + length, 0);
  if (totalBytes > limits.maxBytes) throw tooManyBytes(limits);
  const blobs = new Map<string, Uint8Array>();
  const addressed: Written[] = [];
  for (const [i, { path, kind, mtimeMs, size }] of written.entries()) {
    // However many they are, others are served meanwhile.
    if (i % FILES_OF_A_TURN === FILES_OF_A_TURN - 1) await setImmediate();
    const content = contents[i] as Uint8Array;
    workspacePath(path);
    if (content.length !== size || (kind !== "file" && kind !== "folder")) throw invalidChanges(path);
    if (kind === "folder") {
      addressed.push({ path, kind, mtimeMs });
    } else {
      const sha256 = await sha256Hex(content);
      blobs.set(sha256, content);
      addressed.push({ path, kind: "file", mtimeMs, size, sha256 });
    }
  }
  if (written.length >= FILES_OF_A_TURN) await setImmediate();
  return { written: addressed, contents: blobs };
}
