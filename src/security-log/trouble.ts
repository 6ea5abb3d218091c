import { StorageStartupError } from "../shared/storage-startup-error.ts";
import type { StorageTrouble } from "../shared/storage-trouble.ts";

const LOCK_REASONS: Readonly<Record<StorageTrouble, string>> = {
  busy: "another server writes to this folder",
  full: "its disk is full",
  denied: "the server may not write to its folder",
  damaged: "its lock file is damaged",
  unsupported: "its file system has no working locks",
  failing: "its disk answers with errors",
};

/** Why the log cannot be written. Without paths: clients with the right to look see it. */
export function reasonOf(error: unknown): string {
  const isNamed = error instanceof StorageStartupError && error.trouble !== null;
  if (isNamed) return LOCK_REASONS[error.trouble];
  const { code, syscall, message } = (
    error instanceof StorageStartupError ? error.cause : error
  ) as NodeJS.ErrnoException;
  return code === undefined ? message : `${code} (${syscall})`;
}
