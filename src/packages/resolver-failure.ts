import { PackageError } from "./package-error.ts";
import type { Requirement } from "./pep/requirements.ts";
import { compareNewestFirst } from "./pep/versions.ts";
import type { Candidate, Offers, UnusableFile } from "./sources/package-source.ts";

/** What one package, or the caller, asks of another. */
export interface Demand {
  readonly requirement: Requirement;
  /** Null: asked for by name. */
  readonly by: Decision | null;
}

/** A file that was chosen, as it was when something was demanded because of it. */
export interface Decision {
  readonly candidate: Candidate;
  /** All that it may depend on. */
  readonly requires: readonly Requirement[];
  /** All extras that it has, normalised; null: not looked at, since none was asked for. */
  readonly known: ReadonlySet<string> | null;
  /** Those that are asked for, sorted. */
  readonly extras: readonly string[];
  readonly demand: Demand;
  /** Demands before this one, in the list of all, are met by it. */
  readonly until: number;
}

/** Versions that a message names, and specifiers. */
const LISTED = 8;
/** Packages that a message names as those because of which another is needed. */
const LISTED_ANCESTORS = 10;

/** Why none of the sources' files will do. @param asked sources that could be asked. @param problems of those that could not. */
export function missing(
  demand: Demand,
  demands: readonly Demand[],
  offers: readonly Offers[],
  asked: readonly string[],
  problems: readonly string[],
): PackageError {
  // Each source names the newest first.
  const versions = [
    ...new Set(
      offers.flatMap(({ candidates }) => [...new Set(candidates.map(({ version }) => version))].slice(0, LISTED + 1)),
    ),
  ];
  const unusable = offers.flatMap((offer) => offer.unusable);
  const reasons: string[] = [];
  const isElsewhere = versions.length > 0 || unusable.length > 0;
  if (versions.length > 0) {
    const listed = versions.toSorted(compareNewestFirst).slice(0, LISTED).join(", ");
    const stated = demands.filter(({ requirement }) => requirement.specifier !== "");
    const wanted = stated
      .slice(0, LISTED)
      .map(({ requirement, by }) => requirement.specifier + (by === null ? "" : ` (by ${by.candidate.name})`));
    reasons.push(
      `there is ${listed}${versions.length > LISTED ? ", …" : ""}, but ${wanted.join(" and ")}${stated.length > LISTED ? ", …" : ""} is needed`,
    );
  }
  if (unusable.length > 0) reasons.push(describeUnusable(unusable));
  if (reasons.length === 0) {
    reasons.push(
      asked.length === 0 ? "no source could be asked" : `no source has this package (asked: ${asked.join(", ")})`,
    );
  }
  const code = versions.length > 0 ? "package_conflict" : "package_not_found";
  const ended = problems.map((problem) => problem.replace(/\.$/, ""));
  return failure(code, demand, [...reasons, ...ended].join("; "), isElsewhere ? [] : ended);
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

/** @param unreached sources that could not be asked, where nothing else stands in the way. */
export function failure(
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
  const listed =
    ancestors.length > LISTED_ANCESTORS
      ? [...ancestors.slice(0, LISTED_ANCESTORS - 1), "…", ancestors.at(-1)]
      : ancestors;
  const path = ancestors.length === 0 ? parent : `${parent} (needed by ${listed.join(", needed by ")})`;
  return new PackageError(
    code,
    `"${plain(root.requirement)}" cannot be installed: ${path} needs "${plain(requirement)}", but ${why}.`,
    { unreached },
  );
}

/** Without its marker, which holds anyway. */
export function plain({ name, extras, specifier }: Requirement): string {
  return `${name}${extras.length === 0 ? "" : `[${extras.join(",")}]`}${specifier}`;
}
