import fs from "node:fs";
import path from "node:path";

/** The index of SQLite's write-ahead log begins with 32 KiB; the log itself begins as well. */
const ROOM_BYTES = 256 * 1024;

/**
 * Whether a disk has room for the file through which several processes share the index of SQLite's write-ahead log. SQLite maps that
 * file, and on a disk without a free block to touch a page of it ends the process (SIGBUS): there the index stays in this process.
 *
 * @param database path of the database.
 */
export function hasRoomForSharedIndex(database: string): boolean {
  const { bavail, bsize } = fs.statfsSync(path.dirname(database));
  return bavail * bsize >= ROOM_BYTES;
}
