/**
 * The names of everything in the cache and wheel folders: a maker and a matcher for each kind, so that what is written is what
 * the collector (`cache-collector.ts`) recognises.
 *
 *     <CACHE_DIR>/<environment>-<key>.image             memory image; its manifest beside it: `….image.json`
 *     <CACHE_DIR>/environment-<name>-<key>.json         what an environment consists of
 *     <CACHE_DIR>/deno-<kind>-<key>/                    what Deno compiles once
 *     <CACHE_DIR>/archives/<sha256>.pkgs, <key>.json    archives (packages, a wheel's bytecode, the standard library), and what each is of
 *     <DATA_DIR>/packages/<sha256>.whl                  wheels
 *     <DATA_DIR>/packages/partial/<sha256>.part         wheels that are being downloaded
 */

/** Folder of package archives, below the cache folder. */
export const ARCHIVES_FOLDER = "archives";
/** Folder of unfinished downloads, below the wheel folder. */
export const PARTIAL_FOLDER = "partial";

/** @param key 32 hex digits, as for all keys here. */
export const imageName = (environment: string, key: string) => `${environment}-${key}.image`;
export const manifestName = (image: string) => `${image}.json`;
export const memoryName = (environment: string, key: string) => `environment-${environment}-${key}.json`;
/** @param kind lower-case words: how the folder's databases are kept. */
export const denoFolderName = (kind: string, key: string) => `deno-${kind}-${key}`;
export const archiveName = (sha256: string) => `${sha256}.pkgs`;
/** @param key 64 hex digits. */
export const archiveNoteName = (key: string) => `${key}.json`;
export const wheelFileName = (sha256: string) => `${sha256}.whl`;
export const partialName = (sha256: string) => `${sha256}.part`;
/** What `mkdtemp` completes with six letters and digits. */
export const DENO_TEMPORARY_PREFIX = "deno-";
/** @param unique what no other writer of `name` has; without it the file is hidden. */
export const temporaryName = (unique: string, name = "") => `${name}.${unique}.tmp`;

/** Kinds of file by the folder that they are in. */
export const KINDS = {
  image: /^[a-z0-9_+-]+-[0-9a-f]{32}\.image$/,
  manifest: /^[a-z0-9_+-]+-[0-9a-f]{32}\.image\.json$/,
  memory: /^environment-[a-z0-9_+-]+\.json$/,
  denoFolder: /^deno-[a-z]+(?:-[a-z]+)*-[0-9a-f]{32}$/,
  archive: /^[0-9a-f]{64}\.pkgs$/,
  archiveNote: /^[0-9a-f]{64}\.json$/,
  wheel: /^[0-9a-f]{64}\.whl$/,
  partial: /^[0-9a-f]{64}\.part$/,
  temporary: /\.tmp$|^deno-[A-Za-z0-9]{6}$/,
} as const satisfies Record<string, RegExp>;

/** @returns the SHA-256 that a wheel is kept under; null: `name` is no wheel's. */
export const wheelHash = (name: string) => (KINDS.wheel.test(name) ? name.slice(0, 64) : null);
