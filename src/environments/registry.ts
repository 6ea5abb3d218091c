import { createHash } from "node:crypto";
import { PackageError } from "../packages/package-error.ts";
import type { PackageInfo, PackageSet, PackageSetBuilder } from "../packages/package-set.ts";
import type { BaseEnvironment } from "../packages/package-store.ts";
import type { PythonPlatform } from "../packages/pep/platform.ts";
import { parseRequirement, type Requirement } from "../packages/pep/requirements.ts";
import { type Resolution, type ResolvedPackage, resolve, resolveAvailable } from "../packages/resolver.ts";
import type { PackageSource } from "../packages/sources/package-source.ts";
import { describeUnreached, type Unreached, unreachedOf } from "../packages/sources/unreached-sources.ts";
import { ClientError, StartupError } from "../shared/errors.ts";
import type { GuestEnvironment } from "../wire/messages.ts";
import type { CacheCollector } from "./cache-collector.ts";
import { DEFAULT, type EnvironmentDefinition, STDLIB } from "./definitions.ts";
import { type Image, type ImageCache, MAX_DERIVED_BUILD_MS, type UnbuiltEnvironment } from "./images.ts";
import { type EnvironmentManifest, EnvironmentManifests } from "./manifests.ts";
import { type EnvironmentProgress, StartProgress } from "./start-progress.ts";

/** An environment that code can run in. */
export interface Environment {
  readonly name: string;
  readonly packages: readonly PackageInfo[];
  /** What could not be had or imported, in words. */
  readonly warnings: readonly string[];
  /** What was asked for and could not be had: requirement → why. */
  readonly missing: Readonly<Record<string, string>>;
  /** What of that is missing only because sources could not be asked; null: nothing. */
  readonly unreached: Unreached | null;
  readonly image: Image;
  readonly baseImagePath: string;
  readonly stdlibPath: string;
  /** Null for the standard library alone. */
  readonly guest: GuestEnvironment | null;
  readonly archiveBytes: number;
  /** All that has to stay on disk for as long as it is used. */
  readonly files: readonly string[];
}

/** What is on disk of an environment that was defined. */
export interface BuiltBefore {
  readonly name: string;
  /** Null: nothing. */
  readonly known: EnvironmentManifest | null;
  readonly image: Image | null;
}

export interface EnvironmentsOptions {
  readonly definitions: readonly EnvironmentDefinition[];
  readonly sources: readonly PackageSource[];
  readonly python: PythonPlatform;
  readonly sets: PackageSetBuilder;
  readonly images: ImageCache;
  /** Remembers what each definition came to, so that a start asks no source again. */
  readonly cacheDir: string;
  /** Changes when the sources may offer something else. */
  readonly sourcesFingerprint: string;
  /** A package that is not available is an error, not a warning. */
  readonly strict: boolean;
  readonly keeper: CacheCollector;
  readonly onProgress: (message: string) => void;
  readonly onWarning: (message: string) => void;
}

/** Between a base's name and the hash of what was installed on top of it. No definition's name has it. */
const DERIVED_SEPARATOR = "+";

/** The definition that an environment is, or is derived from. */
export function baseOf(name: string): string {
  return name.split(DERIVED_SEPARATOR, 1)[0] as string;
}

/** Global names that users of these packages expect. */
const ALIASES: Readonly<Record<string, readonly string[]>> = {
  numpy: ["np", "numpy"],
  pandas: ["pd", "pandas"],
  "matplotlib.pyplot": ["plt"],
  matplotlib: ["matplotlib"],
  seaborn: ["sns", "seaborn"],
  requests: ["requests"],
  httpx: ["httpx"],
  micropip: ["micropip"],
};

/** Modules that a package loads only when they are first used, but that nearly everybody uses. */
const FURTHER_IMPORTS: Readonly<Record<string, readonly string[]>> = {
  numpy: ["numpy.random", "numpy.fft", "numpy.linalg"],
  matplotlib: ["matplotlib.pyplot"],
  pillow: ["PIL.Image"],
};

