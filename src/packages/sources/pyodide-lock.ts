import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { PackageError } from "../package-error.ts";
import type { PythonPlatform } from "../pep/platform.ts";
import { normaliseName, parseRequirement, type Requirement } from "../pep/requirements.ts";
import { satisfies } from "../pep/versions.ts";

const FileName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._+!-]*$/);

const LockSchema = z.object({
  info: z.object({
    abi_version: z.string().regex(/^\w+$/),
    arch: z.string().regex(/^\w+$/),
    platform: z.string().regex(/^\w+$/),
    python: z.string().regex(/^\d+\.\d+/),
  }),
  packages: z.record(
    z.string(),
    z.object({
      name: z.string(),
      version: z.string(),
      // A mirror may be elsewhere, but never choose where: names only, no addresses.
      file_name: FileName,
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
      depends: z.array(z.string()).default([]),
      imports: z.array(z.string()).default([]),
      package_type: z.string().default("package"),
    }),
  ),
});

export interface LockedPackage {
  readonly name: string;
  readonly key: string;
  readonly version: string;
  readonly filename: string;
  readonly sha256: string;
  readonly requires: readonly Requirement[];
  /** Names of its modules. */
  readonly imports: readonly string[];
  /** A zip of shared libraries that other packages link to; not a wheel. */
  readonly isSharedLibrary: boolean;
}

/** Pyodide's list of the packages that were built for one release: exactly one version of each, with its hash. */
export interface PyodideLock {
  readonly python: PythonPlatform;
  /** By normalised name. What is neither wheel nor shared library (the packages' own tests) is left out. */
  readonly packages: ReadonlyMap<string, LockedPackage>;
}

/**
 * What Pyodide's recipes leave out, although the package needs it for a part of what it does. pandas takes its time zones from
 * there, since this platform has none of its own.
 */
const LEFT_OUT: Readonly<Record<string, readonly string[]>> = { pandas: ["tzdata"] };

/**
 * @param label what messages call it.
 * @throws {PackageError} `package_source_unavailable` if it is no lock file.
 */
export function parsePyodideLock(text: string, label: string): PyodideLock {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new PackageError("package_source_unavailable", `The lock file of ${label} is not JSON.`, { cause });
  }
  const parsed = LockSchema.safeParse(json);
  if (!parsed.success) {
    const where = parsed.error.issues[0]?.path.map(String).join(".") ?? "";
    throw new PackageError("package_source_unavailable", `The lock file of ${label} cannot be read (at "${where}").`);
  }
  const { info, packages } = parsed.data;
  const entries = Object.values(packages).flatMap((entry): [string, LockedPackage][] => {
    const isSharedLibrary = entry.package_type === "shared_library";
    if (!isSharedLibrary && !entry.file_name.endsWith(".whl")) return [];
    const key = normaliseName(entry.name);
    const { name, version, file_name: filename, sha256, imports } = entry;
    const leftOut = (LEFT_OUT[key] ?? []).map((text) => ({ ...parseRequirement(text), optional: true as const }));
    const requires = [...entry.depends.map(parseRequirement), ...leftOut];
    return [[key, { name, key, version, filename, sha256, requires, imports, isSharedLibrary }]];
  });
  return {
    python: { pythonVersion: info.python, abiVersion: info.abi_version, platform: info.platform, arch: info.arch },
    packages: new Map(entries),
  };
}

/** The lock file of the Pyodide that is installed here. */
export async function loadPyodideLock(): Promise<PyodideLock> {
  const file = fileURLToPath(import.meta.resolve("pyodide/pyodide-lock.json"));
  return parsePyodideLock(await readFile(file, "utf8"), "Pyodide");
}

/**
 * What a file states that it needs, when it is another build or version of a package that Pyodide's lock file lists: what that
 * does without, this one can do without. A folder often holds just the files that the lock file names.
 */
export function requirementsOfOtherBuild(
  locked: LockedPackage,
  stated: readonly Requirement[],
): readonly Requirement[] {
  const needed = new Set(locked.requires.filter(({ optional }) => !optional).map(({ key }) => key));
  // Of extras the lock file says nothing.
  const isNeeded = ({ key, text }: Requirement) => needed.has(key) || /\bextra\b/.test(text);
  return stated.map((requirement) => (isNeeded(requirement) ? requirement : { ...requirement, optional: true }));
}

/** How a file stands to the lock file of the installed Pyodide, which lists what its authors tested together. */
export type LockStatus = "same" | "other-version" | "other-build" | "not-listed";

export function lockStatus(lock: PyodideLock, file: { key: string; version: string; sha256: string }): LockStatus {
  const locked = lock.packages.get(file.key);
  if (locked === undefined) return "not-listed";
  if (!satisfies(file.version, `==${locked.version}`)) return "other-version";
  return file.sha256 === locked.sha256 ? "same" : "other-build";
}

/** @throws {PackageError} if what `other` lists was built for another Python or binary interface than `own`. */
export function checkSamePlatform(own: PythonPlatform, other: PythonPlatform, label: string): void {
  const describe = (python: PythonPlatform) =>
    `Python ${python.pythonVersion.split(".").slice(0, 2).join(".")}, ABI ${python.abiVersion}, ${python.arch}`;
  if (describe(own) !== describe(other))
    throw new PackageError(
      "package_source_unavailable",
      `The lock file of ${label} is for ${describe(other)}, not for ${describe(own)}.`,
    );
}
