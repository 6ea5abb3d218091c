import pep440 from "@renovatebot/pep440";

/** Longer texts are none of theirs: to compare a version takes time that grows with them. */
const MAX_VERSION_CHARACTERS = 128;
const MAX_SPECIFIER_CHARACTERS = 512;

/** Orders versions by PEP 440, newest first; what is no PEP 440 version comes last. */
export function compareNewestFirst(a: string, b: string): number {
  const validA = isVersion(a);
  const validB = isVersion(b);
  if (validA && validB) return pep440.compare(b, a);
  return Number(validB) - Number(validA);
}

export function isVersion(text: string): boolean {
  return text.length <= MAX_VERSION_CHARACTERS && pep440.valid(text) !== null;
}

export function isSpecifier(text: string): boolean {
  return text.length <= MAX_SPECIFIER_CHARACTERS && pep440.validRange(text);
}

export function isPrerelease(version: string): boolean {
  return isVersion(version) && pep440.explain(version)?.is_prerelease === true;
}

/**
 * Whether `version` lies within every clause of `specifier` (PEP 440; empty: any version). Pre-releases count as any other
 * version: which of them may be chosen is {@link allowsPrereleases} and the resolver's business.
 *
 * @returns false as well if either text is none of its kind.
 */
export function satisfies(version: string, specifier: string): boolean {
  if (!isVersion(version) || !isSpecifier(specifier)) return false;
  return pep440.satisfies(specifier.includes("===") ? version : padded(version), specifier, { prereleases: true });
}

/** PEP 440: a specifier that names a pre-release asks for pre-releases. */
export function allowsPrereleases(specifier: string): boolean {
  return specifier
    .split(",")
    .some((clause) => isPrerelease(clause.replace(/^\s*(===|~=|==|!=|<=|>=|<|>)\s*/, "").trim()));
}

/** `3` as `3.0.0.0`: equal by PEP 440, and the library's prefix match (`==3.0.*`) needs the zeros written out. */
function padded(version: string): string {
  const clean = pep440.clean(version) ?? version;
  return clean.replace(/^(\d+!)?(\d+(?:\.\d+)*)/, (_match, epoch: string | undefined, release: string) => {
    const parts = release.split(".");
    while (parts.length < 4) parts.push("0");
    return (epoch ?? "") + parts.join(".");
  });
}
