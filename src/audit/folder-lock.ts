import path from "node:path";
import { DatabaseSync } from "node:sqlite";

/** SQLITE_BUSY, https://www.sqlite.org/rescode.html#busy */
const BUSY = 5;

/**
 * Takes `name` in `dir` as a lock that the operating system gives back when the process ends, however it ends.
 *
 * Node has no file locks of its own; SQLite's are the same on every platform, and hold between containers that share
 * a volume, where process ids mean nothing.
 *
 * @returns gives the lock back.
 * @throws {Error} `another server writes to this folder`, or why the file cannot be made.
 */
export function lockFolder(dir: string, name: string): () => void {
  const database = new DatabaseSync(path.join(dir, name));
  try {
    database.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    if ((error as { errcode?: number }).errcode === BUSY) throw new Error("another server writes to this folder");
    throw error;
  }
  return () => database.close();
}
