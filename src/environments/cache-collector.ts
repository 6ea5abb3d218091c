import { lstat, readdir, rm, utimes } from "node:fs/promises";
import path from "node:path";
import { ARCHIVES_FOLDER, KINDS, manifestName, PARTIAL_FOLDER, wheelHash } from "../shared/cache-layout.ts";

export interface CacheCollectorOptions {
  /** Images, archives and what belongs to them; several servers may share it. */
  readonly cacheDir: string;
  /** Downloaded wheels; of one server. */
  readonly wheelsDir: string;
  /** Delete what was not used for this long, ms; Infinity: delete nothing for that reason. */
  readonly unusedMs: number;
  /** Above so many bytes in `cacheDir`, with the wheels that nothing needs, what was used least recently goes as well. */
  readonly maxBytes: number;
  /** SHA-256 of every wheel that something which is installed may have to be built from again. */
  readonly neededWheels: () => Promise<ReadonlySet<string>>;
  /** Told of every file that has gone. */
  readonly onRemoved: (paths: ReadonlySet<string>) => void;
}

/** Servers touch files more often than this; anything younger is in use. */
const IN_USE_MS = 2 * 3_600_000;
/** What a build has not finished by then was cut off. */
const CUT_OFF_MS = 24 * 3_600_000;

/** All files in a folder, at any depth, bytes; 0 for what is no folder. */
async function bytesIn(folder: string): Promise<number> {
  const entries = await readdir(folder, { withFileTypes: true, recursive: true }).catch(() => []);
  const sizes = entries.map(async (entry) => {
    if (!entry.isFile()) return 0;
    return (await lstat(path.join(entry.parentPath, entry.name)).catch(() => null))?.size ?? 0;
  });
  return (await Promise.all(sizes)).reduce((sum, bytes) => sum + bytes, 0);
}

interface Item {
  readonly path: string;
  readonly bytes: number;
  readonly usedAtMs: number;
}

/**
 * Deletes what caches hold that no server uses any more: images of other versions, derived environments of callers who are
 * gone, wheels that nothing needs. When a file was used last is its time of change, which every server that shares the
 * folder sets. All of it could be made again; files with other names are left alone.
 */
export class CacheCollector {
  readonly #options: CacheCollectorOptions;
  readonly #held = new Set<string>();
  #used = new Set<string>();

  constructor(options: CacheCollectorOptions) {
    this.#options = options;
  }

  /** Says that a file or folder is needed as long as this process lives. */
  hold(...paths: readonly string[]): void {
    for (const place of paths) this.#held.add(place);
  }

  /** Says that a file was used just now. Costs nothing: it is written down with the next `sweep`. */
  use(...paths: readonly string[]): void {
    for (const place of paths) this.#used.add(place);
  }

  /** @returns what was removed. A folder that cannot be written to is left as it is. */
  async sweep(nowMs = Date.now()): Promise<ReadonlySet<string>> {
    const { cacheDir, wheelsDir, unusedMs, maxBytes, neededWheels, onRemoved } = this.#options;
    const used = [...this.#held, ...this.#used];
    this.#used = new Set();
    for (const place of used) await utimes(place, nowMs / 1000, nowMs / 1000).catch(() => {});
    const removed = new Set<string>();
    const remove = async ({ path: place }: Item) => {
      const isImage = KINDS.image.test(path.basename(place));
      for (const file of isImage ? [place, manifestName(place)] : [place]) {
        const isGone = await rm(file, { recursive: true, force: true }).then(
          () => true,
          () => false,
        );
        if (isGone) removed.add(file);
      }
    };
    const needed = await neededWheels();
    const isUnneeded = (name: string) => !needed.has(wheelHash(name) ?? "");
    const archivesDir = path.join(cacheDir, ARCHIVES_FOLDER);
    const cached = [
      ...(await list(cacheDir, KINDS.image, KINDS.memory, KINDS.denoFolder)),
      ...(await list(archivesDir, KINDS.archive, KINDS.archiveNote)),
    ];
    const wheels = (await list(wheelsDir, KINDS.wheel)).filter((item) => isUnneeded(path.basename(item.path)));
    const unfinished = [
      ...(await list(cacheDir, KINDS.temporary)),
      ...(await list(archivesDir, KINDS.temporary)),
      ...(await list(path.join(wheelsDir, PARTIAL_FOLDER), KINDS.partial)),
    ];
    for (const item of unfinished) if (nowMs - item.usedAtMs > CUT_OFF_MS) await remove(item);
    for (const item of [...cached, ...wheels]) if (nowMs - item.usedAtMs > unusedMs) await remove(item);
    const spare = [...cached, ...wheels];
    let total = spare.reduce((sum, { path: place, bytes }) => sum + (removed.has(place) ? 0 : bytes), 0);
    for (const item of spare.toSorted((a, b) => a.usedAtMs - b.usedAtMs)) {
      if (total <= maxBytes || nowMs - item.usedAtMs <= IN_USE_MS) break;
      if (removed.has(item.path)) continue;
      await remove(item);
      total -= item.bytes;
    }
    if (removed.size > 0) onRemoved(removed);
    return removed;
  }
}

async function list(folder: string, ...names: readonly RegExp[]): Promise<Item[]> {
  const found = await readdir(folder).catch(() => []);
  const items = found
    .filter((name) => names.some((pattern) => pattern.test(name)))
    .map(async (name): Promise<Item | null> => {
      const place = path.join(folder, name);
      // Another server may be at the same.
      const stats = await lstat(place).catch(() => null);
      return stats && { path: place, bytes: stats.size + (await bytesIn(place)), usedAtMs: stats.mtimeMs };
    });
  return (await Promise.all(items)).filter((item) => item !== null);
}
