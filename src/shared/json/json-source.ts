import { JsonLimitError } from "./json-scanner.ts";

/** Longest number that is quoted in an error. */
const MAX_QUOTED_CHARACTERS = 40;
const SPACE = /[\t\n\r ]+/y;
const SCALAR = /[^\t\n\r ,:[\]{}"]+/y;

/**
 * The text of each member of an object, with its name: the value as it was written, where JavaScript's numbers would lose digits.
 *
 * @param text a JSON object that was parsed before.
 */
export function membersOf(text: string): [name: string, source: string][] {
  return elementsOf(text).map((member) => {
    const name = tokenAt(member, 0);
    return [JSON.parse(name) as string, member.slice(member.indexOf(":", name.length) + 1).trim()];
  });
}

/**
 * The text of each element of a list, or of each member of an object, as it was written.
 *
 * @param text JSON that was parsed, or scanned, before.
 */
export function elementsOf(text: string): string[] {
  const elements: string[] = [];
  let depth = 0;
  let begin = -1;
  for (let at = 0; at < text.length; ) {
    const token = tokenAt(text, at);
    const first = token[0] as string;
    const end = at + token.length;
    const isEnd = depth === 1 && (first === "," || first === "]" || first === "}");
    if (isEnd && begin >= 0) elements.push(text.slice(begin, at).trim());
    if (isEnd) begin = -1;
    else if (depth === 1 && begin < 0 && first > " ") begin = at;
    if (first === "{" || first === "[") depth++;
    else if (first === "}" || first === "]") depth--;
    at = end;
  }
  return elements;
}

/**
 * The same value without whitespace, strings written in one way, and numbers as they are.
 *
 * @param text JSON that was parsed before.
 * @param maxCharacters of the result.
 * @returns null: it would be longer.
 * @throws {JsonLimitError} for a number that is beyond what a float can hold.
 */
export function compactJson(text: string, maxCharacters: number): string | null {
  let compact = "";
  for (let at = 0; at < text.length; ) {
    const token = tokenAt(text, at);
    at += token.length;
    const first = token[0] as string;
    if (first <= " ") continue;
    // A character is written with six at the most.
    if (compact.length + token.length / 6 > maxCharacters + 1) return null;
    if (first === '"') compact += JSON.stringify(JSON.parse(token));
    else {
      if (/^-?\d.*[.eE]/s.test(token) && !Number.isFinite(Number(token)))
        throw new JsonLimitError(`${shortened(token)} is beyond what a float can hold`);
      compact += token;
    }
    if (compact.length > maxCharacters) return null;
  }
  return compact;
}

function tokenAt(text: string, at: number): string {
  const first = text[at] as string;
  if (first === '"') return text.slice(at, endOfString(text, at));
  const pattern = first <= " " ? SPACE : SCALAR;
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? first;
}

/** Where the string ends that begins at `at`. Not by a pattern: of strings of megabytes one overflows its stack. */
function endOfString(text: string, at: number): number {
  for (let quote = text.indexOf('"', at + 1); quote !== -1; quote = text.indexOf('"', quote + 1)) {
    let backslashes = 0;
    while (text[quote - 1 - backslashes] === "\\") backslashes++;
    if (backslashes % 2 === 0) return quote + 1;
  }
  return text.length;
}

function shortened(token: string): string {
  return token.length > MAX_QUOTED_CHARACTERS ? `${token.slice(0, MAX_QUOTED_CHARACTERS)}…` : token;
}
