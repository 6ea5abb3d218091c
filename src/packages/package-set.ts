import { createHash } from "node:crypto";
import path from "node:path";
import { SingleFlight } from "../shared/single-flight.ts";
import { ARCHIVE_VERSION } from "../wire/archive-format.ts";
import { type ArchivePart, buildArchive, isLibraryName, isWebAssembly } from "./archive.ts";
import type { BytecodeStore } from "./bytecode-store.ts";
import { DynlibZip } from "./dynlib.ts";
import { KeptArchives } from "./kept-archives.ts";
import { findUnsafeInThread, type Library } from "./library-check.ts";
import { PackageError } from "./package-error.ts";
import { archiveShareKey, chargeShare, installingPrincipal } from "./package-shares.ts";
import type { ResolvedPackage } from "./resolver.ts";
import type { Candidate } from "./sources/package-source.ts";
import { type LockStatus, lockStatus, type PyodideLock } from "./sources/pyodide-lock.ts";
import { Wheel } from "./wheel.ts";
import type { DownloadProgress, StoredWheel, WheelStore } from "./wheel-store.ts";

/** One package of a set, as manifests and `/api/packages` tell of it. */
export interface PackageInfo {
  readonly name: string;
  /** Normalised name. */
  readonly key: string;
  readonly version: string;
  readonly filename: string;
  /** Of the file that was downloaded, hex. */
  readonly sha256: string;
  /** Of the file that was downloaded. */
  readonly bytes: number;
  readonly source: string;
  /** Whether it is what Pyodide's own lock file names. */
  readonly lockStatus: LockStatus;
  readonly license: string | null;
  /** Has shared libraries: an interpreter has to load them before it can take a memory image. */
  readonly compiled: boolean;
  /** Paths in the archive, sorted. */
  readonly sharedLibraries: readonly string[];
  /** Names that can be imported: top-level modules and packages. */
  readonly imports: readonly string[];
  /** Normalised names of what it depends on. */
  readonly dependsOn: readonly string[];
}

/** An immutable set of packages, and the archive that holds them. The same files give the same archive. */
export interface PackageSet {
  readonly archive: { readonly path: string; readonly sha256: string; readonly bytes: number; readonly files: number };
  /** Sorted by name. */
  readonly packages: readonly PackageInfo[];
  readonly compiled: boolean;
  /**
   * Every shared library, in the order in which an interpreter should load them: those that others link to first, each
   * group by path. The order depends on the set only.
   */
  readonly sharedLibraries: readonly string[];
  /** Paths that two packages have with different contents; the one first by name was taken. */
  readonly shadowed: readonly string[];
}

export type PackageSetProgress =
  | ({ readonly type: "download" } & DownloadProgress)
  | { readonly type: "archive"; readonly writtenBytes: number; readonly totalBytes: number };

type Content = Pick<PackageInfo, "name" | "license" | "sharedLibraries" | "imports">;

/** What was learnt by unpacking; kept beside the archive, so that it is unpacked once. */
interface Built {
  readonly format: number;
  readonly archive: { readonly sha256: string; readonly bytes: number; readonly files: number };
  /** By file name. */
  readonly contents: Readonly<Record<string, Content>>;
  readonly shadowed: readonly string[];
}

type StoredPackage = ResolvedPackage & { readonly stored: StoredWheel };

interface BuildOptions {
  readonly bytecode: "all" | "of-small";
  readonly onProgress: ((progress: PackageSetProgress) => void) | undefined;
  readonly signal: AbortSignal;
}

/** 4: libraries are checked; with bytecode; `license`. */
const BUILT_FORMAT = 4;
/** Of one package's sources, where its caller waits: two or three seconds of compiling. What is larger goes without. */
const MAX_AWAITED_SOURCE_BYTES = 2 * 1024 * 1024;
/** As well of one package, where its caller waits. */
const MAX_AWAITED_FILES = 5_000;
/** Of all packages of a caller's: each execution's message lists them. */
const MAX_FILES_OF_CALLER = 20_000;
const PARALLEL_DOWNLOADS = 4;
/** All are read at once to be checked. */
const MAX_LIBRARY_BYTES = 512 * 1024 * 1024;

