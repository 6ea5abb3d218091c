import { ClientError } from "./errors.ts";

/** Why a disk refuses; each asks for something else. */
export type StorageTrouble = "busy" | "full" | "denied" | "damaged" | "unsupported" | "failing";

const BY_ERRNO: Readonly<Record<string, StorageTrouble>> = {
  ENOSPC: "full",
  EDQUOT: "full",
  EACCES: "denied",
  EPERM: "denied",
  EROFS: "denied",
  ENOLCK: "unsupported",
  EOPNOTSUPP: "unsupported",
  ENOSYS: "unsupported",
  EIO: "failing",
};

/** https://www.sqlite.org/rescode.html; the low byte of an extended code. */
const BY_SQLITE_CODE: Readonly<Record<number, StorageTrouble>> = {
  3: "denied", // PERM
  5: "busy", // BUSY
  6: "busy", // LOCKED
  8: "denied", // READONLY
  10: "failing", // IOERR
  11: "damaged", // CORRUPT
  13: "full", // FULL
  15: "unsupported", // PROTOCOL: locks that do not hold
  22: "unsupported", // NOLFS
  26: "damaged", // NOTADB
};

/** Extended codes of IOERR that speak of locks: UNLOCK, RDLOCK, CHECKRESERVEDLOCK, LOCK, SHMLOCK, SHMMAP. */
const LOCKS_FAIL = [2058, 2314, 3594, 3850, 5130, 5386];

/** @returns null: the error is not the disk's. */
export function troubleOf(error: unknown): StorageTrouble | null {
  for (let at = error, depth = 0; at && depth < 5; at = (at as { cause?: unknown }).cause, depth++) {
    const { code, errcode } = at as { code?: unknown; errcode?: unknown };
    if (typeof errcode === "number") {
      if (LOCKS_FAIL.includes(errcode)) return "unsupported";
      const trouble = BY_SQLITE_CODE[errcode & 0xff];
      if (trouble) return trouble;
    }
    const trouble = typeof code === "string" && BY_ERRNO[code];
    if (trouble) return trouble;
  }
  return null;
}

/** What a client is told of a full disk. Deletions have room kept for them. */
export function storageFull(cause?: unknown): ClientError {
  return new ClientError("storage_full", { cause });
}

/** What a client is told of a disk that refuses; null: the error is not the disk's. */
export function storageError(error: unknown): ClientError | null {
  if (error instanceof ClientError) return error;
  const trouble = troubleOf(error);
  if (trouble === null) return null;
  if (trouble === "full") return storageFull(error);
  return new ClientError("store_unavailable", "The server's storage cannot be used at the moment.", {
    cause: error,
  });
}
