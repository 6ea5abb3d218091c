import type { CacheCollector } from "../environments/cache-collector.ts";
import { STDLIB } from "../environments/definitions.ts";
import type { ModuleOwners } from "../environments/module-owners.ts";
import { baseOf, type Environments } from "../environments/registry.ts";
import type { ArchiveReader } from "../packages/archive-reader.ts";
import { PackageError } from "../packages/package-error.ts";
import type { PackageInfo, PackageSet } from "../packages/package-set.ts";
import { archiveShareKey, chargeShare, type PackageShares } from "../packages/package-shares.ts";
import type { Installed, PackageStore } from "../packages/package-store.ts";
import type { FixedPackage } from "../packages/resolver.ts";
import { shareKeyOf } from "../packages/wheel-store.ts";
import { ClientError, SandboxDiedError } from "../shared/errors.ts";
import { whileWaiting } from "../shared/while-waiting.ts";
import type { PackageArchive } from "../wire/host-calls.ts";
import { ENDS_INTERPRETER } from "../wire/import-rules.ts";

export interface CallerPackagesOptions {
  readonly store: PackageStore;
  readonly environments: Environments;
  readonly archives: ArchiveReader;
  readonly keeper: CacheCollector;
  readonly owners: ModuleOwners;
  readonly shares: PackageShares;
}

/** @param error a {@link PackageError}'s code; null: it is installed. */
export type OnInstall = (requirement: string, error: string | null) => void;

/** Which environment, with which packages on top, a caller's code runs in. */
export class CallerPackages {
  readonly #options: CallerPackagesOptions;

  constructor(options: CallerPackagesOptions) {
    this.#options = options;
  }

  get defaultEnvironment(): string {
    return this.#options.environments.defaultName;
  }

  get environments(): Environments {
    return this.#options.environments;
  }

  /**
   * Packages in Python alone are mounted; those with shared libraries make an environment of their own, derived from the
   * one that was asked for.
   *
   * @throws {ClientError} 400 if there is no such environment.
   */
  async environmentFor(
    principal: string,
    environment: string,
  ): Promise<{ environment: string; archive: PackageArchive | null }> {
    const { store, environments } = this.#options;
    const set = await store.get(principal, environments.base(environment));
    if (set === null) return { environment, archive: null };
    if (set.compiled) return { environment: await environments.derive(environment, set), archive: null };
    return { environment, archive: this.#archiveOf(set) };
  }

  /** What code finds installed: the environment's packages, and the caller's own. @throws {ClientError} 400 if there is no such environment. */
  async packagesOf(principal: string, environment: string): Promise<readonly FixedPackage[]> {
    const { store, environments } = this.#options;
    const base = environments.base(environment);
    const set = await store.get(principal, base);
    return [...base.packages, ...(set?.packages ?? [])];
  }

  /** The name of what {@link environmentFor} gives; nothing is built. */
  async environmentName(principal: string, environment: string): Promise<string> {
    const { store, environments } = this.#options;
    const set = await store.get(principal, environments.base(environment));
    return set?.compiled ? environments.derivedName(environment, set) : environment;
  }

  /**
   * As {@link environmentFor}, for a session: it stays in the environment it was made in, whatever was installed since.
   *
   * @throws {ClientError} 409 `session_environment_gone` if that was derived from packages that are gone.
   */
  async environmentOfSession(
    principal: string,
    environment: string,
  ): Promise<{ environment: string; archive: PackageArchive | null }> {
    const { store, environments } = this.#options;
    const base = baseOf(environment);
    if (environment === base) {
      const set = await store.get(principal, environments.base(base));
      // Of packages with shared libraries, too, what is Python can be imported.
      return { environment, archive: set && this.#archiveOf(set) };
    }
    if (await environments.recall(environment)) return { environment, archive: null };
    const current = await this.environmentFor(principal, base);
    if (current.environment === environment) return current;
    throw new ClientError("session_environment_gone");
  }

  /**
   * Adds a package for a caller, ready to be used by its next execution.
   *
   * @param signal of the one who waits: aborting it ends the wait at once, and the installation unless it is done.
   * @throws {PackageError} if it is not available, saying why. @throws the signal's reason.
   */
  async install(principal: string, environment: string, requirement: string, signal: AbortSignal): Promise<Installed> {
    return await whileWaiting(signal, this.#install(principal, environment, requirement, signal));
  }

  async #install(principal: string, environment: string, requirement: string, signal: AbortSignal): Promise<Installed> {
    const { store, environments, shares } = this.#options;
    return await shares.installing(principal, async () => {
      for (const { name } of environments.list()) await this.#chargeInstalled(principal, name);
      // Before it counts as installed: what no environment can hold would fail every later execution.
      const accept = async (set: PackageSet) => {
        this.#chargeSet(environment, set);
        if (set.compiled) await this.#derive(environment, set, requirement);
      };
      return await store.install(principal, requirement, environments.base(environment), accept, signal);
    });
  }

  /** Counts what is there already; what is gone from cache and source counts once it is built again. */
  async #chargeInstalled(principal: string, environment: string): Promise<void> {
    const { store, environments } = this.#options;
    const set = await store.get(principal, environments.base(environment)).catch(() => null);
    if (set !== null) this.#chargeSet(environment, set);
  }

  #chargeSet(environment: string, set: PackageSet): void {
    const { environments } = this.#options;
    const { packages, archive, compiled } = set;
    for (const { filename, bytes } of packages) chargeShare(shareKeyOf(filename), bytes);
    chargeShare(archiveShareKey(packages.map(({ filename }) => filename)), archive.bytes);
    if (!compiled) return;
    const name = environments.derivedName(environment, set);
    const bytes = environments.imageBytes(name);
    if (bytes !== null) chargeShare(`image ${name}`, bytes);
  }

