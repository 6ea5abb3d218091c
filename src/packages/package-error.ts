import { ClientError, type ErrorCode } from "../shared/errors.ts";

/** What kind of failure a package met with. */
export type PackageErrorCode = Exclude<Extract<ErrorCode, `package_${string}`>, "package_refused">;

/**
 * A package is not available; `message` says which and why, and names no host path and no credentials.
 *
 * `/api/install-package` answers these with 200 and `success: false`; elsewhere the status is 422.
 */
export class PackageError extends ClientError {
  override readonly name = "PackageError";
  declare readonly code: PackageErrorCode;
  /** Sources that could not be asked, in words, where nothing else stands in the way; else none. */
  readonly unreached: readonly string[];

  constructor(
    code: PackageErrorCode,
    message: string,
    { unreached, ...options }: { cause?: unknown; unreached?: readonly string[] } = {},
  ) {
    super(code, message, options);
    this.unreached = unreached ?? (code === "package_source_unavailable" ? [message.replace(/\.$/, "")] : []);
  }
}

/** @returns a failure of the server's own disk as an error that can be told, without its path; null: it is something else. */
export function storageError(cause: unknown): PackageError | null {
  const reason = STORAGE_PROBLEMS[String((cause as { code?: unknown } | null)?.code)];
  return reason === undefined
    ? null
    : new PackageError("package_storage", `The server cannot store packages: ${reason}.`, { cause });
}

const STORAGE_PROBLEMS: Readonly<Record<string, string>> = {
  ENOSPC: "its disk is full",
  EDQUOT: "its disk quota is used up",
  EROFS: "its package folder is read-only",
  ENOTDIR: "its package folder is not a folder",
  EACCES: "it may not write to its package folder",
  EPERM: "it may not write to its package folder",
};
