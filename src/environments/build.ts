import { PackageError } from "../packages/package-error.ts";
import type { PackageInfo, PackageSet, PackageSetBuilder } from "../packages/package-set.ts";
import type { PythonPlatform } from "../packages/pep/platform.ts";
import { parseRequirement, type Requirement } from "../packages/pep/requirements.ts";
import { type Resolution, type ResolvedPackage, resolve, resolveAvailable } from "../packages/resolver.ts";
import type { PackageSource } from "../packages/sources/package-source.ts";
import { type Unreached, unreachedOf } from "../packages/sources/unreached-sources.ts";
import type { GuestEnvironment } from "../wire/messages.ts";
import { type EnvironmentDefinition, STDLIB } from "./definitions.ts";
import { type Image, type ImageCache, MAX_DERIVED_BUILD_MS } from "./images.ts";
import { unbuiltEnvironment } from "./import-policy.ts";
import type { EnvironmentManifests } from "./manifests.ts";
import type { StartProgress } from "./start-progress.ts";

/** An environment that code can run in. */
export interface Environment {
  readonly name: string;
  readonly packages: readonly PackageInfo[];
  /** What was not available, or could not be imported, in words. */
  readonly warnings: readonly string[];
  /** What was asked for and not available: requirement → why. */
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

/** What an environment goes without. */
export type Without = Pick<Environment, "missing" | "warnings" | "unreached">;
export const NOTHING_MISSING: Without = { missing: {}, warnings: [], unreached: null };

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

export interface EnvironmentBuilderOptions {
  readonly sources: readonly PackageSource[];
  readonly python: PythonPlatform;
  readonly sets: PackageSetBuilder;
  readonly images: ImageCache;
  /** Changes when the sources may offer something else. */
  readonly sourcesFingerprint: string;
  /** A package that is not available is an error, not a warning. */
  readonly strict: boolean;
  readonly onProgress: (message: string) => void;
}

/** What a definition, or a caller's packages, come to: resolved, downloaded, packed and imported into an image. */
export class EnvironmentBuilder {
  readonly #options: EnvironmentBuilderOptions;
  readonly #manifests: EnvironmentManifests;
  readonly #progress: StartProgress;

  constructor(options: EnvironmentBuilderOptions, manifests: EnvironmentManifests, progress: StartProgress) {
    this.#options = options;
    this.#manifests = manifests;
    this.#progress = progress;
  }

  /** The standard library's. */
  async stdlib(): Promise<Environment> {
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

  /** What a definition comes to: from what was built before, or from the sources. */
  async build(definition: EnvironmentDefinition): Promise<Environment> {
    const { name, packages, imports } = definition;
    const { requested, unreadable } = readRequirements(packages);
    const [first] = unreadable.values();
    if (this.#options.strict && first) throw first;
    const asked = requested.map(({ key }) => key);
    const inputs = this.inputs(definition);
    const known = await this.#manifests.find(name, inputs);
    if (known !== null && Object.keys(known.missing).length === 0)
      return await this.buildImage(name, known.set, inputs, NOTHING_MISSING, imports, asked);
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
      return await this.buildImage(name, known.set, inputs, without, imports, asked);
    }
    const without = goesWithout(name, missing, failures);
    if (resolved.length === 0) {
      // For the doctor: what is missing is sought again at each start.
      if (known === null) await this.#manifests.save(name, inputs, { set: null, missing });
      return { ...(await this.stdlib()), name, ...without };
    }
    const set = await sets.build(resolved, this.#onPackages(name));
    const environment = await this.buildImage(name, set, inputs, without, imports, asked);
    await this.#manifests.save(name, inputs, { set, missing });
    return environment;
  }

  /** All that what a definition comes to depends on. */
  inputs({ packages, imports }: EnvironmentDefinition): unknown {
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

  /** Says which file of which package cannot be used, and what other sources have of it. */
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

  /** @param set what was installed on top of `base`. */
  async buildDerived(name: string, base: Environment, set: PackageSet): Promise<Environment> {
    const { sources, python, sets } = this.#options;
    const pinned = [...base.packages, ...set.packages].map(({ name, version }) =>
      parseRequirement(`${name}==${version}`),
    );
    const { packages } = await resolve(pinned, { sources, python });
    const combined = await sets.build(packages, this.#onPackages(name));
    const environment = await this.buildImage(
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

  /** @param inputs all that it depends on. @throws {PackageError} if no sandbox can hold it. */
  async buildImage(
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
export function askedOf(packages: readonly string[]): string[] {
  return readRequirements(packages).requested.map(({ key }) => key);
}

function closure(root: string, needs: ReadonlyMap<string, readonly string[]>): ReadonlySet<string> {
  const seen = new Set([root]);
  for (const key of seen) for (const next of needs.get(key) ?? []) seen.add(next);
  return seen;
}
