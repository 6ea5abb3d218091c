import { createHash, randomUUID } from "node:crypto";
import { access, readdir, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { BytecodeCompiler } from "../packages/bytecode-compiler.ts";
import { KeptArchives } from "../packages/kept-archives.ts";
import { programProblem } from "../packages/library-check.ts";
import { PackageError } from "../packages/package-error.ts";
import { chargeShare } from "../packages/package-shares.ts";
import { GUEST_DIR, PYODIDE_DIR } from "../sandbox/launch.ts";
import type { SandboxOptions } from "../sandbox/sandbox.ts";
import { hashFile, sha256Hex } from "../shared/blob-folder.ts";
import { ARCHIVES_FOLDER, imageName, manifestName, temporaryName } from "../shared/cache-layout.ts";
import { replaceFile } from "../shared/durable-file.ts";
import { StartupError } from "../shared/errors.ts";
import { makeFolder } from "../shared/make-folder.ts";
import { SingleFlight } from "../shared/single-flight.ts";
import { decodeImage } from "../wire/image-format.ts";
import type { GuestEnvironment } from "../wire/messages.ts";
import { type BuildStart, buildWithoutUnfit, compilerOptions } from "./image-build.ts";
import { hashRuntime } from "./runtime-inputs.ts";
import { buildStdlibArchive, compilerKey, findStdlibArchive, type StdlibArchive } from "./stdlib-archive.ts";
import { tryImage } from "./try-image.ts";

/** Standard library modules that are imported in every image, so that no execution pays for them. */
export const PRELOADED_MODULES: readonly string[] = (
  "abc argparse array ast asyncio base64 bisect calendar cmath codecs collections collections.abc contextlib copy csv " +
  "dataclasses datetime decimal difflib enum fractions functools glob gzip hashlib heapq hmac html html.parser inspect io " +
  "itertools json logging math numbers operator os pathlib pickle platform pprint queue random re secrets shlex shutil " +
  "statistics string struct sys tempfile textwrap threading time timeit traceback types typing unicodedata unittest " +
  "urllib.parse uuid warnings weakref xml.etree.ElementTree zipfile zlib zoneinfo"
).split(" ");

/** For all attempts together. */
const MAX_BUILD_MS = 900_000;
/** For a caller's packages: others wait for the processor meanwhile. */
export const MAX_DERIVED_BUILD_MS = 180_000;
/** A memory image on disk, checked. */
export interface Image {
  readonly path: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly pythonVersion: string;
  readonly builtAt: string;
  readonly buildMs: number;
  /** Modules that could not be imported: name → why. */
  readonly failedImports: Readonly<Record<string, string>>;
  /** Modules and libraries that it goes without, since no image can hold them: name → why. */
  readonly unfit: Readonly<Record<string, string>>;
  /** WebAssembly memory of a sandbox that boots it, bytes; 0 for the standard library's, which is the least there is. */
  readonly heapBytes: number;
}

/** The standard library's image, and the archive that its files are in. */
export interface BaseImage extends Image {
  readonly stdlib: StdlibArchive;
  readonly stdlibPath: string;
}

interface Manifest extends Omit<Image, "path"> {
  readonly key: string;
}

/** What an image is made of, and how it is called. */
interface ImagePlan {
  /** For the file's name. */
  readonly name: string;
  /** Names all that it depends on. */
  readonly key: string;
  /** For people. */
  readonly label: string;
  readonly start: BuildStart;
  /** Null: the standard library alone. */
  readonly environment: GuestEnvironment | null;
  readonly maxBuildMs: number;
}

export interface ImageCacheOptions {
  readonly cacheDir: string;
  /** How a sandbox process is started on this host. */
  readonly host: Omit<SandboxOptions, "guest">;
  /** Told when something takes time. */
  readonly onProgress: (message: string) => void;
}

/** An environment before it has an image. */
export type UnbuiltEnvironment = Omit<GuestEnvironment, "imagePath">;

/**
 * Memory images in a folder: the base image with the standard library, and one for each environment on top of it.
 *
 * A file's name is a hash of everything it depends on, so an upgrade never meets an old one. What is damaged is built
 * anew, and a build that was cut off leaves nothing that could be taken for whole.
 */
export class ImageCache {
  readonly #options: ImageCacheOptions;
  readonly #archives: KeptArchives;
  readonly #images = new SingleFlight<Image>({ keeps: true });
  #stdlib: Promise<StdlibArchive> | undefined;
  #compilerKey: Promise<string> | undefined;
  #runtimeHash: Promise<string> | undefined;

  constructor(options: ImageCacheOptions) {
    this.#options = options;
    this.#archives = new KeptArchives(path.join(options.cacheDir, ARCHIVES_FOLDER));
  }

  /** @throws {StartupError} if the cache folder cannot be used. @throws {SandboxDiedError} if building fails. */
  async base(): Promise<BaseImage> {
    const stdlib = await this.#stdlibArchive();
    const key = await this.#key("base", [PRELOADED_MODULES, stdlib.sha256]);
    const start = { baseImagePath: null, stdlibPath: stdlib.path, preload: PRELOADED_MODULES };
    const image = await this.#cachedOrBuilt({
      name: "stdlib",
      key,
      label: "the standard library",
      start,
      environment: null,
      maxBuildMs: MAX_BUILD_MS,
    });
    return { ...image, stdlib, stdlibPath: stdlib.path };
  }

  /** How a sandbox starts that compiles the sources of packages. */
  async compiler(): Promise<SandboxOptions> {
    const { path: baseImagePath, stdlibPath } = await this.base();
    return compilerOptions(this.#options.host, { baseImagePath, stdlibPath });
  }

  /** Names the compiler of Python's that {@link compiler} has. */
  async compilerKey(): Promise<string> {
    this.#compilerKey ??= compilerKey();
    return await this.#compilerKey;
  }

  /**
   * @param name for the file's name and for people.
   * @param maxBuildMs how long it may be built, if it has to be.
   * @throws {PackageError} if no sandbox starts from it. @throws as `base`.
   */
  async environment(
    name: string,
    archiveSha256: string,
    environment: UnbuiltEnvironment,
    maxBuildMs = MAX_BUILD_MS,
  ): Promise<Image> {
    const base = await this.base();
    const key = await this.#environmentKey(base, archiveSha256, environment);
    const label = `the environment "${name}"`;
    const start = { baseImagePath: base.path, stdlibPath: base.stdlibPath, preload: PRELOADED_MODULES };
    return await this.#cachedOrBuilt({
      name,
      key,
      label,
      start,
      environment: { ...environment, imagePath: null },
      maxBuildMs,
    });
  }

  /** As `environment`, but null if there is none yet. */
  async find(name: string, archiveSha256: string, environment: UnbuiltEnvironment): Promise<Image | null> {
    const key = await this.#environmentKey(await this.base(), archiveSha256, environment);
    return await readCached(this.#imagePath(name, key), key);
  }

  /** Whether there is one, which is looked at only when it is used. */
  async isThere(name: string, archiveSha256: string, environment: UnbuiltEnvironment): Promise<boolean> {
    const key = await this.#environmentKey(await this.base(), archiveSha256, environment);
    return await access(manifestName(this.#imagePath(name, key))).then(
      () => true,
      () => false,
    );
  }

  async #environmentKey(base: Image, archiveSha256: string, environment: UnbuiltEnvironment): Promise<string> {
    const { libraries, imports, aliases } = environment;
    return await this.#key("environment", [base.sha256, archiveSha256, libraries, imports, aliases]);
  }

  #imagePath(name: string, key: string): string {
    return path.join(this.#options.cacheDir, imageName(name, key));
  }

  /** Looks at the disk again for images whose files have gone. */
  async forget(paths: ReadonlySet<string>): Promise<void> {
    const stdlib = await this.#stdlib?.catch(() => null);
    if (stdlib?.files.some((file) => paths.has(file))) this.#stdlib = undefined;
    for (const [key, image] of this.#images.entries()) {
      if (paths.has((await image.catch(() => null))?.path ?? "")) this.#images.forget(key);
    }
  }

  /** Most memory that a sandbox has, bytes. */
  get memoryBytes(): number {
    return this.#options.host.memoryMb * 2 ** 20;
  }

  /** Names the program that makes images, and that runs them. */
  async runtimeKey(): Promise<string> {
    // Deno keeps what it compiles under the modules' addresses.
    return await this.#key("runtime", [GUEST_DIR, PYODIDE_DIR]);
  }

  /** SHA-256 over the program that makes images, and `inputs`. */
  async #key(kind: string, inputs: unknown): Promise<string> {
    this.#runtimeHash ??= hashRuntime();
    const hash = createHash("sha256").update(JSON.stringify([kind, await this.#runtimeHash, inputs]));
    return hash.digest("hex").slice(0, 32);
  }

  async #stdlibArchive(): Promise<StdlibArchive> {
    this.#stdlib ??= this.#foundOrBuiltStdlib();
    this.#stdlib.catch(() => {
      this.#stdlib = undefined;
    });
    return await this.#stdlib;
  }

  async #foundOrBuiltStdlib(): Promise<StdlibArchive> {
    const { cacheDir, host, onProgress } = this.#options;
    const key = await this.compilerKey();
    const known = await findStdlibArchive(this.#archives, key);
    if (known !== null) return known;
    onProgress("Compiling the standard library (once, half a minute on a slow machine) …");
    const startedAt = performance.now();
    // The interpreter that compiles it has an image as well, of the standard library as it comes, for as long as it takes.
    const bootstrap = path.join(cacheDir, temporaryName(randomUUID(), "bootstrap"));
    try {
      const { image } = await buildWithoutUnfit(
        { baseImagePath: null, stdlibPath: null, preload: [] },
        null,
        host,
        MAX_BUILD_MS,
      );
      await makeFolder(cacheDir).then(
        () => writeFile(bootstrap, image),
        (cause) => Promise.reject(unusableCache(cacheDir, cause)),
      );
      const { pythonVersion } = decodeImage(image).header;
      const compiler = new BytecodeCompiler(async () =>
        compilerOptions(host, { baseImagePath: bootstrap, stdlibPath: null }),
      );
      const archive = await buildStdlibArchive(this.#archives, key, pythonVersion, compiler).finally(() =>
        compiler.close(),
      );
      const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
      onProgress(`Compiled the standard library: ${(archive.bytes / 2 ** 20).toFixed(1)} MiB in ${seconds} s.`);
      return archive;
    } catch (cause) {
      if (cause instanceof PackageError) throw unusableCache(cacheDir, cause.cause ?? cause);
      const { code } = cause as NodeJS.ErrnoException;
      throw code === undefined ? cause : unusableCache(cacheDir, cause);
    } finally {
      await rm(bootstrap, { force: true });
    }
  }

  #cachedOrBuilt(plan: ImagePlan): Promise<Image> {
    return this.#images.run(plan.key, async () => {
      const imagePath = this.#imagePath(plan.name, plan.key);
      return (await readCached(imagePath, plan.key)) ?? (await this.#build(imagePath, plan));
    });
  }

  async #build(imagePath: string, { name, key, label, start, environment, maxBuildMs }: ImagePlan): Promise<Image> {
    const { host, onProgress } = this.#options;
    onProgress(`Building the memory image of ${label} (once, a few seconds) …`);
    const startedAt = performance.now();
    if (environment === null) {
      const problem = await programProblem();
      if (problem !== null)
        throw new StartupError(`Pyodide's program cannot be restored after an execution: ${problem}.`);
    }
    const { image, ...facts } = await buildWithoutUnfit(start, environment, host, maxBuildMs);
    const { header } = decodeImage(image);
    const manifest: Manifest = {
      key,
      sha256: await sha256Hex(image),
      bytes: image.length,
      pythonVersion: header.pythonVersion,
      heapBytes: header.heapBytes,
      builtAt: new Date().toISOString(),
      buildMs: Math.round(performance.now() - startedAt),
      ...facts,
    };
    chargeShare(`image ${name}`, image.length);
    const tryOut = async () => {
      // One that is too large is refused for that.
      if (environment === null || header.heapBytes > this.memoryBytes) return;
      const libraries = environment.libraries.filter((library) => !(library in facts.unfit));
      await tryImage(start, { ...environment, libraries, imagePath }, host);
    };
    await this.#store(imagePath, image, manifest, tryOut);
    const { key: _, ...rest } = manifest;
    const sizeMb = (image.length / 2 ** 20).toFixed(1);
    onProgress(`Built the memory image of ${label}: ${sizeMb} MiB in ${(manifest.buildMs / 1000).toFixed(1)} s.`);
    return { path: imagePath, ...rest };
  }

  /** @param tryOut called before the image counts as whole, which is when it has its manifest. */
  async #store(imagePath: string, image: Uint8Array, manifest: Manifest, tryOut: () => Promise<void>): Promise<void> {
    const { cacheDir } = this.#options;
    const orUnusable = async (writing: Promise<unknown>) =>
      await writing.catch((cause) => {
        throw unusableCache(cacheDir, cause);
      });
    await orUnusable(makeFolder(cacheDir));
    await orUnusable(replaceFile(imagePath, temporaryName(WRITER, imagePath), image));
    try {
      await tryOut();
    } catch (error) {
      await rm(imagePath, { force: true });
      throw error;
    }
    const manifestPath = manifestName(imagePath);
    await orUnusable(replaceFile(manifestPath, temporaryName(WRITER, manifestPath), JSON.stringify(manifest, null, 2)));
    await removeLeftovers(cacheDir);
  }
}

