import { randomUUID } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { makeFolderSync } from "./make-folder.ts";
import { StorageStartupError } from "./storage-startup-error.ts";
import { troubleOf } from "./storage-trouble.ts";

export interface FolderLockOptions {
  /** Of the file in the folder; default `lock`. */
  readonly name?: string;
  /** The setting that says where the folder is; default DATA_DIR. */
  readonly setting?: string;
}

/**
 * Keeps a second process from writing to the same folder.
 *
 * Node has no file locks of its own, but SQLite takes one for an exclusive transaction, the same on every platform, and it holds
 * between containers that share a volume, where process ids mean nothing. The operating system lets it go when the process
 * ends, however it ends, so a lock is never left behind.
 */
export class FolderLock implements Disposable {
  readonly #database: DatabaseSync;

  /** @throws {StorageStartupError} if the folder is taken, also by another lock of this process, or cannot be locked. */
  constructor(folder: string, { name = "lock", setting = "DATA_DIR" }: FolderLockOptions = {}) {
    const file = path.join(folder, name);
    const refuse = (cause: unknown, isProbe = false): never => {
      const damaged = `${file} is no lock file: delete it while no server runs; it holds nothing.`;
      const trouble = isProbe ? "unsupported" : undefined;
      throw new StorageStartupError({ what: folder, folder, setting, damaged, cause, ...(trouble && { trouble }) });
    };
    try {
      makeFolderSync(folder, 0o700);
    } catch (cause) {
      refuse(cause);
    }
    try {
      this.#database = lock(file);
    } catch (cause) {
      // What cannot even lock a file of its own has a file system without locks: SQLite calls some of those busy.
      refuse(cause, troubleOf(cause) === "busy" && !canLock(folder));
      throw cause;
    }
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}

function lock(file: string): DatabaseSync {
  // SQLite says only that it cannot open a file. A file that is there is not opened to ask: closing it would give up the lock
  // that this process may have on it.
  if (fs.existsSync(file)) fs.accessSync(file, fs.constants.R_OK | fs.constants.W_OK);
  else fs.closeSync(fs.openSync(file, "a", 0o600));
  const database = new DatabaseSync(file, { timeout: 0 });
  try {
    // Nothing is written: a full disk has no room for a journal.
    database.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

function canLock(folder: string): boolean {
  const file = path.join(folder, `lock-${randomUUID()}`);
  try {
    lock(file).close();
    return true;
  } catch (error) {
    return troubleOf(error) !== "busy";
  } finally {
    fs.rmSync(file, { force: true });
  }
}
