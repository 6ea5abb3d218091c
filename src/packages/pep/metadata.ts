import { PackageError } from "../package-error.ts";
import { normaliseName, parseRequirement, type Requirement, withoutTrailingComma } from "./requirements.ts";
import { isSpecifier, isVersion } from "./versions.ts";

/** What a distribution says about itself in METADATA (core metadata, PEP 566 and later). */
export interface CoreMetadata {
  readonly name: string;
  readonly key: string;
  readonly version: string;
  /** PEP 440 clauses; empty: any Python. */
  readonly requiresPython: string;
  readonly requires: readonly Requirement[];
  /** Normalised. */
  readonly extras: readonly string[];
  /** SPDX expression, or what stands under License if that is one line, or the classifiers; null: nothing said. */
  readonly license: string | null;
}

/**
 * @param label what messages call the package.
 * @throws {PackageError} `package_damaged` if name or version are missing, `package_invalid_requirement` if a dependency
 * cannot be read.
 */
export function parseCoreMetadata(text: string, label: string): CoreMetadata {
  const fields = readHeader(headerOf(text, label));
  const first = (field: string) => fields.get(field)?.[0];
  const name = first("name") ?? "";
  const version = first("version") ?? "";
  if (
    name.length > MAX_NAME_CHARACTERS ||
    !/^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$/.test(name) ||
    !isVersion(version)
  )
    throw new PackageError("package_damaged", `${label} has no readable name and version in its METADATA.`);
  const requiresPython = withoutTrailingComma(first("requires-python") ?? "");
  const stated = fields.get("requires-dist") ?? [];
  if (stated.length > MAX_REQUIREMENTS)
    throw new PackageError(
      "package_invalid_requirement",
      `${label} is of no use: it states over ${MAX_REQUIREMENTS} requirements.`,
    );
  if (stated.reduce((sum, requirement) => sum + requirement.length, 0) > MAX_REQUIREMENTS_CHARACTERS)
    throw new PackageError("package_invalid_requirement", `${label} is of no use: its requirements are too long.`);
  let requires: Requirement[];
  try {
    requires = stated.map(parseRequirement);
  } catch (cause) {
    if (!(cause instanceof PackageError)) throw cause;
    throw new PackageError("package_invalid_requirement", `${label} is of no use. ${cause.message}`, { cause });
  }
  return {
    name,
    key: normaliseName(name),
    version,
    requiresPython: isSpecifier(requiresPython) ? requiresPython : "",
    requires,
    extras: (fields.get("provides-extra") ?? []).map(normaliseName),
    license: licenseOf(fields),
  };
}

/** More is no description of a package, and would keep the server from all else while it is read. */
const MAX_HEADER_CHARACTERS = 512 * 1024;
const MAX_REQUIREMENTS = 2_000;
/** Of all requirements together: a license may be long, but what they say is compared again and again. */
const MAX_REQUIREMENTS_CHARACTERS = 128 * 1024;
const MAX_NAME_CHARACTERS = 200;

/** What stands before the first empty line. @throws {PackageError} `package_damaged` if it is too long. */
function headerOf(text: string, label: string): string {
  const ends = ["\n\n", "\n\r\n"].map((end) => text.indexOf(end)).filter((index) => index !== -1);
  const length = Math.min(text.length, ...ends);
  if (length > MAX_HEADER_CHARACTERS)
    throw new PackageError("package_damaged", `${label} has a METADATA that is too long.`);
  return text.slice(0, length);
}

/** An e-mail style header: `Name: value`, continued by lines that begin with white space, up to the first empty line. */
function readHeader(text: string): ReadonlyMap<string, readonly string[]> {
  const fields = new Map<string, string[]>();
  let current: string[] | undefined;
  for (const line of text.split(/\r?\n/)) {
    if (line === "") break;
    if (/^[ \t]/.test(line)) {
      if (current !== undefined) current[current.length - 1] += `\n${line.trim()}`;
      continue;
    }
    const colon = line.indexOf(":");
    if (colon === -1) continue;
    const field = line.slice(0, colon).trim().toLowerCase();
    current = fields.get(field) ?? [];
    fields.set(field, current);
    current.push(line.slice(colon + 1).trim());
  }
  return fields;
}

const MAX_LICENSE_LENGTH = 200;

function licenseOf(fields: ReadonlyMap<string, readonly string[]>): string | null {
  const classifiers = (fields.get("classifier") ?? [])
    .filter((classifier) => classifier.startsWith("License ::"))
    .map((classifier) => classifier.split("::").at(-1)?.trim() ?? "");
  const text = (fields.get("license")?.[0] ?? "").split("\n").filter((line) => /\p{L}/u.test(line));
  // Many put the whole text there, whose first line says little; then the classifiers are better.
  const name = text.length === 1 ? text[0] : classifiers.join(", ") || text[0];
  const license = fields.get("license-expression")?.[0] ?? name ?? "";
  return license === "" || license === "UNKNOWN" ? null : license.slice(0, MAX_LICENSE_LENGTH);
}