const DERIVED_NAME = /^[a-z0-9][a-z0-9_-]{0,63}\+[0-9a-f]{16}$/;
/** The environments of this server, and those derived from them by installing packages with shared libraries. */
export class Environments {
  readonly #options: EnvironmentsOptions;
  readonly #ready = new Map<string, Environment>();
  readonly #underWay = new Map<string, Promise<Environment>>();

  readonly #manifests: EnvironmentManifests;
  readonly #progress: StartProgress;
  #isClosed = false;

  constructor(options: EnvironmentsOptions) {
    this.#options = options;
    this.#manifests = new EnvironmentManifests(options.cacheDir);
    this.#progress = new StartProgress(this.names);
  }

  /** Builds the standard library's, which needs no source. */
  async prepareStdlib(): Promise<void> {
    this.#progress.begin(STDLIB, "image");
    await this.#once(STDLIB, () => this.#stdlib());
    this.#progress.end(STDLIB, "ready");
  }

  /** Makes ready what a start before has built, which takes milliseconds and needs no source either. */
  async prepareBuilt(): Promise<void> {
    for (const definition of this.#options.definitions) {
      const { name, packages, imports } = definition;
      const known = await this.#manifests.find(name, this.#inputs(definition));
      if (known === null || Object.keys(known.missing).length > 0) continue;
      const unbuilt = unbuiltEnvironment(known.set, imports, askedOf(packages));
      if (await this.#options.images.isThere(name, known.set.archive.sha256, unbuilt)) await this.#prepare(definition);
    }
  }

  /**
   * Builds the standard library's, then all that are defined and are not ready yet.
   *
   * @param only build no other than this one.
   * @throws {StartupError} where strict, if one fails.
   */
  async prepare(only?: string): Promise<void> {
    await this.prepareStdlib();
    const wanted = this.#options.definitions.filter(({ name }) => only === undefined || name === only);
    if (only !== undefined && only !== STDLIB && wanted.length === 0) {
      const names = [STDLIB, ...this.#options.definitions.map(({ name }) => name)];
      throw new StartupError(`There is no environment "${only}". Defined: ${names.join(", ")}.`);
    }
    for (const definition of wanted) {
      if (this.#isClosed) return;
      if (this.#progress.isPending(definition.name)) await this.#prepare(definition);
    }
    const unreached = wanted.flatMap(({ name }) => this.#ready.get(name)?.unreached ?? []);
    if (unreached.length > 0) this.#options.onWarning(describeUnreached(unreached));
  }

  async #prepare(definition: EnvironmentDefinition): Promise<void> {
    const { name } = definition;
    this.#progress.begin(name, "packages");
    try {
      const { warnings, unreached } = await this.#once(name, () => this.#build(definition));
      this.#progress.end(name, "ready");
      // What sources that cannot be reached have to do with is told once, for all environments.
      for (const warning of warnings) if (warning !== unreached?.warning) this.#options.onWarning(warning);
    } catch (error) {
      this.#progress.end(name, "failed");
      if (this.#isClosed) return;
      const message = `The environment "${name}" cannot be built: ${(error as Error).message}`;
      if (this.#options.strict || error instanceof StartupError) throw new StartupError(message, { cause: error });
      this.#options.onWarning(message);
    }
  }

  /** Begins no further environment. */
  close(): void {
    this.#isClosed = true;
  }

  isReady(name: string): boolean {
    return this.#ready.has(name);
  }

  /** How far each one is that was defined, the standard library's first. */
  get progress(): readonly EnvironmentProgress[] {
    return this.#progress.list();
  }

  /** All that were defined, ready or not, and the standard library's. */
  get names(): readonly string[] {
    return [STDLIB, ...this.#options.definitions.map(({ name }) => name)];
  }

  /** The one for requests that name none: `default` where it has any package, or may yet have, else `stdlib`. */
  get defaultName(): string {
    const ready = this.#ready.get(DEFAULT);
    if (ready) return ready.packages.length > 0 ? DEFAULT : STDLIB;
    return this.#progress.isPending(DEFAULT) ? DEFAULT : STDLIB;
  }

  /** What each definition came to when it was built last, without building or asking any source. */
  async inspect(): Promise<readonly BuiltBefore[]> {
    const { definitions, images } = this.#options;
    return await Promise.all(
      definitions.map(async (definition): Promise<BuiltBefore> => {
        const { name, packages, imports } = definition;
        const known = await this.#manifests.find(name, this.#inputs(definition));
        if (known === null) return { name, known, image: null };
        const unbuilt = unbuiltEnvironment(known.set, imports, askedOf(packages));
        return { name, known, image: await images.find(name, known.set.archive.sha256, unbuilt) };
      }),
    );
  }

  /** Those that were defined and could be built. */
  list(): Environment[] {
    return [...this.#ready.values()].filter(({ name }) => !name.includes(DERIVED_SEPARATOR));
  }

  /** @throws {ClientError} 400 if there is none of this name, 503 `starting` while it is being built. */
  get(name: string): Environment {
    const environment = this.#ready.get(name);
    if (environment) {
      this.#options.keeper.use(...environment.files);
      return environment;
    }
    this.#refusePending(name);
    const names = this.list().map((other) => other.name);
    throw new ClientError("unknown_environment", `Unknown environment "${name}". Available: ${names.join(", ")}.`);
  }

  #refusePending(name: string): void {
    const base = baseOf(name);
    if (!this.#progress.isPending(base)) return;
    const message = `The server is starting: the environment "${base}" is not ready yet. Try again later.`;
    throw new ClientError("starting", message);
  }

  /** @returns null if it was not made ready yet. */
  imageBytes(name: string): number | null {
    return this.#ready.get(name)?.image.bytes ?? null;
  }

  base(name: string): BaseEnvironment {
    return { name, packages: this.get(name).packages };
  }

  /**
   * The environment that has a caller's packages on top of another's: built once, for all who have the same.
   *
   * @param set what was installed on top of `base`; has shared libraries.
   */
  async derive(base: string, set: PackageSet): Promise<string> {
    const name = this.derivedName(base, set);
    await this.#once(name, () => this.#buildDerived(name, this.get(base), set));
    return name;
  }

  /** What {@link derive} calls it; nothing is built. */
  derivedName(base: string, set: PackageSet): string {
    const hash = keyOf([this.get(base).packages.map(({ sha256 }) => sha256), set.archive.sha256]);
    return `${base}${DERIVED_SEPARATOR}${hash.slice(0, 16)}`;
  }

  /**
   * Makes ready what `derive` made once, also before this server was started: a session goes on in it, whatever its owner has
   * installed since.
   *
   * @returns false if it is not there any more.
   */
  async recall(name: string): Promise<boolean> {
    if (this.#ready.has(name)) return true;
    if (!DERIVED_NAME.test(name)) return false;
    this.#refusePending(name);
    const { python } = this.#options;
    const known = await this.#manifests.find(name, python);
    if (known === null) return false;
    await this.#once(name, () => this.#buildImage(name, known.set, python, NOTHING_MISSING));
    return true;
  }

  /** Builds again, when it is asked for, what has lost one of these files. */
  forget(paths: ReadonlySet<string>): void {
    for (const [name, { files }] of this.#ready) {
      if (!files.some((file) => paths.has(file))) continue;
      this.#ready.delete(name);
      this.#underWay.delete(name);
    }
  }

  /** SHA-256 of every wheel that is in one of them. */
  wheels(): string[] {
    return [...this.#ready.values()].flatMap(({ packages }) => packages.map(({ sha256 }) => sha256));
  }

  #once(name: string, build: () => Promise<Environment>): Promise<Environment> {
    const known = this.#underWay.get(name);
    if (known) return known;
    const building = build().then((environment) => {
      this.#ready.set(name, environment);
      const { keeper } = this.#options;
      if (name.includes(DERIVED_SEPARATOR)) keeper.use(...environment.files);
      else keeper.hold(...environment.files);
      return environment;
    });
    this.#underWay.set(name, building);
    building.catch(() => this.#underWay.delete(name));
    return building;
  }

  async #stdlib(): Promise<Environment> {
    const image = await this.#options.images.base();
    const { path: baseImagePath, stdlib, stdlibPath } = image;
    return {
      name: STDLIB,
      packages: [],
      warnings: [],
      missing: {},
      unreached: null,
      image,
      baseImagePath,
      stdlibPath,
      guest: null,
      archiveBytes: 0,
      files: [baseImagePath, ...stdlib.files],
    };
  }

  async #build(definition: EnvironmentDefinition): Promise<Environment> {
    const { name, packages, imports } = definition;
    const { requested, unreadable } = readRequirements(packages);
    const [first] = unreadable.values();
    if (this.#options.strict && first) throw first;
    const asked = requested.map(({ key }) => key);
    const inputs = this.#inputs(definition);
    const known = await this.#manifests.find(name, inputs);
    if (known !== null && Object.keys(known.missing).length === 0)
      return await this.#buildImage(name, known.set, inputs, NOTHING_MISSING, imports, asked);
    const { sources, python, strict, sets, onProgress } = this.#options;
    onProgress(`Preparing the environment "${name}": ${packages.join(", ")}`);
    const { resolved, failures } = strict
      ? {
          resolved: (await resolve(requested, { sources, python })).packages,
          failures: new Map<string, PackageError>(),
        }
      : await this.#available(name, requested);
    // In the order in which they were asked for.
    const problems = [...unreadable, ...failures].toSorted(([a], [b]) => packages.indexOf(a) - packages.indexOf(b));
    const missing = Object.fromEntries(problems.map(([requirement, { message }]) => [requirement, message]));
    // A source that cannot be asked today takes nothing away that it gave before.
    if (known !== null && Object.keys(known.missing).length < Object.keys(missing).length) {
      const without = goesWithout(name, known.missing, failures);
      return await this.#buildImage(name, known.set, inputs, without, imports, asked);
    }
    const without = goesWithout(name, missing, failures);
    if (resolved.length === 0) return { ...(await this.#stdlib()), name, ...without };
    const set = await sets.build(resolved, this.#onPackages(name));
    const environment = await this.#buildImage(name, set, inputs, without, imports, asked);
    await this.#manifests.save(name, inputs, { set, missing });
    return environment;
  }

  /** All that what a definition comes to depends on. */
  #inputs({ packages, imports }: EnvironmentDefinition): unknown {
    const { python, sourcesFingerprint } = this.#options;
    return [packages, imports, python, sourcesFingerprint];
  }

  /** What can be resolved, and also downloaded, of what was asked for; the rest is told of. */
  async #available(
    name: string,
    requested: readonly Requirement[],
  ): Promise<{ resolved: readonly ResolvedPackage[]; failures: ReadonlyMap<string, PackageError> }> {
    const { sources, python, sets } = this.#options;
    const failures = new Map<string, PackageError>();
    let wanted = requested;
    for (;;) {
      const resolution = await resolveAvailable(wanted, { sources, python });
      for (const [requirement, error] of resolution.failures) failures.set(requirement, error);
      const missing = await sets.missing(resolution.packages, this.#onPackages(name));
      if (missing.size === 0) return { resolved: resolution.packages, failures };
      const needs = new Map(resolution.packages.map(({ candidate, dependsOn }) => [candidate.key, dependsOn]));
      const kept: Requirement[] = [];
      for (const requirement of wanted) {
        const key = [...closure(requirement.key, needs)].find((needed) => missing.has(needed));
        const item = resolution.packages.find(({ candidate }) => candidate.key === key);
        const reason = missing.get(key ?? "");
        if (item && reason)
          failures.set(requirement.text, await this.#describeMissing(requirement, item, resolution, reason));
        else if (!failures.has(requirement.text)) kept.push(requirement);
      }
      wanted = kept;
    }
  }

  /** Says which file of which package could not be had, and what other sources have of it. */
  async #describeMissing(
    requirement: Requirement,
    { candidate }: ResolvedPackage,
    resolution: Resolution,
    { code, message }: PackageError,
  ): Promise<PackageError> {
    const { name, key, version, filename, source } = candidate;
    const elsewhere: string[] = [];
    for (const other of this.#options.sources) {
      if (other.description === source) continue;
      const offers = await other.find(key).catch(() => null);
      if (offers === null) continue;
      const versions = [...new Set(offers.candidates.map((file) => file.version))].slice(0, 5);
      elsewhere.push(
        `${other.description} has ${versions.length === 0 ? `no ${name}` : `${name} ${versions.join(", ")}`}`,
      );
    }
    const needing = resolution.packages.find(
      ({ candidate: other, dependsOn }) => other.key !== key && dependsOn.includes(key),
    );
    const wanted = needing?.requires
      .find((other) => other.key === key)
      ?.text.split(";")[0]
      ?.trim();
    const needs =
      needing === undefined || key === requirement.key
        ? ""
        : `${needing.candidate.name} ${needing.candidate.version} needs ${wanted}; `;
    const has = elsewhere.map((clause) => `; ${clause}`).join("");
    const reason = message.replace(/\.$/, "");
    const why = `${needs}${name} ${version} (${filename}, from ${source}) cannot be used: ${reason}${has}.`;
    return new PackageError(code, why, { ...(code === "package_source_unavailable" && { unreached: [reason] }) });
  }

  async #buildDerived(name: string, base: Environment, set: PackageSet): Promise<Environment> {
    const { sources, python, sets } = this.#options;
    const pinned = [...base.packages, ...set.packages].map(({ name, version }) =>
      parseRequirement(`${name}==${version}`),
    );
    const { packages } = await resolve(pinned, { sources, python });
    const combined = await sets.build(packages, this.#onPackages(name));
    const environment = await this.#buildImage(
      name,
      combined,
      python,
      NOTHING_MISSING,
      undefined,
      undefined,
      MAX_DERIVED_BUILD_MS,
    );
    await this.#manifests.save(name, python, { set: combined, missing: {} });
    return environment;
  }

  async #buildImage(
    name: string,
    set: PackageSet,
    inputs: unknown,
    without: Without,
    imports?: readonly string[],
    asked?: readonly string[],
    maxBuildMs?: number,
  ): Promise<Environment> {
    const { images } = this.#options;
    this.#progress.step(name, "image");
    const warnings = [...without.warnings];
    const unbuilt = unbuiltEnvironment(set, imports, asked);
    const image = await images.environment(name, set.archive.sha256, unbuilt, maxBuildMs);
    if (image.heapBytes > images.memoryBytes) {
      const neededMb = Math.ceil(image.heapBytes / 2 ** 20);
      throw new PackageError(
        "package_too_large",
        `Its packages take ${neededMb} MiB of memory before any code runs, and sandboxes have ${images.memoryBytes / 2 ** 20} (SANDBOX_MEMORY_MB).`,
      );
    }
    for (const [module, reason] of Object.entries(image.failedImports)) {
      warnings.push(`In the environment "${name}" ${module} cannot be imported: ${reason}`);
    }
    for (const [part, reason] of Object.entries(image.unfit)) {
      warnings.push(`The image of the environment "${name}" goes without ${part}: ${reason}`);
    }
    const libraries = unbuilt.libraries.filter((library) => !(library in image.unfit));
    const { path: baseImagePath, stdlib, stdlibPath } = await images.base();
    return {
      name,
      packages: set.packages,
      ...without,
      warnings,
      image,
      baseImagePath,
      stdlibPath,
      guest: { ...unbuilt, libraries, imagePath: image.path },
      archiveBytes: set.archive.bytes,
      files: [image.path, set.archive.path, baseImagePath, ...stdlib.files, this.#manifests.fileOf(name, inputs)],
    };
  }

  /** Tells how packages come in. */
  #onPackages(name: string) {
    let lastShownAt = 0;
    let lastFile = "";
    return (progress: { readonly type: string }) => {
      const { filename, receivedBytes, totalBytes } = progress as {
        filename?: string;
        receivedBytes?: number;
        totalBytes?: number | null;
      };
      if (progress.type === "archive") this.#progress.step(name, "archive");
      if (progress.type !== "download" || filename === undefined) return;
      this.#progress.downloaded(name, filename, receivedBytes ?? 0);
      if (filename === lastFile && performance.now() - lastShownAt < 2000) return;
      lastFile = filename;
      lastShownAt = performance.now();
      const size = totalBytes ? ` of ${(totalBytes / 2 ** 20).toFixed(1)}` : "";
      this.#options.onProgress(`Downloading ${filename}: ${((receivedBytes ?? 0) / 2 ** 20).toFixed(1)}${size} MiB`);
    };
  }
}

function unbuiltEnvironment(
  set: PackageSet,
  imports: readonly string[] | undefined,
  asked?: readonly string[],
): UnbuiltEnvironment {
  const wanted = imports ?? importsOf(set, asked);
  const aliases: Record<string, string> = {};
  for (const module of wanted) for (const alias of ALIASES[module] ?? []) aliases[alias] = module;
  return { archivePath: set.archive.path, libraries: set.sharedLibraries, imports: wanted, aliases };
}

/** What an environment goes without. */
type Without = Pick<Environment, "missing" | "warnings" | "unreached">;
const NOTHING_MISSING: Without = { missing: {}, warnings: [], unreached: null };

/**
 * @param failures why sources did not give today what is missing, by requirement: where they could not be asked, one warning names
 *   them for all packages.
 */
function goesWithout(
  name: string,
  missing: Readonly<Record<string, string>>,
  failures: ReadonlyMap<string, PackageError>,
): Without {
  const unreached = unreachedOf(name, Object.keys(missing), failures);
  const warnings = Object.entries(missing)
    .filter(([requirement]) => !unreached?.requirements.includes(requirement))
    .map(([requirement, why]) => `The environment "${name}" goes without ${requirement}: ${why}`);
  return { missing, warnings: unreached === null ? warnings : [unreached.warning, ...warnings], unreached };
}

function keyOf(inputs: unknown): string {
  return createHash("sha256").update(JSON.stringify(inputs)).digest("hex");
}

function readRequirements(texts: readonly string[]): {
  requested: Requirement[];
  unreadable: Map<string, PackageError>;
} {
  const requested: Requirement[] = [];
  const unreadable = new Map<string, PackageError>();
  for (const text of texts) {
    try {
      requested.push(parseRequirement(text));
    } catch (error) {
      if (!(error instanceof PackageError)) throw error;
      unreadable.set(text, error);
    }
  }
  return { requested, unreadable };
}

/** Normalised names of the packages that were asked for. */
function askedOf(packages: readonly string[]): string[] {
  return readRequirements(packages).requested.map(({ key }) => key);
}

function closure(root: string, needs: ReadonlyMap<string, readonly string[]>): ReadonlySet<string> {
  const seen = new Set([root]);
  for (const key of seen) for (const next of needs.get(key) ?? []) seen.add(next);
  return seen;
}

/** @param only normalised names of the packages whose modules are wanted; default: all. */
function importsOf(set: PackageSet, only?: readonly string[]): string[] {
  const chosen = set.packages.filter(({ key }) => only === undefined || only.includes(key));
  // Private modules and those for tests import what only a developer has.
  const public_ = (name: string) => !name.startsWith("_") && !/^(tests?|docs|examples|conftest|setup)$/.test(name);
  return chosen.flatMap(({ key, imports }) => [...imports.filter(public_), ...(FURTHER_IMPORTS[key] ?? [])]);
}
