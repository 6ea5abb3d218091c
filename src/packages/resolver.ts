// Over 400 lines: one algorithm, and the words for why it finds nothing.
import { setImmediate } from "node:timers/promises";
import { PackageError } from "./package-error.ts";
import { type MarkerEnvironment, markerEnvironment, type PythonPlatform } from "./pep/platform.ts";
import { applies, extrasOf, normaliseName, type Requirement } from "./pep/requirements.ts";
import { allowsPrereleases, compareNewestFirst, isPrerelease, satisfies } from "./pep/versions.ts";
import type { Candidate, Offers, PackageSource, UnusableFile } from "./sources/package-source.ts";

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
const MAX_STEPS = 2000;
const MAX_PACKAGES = 300;
/** Versions that are compared in one turn of the event loop. */
const VERSIONS_OF_A_TURN = 25;
/** Versions that a message names. */
const LISTED_VERSIONS = 8;

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

interface Demand {
  readonly requirement: Requirement;
  /** Null: asked for by name. */
  readonly by: Decision | null;
}

interface Decision {
  readonly candidate: Candidate;
  readonly requires: readonly Requirement[];
  readonly extras: readonly string[];
  readonly demand: Demand;
}

type Decisions = ReadonlyMap<string, Decision>;

/** `blame`: normalised names of the packages of which another choice might have helped. */
type Outcome =
  | { readonly decisions: Decisions }
  | { readonly failure: PackageError; readonly blame: ReadonlySet<string> };

/**
 * Depth-first search with conflict-directed backjumping: a failure goes straight back to the latest choice that had a part
 * in it, so that one package that does not exist is not looked for once for every version of every other.
 */
class Resolver {
  readonly #sources: readonly PackageSource[];
  readonly #environment: MarkerEnvironment;
  readonly #pythonVersion: string;
  readonly #fixed: ReadonlyMap<string, FixedPackage>;
  readonly #preferred: ReadonlyMap<string, Candidate>;
  readonly #offers = new Map<string, Promise<Offers>>();
  readonly #problems = new Map<PackageSource, string>();
  #steps = 0;

  constructor({ sources, python, fixed = [], preferred = [] }: ResolveOptions) {
    this.#sources = sources;
    this.#environment = markerEnvironment(python);
    this.#pythonVersion = python.pythonVersion;
    this.#fixed = new Map(fixed.map((item) => [normaliseName(item.name), item]));
    this.#preferred = new Map(preferred.map((candidate) => [candidate.key, candidate]));
  }

