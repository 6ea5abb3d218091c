import { lstat, readdir, rm, utimes } from "node:fs/promises";
import path from "node:path";

export interface CacheKeeperOptions {
  /** Images, archives and what belongs to them; several servers may share it. */
  readonly cacheDir: string;
  /** Downloaded wheels; of one server. */
  readonly wheelsDir: string;
  /** What nobody has used for so long goes, ms; Infinity: nothing does for that reason. */
  readonly unusedMs: number;
  /** Above so many bytes in `cacheDir` what was used least recently goes as well. */
  readonly maxBytes: number;
  /** SHA-256 of every wheel that something which is installed may have to be built from again. */
  readonly neededWheels: () => Promise<ReadonlySet<string>>;
  /** Told of every file that has gone. */
  readonly onRemoved: (paths: ReadonlySet<string>) => void;
}

/** Servers that share a folder say what they use more often than this; what is younger is somebody's. */
const IN_USE_MS = 2 * 3_600_000;
/** What a build has not finished by then was cut off. */
const CUT_OFF_MS = 24 * 3_600_000;

const IMAGE = /^[a-z0-9_+-]+-[0-9a-f]{32}\.image$/;
const MEMORY = /^environment-[a-z0-9_+-]+\.json$/;
const DENO_FOLDER = /^deno-(?:complete|shared)-[0-9a-f]{32}$/;
const ARCHIVE = /^[0-9a-f]{64}\.pkgs$/;
const NOTE = /^[0-9a-f]{64}\.json$/;
const WHEEL = /^([0-9a-f]{64})\.whl$/;
/** By `mkdtemp`, `writeAtomically` and the like, and parts of downloads. */
const UNFINISHED = /^deno-[A-Za-z0-9]{6}$|\.tmp$|^[0-9a-f]{64}\.part$/;

interface Item {
  readonly path: string;
  readonly bytes: number;
  readonly usedAtMs: number;
}

/**
 * Takes away what caches hold that nobody uses any more: images of other versions, derived environments of callers who are
 * gone, wheels that nothing needs. When a file was used last is its time of change, which every server that shares the
 * folder sets. All of it could be made again; files with other names are nobody's business here.
 */
export class CacheKeeper {
  readonly #options: CacheKeeperOptions;
  readonly #held = new Set<string>();
  #used = new Set<string>();

  constructor(options: CacheKeeperOptions) {
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
      for (const file of IMAGE.test(path.basename(place)) ? [place, `${place}.json`] : [place]) {
        const isGone = await rm(file, { recursive: true, force: true }).then(
          () => true,
          () => false,
        );
        if (isGone) removed.add(file);
      }
    };
    const needed = await neededWheels();
    const isUnneeded = (name: string) => !needed.has(WHEEL.exec(name)?.[1] ?? "");
    const cached = [
      ...(await list(cacheDir, IMAGE, MEMORY, DENO_FOLDER)),
      ...(await list(path.join(cacheDir, "archives"), ARCHIVE, NOTE)),
    ];
    const wheels = (await list(wheelsDir, WHEEL)).filter((item) => isUnneeded(path.basename(item.path)));
    const unfinished = [
      ...(await list(cacheDir, UNFINISHED)),
      ...(await list(path.join(cacheDir, "archives"), UNFINISHED)),
      ...(await list(path.join(wheelsDir, "partial"), UNFINISHED)),
    ];
    for (const item of unfinished) if (nowMs - item.usedAtMs > CUT_OFF_MS) await remove(item);
    for (const item of [...cached, ...wheels]) if (nowMs - item.usedAtMs > unusedMs) await remove(item);
    let total = cached.reduce((sum, { path: place, bytes }) => sum + (removed.has(place) ? 0 : bytes), 0);
    for (const item of cached.toSorted((a, b) => a.usedAtMs - b.usedAtMs)) {
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
      return stats && { path: place, bytes: stats.isFile() ? stats.size : 0, usedAtMs: stats.mtimeMs };
    });
  return (await Promise.all(items)).filter((item) => item !== null);
}
