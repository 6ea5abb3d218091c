import { ClientError } from "../shared/errors.ts";
import { KeyedQueue } from "../shared/serial-queue.ts";
import { whileWaiting } from "../shared/while-waiting.ts";
import { PackageError } from "./package-error.ts";
import { type InstalledPackage, type PackageRecord, type PackageRecords, recordId } from "./package-records.ts";
import type { PackageInfo, PackageSet, PackageSetBuilder } from "./package-set.ts";
import type { PythonPlatform } from "./pep/platform.ts";
import { normaliseName, parseRequirement, parseRequirements } from "./pep/requirements.ts";
import { type FixedPackage, type ResolvedPackage, resolve } from "./resolver.ts";
import type { Candidate, PackageSource } from "./sources/package-source.ts";
import { readWheelMetadata } from "./wheel.ts";
import type { WheelStore } from "./wheel-store.ts";

/** What a principal's packages are installed on top of. */
export interface BaseEnvironment {
  readonly name: string;
  /** In its image: they count as installed and are never replaced. */
  readonly packages: readonly FixedPackage[];
}

export interface PackageStoreOptions {
  readonly records: PackageRecords;
  readonly sources: readonly PackageSource[];
  readonly python: PythonPlatform;
  readonly wheels: WheelStore;
  readonly sets: PackageSetBuilder;
  /** Most packages of one principal in one environment, dependencies included. */
  readonly maxPackages?: number;
}

export interface Installed {
  /** What this call added or changed; empty if all was there. */
  readonly added: readonly PackageInfo[];
  /** All that the principal has now. */
  readonly set: PackageSet;
  /** Sources that could not be asked, in words. */
  readonly warnings: readonly string[];
}

/**
 * Which packages each principal has installed. Installs of one principal queue, those of different ones run side by side;
 * an install that fails leaves everything as it was.
 */
export class PackageStore {
  readonly #options: PackageStoreOptions;
  readonly #queue = new KeyedQueue();
  /** By record; `stamp` tells whether it is still the one that was read. */
  readonly #ready = new Map<string, { readonly stamp: string; readonly set: PackageSet | null }>();

  constructor(options: PackageStoreOptions) {
    this.#options = options;
  }

