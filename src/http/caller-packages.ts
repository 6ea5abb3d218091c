import type { PackageArchive } from "../engine/execution.ts";
import type { ArchiveReader } from "../environments/archive-reader.ts";
import { baseOf, type Environments } from "../environments/environments.ts";
import { PackageError } from "../environments/package-error.ts";
import type { PackageSet } from "../environments/package-set.ts";
import type { Installed, PackageStore } from "../environments/package-store.ts";
import { ClientError } from "../errors.ts";

export interface CallerPackagesOptions {
  readonly store: PackageStore;
  readonly environments: Environments;
  readonly archives: ArchiveReader;
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

  /**
   * As {@link environmentFor}, for a session: it stays in the environment it was made in, whatever was installed since.
   *
   * @throws {ClientError} 409 `session_environment_gone` if that was derived from packages that are not installed any more.
   */
  async environmentOfSession(
    principal: string,
    environment: string,
  ): Promise<{ environment: string; archive: PackageArchive | null }> {
    const { environments } = this.#options;
    const current = await this.environmentFor(principal, baseOf(environment));
    if (current.environment === environment) return current;
    if (environments.has(environment)) return { environment, archive: null };
    throw new ClientError(
      409,
      "session_environment_gone",
      "The session was made with packages that are not installed any more. Its files can still be read.",
    );
  }

  /**
   * Adds a package for a caller, ready to be used by its next execution.
   *
   * @throws {PackageError} if it cannot be had, saying why.
   */
  async install(principal: string, environment: string, requirement: string): Promise<Installed> {
    const { store, environments } = this.#options;
    const installed = await store.install(principal, requirement, environments.base(environment));
    if (installed.set.compiled) await environments.derive(environment, installed.set);
    return installed;
  }

  /**
   * As `micropip.install`.
   *
   * @param onInstall is told of each requirement that was tried: null, or why it cannot be had.
   * @returns all of the caller's packages; null: there are none besides the environment's.
   */
  async installWhileRunning(
    principal: string,
    environment: string,
    requirements: readonly string[],
    onInstall: OnInstall = () => {},
  ): Promise<PackageArchive | null> {
    let set: PackageSet | null = null;
    for (const requirement of requirements) {
      try {
        set = (await this.install(principal, environment, requirement)).set;
      } catch (error) {
        onInstall(requirement, error instanceof PackageError ? error.code : "internal");
        throw error;
      }
      onInstall(requirement, null);
    }
    if (set === null || set.packages.length === 0) return null;
    if (set.compiled) {
      const names = set.packages.filter(({ compiled }) => compiled).map(({ name }) => name);
      throw new PackageError(
        "package_incompatible",
        `${names.join(", ")} has compiled code, which a running interpreter cannot take in. It is installed now: run this code again.`,
      );
    }
    return this.#archiveOf(set);
  }

  async clear(principal: string): Promise<void> {
    const { store, environments } = this.#options;
    for (const { name } of environments.list()) await store.clear(principal, environments.base(name));
  }

  #archiveOf({ archive }: PackageSet): PackageArchive {
    const { archives } = this.#options;
    return {
      listing: archives.listing(archive),
      read: (offset, length) => archives.read(archive, offset, length),
    };
  }
}
