import { ClientError } from "../shared/errors.ts";

/** What kind of failure a package met with. Stable, for programs. */
export type PackageErrorCode =
  /** The requirement's text cannot be read. */
  | "package_invalid_requirement"
  /** No source has it, or none for this platform and Python. */
  | "package_not_found"
  /** It exists, but not in a version that everything else agrees with. */
  | "package_conflict"
  /** A source answered with an error, too slowly, or with something else than it should. */
  | "package_source_unavailable"
  /** What was downloaded is not what was promised, or no wheel that may be unpacked. */
  | "package_damaged"
  /** A shared library in it asks for more than a sandbox gives. */
  | "package_unsafe_library"
  /** Too many files or bytes. */
  | "package_too_large"
  /** The principal's packages would take more than its share of the server's disk. */
  | "package_share_full"
  /** It is installed, but the interpreter that runs now cannot take it in. */
  | "package_incompatible"
  /** Another installed package needs it. */
  | "package_in_use"
  /** The server has no room for it, or may not write where packages are kept. */
  | "package_storage";

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
    super(422, code, message, options);
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
