import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { StartupError } from "../errors.ts";
import { denoBinary } from "../sandbox/deno-binary.ts";
import { GUEST_DIR, PYODIDE_DIR, SHARED_FILES } from "../sandbox/launch.ts";
import { PROTOCOL_VERSION } from "../sandbox/protocol.ts";
import { buildImage } from "../sandbox/sandbox.ts";

/** Standard library modules that are imported in every image, so that no execution pays for them. */
export const PRELOADED_MODULES: readonly string[] = (
  "abc argparse array ast asyncio base64 bisect calendar cmath codecs collections collections.abc contextlib copy csv " +
  "dataclasses datetime decimal difflib enum fractions functools glob gzip hashlib heapq hmac html html.parser inspect io " +
  "itertools json logging math numbers operator os pathlib pickle platform pprint queue random re secrets shlex shutil " +
  "statistics string struct sys tempfile textwrap threading time timeit traceback types typing unicodedata unittest " +
  "urllib.parse uuid warnings weakref xml.etree.ElementTree zipfile zlib zoneinfo"
).split(" ");

/** A memory image on disk, checked. */
export interface Image {
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly pythonVersion: string;
  readonly builtAt: string;
  readonly buildMs: number;
}

interface Manifest extends Omit<Image, "path"> {
  readonly key: string;
}

export interface ImageCacheOptions {
  readonly cacheDir: string;
  readonly memoryMb: number;
  readonly startTimeoutMs: number;
  /** Told when something takes time. */
  readonly onProgress: (message: string) => void;
}

/**
 * The standard library's memory image: from the cache if it is whole, else built anew.
 *
 * The file's name is a hash of everything the image depends on, so an upgrade never meets an old one.
 *
 * @throws {StartupError} if the cache folder cannot be used, or building fails.
 */
export async function stdlibImage(options: ImageCacheOptions): Promise<Image> {
  const key = await cacheKey();
  const imagePath = path.join(options.cacheDir, `stdlib-${key}.image`);
  const cached = await readCached(imagePath, key);
  if (cached !== null) return cached;
  options.onProgress("Building the memory image of the standard library (once, a few seconds) …");
  return await build(imagePath, key, options);
}

async function build(imagePath: string, key: string, options: ImageCacheOptions): Promise<Image> {
  const startedAt = performance.now();
  const { image, pythonVersion } = await buildImage({
    guest: {
      snapshotPath: null,
      environment: null,
      preload: PRELOADED_MODULES,
      maxHeapBytes: Number.MAX_SAFE_INTEGER,
      hashCheckpoint: false,
    },
    memoryMb: options.memoryMb,
    startTimeoutMs: Math.max(options.startTimeoutMs, 120_000),
  });
  const manifest: Manifest = {
    key,
    sha256: createHash("sha256").update(image).digest("hex"),
    bytes: image.length,
    pythonVersion,
    builtAt: new Date().toISOString(),
    buildMs: Math.round(performance.now() - startedAt),
  };
  try {
    await mkdir(options.cacheDir, { recursive: true });
    await writeAtomically(imagePath, image);
    await writeAtomically(manifestPath(imagePath), JSON.stringify(manifest, null, 2));
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? String(cause);
    throw new StartupError(
      `The cache folder ${options.cacheDir} cannot be written (${reason}). Make it writable, or set CACHE_DIR to a folder that is.`,
      { cause },
    );
  }
  await removeLeftovers(options.cacheDir);
  const { key: _, ...rest } = manifest;
  options.onProgress(`Built the memory image in ${(manifest.buildMs / 1000).toFixed(1)} s.`);
  return { path: imagePath, ...rest };
}

/** @returns null if there is no image, or it is not byte for byte what was built. */
async function readCached(imagePath: string, key: string): Promise<Image | null> {
  try {
    const manifest = JSON.parse(await readFile(manifestPath(imagePath), "utf8")) as Manifest;
    if (manifest.key !== key) return null;
    const hash = createHash("sha256");
    await pipeline(createReadStream(imagePath, { highWaterMark: 1 << 20 }), hash);
    if (hash.digest("hex") !== manifest.sha256) return null;
    const { key: _, ...rest } = manifest;
    return { path: imagePath, ...rest };
  } catch {
    return null;
  }
}

/** SHA-256 over all that the bytes of an image, or whether it fits, depend on. */
async function cacheKey(): Promise<string> {
  const hash = createHash("sha256");
  const add = (name: string, content: string | Uint8Array) =>
    hash.update(`${name}\0${content.length}\0`).update(content);
  for (const name of ["package.json", "pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip"]) {
    add(name, await readFile(path.join(PYODIDE_DIR, name)));
  }
  const guestFiles = (await readdir(GUEST_DIR, { recursive: true })).filter((name) => /\.(ts|py)$/.test(name)).sort();
  for (const name of guestFiles) add(name, await readFile(path.join(GUEST_DIR, name)));
  for (const file of SHARED_FILES) add(path.basename(file), await readFile(file));
  add("deno", denoBinary());
  add("settings", JSON.stringify([PROTOCOL_VERSION, PRELOADED_MODULES]));
  return hash.digest("hex").slice(0, 32);
}

function manifestPath(imagePath: string): string {
  return `${imagePath}.json`;
}

/** A reader sees the old file or the new one, never a part. */
async function writeAtomically(file: string, content: string | Uint8Array): Promise<void> {
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    await writeFile(temporary, content, { flush: true });
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** What builds that were cut off have left. */
async function removeLeftovers(cacheDir: string): Promise<void> {
  for (const name of await readdir(cacheDir)) {
    const pid = /\.(\d+)\.tmp$/.exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) await rm(path.join(cacheDir, name), { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
