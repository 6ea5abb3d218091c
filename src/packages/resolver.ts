// Over 400 lines: one algorithm, and the limits of what it is given.
import { PackageError } from "./package-error.ts";
import { type MarkerEnvironment, markerEnvironment, type PythonPlatform } from "./pep/platform.ts";
import { applies, extrasOf, normaliseName, type Requirement } from "./pep/requirements.ts";
import { allowsPrereleases, isPrerelease, satisfies } from "./pep/versions.ts";
import { type Decision, type Demand, failure, missing, plain } from "./resolver-failure.ts";
import { SearchEffort, unitsOf } from "./search-effort.ts";
import type { Candidate, Offers, PackageSource } from "./sources/package-source.ts";

/** A package that is part of the environment and cannot be replaced by another version. */
export interface FixedPackage {
  readonly name: string;
  readonly version: string;
}

export interface ResolveOptions {
  /** Asked in order; a later one only where none before it has a version that will do. */
  readonly sources: readonly PackageSource[];
  readonly python: PythonPlatform;
  readonly fixed?: readonly FixedPackage[];
  /** Installed before: kept as long as they will do. */
  readonly preferred?: readonly Candidate[];
  /** Aborting it ends the search with its reason. */
  readonly signal?: AbortSignal | undefined;
  /** For tests: what counts the work. */
  readonly effort?: SearchEffort;
}

export interface ResolvedPackage {
  readonly candidate: Candidate;
  /** All that it may depend on, markers and extras not evaluated. */
  readonly requires: readonly Requirement[];
  /** Normalised names of what it depends on here. */
  readonly dependsOn: readonly string[];
}

export interface Resolution {
  /** Sorted by name. */
  readonly packages: readonly ResolvedPackage[];
  /** Sources that could not be asked, in words; the rest sufficed. */
  readonly warnings: readonly string[];
}

/** Files of one package from one source that are tried before giving up. */
const MAX_TRIES_PER_PACKAGE = 20;
/** Files that are tried in all. */
const MAX_STEPS = 2000;
/** As in {@link SearchEffort}: some seconds, in many turns of the event loop. */
const MAX_UNITS = 5_000_000;
const MAX_PACKAGES = 300;
/** That all chosen packages state together, whether they apply or not. */
const MAX_REQUIREMENTS = 20_000;
/** Of one package. */
const MAX_EXTRAS = 256;
/** Files that are listed under all the names that were looked for. */
const MAX_CANDIDATES = 100_000;
/** Packages that are sought ahead of their turn, at a time: each answer may be a page of 16 MiB. */
const MAX_SEEKING = 8;
const NO_EXTRAS: readonly string[] = [];

/**
 * Chooses one file for each package that is needed: the first source's newest version that everything agrees with. Cyclic
 * dependencies are fine.
 *
 * @throws {PackageError} saying what is needed by whom, and why it is not available.
 */
export async function resolve(requested: readonly Requirement[], options: ResolveOptions): Promise<Resolution> {
  return await new Resolver(options).resolve(requested);
}

/**
 * As {@link resolve}, for a list where some is better than nothing: what is not available is left out and reported.
 *
 * @returns `failures`: for each requirement that was left out, why.
 * @throws what is no {@link PackageError}.
 */
export async function resolveAvailable(
  requested: readonly Requirement[],
  options: ResolveOptions,
): Promise<Resolution & { readonly failures: ReadonlyMap<string, PackageError> }> {
  const failures = new Map<string, PackageError>();
  try {
    return { ...(await resolve(requested, options)), failures };
  } catch (error) {
    if (!(error instanceof PackageError)) throw error;
  }
  const kept: Requirement[] = [];
  let resolution: Resolution = { packages: [], warnings: [] };
  for (const requirement of requested) {
    try {
      resolution = await resolve([...kept, requirement], options);
      kept.push(requirement);
    } catch (error) {
      if (!(error instanceof PackageError)) throw error;
      failures.set(requirement.text, error);
    }
  }
  return { ...resolution, failures };
}

