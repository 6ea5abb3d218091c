import { compatibleTags, type PythonPlatform } from "../pep/platform.ts";
import type { Requirement } from "../pep/requirements.ts";
import { compareNewestFirst, satisfies } from "../pep/versions.ts";
import { describeTags, parseWheelName, tagRank } from "../pep/wheel-name.ts";
import type { WheelDownload } from "../wheel-store.ts";

/** A place to get packages from. */
export interface PackageSource {
  /** For messages and manifests: `the package folder`, `index pypi.org`. No path of this machine, no credentials. */
  readonly description: string;
  /**
   * What the source has under a normalised name.
   *
   * @throws {PackageError} `package_source_unavailable` if the source cannot be asked.
   */
  find(key: string): Promise<Offers>;
}

export interface Offers {
  /** Files that this Python could install, best first: newest version, then most specific file. */
  readonly candidates: readonly Candidate[];
  /** Files under that name which are of no use here. */
  readonly unusable: readonly UnusableFile[];
}

export interface UnusableFile {
  readonly filename: string;
  readonly reason:
    | "source-distribution"
    | "other-platform"
    | "other-python"
    | "yanked"
    | "unsafe-address"
    | "unverifiable";
  /** `manylinux, win`, or which Python it needs. */
  readonly detail: string;
}

/** One file that can be installed. */
export interface Candidate extends WheelDownload {
  readonly name: string;
  readonly key: string;
  readonly version: string;
  /** `dynlib`: a zip of shared libraries from Pyodide's lock file. */
  readonly format: "wheel" | "dynlib";
  readonly source: string;
  /**
   * What it depends on, with markers not yet evaluated; may have to fetch the file.
   *
   * @throws {PackageError}
   */
  requirements(): Promise<CandidateRequirements>;
  /** What the file itself says, where `requirements` is what a lock file says: that knows no extras. May have to fetch the file. */
  readonly stated?: () => Promise<CandidateRequirements>;
}

export interface CandidateRequirements {
  readonly requires: readonly Requirement[];
  /** PEP 440 clauses; empty: any Python. */
  readonly requiresPython: string;
  /** Names of its extras, normalised; those that only its requirements name may be left out. */
  readonly extras?: readonly string[];
}

/** A file that a source lists, before anybody asked whether it fits. */
export interface ListedFile<T = Candidate> {
  readonly filename: string;
  /** PEP 440 clauses; empty: any, or not known yet. */
  readonly requiresPython: string;
  readonly yanked: boolean;
  /** Why its address is not one to fetch from, if so. */
  readonly refused?: string | null;
  /** Null: it cannot be verified, and is not offered. */
  readonly toCandidate: ((name: { key: string; version: string }) => T) | null;
}

/** Sorts the files of one package by whether and how well they fit `python`; other packages' files are passed over. */
export function selectFiles<T extends { readonly filename: string; readonly version: string }>(
  key: string,
  files: Iterable<ListedFile<T>>,
  python: PythonPlatform,
): { readonly candidates: readonly T[]; readonly unusable: readonly UnusableFile[] } {
  const supported = compatibleTags(python);
  const fitting: { candidate: T; rank: number; build: number }[] = [];
  const unusable: UnusableFile[] = [];
  for (const { filename, requiresPython, yanked, refused, toCandidate } of files) {
    const refuse = (reason: UnusableFile["reason"], detail = "") => unusable.push({ filename, reason, detail });
    if (/\.(tar\.gz|tar\.bz2|tgz|zip)$/.test(filename)) {
      refuse("source-distribution");
      continue;
    }
    const wheel = parseWheelName(filename);
    if (wheel === null || wheel.key !== key) continue;
    const rank = tagRank(wheel, supported);
    if (rank === null) refuse("other-platform", describeTags(wheel));
    else if (!satisfies(python.pythonVersion, requiresPython)) refuse("other-python", requiresPython);
    else if (yanked) refuse("yanked", wheel.version);
    else if (refused) refuse("unsafe-address", refused);
    else if (toCandidate === null) refuse("unverifiable");
    else fitting.push({ candidate: toCandidate(wheel), rank, build: wheel.build });
  }
  fitting.sort(
    (a, b) =>
      compareNewestFirst(a.candidate.version, b.candidate.version) ||
      a.rank - b.rank ||
      b.build - a.build ||
      (a.candidate.filename < b.candidate.filename ? -1 : 1),
  );
  return { candidates: fitting.map(({ candidate }) => candidate), unusable };
}
