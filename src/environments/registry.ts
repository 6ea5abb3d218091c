import { createHash } from "node:crypto";
import type { PackageSet } from "../packages/package-set.ts";
import type { BaseEnvironment } from "../packages/package-store.ts";
import { describeUnreached } from "../packages/sources/unreached-sources.ts";
import { ClientError, StartupError } from "../shared/errors.ts";
import { SingleFlight } from "../shared/single-flight.ts";
import {
  askedOf,
  type Environment,
  EnvironmentBuilder,
  type EnvironmentBuilderOptions,
  NOTHING_MISSING,
} from "./build.ts";
import type { CacheCollector } from "./cache-collector.ts";
import { DEFAULT, type EnvironmentDefinition, STDLIB } from "./definitions.ts";
import type { Image } from "./images.ts";
import { unbuiltEnvironment } from "./import-policy.ts";
import { type EnvironmentManifest, EnvironmentManifests } from "./manifests.ts";
import { type EnvironmentProgress, StartProgress } from "./start-progress.ts";

/** What is on disk of an environment that was defined. */
export interface BuiltBefore {
  readonly name: string;
  /** Null: nothing. */
  readonly known: EnvironmentManifest | null;
  /** What was not available when it came out without any package; null: it did not. */
  readonly empty: EnvironmentManifest["missing"] | null;
  readonly image: Image | null;
}

export interface EnvironmentsOptions extends EnvironmentBuilderOptions {
  readonly definitions: readonly EnvironmentDefinition[];
  /** Remembers what each definition came to, so that a start asks no source again. */
  readonly cacheDir: string;
  readonly keeper: CacheCollector;
  readonly onWarning: (message: string) => void;
}

/** Between a base's name and the hash of what was installed on top of it. No definition's name has it. */
const DERIVED_SEPARATOR = "+";

/** The definition that an environment is, or is derived from. */
export function baseOf(name: string): string {
  return name.split(DERIVED_SEPARATOR, 1)[0] as string;
}

const DERIVED_NAME = /^[a-z0-9][a-z0-9_-]{0,63}\+[0-9a-f]{16}$/;
/** The environments of this server, and those derived from them by installing packages with shared libraries. */
export class Environments {
  readonly #options: EnvironmentsOptions;
  readonly #ready = new Map<string, Environment>();
  readonly #builds = new SingleFlight<Environment>({ keeps: true });

  readonly #manifests: EnvironmentManifests;
  readonly #progress: StartProgress;
  readonly #builder: EnvironmentBuilder;
  #isClosed = false;

  constructor(options: EnvironmentsOptions) {
    this.#options = options;
    this.#manifests = new EnvironmentManifests(options.cacheDir);
    this.#progress = new StartProgress(this.names);
    this.#builder = new EnvironmentBuilder(options, this.#manifests, this.#progress);
  }

  /** Builds the standard library's, which needs no source. */
  async prepareStdlib(): Promise<void> {
    this.#progress.begin(STDLIB, "image");
    await this.#once(STDLIB, () => this.#builder.stdlib());
    this.#progress.end(STDLIB, "ready");
  }

  /** Makes ready what a start before has built, which takes milliseconds and needs no source either. */
  async prepareBuilt(): Promise<void> {
    for (const definition of this.#options.definitions) {
      const { name, packages, imports } = definition;
      const known = await this.#manifests.find(name, this.#builder.inputs(definition));
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
      throw new StartupError(`There is no environment "${only}". Defined: ${this.names.join(", ")}.`);
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
      const { warnings, unreached } = await this.#once(name, () => this.#builder.build(definition));
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

  /** `default`, where it came out empty and `stdlib` serves those who name none; else null. */
  get emptyDefault(): Environment | null {
    const ready = this.#ready.get(DEFAULT);
    return ready !== undefined && ready.packages.length === 0 ? ready : null;
  }

  /** What each definition came to when it was built last, without building or asking any source. */
  async inspect(): Promise<readonly BuiltBefore[]> {
    const { definitions, images } = this.#options;
    return await Promise.all(
      definitions.map(async (definition): Promise<BuiltBefore> => {
        const { name, packages, imports } = definition;
        const inputs = this.#builder.inputs(definition);
        const known = await this.#manifests.find(name, inputs);
        if (known === null) return { name, known, empty: await this.#manifests.findEmpty(name, inputs), image: null };
        const unbuilt = unbuiltEnvironment(known.set, imports, askedOf(packages));
        return { name, known, empty: null, image: await images.find(name, known.set.archive.sha256, unbuilt) };
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
    await this.#once(name, () => this.#builder.buildDerived(name, this.get(base), set));
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
    await this.#once(name, () => this.#builder.buildImage(name, known.set, python, NOTHING_MISSING));
    return true;
  }

  /** Builds again, when it is asked for, what has lost one of these files. */
  forget(paths: ReadonlySet<string>): void {
    for (const [name, { files }] of this.#ready) {
      if (!files.some((file) => paths.has(file))) continue;
      this.#ready.delete(name);
      this.#builds.forget(name);
    }
  }

  /** SHA-256 of every wheel that is in one of them. */
  wheels(): string[] {
    return [...this.#ready.values()].flatMap(({ packages }) => packages.map(({ sha256 }) => sha256));
  }

  #once(name: string, build: () => Promise<Environment>): Promise<Environment> {
    return this.#builds.run(name, async () => {
      const environment = await build();
      this.#ready.set(name, environment);
      const { keeper } = this.#options;
      if (name.includes(DERIVED_SEPARATOR)) keeper.use(...environment.files);
      else keeper.hold(...environment.files);
      return environment;
    });
  }
}

function keyOf(inputs: unknown): string {
  return createHash("sha256").update(JSON.stringify(inputs)).digest("hex");
}