  /**
   * Adds a package and what it needs. A package that is there and fits is not replaced by a newer one, as with pip; naming
   * another version replaces it.
   *
   * @param requirement as PEP 508 writes it: `humanize`, `attrs==25.1.0`, `requests[socks]>=2`.
   * @param accept called with all that the principal would have; if it throws, nothing changes.
   * @param signal aborting it ends the installation as soon as that can be, and nothing changes.
   * @throws {PackageError} which package is not available, and why. @throws the signal's reason.
   */
  async install(
    principal: string,
    requirement: string,
    base: BaseEnvironment,
    accept: (set: PackageSet) => Promise<unknown> = async () => {},
    signal?: AbortSignal,
  ): Promise<Installed> {
    const wanted = parseRequirement(requirement);
    const plan = async (state: PackageRecord) => {
      const others = state.requested.filter((text) => parseRequirement(text).key !== wanted.key);
      const requested = [...others, wanted.text];
      const { packages, warnings } = await resolve(requested.map(parseRequirement), {
        sources: this.#options.sources,
        python: this.#options.python,
        fixed: base.packages,
        preferred: (await Promise.all(state.packages.map((item) => this.#findAgain(item)))).filter(
          (item) => item !== null,
        ),
        signal,
      });
      const maxPackages = this.#options.maxPackages ?? 200;
      if (packages.length > maxPackages)
        throw new PackageError("package_too_large", `More than ${maxPackages} packages would be installed.`);
      const set = await this.#options.sets.build(packages, undefined, "of-small", signal).catch((error: unknown) => {
        // It was found in a list that is at hand, and the source itself cannot be asked: that names no package.
        if (!(error instanceof PackageError) || error.unreached.length === 0) throw error;
        const message = `"${wanted.text}" cannot be installed: ${error.message}`;
        throw new PackageError(error.code, message, { cause: error, unreached: error.unreached });
      });
      await accept(set);
      signal?.throwIfAborted();
      const next = { ...state, requested, packages: statesOf(packages, set) };
      // First by adding up: as JSON, what they state may be so long that it would hold the event loop.
      const stated = next.packages.reduce(
        (sum, { requires }) => requires.reduce((all, { length }) => all + length, sum),
        0,
      );
      if (stated > MAX_RECORD_CHARACTERS || JSON.stringify(next).length > MAX_RECORD_CHARACTERS)
        throw new PackageError("package_too_large", "These packages state too many requirements.");
      const before = new Set(state.packages.map(({ filename, sha256 }) => `${filename} ${sha256}`));
      const added = set.packages.filter(({ filename, sha256 }) => !before.has(`${filename} ${sha256}`));
      return { next, result: { added, set, warnings } };
    };
    return await this.#change(principal, base.name, async (state) => {
      signal?.throwIfAborted();
      // The next in the line does not wait for what only this one waits for, such as a source that does not answer.
      return signal === undefined ? await plan(state) : await whileWaiting(signal, plan(state));
    });
  }

  /**
   * What the principal has, ready to be mounted; null: nothing. Asked before every execution, so it costs one look-up when
   * nothing has changed, and it does not wait for an install that is under way.
   *
   * @throws {PackageError} if files are gone from cache and source both.
   */
  async get(principal: string, base: BaseEnvironment): Promise<PackageSet | null> {
    const current = await this.#options.records.stamp(principal, base.name);
    if (current === null) return null;
    const id = recordId(principal, base.name);
    const ready = this.#ready.get(id);
    if (ready?.stamp === current) return ready.set;
    const { record, stamp } = await this.#options.records.read(principal, base.name);
    if (stamp === null) return null;
    const { packages } = record;
    const set =
      packages.length === 0
        ? null
        : await this.#options.sets.build(await this.#resolvedAll(packages), undefined, "of-small");
    const oldest = this.#ready.keys().next().value;
    if (this.#ready.size >= KEEP_READY && oldest !== undefined) this.#ready.delete(oldest);
    this.#ready.set(id, { stamp, set });
    return set;
  }

  /** Names and versions only; needs neither cache nor source. */
  async list(
    principal: string,
    base: BaseEnvironment,
  ): Promise<readonly (Pick<PackageInfo, "name" | "key" | "version" | "source"> & { readonly requested: boolean })[]> {
    const { packages, requested } = (await this.#options.records.read(principal, base.name)).record;
    const keys = new Set(requested.map((text) => parseRequirement(text).key));
    return packages.map(({ name, key, version, source }) => ({
      name,
      key,
      version,
      source,
      requested: keys.has(key),
    }));
  }

  /**
   * Takes a package away, and what was there only for it.
   *
   * @returns the names of all that is gone; empty if it was not installed.
   * @throws {PackageError} `package_in_use` if another one needs it.
   */
  async remove(principal: string, name: string, base: BaseEnvironment): Promise<readonly string[]> {
    const key = normaliseName(name);
    return await this.#change(principal, base.name, async (state) => {
      if (!state.packages.some((item) => item.key === key)) return { next: null, result: [] };
      const requested = state.requested.filter((text) => parseRequirement(text).key !== key);
      const kept = reachable(state.packages, new Set(requested.map((text) => parseRequirement(text).key)));
      if (kept.has(key)) {
        const user = state.packages.find((item) => kept.has(item.key) && item.dependsOn.includes(key));
        throw new PackageError("package_in_use", `${name} cannot be removed: ${user?.name} needs it.`);
      }
      return {
        next: { ...state, requested, packages: state.packages.filter((item) => kept.has(item.key)) },
        result: state.packages.filter((item) => !kept.has(item.key)).map((item) => item.name),
      };
    });
  }

  /** Forgets everything the principal installed in this environment. */
  async clear(principal: string, environment: string): Promise<void> {
    const clear = () => this.#options.records.clear(principal, environment);
    await this.#queue.run(recordId(principal, environment), clear);
  }

  /** Looks at the disk again for what was ready; for when archives have gone. */
  forget(): void {
    this.#ready.clear();
  }

  /** @param plan called again where another server has changed the record meanwhile; a `next` of null changes nothing. */
  async #change<T>(
    principal: string,
    environment: string,
    plan: (record: PackageRecord) => Promise<{ next: PackageRecord | null; result: T }>,
  ): Promise<T> {
    return await this.#queue.run(recordId(principal, environment), async () => {
      for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
        const { record, stamp } = await this.#options.records.read(principal, environment);
        const { next, result } = await plan(record);
        if (next === null || (await this.#options.records.write(next, stamp))) return result;
      }
      throw new ClientError("packages_busy");
    });
  }

  async #resolvedAll(items: readonly InstalledPackage[]): Promise<readonly ResolvedPackage[]> {
    const resolved: ResolvedPackage[] = [];
    for (const item of items) resolved.push(await this.#resolved(item));
    return resolved;
  }

  async #resolved(item: InstalledPackage): Promise<ResolvedPackage> {
    const candidate = await this.#findAgain(item);
    if (candidate === null)
      throw new PackageError(
        "package_not_found",
        `${item.filename}, which is installed, is gone: neither this server nor a source of its packages has that file.`,
      );
    return { candidate, requires: await parseRequirements(item.requires), dependsOn: item.dependsOn };
  }

  /** The file that was installed: from the store, or, if that lost it, from any source that has it with the same hash. */
  async #findAgain(item: InstalledPackage): Promise<Candidate | null> {
    const { name, key, version, filename, format, sha256, source } = item;
    const known = { name, key, version, filename, format, sha256, source };
    // Read when they are needed: those of all packages at once would hold the event loop.
    const requirements = async () => ({ requires: await parseRequirements(item.requires), requiresPython: "" });
    const stored = await this.#options.wheels.find(sha256);
    if (stored !== null) {
      const stated = async () => await readWheelMetadata(stored.path, filename);
      return { ...known, location: { path: stored.path }, requirements, ...(format === "wheel" && { stated }) };
    }
    for (const place of this.#options.sources) {
      const offers = await place.find(key).catch(() => null);
      const same = offers?.candidates.find(
        (candidate) => candidate.filename === filename && (candidate.sha256 ?? sha256) === sha256,
      );
      if (same !== undefined) {
        const stated = same.stated ?? (async () => await same.requirements());
        return { ...known, location: same.location, requirements, ...(format === "wheel" && { stated }) };
      }
    }
    return null;
  }
}

const KEEP_READY = 1000;
/** Of what is kept of a principal's packages; it is read as a whole. */
const MAX_RECORD_CHARACTERS = 2 * 1024 * 1024;
const MAX_ATTEMPTS = 10;

function statesOf(packages: readonly ResolvedPackage[], set: PackageSet): InstalledPackage[] {
  const infos = new Map(set.packages.map((info) => [info.key, info]));
  return packages.map(({ candidate, requires, dependsOn }) => {
    const { key, version, filename, format, source } = candidate;
    const info = infos.get(key) as PackageInfo;
    return {
      name: info.name,
      key,
      version,
      filename,
      format,
      sha256: info.sha256,
      source,
      requires: requires.map(({ text }) => text),
      dependsOn: [...dependsOn],
    };
  });
}

function reachable(packages: readonly InstalledPackage[], roots: ReadonlySet<string>): ReadonlySet<string> {
  const byKey = new Map(packages.map((item) => [item.key, item]));
  const seen = new Set<string>();
  const pending = [...roots];
  for (let key = pending.pop(); key !== undefined; key = pending.pop()) {
    const item = byKey.get(key);
    if (item === undefined || seen.has(key)) continue;
    seen.add(key);
    pending.push(...item.dependsOn);
  }
  return seen;
}