/** `blame`: normalised names of the packages of which another choice might have helped. */
interface Failure {
  readonly error: PackageError;
  readonly blame: Set<string>;
}

type Facts = Pick<Decision, "requires" | "known">;

/**
 * Depth-first search with conflict-directed backjumping: a failure goes straight back to the latest choice that had a part
 * in it, so that one package that does not exist is not looked for once for every version of every other.
 *
 * All that is demanded is one list, which grows at its end while it is gone through; going back takes off what was added since. So what a
 * demand costs does not depend on how many there are, and only a choice, of which there are {@link MAX_PACKAGES} at the most, is a level
 * of recursion.
 */
class Resolver {
  readonly #sources: readonly PackageSource[];
  readonly #environment: MarkerEnvironment;
  readonly #pythonVersion: string;
  readonly #fixed: ReadonlyMap<string, FixedPackage>;
  readonly #preferred: ReadonlyMap<string, Candidate>;
  readonly #offers = new Map<string, Promise<Offers>>();
  readonly #problems = new Map<PackageSource, string>();
  readonly #effort: SearchEffort;
  #steps = 0;
  #candidateCount = 0;

  readonly #demands: Demand[] = [];
  /** In that list, by what is demanded. */
  readonly #positions = new Map<string, number[]>();
  /** Also of packages of the environment that are asked for with extras. */
  readonly #decisions = new Map<string, Decision>();
  /** Of packages that have to be chosen sooner or later. */
  readonly #needed = new Set<string>();
  /** Optional packages that are left out, and how many demands there were then. */
  readonly #leftOut = new Map<string, number>();
  /** That the chosen packages state. */
  #requirements = 0;
  /** What takes back each change of the six above, the latest last. */
  readonly #undo: (() => void)[] = [];

  readonly #toSeek: string[] = [];
  readonly #sought = new Set<string>();
  #seeking = 0;

  constructor({ sources, python, fixed = [], preferred = [], signal, effort }: ResolveOptions) {
    this.#sources = sources;
    this.#environment = markerEnvironment(python);
    this.#pythonVersion = python.pythonVersion;
    this.#fixed = new Map(fixed.map((item) => [normaliseName(item.name), item]));
    this.#preferred = new Map(preferred.map((candidate) => [candidate.key, candidate]));
    this.#effort = effort ?? new SearchEffort(MAX_UNITS, () => this.#tooMuch(), signal);
  }