/** Makes package sets out of resolved packages, and keeps them in a folder that may be deleted while the server is down. */
export class PackageSetBuilder {
  readonly #archives: KeptArchives;
  readonly #store: WheelStore;
  readonly #lock: PyodideLock;
  readonly #builds = new SingleFlight<Built>();
  readonly #bytecode: BytecodeStore | null;
  readonly #maxBytes: number;

  /**
   * @param bytecode null: archives hold none.
   * @param maxBytes most that packages may be unpacked, bytes.
   */
  constructor(
    folder: string,
    {
      store,
      lock,
      bytecode = null,
      maxBytes = 2 * 1024 * 1024 * 1024,
    }: { store: WheelStore; lock: PyodideLock; bytecode?: BytecodeStore | null; maxBytes?: number },
  ) {
    this.#archives = new KeptArchives(folder);
    this.#bytecode = bytecode;
    this.#store = store;
    this.#lock = lock;
    this.#maxBytes = maxBytes;
  }

  /**
   * Downloads what is not there yet, checks it, and writes the archive unless an equal set has one.
   *
   * @param bytecode `of-small`: large packages go without, and what takes long to compile, since a caller waits.
   * @throws {PackageError} nothing half built is left behind. @throws the signal's reason.
   */
  async build(
    resolved: readonly ResolvedPackage[],
    onProgress?: (progress: PackageSetProgress) => void,
    bytecode: "all" | "of-small" = "all",
    signal?: AbortSignal,
  ): Promise<PackageSet> {
    const stored = await this.#download(resolved, onProgress, signal);
    const wheels = resolved
      .map((item, index) => ({ ...item, stored: stored[index] as StoredWheel }))
      .toSorted((a, b) => (a.candidate.key < b.candidate.key ? -1 : 1));
    const identity = wheels.map((item) => [item.candidate.filename, item.stored.sha256]);
    const key = createHash("sha256")
      .update(
        JSON.stringify([
          BUILT_FORMAT,
          ARCHIVE_VERSION,
          identity,
          (await this.#bytecode?.compilerKey()) ?? null,
          bytecode,
        ]),
      )
      .digest("hex");
    const build = (stop: AbortSignal) => this.#buildOrReuse(key, wheels, { bytecode, onProgress, signal: stop });
    const built = await this.#builds.run(key, build, signal);
    const packages = wheels.map(({ candidate, dependsOn, stored: file }): PackageInfo => {
      const content = built.contents[candidate.filename] as Content;
      return {
        name: content.name,
        key: candidate.key,
        version: candidate.version,
        filename: candidate.filename,
        sha256: file.sha256,
        bytes: file.bytes,
        source: candidate.source,
        lockStatus: lockStatus(this.#lock, { ...candidate, sha256: file.sha256 }),
        license: content.license,
        compiled: content.sharedLibraries.length > 0,
        sharedLibraries: content.sharedLibraries,
        imports: content.imports,
        dependsOn,
      };
    });
    const libraries = packages.flatMap(({ sharedLibraries }) => sharedLibraries).toSorted();
    return {
      archive: { ...built.archive, path: this.#archives.pathOf(built.archive.sha256) },
      packages,
      compiled: libraries.length > 0,
      sharedLibraries: [
        ...libraries.filter((file) => file.startsWith("dynlib/")),
        ...libraries.filter((file) => !file.startsWith("dynlib/")),
      ],
      shadowed: built.shadowed,
    };
  }

  /**
   * Fetches what `build` will need, and tells what is not available.
   *
   * @returns normalised name of the package → why.
   */
  async missing(
    resolved: readonly ResolvedPackage[],
    onProgress?: (progress: PackageSetProgress) => void,
  ): Promise<ReadonlyMap<string, PackageError>> {
    const missing = new Map<string, PackageError>();
    await eachInParallel(resolved, async ({ candidate }) => {
      try {
        await verify(candidate, await this.#fetch(candidate, onProgress));
      } catch (error) {
        if (!(error instanceof PackageError)) throw error;
        missing.set(candidate.key, error);
      }
    });
    return missing;
  }

  async #download(
    resolved: readonly ResolvedPackage[],
    onProgress: ((progress: PackageSetProgress) => void) | undefined,
    signal: AbortSignal | undefined,
  ): Promise<StoredWheel[]> {
    const stored: StoredWheel[] = [];
    await eachInParallel(resolved, async ({ candidate }, index) => {
      signal?.throwIfAborted();
      stored[index] = await this.#fetch(candidate, onProgress);
    });
    return stored;
  }

  async #fetch(
    candidate: Candidate,
    onProgress: ((progress: PackageSetProgress) => void) | undefined,
  ): Promise<StoredWheel> {
    return await this.#store.fetch(candidate, (progress) => onProgress?.({ type: "download", ...progress }));
  }

  async #buildOrReuse(key: string, wheels: readonly StoredPackage[], options: BuildOptions): Promise<Built> {
    const known = await this.#archives.find<Built>(key, BUILT_FORMAT);
    if (known !== null) return known;
    const built = await this.#unpack(wheels, options);
    await this.#archives.remember(key, built);
    return built;
  }

  async #unpack(wheels: readonly StoredPackage[], { bytecode, onProgress, signal }: BuildOptions): Promise<Built> {
    const parts: (Wheel | DynlibZip)[] = [];
    try {
      for (const { candidate, stored } of wheels)
        parts.push(await (candidate.format === "wheel" ? Wheel : DynlibZip).open(stored.path, candidate.filename));
      const unpackedBytes = parts.flatMap(({ files }) => files).reduce((sum, { size }) => sum + size, 0);
      if (unpackedBytes > this.#maxBytes)
        throw new PackageError(
          "package_too_large",
          `These packages are ${unpackedBytes} bytes unpacked, more than the ${this.#maxBytes} that are allowed.`,
        );
      const fileCount = parts.reduce((sum, { files }) => sum + files.length, 0);
      if (bytecode === "of-small" && fileCount > MAX_FILES_OF_CALLER)
        throw new PackageError(
          "package_too_large",
          `These packages have ${fileCount} files, more than the ${MAX_FILES_OF_CALLER} that are allowed.`,
        );
      chargeShare(archiveShareKey(parts.map(({ filename }) => filename)), unpackedBytes);
      await checkLibraries(parts, true);
      signal.throwIfAborted();
      const compiled = await Promise.all(
        parts.map(async (part, index) => {
          const isLarge = sourceBytes(part) > MAX_AWAITED_SOURCE_BYTES || part.files.length > MAX_AWAITED_FILES;
          return bytecode === "of-small" && isLarge
            ? part
            : await this.#withBytecode(part, (wheels[index] as StoredPackage).stored, { bytecode, signal });
        }),
      );
      signal.throwIfAborted();
      const archive = await buildArchive(compiled, this.#archives.folder, (progress) =>
        onProgress?.({ type: "archive", ...progress }),
      );
      const libraries = new Set(archive.entries.filter(({ kind }) => kind === "library").map((entry) => entry.path));
      const contents = parts.map((part, index): [string, Content] => [
        part.filename,
        {
          name: part instanceof Wheel ? part.metadata.name : (wheels[index]?.candidate.name ?? part.filename),
          license: part instanceof Wheel ? part.metadata.license : null,
          sharedLibraries: part.files
            .map((file) => file.path)
            .filter((file) => libraries.has(file))
            .toSorted(),
          imports: importNames(part.files.map((file) => file.path)),
        },
      ]);
      return {
        format: BUILT_FORMAT,
        archive: { sha256: archive.sha256, bytes: archive.bytes, files: archive.entries.length },
        contents: Object.fromEntries(contents),
        shadowed: archive.shadowed,
      };
    } finally {
      for (const part of parts) part.close();
    }
  }

  async #withBytecode(
    part: Wheel | DynlibZip,
    { path: file, sha256 }: StoredWheel,
    { bytecode, signal }: Pick<BuildOptions, "bytecode" | "signal">,
  ): Promise<ArchivePart> {
    if (this.#bytecode === null || part instanceof DynlibZip) return part;
    // Of a set of its own that a caller waits for, too, when it is built anew before an execution.
    const principal = bytecode === "all" ? null : (installingPrincipal() ?? "");
    const compiled = await this.#bytecode.get(() => Wheel.open(file, part.filename), sha256, { principal, signal });
    return { filename: part.filename, files: part.files, read: (item) => part.read(item), bytecode: compiled };
  }
}

function sourceBytes({ files }: ArchivePart): number {
  return files.reduce((sum, { path, size }) => sum + (path.endsWith(".py") ? size : 0), 0);
}

/** At most {@link PARALLEL_DOWNLOADS} at a time. */
async function eachInParallel<T>(
  items: readonly T[],
  action: (item: T, index: number) => Promise<void>,
): Promise<void> {
  const entries = items.entries();
  const worker = async () => {
    for (const [index, item] of entries) await action(item, index);
  };
  await Promise.all(Array.from({ length: Math.min(PARALLEL_DOWNLOADS, items.length) }, worker));
}

/** Reads every file there is: what a hash says of the whole is not what RECORD says of its parts. @throws {PackageError} */
async function verify({ format, filename }: Candidate, stored: StoredWheel): Promise<void> {
  const part = await (format === "wheel" ? Wheel : DynlibZip).open(stored.path, filename);
  try {
    for (const file of part.files) await part.read(file);
    await checkLibraries([part], false);
  } finally {
    part.close();
  }
}

/**
 * @param isWhole whether these are all that are loaded together: another's library may have what one asks for.
 * @throws {PackageError} `package_unsafe_library` for the first that asks for more than a sandbox gives.
 */
async function checkLibraries(parts: readonly (Wheel | DynlibZip)[], isWhole: boolean): Promise<void> {
  const libraries: (Library & { readonly filename: string })[] = [];
  let total = 0;
  for (const part of parts) {
    for (const file of part.files.filter(({ path: name }) => isLibraryName(name))) {
      total += file.size;
      if (total > MAX_LIBRARY_BYTES) {
        const message = `These packages have over ${MAX_LIBRARY_BYTES} bytes of shared libraries.`;
        throw new PackageError("package_too_large", message);
      }
      const bytes = await part.read(file);
      if (isWebAssembly(bytes)) libraries.push({ path: file.path, bytes, filename: part.filename });
    }
  }
  const unsafe = await findUnsafeInThread(libraries, isWhole);
  const first = libraries.find(({ path: name }) => name in unsafe);
  if (!first) return;
  throw new PackageError(
    "package_unsafe_library",
    `${first.filename} is refused: its library ${path.basename(first.path)} is not safe: ${unsafe[first.path]}.`,
  );
}

/** Top-level modules, and folders with Python in them; names with a leading underscore are the package's own business. */
function importNames(paths: readonly string[]): string[] {
  const names = new Set<string>();
  for (const file of paths) {
    const match = /^site-packages\/([A-Za-z][A-Za-z0-9_]*)(?:\.py|(?:\.[\w-]+)*\.so|\/(?:.+\/)?[^/]+\.(?:py|so))$/.exec(
      file,
    );
    if (match !== null) names.add(match[1] as string);
  }
  return [...names].toSorted();
}
