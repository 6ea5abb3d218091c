import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { StartupError } from "../errors.ts";

/**
 * Keeps a second process from writing to the same folder.
 *
 * Node has no file locks of its own, but SQLite takes one for an exclusive transaction. The operating system lets it go
 * when the process ends, however it ends, so a lock is never left behind.
 */
export class FolderLock implements Disposable {
  readonly #database: DatabaseSync;

  /** @throws {StartupError} if another process, or another lock of this one, holds the folder. */
  constructor(folder: string) {
    fs.mkdirSync(folder, { recursive: true, mode: 0o700 });
    this.#database = new DatabaseSync(path.join(folder, "lock"), { timeout: 0 });
    try {
      this.#database.exec("BEGIN EXCLUSIVE");
    } catch (cause) {
      this.#database.close();
      throw new StartupError(`${folder} is in use by another server. Stop that one, or set another DATA_DIR.`, {
        cause,
      });
    }
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}
