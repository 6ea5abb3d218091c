import type { PackageSet } from "../packages/package-set.ts";
import type { UnbuiltEnvironment } from "./images.ts";

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

/** What an environment imports, and under which global names. @param asked normalised names of the packages that were asked for. */
export function unbuiltEnvironment(
  set: PackageSet,
  imports: readonly string[] | undefined,
  asked?: readonly string[],
): UnbuiltEnvironment {
  const wanted = imports ?? importsOf(set, asked);
  const aliases: Record<string, string> = {};
  for (const module of wanted) for (const alias of ALIASES[module] ?? []) aliases[alias] = module;
  return { archivePath: set.archive.path, libraries: set.sharedLibraries, imports: wanted, aliases };
}

/** @param only normalised names of the packages whose modules are wanted; default: all. */
function importsOf(set: PackageSet, only?: readonly string[]): string[] {
  const chosen = set.packages.filter(({ key }) => only === undefined || only.includes(key));
  // Private modules and those for tests import what only a developer has.
  const public_ = (name: string) => !name.startsWith("_") && !/^(tests?|docs|examples|conftest|setup)$/.test(name);
  return chosen.flatMap(({ key, imports }) => [...imports.filter(public_), ...(FURTHER_IMPORTS[key] ?? [])]);
}