  async resolve(requested: readonly Requirement[]): Promise<Resolution> {
    try {
      const failed = (await this.#add(requested, null)) ?? (await this.#solve(0));
      if (failed !== null) throw failed.error;
      return { packages: await this.#chosen(), warnings: [...this.#problems.values()] };
    } finally {
      this.#toSeek.length = 0;
    }
  }

  async #chosen(): Promise<readonly ResolvedPackage[]> {
    const isThere = ({ key, optional }: Requirement) => !optional || this.#decisions.has(key) || this.#fixed.has(key);
    const packages: ResolvedPackage[] = [];
    for (const [key, { candidate, requires: stated, extras }] of this.#decisions) {
      if (this.#fixed.has(key)) continue;
      const requires = stated.filter(isThere);
      const dependsOn = new Set<string>();
      for (const item of requires) if (await this.#applies(item, extras)) dependsOn.add(item.key);
      packages.push({ candidate, requires, dependsOn: [...dependsOn].toSorted() });
    }
    return packages.toSorted((a, b) => (a.candidate.key < b.candidate.key ? -1 : 1));
  }

  /** Meets all demands from this one on; where it cannot, all is as it was. */
  async #solve(from: number): Promise<Failure | null> {
    const before = this.#undo.length;
    const widened: Demand[] = [];
    const failed = await this.#meet(from, widened);
    if (failed === null) return null;
    // A requirement that asked for extras shares the blame for what they led to.
    for (const demand of widened.toReversed())
      if (failed.blame.has(demand.requirement.key)) addNames(failed.blame, [demand]);
    this.#goBack(before);
    return failed;
  }

  /** @param widened gets the demands by which a package that was chosen before has more extras. */
  async #meet(from: number, widened: Demand[]): Promise<Failure | null> {
    for (let at = from; ; at++) {
      const demand = this.#demands[at];
      if (demand === undefined) return null;
      const { key, specifier, optional } = demand.requirement;
      await this.#effort.spend(unitsOf(specifier));
      const fixed = this.#fixed.get(key);
      if (fixed !== undefined && !optional && !satisfies(fixed.version, specifier)) {
        const why = `this environment has ${fixed.name} ${fixed.version}, which cannot be replaced`;
        return { error: failure("package_conflict", demand, why), blame: namesOf([demand]) };
      }
      if (fixed !== undefined && demand.requirement.extras.length === 0) continue;
      if (at < (this.#leftOut.get(key) ?? 0)) continue;
      let decision = this.#decisions.get(key);
      if (decision === undefined && fixed === undefined) return await this.#choose(demand, at);
      if (decision === undefined) {
        const found = await this.#decideFixed(demand, fixed as FixedPackage);
        if (found instanceof PackageError) return { error: found, blame: namesOf([demand]) };
        if (found === null) continue;
        decision = found;
      }
      const failed = await this.#join(demand, at, decision, widened);
      if (failed !== null) return failed;
    }
  }

  /** A package of the environment as one that was chosen, so that extras can be asked of it; null: there is no need. */
  async #decideFixed(demand: Demand, fixed: FixedPackage): Promise<Decision | PackageError | null> {
    const { key, optional } = demand.requirement;
    for (const source of this.#sources) {
      for (const candidate of (await this.#find(source, key)).candidates) {
        await this.#effort.spend(1);
        if (!satisfies(candidate.version, `==${fixed.version}`)) continue;
        const facts = await this.#factsOf(candidate, demand, true);
        if (facts instanceof PackageError) return facts;
        const decision: Decision = { candidate, ...facts, extras: [], demand, until: 0 };
        this.#decide(key, decision);
        return decision;
      }
    }
    if (optional) return null;
    const why = `this environment has ${fixed.name} ${fixed.version}, and no source says what its extras need`;
    return failure("package_not_found", demand, why);
  }

  /** The package was chosen before: see whether that choice will do for this demand as well. */
  async #join(demand: Demand, at: number, decision: Decision, widened: Demand[]): Promise<Failure | null> {
    const { key, specifier, extras, optional } = demand.requirement;
    const { candidate } = decision;
    if (at < decision.until) return null;
    if (!this.#fixed.has(key) && !satisfies(candidate.version, specifier)) {
      if (optional) return null;
      const other = decision.demand.by;
      const who = other === null ? "was asked for" : `is needed by ${other.candidate.name}`;
      const why = `"${plain(decision.demand.requirement)}" ${who}`;
      return { error: failure("package_conflict", demand, why), blame: namesOf([demand]).add(key) };
    }
    if (extras.every((extra) => decision.extras.includes(extra))) return null;
    const blamed = (error: PackageError): Failure => ({ error, blame: namesOf([demand]).add(key) });
    const facts = decision.known === null ? await this.#factsOf(candidate, demand, true) : decision;
    if (facts instanceof PackageError) return blamed(facts);
    const known = facts.known ?? new Set<string>();
    const merged = await this.#extrasAsked(candidate, known, [demand], decision.extras);
    if (merged instanceof PackageError) return blamed(merged);
    if (merged === decision.extras) return null;
    const wider: Decision = { ...decision, requires: facts.requires, known, extras: merged };
    const added: Requirement[] = [];
    for (const item of wider.requires)
      if ((await this.#applies(item, merged)) && !(await this.#applies(item, decision.extras))) added.push(item);
    this.#decide(key, wider);
    this.#count(wider.requires.length - decision.requires.length);
    widened.push(demand);
    return await this.#add(added, wider);
  }

  /** @param among what is demanded of it; not given: all of this demand on. */
  async #choose(demand: Demand, at: number, among?: readonly Demand[]): Promise<Failure | null> {
    const { key } = demand.requirement;
    const positions = this.#positions.get(key)?.filter((position) => position >= at) ?? [];
    const demands = among ?? positions.map((position) => this.#demands[position] as Demand);
    const until = this.#demands.length;
    await this.#effort.spend(demands.length);
    const asksForExtras = demands.some(({ requirement }) => requirement.extras.length > 0);
    const blame = namesOf(demands);
    let first: PackageError | null = null;
    for await (const candidate of this.#candidates(key, demands)) {
      if (++this.#steps > MAX_STEPS) throw this.#tooMuch(demand);
      // What is known already is tried without any wait: each try takes a turn of the event loop.
      await this.#effort.turn();
      const facts = await this.#factsOf(candidate, demand, asksForExtras);
      const extras =
        facts instanceof PackageError
          ? facts
          : await this.#extrasAsked(candidate, facts.known ?? new Set(), demands, NO_EXTRAS);
      if (facts instanceof PackageError || extras instanceof PackageError) {
        first ??= extras as PackageError;
        continue;
      }
      const before = this.#undo.length;
      const decision: Decision = { candidate, ...facts, extras, demand, until };
      this.#decide(key, decision);
      this.#count(facts.requires.length);
      const failed = (await this.#addAll(decision)) ?? (await this.#solve(at + 1));
      if (failed === null) return null;
      this.#goBack(before);
      if (!failed.blame.has(key)) return failed;
      first ??= failed.error;
      for (const name of failed.blame) if (name !== key) blame.add(name);
    }
    const needed = demands.filter(({ requirement }) => !requirement.optional);
    const [other] = needed;
    if (needed.length < demands.length) {
      if (other !== undefined) return await this.#choose(other, at, needed);
      this.#set(this.#leftOut, key, until);
      return await this.#solve(at + 1);
    }
    return { error: first ?? (await this.#missing(demand, demands)), blame };
  }

  /** Demands what a file that is new among the chosen needs. */
  async #addAll(decision: Decision): Promise<Failure | null> {
    const { requires, extras, demand } = decision;
    if (this.#requirements > MAX_REQUIREMENTS) {
      const why = `the packages would state over ${MAX_REQUIREMENTS} requirements`;
      return { error: failure("package_too_large", demand, why), blame: new Set([decision.candidate.key]) };
    }
    const added: Requirement[] = [];
    for (const item of requires) if (await this.#applies(item, extras)) added.push(item);
    return await this.#add(added, decision);
  }

  /** Demands what applies of these. */
  async #add(requirements: readonly Requirement[], by: Decision | null): Promise<Failure | null> {
    for (const requirement of requirements) {
      if (by === null && !(await this.#applies(requirement, []))) continue;
      await this.#effort.spend(1);
      const demand: Demand = { requirement, by };
      const { key, optional } = requirement;
      const positions = this.#positions.get(key) ?? [];
      this.#positions.set(key, positions);
      this.#change(
        () => positions.push(this.#demands.push(demand) - 1),
        () => {
          positions.pop();
          this.#demands.pop();
        },
      );
      if (this.#fixed.has(key)) continue;
      if (!optional && !this.#needed.has(key)) {
        if (this.#needed.size >= MAX_PACKAGES) {
          const why = `over ${MAX_PACKAGES} packages would be needed`;
          return { error: failure("package_too_large", demand, why), blame: namesOf([demand]) };
        }
        this.#change(
          () => this.#needed.add(key),
          () => this.#needed.delete(key),
        );
      }
      this.#seek(key);
    }
    return null;
  }

  #decide(key: string, decision: Decision): void {
    this.#set(this.#decisions, key, decision);
  }

  /** @param requirements that are stated by the chosen packages, more than before. */
  #count(requirements: number): void {
    this.#change(
      () => {
        this.#requirements += requirements;
      },
      () => {
        this.#requirements -= requirements;
      },
    );
  }

  #set<T>(map: Map<string, T>, key: string, value: T): void {
    const previous = map.get(key);
    this.#change(
      () => map.set(key, value),
      () => (previous === undefined ? map.delete(key) : map.set(key, previous)),
    );
  }

  #change(change: () => unknown, undo: () => unknown): void {
    change();
    this.#undo.push(undo);
  }

  /** @param length of the list of changes, when all was as it should be again. */
  #goBack(length: number): void {
    while (this.#undo.length > length) this.#undo.pop()?.();
  }

  async #applies(requirement: Requirement, extras: readonly string[]): Promise<boolean> {
    const { marker, text } = requirement;
    await this.#effort.spend(marker === null ? 1 : unitsOf(text) * (1 + Math.ceil(extras.length / 8)));
    return applies(requirement, this.#environment, extras);
  }

  /** Files of one package that satisfy what is demanded of it so far, best first. */
  async *#candidates(key: string, demands: readonly Demand[]): AsyncGenerator<Candidate> {
    const specifiers = [...new Set(demands.map(({ requirement }) => requirement.specifier))];
    const fits = async ({ version }: Candidate) => {
      for (const specifier of specifiers) {
        await this.#effort.spend(unitsOf(specifier));
        if (!satisfies(version, specifier)) return false;
      }
      return true;
    };
    let mayBePrerelease = false;
    for (const specifier of specifiers) {
      await this.#effort.spend(unitsOf(specifier));
      mayBePrerelease ||= allowsPrereleases(specifier);
    }
    const preferred = this.#preferred.get(key);
    if (preferred !== undefined && (await fits(preferred))) yield preferred;
    for (const source of this.#sources) {
      const { candidates } = await this.#find(source, key);
      // Of one version only the best file: the others state the same dependencies.
      const finals = new Map<string, Candidate>();
      const fitting = new Map<string, Candidate>();
      const wanted = () => (finals.size === 0 || mayBePrerelease ? fitting : finals);
      for (const candidate of candidates) {
        const { version } = candidate;
        if (fitting.has(version) || !(await fits(candidate))) continue;
        fitting.set(version, candidate);
        if (!isPrerelease(version)) finals.set(version, candidate);
        if (
          wanted() === finals
            ? finals.size >= MAX_TRIES_PER_PACKAGE
            : mayBePrerelease && fitting.size >= MAX_TRIES_PER_PACKAGE
        )
          break;
      }
      yield* [...wanted().values()].slice(0, MAX_TRIES_PER_PACKAGE);
    }
  }

  /** Asks for a package that will be needed, ahead of its turn and several at once: each answer may take a source a second. */
  #seek(key: string): void {
    if (this.#sought.has(key)) return;
    this.#sought.add(key);
    this.#toSeek.push(key);
    this.#seekNext();
  }

  #seekNext(): void {
    const key = this.#seeking < MAX_SEEKING ? this.#toSeek.shift() : undefined;
    if (key === undefined) return;
    this.#seeking++;
    const seek = async () => {
      // Whether one of its versions will do is looked at in its turn.
      for (const source of this.#sources) if ((await this.#find(source, key)).candidates.length > 0) return;
    };
    // A failure is met again, and told of, where the answer is needed.
    void seek()
      .catch(() => {})
      .finally(() => {
        this.#seeking--;
        this.#seekNext();
      });
  }

  /** @param withExtras whether what its extras need has to be known: what a lock file says does not tell. */
  async #factsOf(candidate: Candidate, demand: Demand, withExtras: boolean): Promise<Facts | PackageError> {
    try {
      const { requires, requiresPython, extras: listed } = await candidate.requirements();
      await this.#effort.spend(unitsOf(requiresPython));
      if (!satisfies(this.#pythonVersion, requiresPython)) {
        const why = `${candidate.name} ${candidate.version} needs Python ${requiresPython}`;
        return failure("package_not_found", demand, why);
      }
      if (!withExtras) return { requires, known: null };
      const stated = candidate.stated === undefined ? null : await candidate.stated();
      const known = new Set(stated?.extras ?? listed ?? []);
      const all: Requirement[] = [];
      for (const item of requires) if ((await this.#extrasIn(item)).length === 0) all.push(item);
      for (const item of (stated ?? { requires }).requires) {
        const extras = await this.#extrasIn(item);
        if (extras.length > 0) all.push(item);
        for (const extra of extras) known.add(extra);
      }
      return { requires: all, known };
    } catch (error) {
      // An old version may state its dependencies in a form that is no longer valid; any other error stops the search.
      if (error instanceof PackageError && error.code === "package_invalid_requirement") return error;
      throw error;
    }
  }

  async #extrasIn(requirement: Requirement): Promise<string[]> {
    await this.#effort.spend(requirement.marker === null ? 1 : unitsOf(requirement.text));
    return extrasOf(requirement);
  }

  /**
   * Which extras of a package are asked for, of those that it has.
   *
   * @returns sorted; an error if the caller asked by name for one that is not there.
   */
  async #extrasAsked(
    { name, version }: Candidate,
    known: ReadonlySet<string>,
    demands: readonly Demand[],
    before: readonly string[],
  ): Promise<readonly string[] | PackageError> {
    const asked = new Set(before);
    for (const demand of demands) {
      const { extras } = demand.requirement;
      await this.#effort.spend(1 + extras.length);
      const unknown = demand.by === null ? extras.filter((extra) => !known.has(extra)) : [];
      if (unknown.length > 0) {
        const has = known.size === 0 ? "no extras" : `the extras ${[...known].toSorted().slice(0, 20).join(", ")}`;
        return failure("package_not_found", demand, `${name} ${version} has ${has}, and not ${unknown.join(", ")}`);
      }
      for (const extra of extras) if (known.has(extra)) asked.add(extra);
      if (asked.size > MAX_EXTRAS)
        return failure("package_too_large", demand, `over ${MAX_EXTRAS} extras of ${name} would be needed`);
    }
    return asked.size === before.length ? before : [...asked].toSorted();
  }

  async #find(source: PackageSource, key: string): Promise<Offers> {
    const id = JSON.stringify([this.#sources.indexOf(source), key]);
    const known = this.#offers.get(id);
    if (known !== undefined) return await known;
    const offers = this.#ask(source, key);
    this.#offers.set(id, offers);
    return await offers;
  }

  async #ask(source: PackageSource, key: string): Promise<Offers> {
    const offers = await source.find(key).catch((error: unknown): Offers => {
      if (!(error instanceof PackageError)) throw error;
      this.#problems.set(source, error.message);
      return { candidates: [], unusable: [] };
    });
    this.#candidateCount += offers.candidates.length;
    if (this.#candidateCount > MAX_CANDIDATES) throw this.#tooMuch();
    return offers;
  }

  async #missing(demand: Demand, demands: readonly Demand[]): Promise<PackageError> {
    const { key } = demand.requirement;
    const offers = await Promise.all(this.#sources.map((source) => this.#find(source, key)));
    const asked = this.#sources.filter((source) => !this.#problems.has(source)).map((source) => source.description);
    return missing(demand, demands, offers, asked, [...this.#problems.values()]);
  }

  #tooMuch(demand?: Demand): PackageError {
    const why = "too many combinations of versions were tried";
    if (demand !== undefined) return failure("package_conflict", demand, why);
    return new PackageError("package_conflict", `These packages cannot be installed: ${why}.`);
  }
}

function namesOf(demands: readonly Demand[]): Set<string> {
  return addNames(new Set(), demands);
}

/** Adds those who demand. */
function addNames(blame: Set<string>, demands: readonly Demand[]): Set<string> {
  for (const { by } of demands) if (by !== null) blame.add(by.candidate.key);
  return blame;
}
