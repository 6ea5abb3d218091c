import { createHash } from "node:crypto";
import { readdir, readFile, rm, stat } from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import { KeyedQueue } from "./keyed-queue.ts";
import { PackageError, storageError } from "./package-error.ts";
import { type PackageInfo, type PackageSet, type PackageSetBuilder, writeAtomically } from "./package-set.ts";
import type { Candidate, PackageSource } from "./package-source.ts";
import type { PythonPlatform } from "./python-platform.ts";
import { normaliseName, parseRequirement } from "./requirements.ts";
import { type FixedPackage, type ResolvedPackage, resolve } from "./resolver.ts";
import type { WheelStore } from "./wheel-store.ts";

/** What a principal's packages are installed on top of. */
export interface BaseEnvironment {
  readonly name: string;
  /** In its image: they count as installed and are never replaced. */
  readonly packages: readonly FixedPackage[];
}

export interface PackageStoreOptions {
  /** Holds one JSON file for each principal and environment: `DATA_DIR/packages/principals`. */
  readonly folder: string;
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

/** What is on disk: enough to have the same files again, even if their cache is gone. */
const StateSchema = z.object({
  version: z.literal(1),
  principal: z.string(),
  environment: z.string(),
  /** Requirements that were asked for by name. */
  requested: z.array(z.string()),
  packages: z.array(
    z.object({
      name: z.string(),
      key: z.string(),
      version: z.string(),
      filename: z.string(),
      format: z.enum(["wheel", "dynlib"]),
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
      source: z.string(),
      /** As the package states them. */
      requires: z.array(z.string()),
      dependsOn: z.array(z.string()),
    }),
  ),
});

type State = z.infer<typeof StateSchema>;
type PackageState = State["packages"][number];

/**
 * Which packages each principal has installed. Installs of one principal queue, those of different ones run side by side;
 * an install that fails leaves everything as it was.
 */
export class PackageStore {
  readonly #options: PackageStoreOptions;
  readonly #queue = new KeyedQueue();
  /** By file; `stamp` tells whether the file is still the one that was read. */
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
   * @throws {PackageError} which package cannot be had, and why.
   */
  async install(
    principal: string,
    requirement: string,
    base: BaseEnvironment,
    accept: (set: PackageSet) => Promise<unknown> = async () => {},
  ): Promise<Installed> {
    const wanted = parseRequirement(requirement);
    return await this.#queue.run(idOf(principal, base.name), async () => {
      const state = await this.#read(principal, base.name);
      const others = state.requested.filter((text) => parseRequirement(text).key !== wanted.key);
      const requested = [...others, wanted.text];
      const { packages, warnings } = await resolve(requested.map(parseRequirement), {
        sources: this.#options.sources,
        python: this.#options.python,
        fixed: base.packages,
        preferred: (await Promise.all(state.packages.map((item) => this.#findAgain(item)))).filter(
          (item) => item !== null,
        ),
      });
      const maxPackages = this.#options.maxPackages ?? 200;
      if (packages.length > maxPackages)
        throw new PackageError("package_too_large", `More than ${maxPackages} packages would be installed.`);
      const set = await this.#options.sets.build(packages);
      await accept(set);
      await this.#write({ ...state, requested, packages: statesOf(packages, set) });
      const before = new Set(state.packages.map(({ filename, sha256 }) => `${filename} ${sha256}`));
      const added = set.packages.filter(({ filename, sha256 }) => !before.has(`${filename} ${sha256}`));
      return { added, set, warnings };
    });
  }

