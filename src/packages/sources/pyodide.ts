import type { HttpFetcher } from "../fetcher.ts";
import { PackageError } from "../package-error.ts";
import { readWheelMetadata } from "../wheel.ts";
import type { WheelStore } from "../wheel-store.ts";
import type { Candidate, Offers, PackageSource } from "./package-source.ts";
import { checkSamePlatform, type PyodideLock, parsePyodideLock } from "./pyodide-lock.ts";

const MAX_LOCK_BYTES = 32 * 1024 * 1024;

/**
 * Packages that were built for Pyodide, from its CDN or a mirror: one version of each, with hash and dependencies from a
 * lock file. The CDN's is the one that came with the installed Pyodide; a mirror may bring its own.
 */
export class PyodideSource implements PackageSource {
  readonly description: string;
  readonly #base: URL;
  readonly #remote: HttpFetcher;
  readonly #pyodide: PyodideLock;
  readonly #mayBringLock: boolean;
  readonly #store: WheelStore;
  #lock: Promise<PyodideLock> | undefined;

  /**
   * @param mayBringLock ask the address for `pyodide-lock.json` first; 404 means that it has none.
   * @param store where a wheel goes that has to be fetched to learn what its extras need.
   */
  constructor(
    address: string,
    pyodide: PyodideLock,
    remote: HttpFetcher,
    { mayBringLock, store }: { mayBringLock: boolean; store: WheelStore },
  ) {
    this.#base = new URL(address.endsWith("/") ? address : `${address}/`);
    this.description = `Pyodide's packages at ${this.#base.host}`;
    this.#remote = remote;
    this.#pyodide = pyodide;
    this.#mayBringLock = mayBringLock;
    this.#store = store;
  }

  async find(key: string): Promise<Offers> {
    this.#lock ??= this.#readLock();
    let lock: PyodideLock;
    try {
      lock = await this.#lock;
    } catch (error) {
      this.#lock = undefined;
      throw error;
    }
    const locked = lock.packages.get(key);
    if (locked === undefined) return { candidates: [], unusable: [] };
    const { name, version, filename, sha256, requires, isSharedLibrary } = locked;
    const download = { filename, sha256, location: { url: new URL(encodeURIComponent(filename), this.#base).href } };
    const candidate: Candidate = {
      ...download,
      name,
      key,
      version,
      format: isSharedLibrary ? "dynlib" : "wheel",
      source: this.description,
      requirements: async () => ({ requires, requiresPython: "" }),
      ...(!isSharedLibrary && {
        stated: async () => await readWheelMetadata((await this.#store.fetch(download)).path, filename),
      }),
    };
    return { candidates: [candidate], unusable: [] };
  }

  async #readLock(): Promise<PyodideLock> {
    if (!this.#mayBringLock) return this.#pyodide;
    const answer = await this.#remote.bytes(new URL("pyodide-lock.json", this.#base), {
      accept: "application/json",
      maxBytes: MAX_LOCK_BYTES,
    });
    if (answer === null) return this.#pyodide;
    if (answer.contentType === "text/html")
      throw new PackageError("package_source_unavailable", `${this.description}: a web page instead of the lock file.`);
    const lock = parsePyodideLock(answer.bytes.toString("utf8"), this.description);
    checkSamePlatform(this.#pyodide.python, lock.python, this.description);
    return lock;
  }
}
