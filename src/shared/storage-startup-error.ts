import { randomUUID } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { StartupError } from "./errors.ts";
import { type StorageTrouble, troubleOf } from "./storage-trouble.ts";

export interface UnusableStorage {
  /** What cannot be used, with its place: `The sessions in /data/sessions`. */
  readonly what: string;
  readonly folder: string;
  /** The setting that says where the folder is. */
  readonly setting: string;
  /** What to do about a damaged file; the only case in which something has to be moved, deleted or restored. */
  readonly damaged: string;
  readonly cause: unknown;
  /** Where the cause alone does not tell. */
  readonly trouble?: StorageTrouble;
}

/** A server cannot start because of where it stores things: `message` says which of six troubles it is, and what to do. */
export class StorageStartupError extends StartupError {
  /** Null: something else, which the message names. */
  readonly trouble: StorageTrouble | null;

  constructor({ what, folder, setting, damaged, cause, trouble }: UnusableStorage) {
    const { errcode, message } = cause as { errcode?: number; message: string };
    let found = trouble ?? troubleOf(cause);
    const CANNOT_OPEN = 14;
    // SQLite tells neither a full disk nor a missing right from a broken disk when it opens a file.
    if (found === "failing" || (found === null && ((errcode ?? 0) & 0xff) === CANNOT_OPEN)) {
      found = troubleOf(writeFailure(folder)) ?? found;
    }
    super(messageFor(found, { what, folder, setting, damaged, message }), { cause });
    this.trouble = found;
  }
}

function messageFor(
  trouble: StorageTrouble | null,
  {
    what,
    folder,
    setting,
    damaged,
    message,
  }: Pick<UnusableStorage, "what" | "folder" | "setting" | "damaged"> & { message: string },
): string {
  switch (trouble) {
    case "busy":
      return `${what} is in use by another server. Stop that one, or set another ${setting}.`;
    case "full":
      return `${what} cannot be used: its disk is full. Make room on it, and start again. What is stored is as it was.`;
    case "denied":
      return (
        `${what} cannot be used: ${who()} may not write there. Give it the folder and all that is in it ` +
        `(chown -R), and mount its file system for writing. What is stored is as it was. (${message})`
      );
    case "unsupported":
      return (
        `${what} cannot be used: the file system of ${folder} has no working file locks, as NFS without its lock service. ` +
        `Set ${setting} to a folder on a local disk, or mount with locks.`
      );
    case "failing":
      return `${what} cannot be used: the disk answers with errors. Look into the system's log (dmesg), then at the disk. (${message})`;
    case "damaged":
      return `${what} cannot be used: it is damaged (${message}). ${damaged}`;
    default:
      return `${what} cannot be used: ${message}.`;
  }
}

function who(): string {
  return process.getuid === undefined ? "this server's user" : `user ${process.getuid()}, as which this server runs,`;
}

/** @returns why nothing can be written to a folder; undefined: it can. */
function writeFailure(folder: string): unknown {
  const file = path.join(folder, `probe-${randomUUID()}`);
  try {
    // More than what some file systems keep beside a file's name.
    fs.writeFileSync(file, Buffer.alloc(32 * 1024, " "), { flag: "wx", flush: true });
    return undefined;
  } catch (error) {
    return error;
  } finally {
    try {
      fs.rmSync(file, { force: true });
    } catch {}
  }
}
