import { createHash } from "node:crypto";
import fs from "node:fs/promises";
import path from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { BlobFolder } from "./blob-folder.ts";
import { syncFolder, writeDurably } from "./durable-file.ts";
import { INDEX_BYTES_PER_CONTENT } from "./session-shares.ts";

const VERSION = 1;

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, principal TEXT NOT NULL, last_used_at_ms REAL NOT NULL, ends_at_ms REAL NOT NULL, record TEXT NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX IF NOT EXISTS sessions_principal ON sessions (principal, ends_at_ms);
  CREATE INDEX IF NOT EXISTS sessions_end ON sessions (ends_at_ms);
  -- Principals that have stored something, and what it takes: different contents, and rows of refs.
  CREATE TABLE owners (id INTEGER PRIMARY KEY, principal TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL);
`;
// Which blobs each stored state of each session needs, its own bytes among them.
const REFS = `
  CREATE TABLE refs (
    session TEXT NOT NULL, snapshot TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL, owner INTEGER NOT NULL,
    PRIMARY KEY (session, snapshot, sha256)
  ) WITHOUT ROWID;
  CREATE INDEX refs_content ON refs (owner, sha256);
`;
/** From version 0, in which equal contents of all principals were one blob. */
const SEPARATE_OWNERS = `
  INSERT INTO owners (principal, bytes) SELECT DISTINCT principal, 0 FROM sessions;
  ALTER TABLE refs RENAME TO shared_refs;
  DROP INDEX refs_blob;
  ${REFS}
  INSERT INTO refs SELECT session, snapshot, sha256, size, owners.id FROM shared_refs
    JOIN sessions ON sessions.id = session JOIN owners USING (principal);
  DROP TABLE shared_refs;
  UPDATE owners SET bytes =
    (SELECT ${INDEX_BYTES_PER_CONTENT} * count(*) FROM refs WHERE owner = owners.id) +
    (SELECT coalesce(sum(size), 0) FROM (SELECT DISTINCT sha256, size FROM refs WHERE owner = owners.id));
`;

/**
 * Brings the index and the folder of blobs to this version, and removes blobs that the index does not name.
 *
 * Blobs get their new places before the index says so: whenever it ends, the old index has its blobs, or the new one.
 *
 * @throws {Error} if the index is a later version's.
 */
export async function prepareIndex(database: DatabaseSync, directory: string): Promise<void> {
  const { user_version: version } = database.prepare("PRAGMA user_version").get() as { user_version: number };
  if (version > VERSION) throw new Error(`it is of version ${version}, and this server reads ${VERSION}`);
  const isOld = database.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'refs'").get() !== undefined;
  if (version === 0) {
    if (isOld) await separateBlobs(database, directory);
    database.exec(
      `BEGIN IMMEDIATE; ${SCHEMA} ${isOld ? SEPARATE_OWNERS : REFS} PRAGMA user_version = ${VERSION}; COMMIT`,
    );
  }
  await removeOthers(database, directory);
}

/** The folder of one principal's blobs, below `blobs`: by hash, since its name is not ours. */
export function folderOf(directory: string, principal: string): string {
  return path.join(directory, "blobs", createHash("sha256").update(principal).digest("hex").slice(0, 32));
}

/** A principal's blobs. The folder is made if need be. */
export async function openBlobs(directory: string, principal: string): Promise<BlobFolder> {
  const folder = folderOf(directory, principal);
  const made = await fs.mkdir(folder, { recursive: true, mode: 0o700 });
  if (made !== undefined) await syncFolder(path.dirname(folder));
  return new BlobFolder(folder, path.join(directory, "incoming"));
}

async function separateBlobs(database: DatabaseSync, directory: string): Promise<void> {
  const needed = database
    .prepare("SELECT DISTINCT principal, sha256 FROM refs JOIN sessions ON sessions.id = session ORDER BY principal")
    .all() as { principal: string; sha256: string }[];
  const folders = new Set<string>();
  for (const { principal, sha256 } of needed) {
    const folder = folderOf(directory, principal);
    if (!folders.has(folder)) await openBlobs(directory, principal);
    folders.add(folder);
    await linkOrCopy(
      path.join(directory, "blobs", sha256),
      path.join(folder, sha256),
      path.join(directory, "incoming"),
    );
  }
  for (const folder of folders) await syncFolder(folder);
}

async function linkOrCopy(from: string, to: string, incoming: string): Promise<void> {
  try {
    await fs.link(from, to);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // EEXIST: an attempt before this one has done it. ENOENT: the blob was lost before, which reading it will say.
    if (code === "EEXIST" || code === "ENOENT") return;
    // Some file systems have no links.
    await fs.mkdir(incoming, { recursive: true, mode: 0o700 });
    await writeDurably(to, incoming, await fs.readFile(from));
  }
}

async function removeOthers(database: DatabaseSync, directory: string): Promise<void> {
  const blobs = path.join(directory, "blobs");
  await new BlobFolder(blobs, path.join(directory, "incoming")).makeFolders();
  const owners = database.prepare("SELECT id, principal FROM owners").all() as { id: number; principal: string }[];
  const contentsOf = database.prepare("SELECT DISTINCT sha256 FROM refs WHERE owner = ?");
  const folders = new Set(owners.map(({ principal }) => path.basename(folderOf(directory, principal))));
  for (const name of await fs.readdir(blobs)) {
    if (!folders.has(name)) await fs.rm(path.join(blobs, name), { recursive: true, force: true });
  }
  for (const { id, principal } of owners) {
    const contents = contentsOf.all(id) as { sha256: string }[];
    const folder = new BlobFolder(folderOf(directory, principal), path.join(directory, "incoming"));
    await folder.prepare(new Set(contents.map(({ sha256 }) => sha256)));
  }
}