/** What to say where the cache folder cannot be made, or cannot be written. */
export function unusableCache(cacheDir: string, cause: unknown): StartupError {
  const reason = (cause as NodeJS.ErrnoException).code ?? String(cause);
  return new StartupError(
    `The cache folder ${cacheDir} cannot be written (${reason}). Make it writable, or set CACHE_DIR to a folder that is.`,
    { cause },
  );
}

/** @returns null if there is no image, or it is not byte for byte what was built. */
async function readCached(imagePath: string, key: string): Promise<Image | null> {
  try {
    const manifest = JSON.parse(await readFile(manifestName(imagePath), "utf8")) as Manifest;
    if (manifest.key !== key) return null;
    if ((await hashFile(imagePath)) !== manifest.sha256) return null;
    const { key: _, ...rest } = manifest;
    return { path: imagePath, ...rest };
  } catch {
    return null;
  }
}

/** Of this process: servers in containers, which may share a cache, often have the same number. */
const WRITER = `${os.hostname()}.${process.pid}`;

/** Removes temporary files of dead builds of this host; builds of other hosts may still run. */
async function removeLeftovers(cacheDir: string): Promise<void> {
  for (const name of await readdir(cacheDir)) {
    const [host, pid] = /\.image(?:\.json)?\.(.+)\.(\d+)\.tmp$/.exec(name)?.slice(1) ?? [];
    if (host === os.hostname() && !isAlive(Number(pid))) await rm(path.join(cacheDir, name), { force: true });
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
