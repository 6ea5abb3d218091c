import { copyFileSync, renameSync } from "node:fs";
import { chmod, mkdtemp, readdir, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Sandbox, type SandboxOptions } from "../sandbox/sandbox.ts";
import { DENO_TEMPORARY_PREFIX, denoFolderName } from "../shared/cache-layout.ts";

/** Named for how its databases are kept. */
const READ_ONLY = "read-only";

export interface DenoCacheOptions {
  readonly cacheDir: string;
  /** Names everything that Deno compiles for a sandbox. */
  readonly key: string;
  /** A sandbox that can be started. */
  readonly sandbox: SandboxOptions;
}

/**
 * What Deno would otherwise do again at each start: turn TypeScript into JavaScript and compile it, some 200 ms [measured].
 *
 * Filled by starting a sandbox once without the operating system's layers, which would not let it write; no user code runs
 * in it. From then on the folder is read-only.
 *
 * @returns the folder for `SandboxOptions.denoDir`; null if it cannot be made: sandboxes then start more slowly.
 */
export async function denoCache({ cacheDir, key, sandbox }: DenoCacheOptions): Promise<string | null> {
  // Without those layers a sandbox of the same user writes to the folder, in a way that one behind them cannot read.
  const kind = sandbox.isolation.wrapping === null ? "shared" : READ_ONLY;
  const folder = path.join(cacheDir, denoFolderName(kind, key));
  if (await exists(folder)) return folder;
  let temporary: string | null = null;
  try {
    temporary = await mkdtemp(path.join(cacheDir, DENO_TEMPORARY_PREFIX));
    const isolation = { ...sandbox.isolation, wrapping: null };
    const started = await Sandbox.start({ ...sandbox, isolation, denoDir: temporary });
    await started.end();
    // Holds a link to Deno itself, by which nothing of ours must be changed.
    await rm(path.join(temporary, "node_compat_bin"), { recursive: true, force: true });
    for (const name of await readdir(temporary)) {
      if (/_cache_v\d{1,9}$/.test(name)) makeReadableAlone(path.join(temporary, name));
    }
    await makeReadable(temporary);
    await rename(temporary, folder);
    return folder;
  } catch {
    if (temporary !== null) await rm(temporary, { recursive: true, force: true });
    // Another server may have been quicker.
    return (await exists(folder)) ? folder : null;
  }
}

/**
 * Makes a database one that Deno can use without writing to it; else it goes without, and parses every module again, 100 ms of
 * a start [measured]. Deno wants it in write-ahead mode and analysed, and SQLite then wants both files that belong to that mode, which
 * it deletes when the last connection is closed: they are copied before.
 */
function makeReadableAlone(file: string): void {
  const files = [file, `${file}-wal`, `${file}-shm`];
  const database = new DatabaseSync(file);
  try {
    database.exec("PRAGMA journal_mode = WAL; ANALYZE; PRAGMA wal_checkpoint(TRUNCATE)");
    for (const name of files) copyFileSync(name, `${name}.copy`);
  } finally {
    database.close();
  }
  for (const name of files) renameSync(`${name}.copy`, name);
}

/** Sandboxes have a user of their own. */
async function makeReadable(folder: string): Promise<void> {
  await chmod(folder, 0o755);
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) await makeReadable(file);
    else if (entry.isFile()) await chmod(file, 0o644);
  }
}

async function exists(folder: string): Promise<boolean> {
  return await stat(folder).then(
    () => true,
    () => false,
  );
}
