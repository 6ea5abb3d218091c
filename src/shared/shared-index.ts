import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { troubleOf } from "./storage-trouble.ts";

/** The index of SQLite's write-ahead log begins with 32 KiB; the log itself begins as well. */
const ROOM_BYTES = 256 * 1024;

/**
 * Opens a database that is to have a write-ahead log. Several processes share the index of that log through a file, which SQLite maps:
 * on a disk without a free block to touch a page of it ends the process (SIGBUS), and a disk that is full only then refuses the file.
 * There the index stays in this process, and no other can open the database.
 *
 * @param setUp makes it what it is to be, with the mode of its journal. It may come a second time, for the same file.
 * @throws what SQLite and `setUp` throw.
 */
export function openDatabase(file: string, timeoutMs: number, setUp: (database: DatabaseSync) => void): DatabaseSync {
  for (let isAlone = !hasRoomForSharedIndex(file); ; isAlone = true) {
    const database = new DatabaseSync(file, { timeout: timeoutMs });
    try {
      if (isAlone) database.exec("PRAGMA locking_mode = EXCLUSIVE");
      setUp(database);
      return database;
    } catch (error) {
      database.close();
      // SQLite calls the disk a failing one where there is no room for that file.
      if (isAlone || !["full", "failing"].includes(troubleOf(error) ?? "")) throw error;
    }
  }
}

function hasRoomForSharedIndex(database: string): boolean {
  const { bavail, bsize } = fs.statfsSync(path.dirname(database));
  return bavail * bsize >= ROOM_BYTES;
}
