const KEYWORDS = new Set(
  (
    "False None True and as assert async await break class continue def del elif else except finally for from global if " +
    "import in is lambda nonlocal not or pass raise return try while with yield"
  ).split(" "),
);
const IDENTIFIER = /^[\p{XID_Start}_]\p{XID_Continue}*$/u;

/** Longest one of others than ASCII's: to normalise combining marks takes time that grows with the square of their number. */
const MAX_UNICODE_CHARACTERS = 255;
const ASCII = /^[\0-\x7f]*$/;

/** A name that a Python variable may have, and that means nothing to the interpreter itself. */
export function isVariableName(name: string): boolean {
  return IDENTIFIER.test(name) && !KEYWORDS.has(name) && !(name.startsWith("__") && name.endsWith("__"));
}

/**
 * A name in the form in which Python reads it, NFKC (PEP 3131).
 *
 * @returns null: it is too long.
 */
export function normalised(name: string): string | null {
  if (ASCII.test(name)) return name;
  return name.length > MAX_UNICODE_CHARACTERS ? null : name.normalize("NFKC");
}

/**
 * A name as an identifier of Python: what an identifier cannot have becomes `_`, and a keyword gets a suffix.
 *
 * @returns null: there is nothing in it that an identifier can have, or it means something to the interpreter (`__import__`), or it is
 *   too long.
 */
export function toIdentifier(name: string, suffix: string): string | null {
  const plain = normalised(name)?.replace(/\P{XID_Continue}/gu, "_");
  if (plain === undefined) return null;
  const begun = IDENTIFIER.test(plain) ? plain : `_${plain}`;
  const identifier = KEYWORDS.has(begun) ? begun + suffix : begun;
  return isVariableName(identifier) && /[^_]/.test(identifier) ? identifier : null;
}
