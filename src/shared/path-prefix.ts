/** What is safe in a page and leads to no other host. */
const PREFIX = /^(?:\/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$/;
const MAX_PREFIX_CHARACTERS = 200;

/** @returns `/py` for `py`, `/py/` and the like, empty for none; null: this cannot be one. */
export function normalisePrefix(text: string): string | null {
  const names = text.split("/").filter((name) => name !== "");
  const prefix = names.map((name) => `/${name}`).join("");
  return prefix === "" || (PREFIX.test(prefix) && prefix.length <= MAX_PREFIX_CHARACTERS) ? prefix : null;
}