  /**
   * As `micropip.install`.
   *
   * @param running the environment that the code runs in.
   * @param inSession whether that is a session's, which cannot take shared libraries in any more.
   * @param signal of the code that waits: it is aborted when that is stopped.
   * @param onInstall is told of each requirement that was tried: null, or why it is not available.
   * @returns all of the caller's packages; null: there are none besides the environment's.
   */
  async installWhileRunning(
    principal: string,
    running: string,
    requirements: readonly string[],
    signal: AbortSignal,
    { inSession = false, onInstall = () => {} }: { inSession?: boolean; onInstall?: OnInstall | undefined } = {},
  ): Promise<PackageArchive | null> {
    const environment = baseOf(running);
    let set: PackageSet | null = null;
    const added: PackageInfo[] = [];
    for (const requirement of requirements) {
      try {
        const installed = await this.install(principal, environment, requirement, signal);
        set = installed.set;
        added.push(...installed.added);
      } catch (error) {
        onInstall(requirement, signal.aborted ? "cancelled" : error instanceof PackageError ? error.code : "internal");
        throw error;
      }
      onInstall(requirement, null);
    }
    if (set === null || set.packages.length === 0) return null;
    if (set.compiled) {
      const { environments } = this.#options;
      if ((await environments.derive(environment, set)) === running) return null;
      // Of a set with shared libraries, too, what is Python can be imported; one that has an image of its own is not mounted over that.
      if (running === environment && !added.some(({ compiled }) => compiled)) return this.#archiveOf(set);
      const here = new Set(environments.get(running).packages.map(({ filename }) => filename));
      const lacking = set.packages.filter(({ compiled, filename }) => compiled && !here.has(filename));
      const names = (lacking.length > 0 ? lacking : added).map(({ name }) => name);
      const why =
        lacking.length > 0
          ? `${names.join(", ")} ${names.length > 1 ? "have" : "has"} compiled code, which a running interpreter cannot take in`
          : `${names.join(", ") || requirements.join(", ")} cannot join packages with compiled code while the interpreter runs`;
      const next = inSession
        ? "It is installed now, for executions without a session, new sessions, and this one once it is reset."
        : "It is installed now: run this code again.";
      throw new PackageError("package_incompatible", `${why}. ${next}`);
    }
    return this.#archiveOf(set);
  }

  /** What a failed import is told: see {@link ModuleOwners.explain}. */
  async explainModule(
    principal: string,
    running: string,
    module: string,
    mayInstall: boolean,
    signal: AbortSignal,
  ): Promise<string | null> {
    const { environments, owners } = this.#options;
    const others = environments.list().filter(({ name }) => name !== baseOf(running));
    const set = await this.#options.store.get(principal, environments.base(baseOf(running))).catch(() => null);
    const own = set?.packages.find(({ compiled, imports }) => compiled && imports.includes(module));
    // Installed by this very code, or for a session that cannot have it.
    if (own !== undefined && !environments.get(running).packages.some(({ key }) => key === own.key))
      return `the package ${own.name} is installed, but has compiled code, which a running interpreter cannot take in: run this code again, in a session once it is reset`;
    // Those who named no environment mean `default`, and want to know why it is not what they run in.
    const meant = baseOf(running) === STDLIB ? environments.emptyDefault : null;
    return await owners.explain(module, environments.get(running), { mayInstall, others, meant, signal });
  }

  async #derive(environment: string, set: PackageSet, requirement: string): Promise<void> {
    const { environments } = this.#options;
    const cannotBeUsed = (reason: string, cause?: unknown) =>
      new PackageError("package_incompatible", `${requirement} cannot be used here: ${reason}.`, { cause });
    const name = await environments.derive(environment, set).catch((error) => {
      throw error instanceof SandboxDiedError ? cannotBeUsed("the interpreter ended while loading it", error) : error;
    });
    const { unfit } = environments.get(name).image;
    const deadly = set.packages
      .flatMap(({ imports }) => imports)
      .find((module) => unfit[module]?.startsWith(ENDS_INTERPRETER));
    if (deadly !== undefined) throw cannotBeUsed(`in ${deadly}, ${unfit[deadly]}`);
    const unloadable = set.sharedLibraries.find((library) => library in unfit);
    if (unloadable !== undefined) throw cannotBeUsed(`${unloadable} cannot be loaded, ${unfit[unloadable]}`);
  }

  async clear(principal: string): Promise<void> {
    const { store, environments } = this.#options;
    // Those that are being built, too.
    for (const name of environments.names) await store.clear(principal, name);
  }

  #archiveOf({ archive }: PackageSet): PackageArchive {
    const { archives, keeper } = this.#options;
    keeper.use(archive.path);
    return {
      listing: archives.listing(archive),
      read: (offset, length) => archives.read(archive, offset, length),
    };
  }
}
