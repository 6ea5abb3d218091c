import { readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { hashFile } from "../../shared/blob-folder.ts";
import { PackageError } from "../package-error.ts";
import type { CoreMetadata } from "../pep/metadata.ts";
import { readWheelMetadata } from "../wheel.ts";
import { type Candidate, type ListedFile, type Offers, type PackageSource, selectFiles } from "./package-source.ts";
import {
  checkSamePlatform,
  type LockedPackage,
  type PyodideLock,
  parsePyodideLock,
  requirementsOfOtherBuild,
} from "./pyodide-lock.ts";

const LOCK_FILE = "pyodide-lock.json";

/**
 * A local directory of wheels, as behind an air gap; with Pyodide's zips of shared libraries, if it has them.
 *
 * If the folder holds a `pyodide-lock.json`, what that lists must have the listed hash. Everything else in the folder is
 * taken as it is, whatever Pyodide's own lock file says about its version: who fills the folder decides.
 */
export class FolderSource implements PackageSource {
  readonly description: string;
  readonly #folder: string;
  readonly #pyodide: PyodideLock;
  /** By file, and valid for one size and time of change. */
  readonly #hashes = new Map<string, { readonly stamp: string; readonly value: Promise<string> }>();
  readonly #metadata = new Map<string, { readonly stamp: string; readonly value: Promise<CoreMetadata> }>();

  constructor(folder: string, description: string, pyodide: PyodideLock) {
    this.#folder = folder;
    this.description = description;
    this.#pyodide = pyodide;
  }

  async find(key: string): Promise<Offers> {
    const filenames = await this.#list();
    const ownLock = filenames.includes(LOCK_FILE) ? await this.#readLock() : null;
    const lock = ownLock ?? this.#pyodide;
    const locked = lock.packages.get(key) ?? null;
    const files = filenames.map(
      (filename): ListedFile => ({
        filename,
        requiresPython: "",
        yanked: false,
        toCandidate: (name) => this.#candidate(name, filename, locked, ownLock !== null),
      }),
    );
    const wheels = files.filter(({ filename }) => filename.endsWith(".whl"));
    const offers = selectFiles(key, wheels, this.#pyodide.python);
    if (locked?.isSharedLibrary !== true || !filenames.includes(locked.filename)) return offers;
    const library = this.#candidate(locked, locked.filename, locked, ownLock !== null);
    const { stated: _, ...dynlib } = library;
    return { ...offers, candidates: [{ ...dynlib, format: "dynlib" }, ...offers.candidates] };
  }

  #candidate(
    { key, version }: { key: string; version: string },
    filename: string,
    locked: LockedPackage | null,
    isOwnLock: boolean,
  ): Candidate {
    const file = path.join(this.#folder, filename);
    const isListed = locked?.filename === filename;
    const isBinding = isListed && isOwnLock;
    const stated = async () =>
      await remembered(this.#metadata, file, async () => await readWheelMetadata(file, filename));
    return {
      name: isListed ? locked.name : (filename.split("-")[0] ?? key),
      key,
      version,
      filename,
      format: "wheel",
      location: { path: file },
      sha256: isBinding ? locked.sha256 : null,
      source: this.description,
      // Pyodide strips some packages' dependencies when it builds them; that holds for its own build only.
      requirements: async () => {
        if (isBinding || (isListed && (await this.#hash(file)) === locked.sha256)) {
          return { requires: locked.requires, requiresPython: "" };
        }
        const own = await stated();
        return locked === null ? own : { ...own, requires: requirementsOfOtherBuild(locked, own.requires) };
      },
      stated,
    };
  }

  async #list(): Promise<string[]> {
    try {
      const entries = await readdir(this.#folder, { withFileTypes: true });
      return entries.flatMap((entry) => (entry.isDirectory() ? [] : [entry.name])).toSorted();
    } catch (cause) {
      throw new PackageError("package_source_unavailable", `${this.description} cannot be read.`, { cause });
    }
  }

  async #readLock(): Promise<PyodideLock> {
    const lock = parsePyodideLock(await readFile(path.join(this.#folder, LOCK_FILE), "utf8"), this.description);
    checkSamePlatform(this.#pyodide.python, lock.python, this.description);
    return lock;
  }

  async #hash(file: string): Promise<string> {
    return await remembered(this.#hashes, file, async () => await hashFile(file));
  }
}

async function remembered<T>(
  known: Map<string, { readonly stamp: string; readonly value: Promise<T> }>,
  file: string,
  read: () => Promise<T>,
): Promise<T> {
  const { size, mtimeMs } = await stat(file);
  const stamp = `${size} ${mtimeMs}`;
  const found = known.get(file);
  const value = found?.stamp === stamp ? found.value : read();
  known.set(file, { stamp, value });
  return await value;
}
