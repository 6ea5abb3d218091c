import { normaliseName } from "./requirements.ts";
import { isVersion } from "./versions.ts";

/** Of one name, expanded: those that there are have a dozen. */
const MAX_TAGS = 500;

/** A wheel's file name, taken apart (PEP 427). */
export interface WheelName {
  /** Normalised by PEP 503. */
  readonly key: string;
  /** Without the build number. */
  readonly version: string;
  /** Build number, for choosing between files of one version; 0 if there is none. */
  readonly build: number;
  /** Expanded: `py2.py3-none-any` gives two. */
  readonly tags: readonly string[];
}

/** @returns null if the name is no wheel's. */
export function parseWheelName(filename: string): WheelName | null {
  if (!filename.endsWith(".whl") || /[/\\\0]/.test(filename)) return null;
  const parts = filename.slice(0, -".whl".length).split("-");
  if (parts.length !== 5 && parts.length !== 6) return null;
  const [name = "", version = ""] = parts;
  const [python = "", abi = "", platform = ""] = parts.slice(-3);
  const build = parts.length === 6 ? /^(\d+)/.exec(parts[2] as string)?.[1] : "0";
  if (!/^[A-Za-z0-9](?:[A-Za-z0-9._]*[A-Za-z0-9])?$/.test(name) || build === undefined) return null;
  // An underscore stands for the dash that a local version or an old-style post-release would have.
  const written = version.replaceAll("_", "-");
  const readable = isVersion(written) ? written : isVersion(version) ? version : null;
  if (readable === null || [python, abi, platform].some((tag) => tag === "")) return null;
  const [pythons, abis, platforms] = [python, abi, platform].map((tag) => tag.split(".")) as [
    string[],
    string[],
    string[],
  ];
  if (pythons.length * abis.length * platforms.length > MAX_TAGS) return null;
  const tags = pythons.flatMap((py) => abis.flatMap((a) => platforms.map((plat) => `${py}-${a}-${plat}`)));
  return { key: normaliseName(name), version: readable, build: Number(build), tags };
}

/**
 * @param supported what `compatibleTags` gave.
 * @returns the position of the best tag in `supported` (0 is the most specific); null: the wheel is for something else.
 */
export function tagRank(wheel: WheelName, supported: readonly string[]): number | null {
  const ranks = wheel.tags.map((tag) => supported.indexOf(tag)).filter((rank) => rank !== -1);
  return ranks.length === 0 ? null : Math.min(...ranks);
}

/** In words, why a wheel whose tags do not fit is of no use. */
export function describeTags(wheel: WheelName): string {
  const platforms = new Set(wheel.tags.map((tag) => tag.split("-").slice(2).join("-")));
  const pythons = new Set(wheel.tags.map((tag) => tag.split("-")[0] as string));
  const known = /^(manylinux|musllinux|linux|win|macosx|android|ios|pyodide|pyemscripten|emscripten|any)/;
  const families = new Set([...platforms].map((platform) => known.exec(platform)?.[1] ?? platform));
  const ours = /^(pyodide|pyemscripten|emscripten|any)$/;
  return [...families].every((family) => ours.test(family))
    ? `${[...pythons].join(", ")} on ${[...platforms].join(", ")}`
    : [...families].join(", ");
}
