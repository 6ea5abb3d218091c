import type { FileChanges } from "../sandbox/protocol.ts";
import { sha256Hex } from "./blob-folder.ts";
import { invalidChanges, tooManyBytes, type WorkspaceLimits, type Written } from "./workspace-index.ts";
import { workspacePath } from "./workspace-path.ts";

/** What an execution wrote, its contents named by their hashes. */
export interface AddressedChanges {
  readonly written: readonly Written[];
  readonly contents: Map<string, Uint8Array>;
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
  return { written: addressed, contents: blobs };
}