  async resolve(requested: readonly Requirement[]): Promise<Resolution> {
    const demands = requested
      .filter((requirement) => applies(requirement, this.#environment, []))
      .map((requirement): Demand => ({ requirement, by: null }));
    this.#seekAll(demands);
    const outcome = await this.#solve(demands, new Map());
    if ("failure" in outcome) throw outcome.failure;
    const isThere = ({ key, optional }: Requirement) => !optional || outcome.decisions.has(key) || this.#fixed.has(key);
    const packages = [...outcome.decisions.values()].map(({ candidate, requires: stated, extras }): ResolvedPackage => {
      const requires = stated.filter(isThere);
      const dependsOn = requires.filter((item) => applies(item, this.#environment, extras)).map(({ key }) => key);
      return { candidate, requires, dependsOn: [...new Set(dependsOn)].toSorted() };
    });
    packages.sort((a, b) => (a.candidate.key < b.candidate.key ? -1 : 1));
    return { packages, warnings: [...this.#problems.values()] };
  }

  async #solve(pending: readonly Demand[], decisions: Decisions): Promise<Outcome> {
    const [demand, ...rest] = pending;
    if (demand === undefined) return { decisions };
    const { key, specifier } = demand.requirement;
    const fixed = this.#fixed.get(key);
    if (fixed !== undefined) {
      if (demand.requirement.optional || satisfies(fixed.version, specifier)) {
        const added = await this.#extrasOfFixed(demand, fixed);
        if (added instanceof PackageError) return { failure: added, blame: namesOf([demand]) };
        return await this.#solve([...rest, ...added], decisions);
      }
      const why = `this environment has ${fixed.name} ${fixed.version}, which cannot be replaced`;
      return { failure: failure("package_conflict", demand, why), blame: namesOf([demand]) };
    }
    const decision = decisions.get(key);
    return decision === undefined
      ? await this.#choose(demand, pending, decisions)
      : await this.#join(demand, decision, rest, decisions);
  }

  /** What the extras need of a package that is part of the environment. */
  async #extrasOfFixed(demand: Demand, fixed: FixedPackage): Promise<readonly Demand[] | PackageError> {
    const { key, extras } = demand.requirement;
    if (extras.length === 0 || isWithin(demand)) return [];
    for (const source of this.#sources) {
      const { candidates } = await this.#find(source, key);
      const candidate = candidates.find(({ version }) => satisfies(version, `==${fixed.version}`));
      if (candidate === undefined) continue;
      const requires = await this.#requirements(candidate, demand, extras);
      if (requires instanceof PackageError) return requires;
      const by: Decision = { candidate, requires, extras, demand };
      const applying = requires.filter((item) => extrasOf(item).length > 0 && applies(item, this.#environment, extras));
      return applying.map((requirement) => ({ requirement, by }));
    }
    if (demand.requirement.optional) return [];
    const why = `this environment has ${fixed.name} ${fixed.version}, and no source says what its extras need`;
    return failure("package_not_found", demand, why);
  }

  /** The package was chosen before: see whether that choice will do for this demand as well. */
  async #join(demand: Demand, decision: Decision, rest: readonly Demand[], decisions: Decisions): Promise<Outcome> {
    const { key, specifier, extras } = demand.requirement;
    const { candidate } = decision;
    if (!satisfies(candidate.version, specifier)) {
      if (demand.requirement.optional) return await this.#solve(rest, decisions);
      const other = decision.demand.by;
      const who = other === null ? "was asked for" : `is needed by ${other.candidate.name}`;
      const why = `"${plain(decision.demand.requirement)}" ${who}`;
      return {
        failure: failure("package_conflict", demand, why),
        blame: new Set([key, ...namesOf([demand])]),
      };
    }
    const merged = [...new Set([...decision.extras, ...extras])].toSorted();
    if (merged.length === decision.extras.length) return await this.#solve(rest, decisions);
    const requires = await this.#requirements(candidate, demand, merged);
    if (requires instanceof PackageError) return { failure: requires, blame: new Set([key, ...namesOf([demand])]) };
    const wider: Decision = { ...decision, requires, extras: merged };
    const added = requires.filter(
      (item) => applies(item, this.#environment, merged) && !applies(item, this.#environment, decision.extras),
    );
    const outcome = await this.#solve(
      [...rest, ...added.map((requirement) => ({ requirement, by: wider }))],
      new Map(decisions).set(key, wider),
    );
    // The requirement that asked for the extras shares the blame for what they led to.
    return "failure" in outcome && outcome.blame.has(key)
      ? { ...outcome, blame: new Set([...outcome.blame, ...namesOf([demand])]) }
      : outcome;
  }

  async #choose(demand: Demand, pending: readonly Demand[], decisions: Decisions): Promise<Outcome> {
    const { key } = demand.requirement;
    const demands = pending.filter(({ requirement }) => requirement.key === key);
    const rest = pending.filter(({ requirement }) => requirement.key !== key);
    const extras = [...new Set(demands.flatMap(({ requirement }) => requirement.extras))].toSorted();
    const blame = namesOf(demands);
    let first: PackageError | null = null;
    if (decisions.size >= MAX_PACKAGES)
      return { failure: failure("package_too_large", demand, `over ${MAX_PACKAGES} packages would be needed`), blame };
    for await (const candidate of this.#candidates(key, demands)) {
      if (++this.#steps > MAX_STEPS)
        throw failure("package_conflict", demand, "too many combinations of versions were tried");
      // What is known already is tried without any wait: each try takes a turn of the event loop.
      await setImmediate();
      const requires = await this.#requirements(candidate, demand, extras);
      if (requires instanceof PackageError) {
        first ??= requires;
        continue;
      }
      const decision: Decision = { candidate, requires, extras, demand };
      const added = requires.filter((item) => applies(item, this.#environment, extras));
      this.#seekAll(added.map((requirement) => ({ requirement, by: decision })));
      const outcome = await this.#solve(
        [...rest, ...added.map((requirement) => ({ requirement, by: decision }))],
        new Map(decisions).set(key, decision),
      );
      if ("decisions" in outcome || !outcome.blame.has(key)) return outcome;
      first ??= outcome.failure;
      for (const name of outcome.blame) if (name !== key) blame.add(name);
    }
    const needed = demands.filter(({ requirement }) => !requirement.optional);
    if (needed.length < demands.length) return await this.#solve([...needed, ...rest], decisions);
    return { failure: first ?? (await this.#missing(demand, demands)), blame };
  }

  /** Files of one package that satisfy what is demanded of it so far, best first. */
  async *#candidates(key: string, demands: readonly Demand[]): AsyncGenerator<Candidate> {
    const specifiers = demands.map(({ requirement }) => requirement.specifier);
    const fits = ({ version }: Candidate) => specifiers.every((specifier) => satisfies(version, specifier));
    const mayBePrerelease = specifiers.some(allowsPrereleases);
    const preferred = this.#preferred.get(key);
    if (preferred !== undefined && fits(preferred)) yield preferred;
    for (const source of this.#sources) {
      const { candidates } = await this.#find(source, key);
      // Of one version only the best file: the others state the same dependencies.
      const finals = new Map<string, Candidate>();
      const fitting = new Map<string, Candidate>();
      const wanted = () => (finals.size === 0 || mayBePrerelease ? fitting : finals);
      for (const [index, candidate] of candidates.entries()) {
        if (index % VERSIONS_OF_A_TURN === VERSIONS_OF_A_TURN - 1) await setImmediate();
        const { version } = candidate;
        if (fitting.has(version) || !fits(candidate)) continue;
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

  /** Asks for packages that will be needed, all at once and ahead of their turn: each answer may take a source a second. */
  #seekAll(demands: readonly Demand[]): void {
    const seek = async (key: string) => {
      // Whether one of its versions will do is looked at in its turn.
      for (const source of this.#sources) if ((await this.#find(source, key)).candidates.length > 0) return;
    };
    const keys = new Set(demands.map(({ requirement }) => requirement.key).filter((key) => !this.#fixed.has(key)));
    // A failure is met again, and told of, where the answer is needed.
    for (const key of keys) seek(key).catch(() => {});
  }

  /** @param extras normalised; one that the caller asked for by name and that is not there is an error. */
  async #requirements(
    candidate: Candidate,
    demand: Demand,
    extras: readonly string[],
  ): Promise<readonly Requirement[] | PackageError> {
    try {
      const { requires, requiresPython, extras: listed } = await candidate.requirements();
      if (!satisfies(this.#pythonVersion, requiresPython)) {
        const why = `${candidate.name} ${candidate.version} needs Python ${requiresPython}`;
        return failure("package_not_found", demand, why);
      }
      if (extras.length === 0) return requires;
      const stated = candidate.stated === undefined ? null : await candidate.stated();
      const own = (stated ?? { requires }).requires.filter((item) => extrasOf(item).length > 0);
      const known = new Set([...(stated?.extras ?? listed ?? []), ...own.flatMap(extrasOf)]);
      const missing = demand.by === null ? demand.requirement.extras.filter((extra) => !known.has(extra)) : [];
      if (missing.length > 0) {
        const has = known.size === 0 ? "no extras" : `the extras ${[...known].toSorted().slice(0, 20).join(", ")}`;
        const why = `${candidate.name} ${candidate.version} has ${has}, and not ${missing.join(", ")}`;
        return failure("package_not_found", demand, why);
      }
      return [...requires.filter((item) => extrasOf(item).length === 0), ...own];
    } catch (error) {
      // An old version may state its dependencies in a form that is no longer valid; any other error stops the search.
      if (error instanceof PackageError && error.code === "package_invalid_requirement") return error;
      throw error;
    }
  }

  async #find(source: PackageSource, key: string): Promise<Offers> {
    const id = JSON.stringify([this.#sources.indexOf(source), key]);
    const known = this.#offers.get(id);
    if (known !== undefined) return await known;
    const offers = source.find(key).catch((error: unknown): Offers => {
      if (!(error instanceof PackageError)) throw error;
      this.#problems.set(source, error.message);
      return { candidates: [], unusable: [] };
    });
    this.#offers.set(id, offers);
    return await offers;
  }

  async #missing(demand: Demand, demands: readonly Demand[]): Promise<PackageError> {
    const { key } = demand.requirement;
    const offers = await Promise.all(this.#sources.map((source) => this.#find(source, key)));
    // Each source names the newest first.
    const versions = [
      ...new Set(
        offers.flatMap(({ candidates }) =>
          [...new Set(candidates.map(({ version }) => version))].slice(0, LISTED_VERSIONS + 1),
        ),
      ),
    ];
    const unusable = offers.flatMap((offer) => offer.unusable);
    const reasons: string[] = [];
    const isElsewhere = versions.length > 0 || unusable.length > 0;
    if (versions.length > 0) {
      const listed = versions.toSorted(compareNewestFirst).slice(0, LISTED_VERSIONS).join(", ");
      const wanted = demands
        .filter(({ requirement }) => requirement.specifier !== "")
        .map(({ requirement, by }) => requirement.specifier + (by === null ? "" : ` (by ${by.candidate.name})`));
      reasons.push(
        `there is ${listed}${versions.length > LISTED_VERSIONS ? ", …" : ""}, but ${wanted.join(" and ")} is needed`,
      );
    }
    if (unusable.length > 0) reasons.push(describeUnusable(unusable));
    if (reasons.length === 0) {
      const asked = this.#sources.filter((source) => !this.#problems.has(source)).map((source) => source.description);
      reasons.push(
        asked.length === 0 ? "no source could be asked" : `no source has this package (asked: ${asked.join(", ")})`,
      );
    }
    const code = versions.length > 0 ? "package_conflict" : "package_not_found";
    const problems = [...this.#problems.values()].map((problem) => problem.replace(/\.$/, ""));
    return failure(code, demand, [...reasons, ...problems].join("; "), isElsewhere ? [] : problems);
  }
}

/** Whether what is demanded has led to this demand itself. */
function isWithin({ requirement, by }: Demand): boolean {
  for (let decision = by; decision !== null; decision = decision.demand.by) {
    const { key, extras } = decision.demand.requirement;
    if (key === requirement.key && requirement.extras.every((extra) => extras.includes(extra))) return true;
  }
  return false;
}

function namesOf(demands: readonly Demand[]): Set<string> {
  return new Set(demands.flatMap(({ by }) => (by === null ? [] : [by.candidate.key])));
}

function describeUnusable(files: readonly UnusableFile[]): string {
  const details = (reason: UnusableFile["reason"]) => [
    ...new Set(
      files
        .filter((file) => file.reason === reason)
        .flatMap(({ detail }) => (reason === "unsafe-address" ? [detail] : detail.split(", "))),
    ),
  ];
  const parts: string[] = [];
  const platforms = details("other-platform");
  if (platforms.length > 0) parts.push(`wheels for other platforms (${platforms.slice(0, 6).join(", ")})`);
  if (details("source-distribution").length > 0) parts.push("source distributions");
  const pythons = details("other-python");
  if (pythons.length > 0) parts.push(`wheels for other versions of Python (${pythons.slice(0, 6).join(", ")})`);
  if (details("yanked").length > 0) parts.push("versions that their authors have withdrawn");
  const addresses = details("unsafe-address");
  if (addresses.length > 0) parts.push(`files ${addresses.slice(0, 3).join(" and ")}`);
  if (details("unverifiable").length > 0) parts.push("files without a SHA-256");
  return `it needs a wheel for Pyodide or for pure Python, and all there is are ${parts.join(" and ")}`;
}

function failure(
  code: "package_conflict" | "package_not_found" | "package_too_large",
  { requirement, by }: Demand,
  why: string,
  unreached: readonly string[] = [],
): PackageError {
  if (by === null) return new PackageError(code, `"${plain(requirement)}" cannot be installed: ${why}.`, { unreached });
  const chain: string[] = [];
  let root: Demand = { requirement, by };
  for (let decision: Decision | null = by; decision !== null; decision = decision.demand.by) {
    chain.push(`${decision.candidate.name} ${decision.candidate.version}`);
    root = decision.demand;
  }
  const [parent, ...ancestors] = chain;
  const path = ancestors.length === 0 ? parent : `${parent} (needed by ${ancestors.join(", needed by ")})`;
  return new PackageError(
    code,
    `"${plain(root.requirement)}" cannot be installed: ${path} needs "${plain(requirement)}", but ${why}.`,
    { unreached },
  );
}

/** Without its marker, which holds anyway. */
function plain({ name, extras, specifier }: Requirement): string {
  return `${name}${extras.length === 0 ? "" : `[${extras.join(",")}]`}${specifier}`;
}