  /**
   * What the principal has, ready to be mounted; null: nothing. Asked before every execution, so it costs one `stat` when
   * nothing has changed, and it does not wait for an install that is under way.
   *
   * @throws {PackageError} if files are gone from cache and source both.
   */
  async get(principal: string, base: BaseEnvironment): Promise<PackageSet | null> {
    const id = idOf(principal, base.name);
    const stamp = await stampOf(this.#file(id));
    if (stamp === null) return null;
    const ready = this.#ready.get(id);
    if (ready?.stamp === stamp) return ready.set;
    const { packages } = await this.#read(principal, base.name);
    const set =
      packages.length === 0
        ? null
        : await this.#options.sets.build(await Promise.all(packages.map((item) => this.#resolved(item))));
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
    const { packages, requested } = await this.#read(principal, base.name);
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
    return await this.#queue.run(idOf(principal, base.name), async () => {
      const state = await this.#read(principal, base.name);
      if (!state.packages.some((item) => item.key === key)) return [];
      const requested = state.requested.filter((text) => parseRequirement(text).key !== key);
      const kept = reachable(state.packages, new Set(requested.map((text) => parseRequirement(text).key)));
      if (kept.has(key)) {
        const user = state.packages.find((item) => kept.has(item.key) && item.dependsOn.includes(key));
        throw new PackageError("package_in_use", `${name} cannot be removed: ${user?.name} needs it.`);
      }
      await this.#write({ ...state, requested, packages: state.packages.filter((item) => kept.has(item.key)) });
      return state.packages.filter((item) => !kept.has(item.key)).map((item) => item.name);
    });
  }

  /** Forgets everything the principal installed in this environment. */
  async clear(principal: string, base: BaseEnvironment): Promise<void> {
    const id = idOf(principal, base.name);
    await this.#queue.run(id, async () => await rm(this.#file(id), { force: true }));
  }

  /** SHA-256 of every file that somebody has installed: enough to build what they have again, if nothing else is left. */
  async wheels(): Promise<ReadonlySet<string>> {
    const wheels = new Set<string>();
    for (const name of await readdir(this.#options.folder).catch(() => [])) {
      if (!name.endsWith(".json")) continue;
      const text = await readFile(path.join(this.#options.folder, name), "utf8").catch(() => null);
      for (const { sha256 } of text === null ? [] : StateSchema.parse(JSON.parse(text)).packages) wheels.add(sha256);
    }
    return wheels;
  }

  /** Looks at the disk again for what was ready; for when archives have gone. */
  forget(): void {
    this.#ready.clear();
  }

  async #resolved(item: PackageState): Promise<ResolvedPackage> {
    const candidate = await this.#findAgain(item);
    if (candidate === null)
      throw new PackageError(
        "package_not_found",
        `${item.filename}, which is installed, is gone from here and from its source.`,
      );
    return { candidate, requires: item.requires.map(parseRequirement), dependsOn: item.dependsOn };
  }

  /** The file that was installed: from the store, or, if that lost it, from where it can be had with the same hash. */
  async #findAgain(item: PackageState): Promise<Candidate | null> {
    const { name, key, version, filename, format, sha256, source } = item;
    const requires = item.requires.map(parseRequirement);
    const known = { name, key, version, filename, format, sha256, source };
    const requirements = async () => ({ requires, requiresPython: "" });
    const stored = await this.#options.wheels.find(sha256);
    if (stored !== null) return { ...known, location: { path: stored.path }, requirements };
    for (const place of this.#options.sources) {
      const offers = await place.find(key).catch(() => null);
      const same = offers?.candidates.find(
        (candidate) => candidate.filename === filename && (candidate.sha256 ?? sha256) === sha256,
      );
      if (same !== undefined) return { ...known, location: same.location, requirements };
    }
    return null;
  }

  #file(id: string): string {
    return path.join(this.#options.folder, `${id}.json`);
  }

  async #read(principal: string, environment: string): Promise<State> {
    let text: string;
    try {
      text = await readFile(this.#file(idOf(principal, environment)), "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw storageError(error) ?? error;
      return { version: 1, principal, environment, requested: [], packages: [] };
    }
    return StateSchema.parse(JSON.parse(text));
  }

  async #write(state: State): Promise<void> {
    await writeAtomically(this.#file(idOf(state.principal, state.environment)), JSON.stringify(state));
  }
}

const KEEP_READY = 1000;

/** Changes with every write, since each puts a new file in place; null: no file. */
async function stampOf(file: string): Promise<string | null> {
  try {
    const { ino, mtimeNs, size } = await stat(file, { bigint: true });
    return `${ino} ${mtimeNs} ${size}`;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw storageError(error) ?? error;
  }
}

function idOf(principal: string, environment: string): string {
  return createHash("sha256")
    .update(JSON.stringify([principal, environment]))
    .digest("hex");
}

function statesOf(packages: readonly ResolvedPackage[], set: PackageSet): PackageState[] {
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

function reachable(packages: readonly PackageState[], roots: ReadonlySet<string>): ReadonlySet<string> {
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
