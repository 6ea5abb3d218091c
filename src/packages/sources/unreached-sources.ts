import type { PackageError } from "../package-error.ts";

/** What an environment goes without because sources could not be asked. */
export interface Unreached {
  readonly environment: string;
  readonly requirements: readonly string[];
  /** In words: `pypi.org does not answer`. */
  readonly sources: readonly string[];
  /** All of it in a sentence. */
  readonly warning: string;
}

/** What to do about it, for the log. */
const ADVICE =
  "Behind an air gap name a folder of wheels (PACKAGE_DIR) or mirrors (PYODIDE_INDEX_URL, PACKAGE_INDEX_URL; `none`: no index), behind a proxy HTTPS_PROXY.";

/**
 * @param missing requirements that the environment goes without.
 * @param failures why sources did not give them, by requirement.
 * @returns those that may be there once the sources answer; null: there are none.
 */
export function unreachedOf(
  environment: string,
  missing: readonly string[],
  failures: ReadonlyMap<string, PackageError>,
): Unreached | null {
  const requirements = missing.filter((requirement) => (failures.get(requirement)?.unreached.length ?? 0) > 0);
  if (requirements.length === 0) return null;
  const sources = [...new Set(requirements.flatMap((requirement) => failures.get(requirement)?.unreached ?? []))];
  const warning = `The environment "${environment}" goes without ${requirements.join(", ")}: ${sources.join("; ")}.`;
  return { environment, requirements, sources, warning };
}

/** One warning for all environments. */
export function describeUnreached(all: readonly Unreached[]): string {
  const sources = [...new Set(all.flatMap((unreached) => unreached.sources))];
  const without = all.map(
    ({ environment, requirements }) => `"${environment}" goes without ${requirements.join(", ")}`,
  );
  return `Package sources could not be asked: ${sources.join("; ")}. So ${without.join("; ")}. ${ADVICE}`;
}
