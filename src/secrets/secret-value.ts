import { isHeaderText } from "../egress/headers.ts";

/** Shorter ones would be guessed, and striking them out would take other texts along. */
const MIN_SECRET_CHARACTERS = 8;
const MAX_SECRET_CHARACTERS = 8192;

/** @returns why a text cannot be a secret, in words that do not repeat it; null: it can. */
export function problemOfValue(value: string): string | null {
  if (value.length < MIN_SECRET_CHARACTERS) return `is shorter than ${MIN_SECRET_CHARACTERS} characters`;
  if (value.length > MAX_SECRET_CHARACTERS) return `is longer than ${MAX_SECRET_CHARACTERS} characters`;
  if (!isHeaderText(value)) return "has a line end or another character that no header may have";
  // A header's value loses them on the way.
  if (value !== value.trim()) return "begins or ends with a space";
  return null;
}
