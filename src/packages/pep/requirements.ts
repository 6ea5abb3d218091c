import { setImmediate } from "node:timers/promises";
import { PackageError } from "../package-error.ts";
import type { MarkerEnvironment } from "./platform.ts";
import { isSpecifier, isVersion, satisfies } from "./versions.ts";

/** A dependency as PEP 508 writes it: `requests[socks] >=2,<3 ; python_version < "3.15"`. */
export interface Requirement {
  /** As written. */
  readonly name: string;
  /** Normalised by PEP 503; what everything is looked up by. */
  readonly key: string;
  /** Normalised. */
  readonly extras: readonly string[];
  /** PEP 440 clauses, comma separated; empty: any version. */
  readonly specifier: string;
  /** Null: always needed. */
  readonly marker: Marker | null;
  /** The whole text, trimmed. */
  readonly text: string;
  /** Installed where it is available, left out where not. */
  readonly optional?: true;
}

export type Marker =
  | { readonly type: "and" | "or"; readonly left: Marker; readonly right: Marker }
  | { readonly type: "compare"; readonly left: Operand; readonly operator: string; readonly right: Operand };

type Operand = { readonly variable: string } | { readonly literal: string };

/** Longest text that is looked at, characters. */
const MAX_LENGTH = 4096;
/** Each is looked for in each of a package's requirements. */
const MAX_EXTRAS = 32;
/** Most parentheses inside one another. */
const MAX_DEPTH = 32;

/** PEP 503: lower case, and one `-` for each run of `-`, `_` and `.`. */
export function normaliseName(name: string): string {
  return name.replace(/[-_.]+/g, "-").toLowerCase();
}

/** A package may state thousands. */
const REQUIREMENTS_OF_A_TURN = 200;

/** As {@link parseRequirement}, of many: they take several turns of the event loop. */
export async function parseRequirements(sources: readonly string[]): Promise<Requirement[]> {
  const parsed: Requirement[] = [];
  for (const [index, source] of sources.entries()) {
    if (index > 0 && index % REQUIREMENTS_OF_A_TURN === 0) await setImmediate();
    parsed.push(parseRequirement(source));
  }
  return parsed;
}

const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?/;

/**
 * @throws {PackageError} `package_invalid_requirement`, also for direct references (`name @ https://…`): what may be
 * installed is the sources' decision, not the requirement's.
 */
export function parseRequirement(source: string): Requirement {
  const text = source.trim();
  if (text.length > MAX_LENGTH) throw invalid(text, "it is too long");
  const otherForm = describeOtherForm(text);
  if (otherForm !== null) throw invalid(text, otherForm);
  const name = NAME.exec(text)?.[0];
  if (name === undefined) throw invalid(text, "it does not begin with a package name");
  let rest = text.slice(name.length).trimStart();
  let extras: string[] = [];
  if (rest.startsWith("[")) {
    const end = rest.indexOf("]");
    if (end === -1) throw invalid(text, "a bracket is not closed");
    const written = rest.slice(1, end).trim();
    extras = written === "" ? [] : written.split(",").map((extra) => extra.trim());
    if (extras.length > MAX_EXTRAS) throw invalid(text, "it names too many extras");
    if (extras.some((extra) => NAME.exec(extra)?.[0] !== extra)) throw invalid(text, "the extras cannot be read");
    rest = rest.slice(end + 1).trimStart();
  }
  if (rest.startsWith("@")) throw invalid(text, NO_ADDRESSES);
  const semicolon = rest.indexOf(";");
  let specifier = (semicolon === -1 ? rest : rest.slice(0, semicolon)).trim();
  if (specifier.startsWith("(") && specifier.endsWith(")")) specifier = specifier.slice(1, -1).trim();
  specifier = withoutTrailingComma(specifier);
  if (/^=[^=]/.test(specifier)) throw invalid(text, "a version is written with ==");
  if (NAME.test(specifier)) throw invalid(text, "it is more than one requirement; give each by itself");
  if (!isSpecifier(specifier)) throw invalid(text, `"${shorten(specifier)}" is no version specifier`);
  const marker = semicolon === -1 ? null : new MarkerParser(text, rest.slice(semicolon + 1)).parse();
  return {
    name,
    key: normaliseName(name),
    extras: [...new Set(extras.map(normaliseName))].toSorted(),
    specifier,
    marker,
    text,
  };
}

/** Some write a list of clauses with a comma at its end. In time that grows with the length alone, as a pattern's would not. */
export function withoutTrailingComma(clauses: string): string {
  const text = clauses.trimEnd();
  return text.endsWith(",") ? text.slice(0, -1).trimEnd() : text;
}

/**
 * Whether a dependency counts here.
 *
 * @param extras of the package that states the requirement, normalised; those that were asked for.
 */
export function applies(requirement: Requirement, environment: MarkerEnvironment, extras: readonly string[]): boolean {
  const { marker } = requirement;
  if (marker === null) return true;
  const result = evaluate(marker, environment);
  return typeof result === "boolean" ? result : ["", ...extras].some(result);
}

/** Normalised names of the extras that a requirement counts for; empty: it counts without any. */
export function extrasOf({ marker }: Requirement): string[] {
  const named = (part: Marker): string[] => {
    if (part.type !== "compare") return [...named(part.left), ...named(part.right)];
    const { left, right } = part;
    const literal = "literal" in left ? left.literal : "literal" in right ? right.literal : null;
    const isExtra = [left, right].some((side) => "variable" in side && side.variable === "extra");
    return isExtra && literal !== null ? [normaliseName(literal)] : [];
  };
  return marker === null ? [] : named(marker);
}

/** What a marker comes to, or how that depends on an extra: what does not is compared once, however many extras there are. */
function evaluate(marker: Marker, environment: MarkerEnvironment): boolean | ((extra: string) => boolean) {
  if (marker.type !== "compare") {
    const isDecisive = marker.type === "or";
    const left = evaluate(marker.left, environment);
    if (left === isDecisive) return left;
    const right = evaluate(marker.right, environment);
    if (typeof left === "boolean" || right === isDecisive) return right;
    if (typeof right === "boolean") return left;
    return isDecisive ? (extra) => left(extra) || right(extra) : (extra) => left(extra) && right(extra);
  }
  const { left, operator, right } = marker;
  const isExtra = [left, right].some((side) => "variable" in side && side.variable === "extra");
  const value = (side: Operand) => {
    const plain = "literal" in side ? side.literal : (environment[side.variable] ?? "");
    return isExtra ? normaliseName(plain) : plain;
  };
  if (!isExtra) return compareValues(value(left), operator, value(right));
  const given = (side: Operand) => ("variable" in side && side.variable === "extra" ? null : value(side));
  const [leftValue, rightValue] = [given(left), given(right)];
  if (operator === "==") return (extra) => (leftValue ?? extra) === (rightValue ?? extra);
  return (extra) => compareValues(leftValue ?? extra, operator, rightValue ?? extra);
}

/** PEP 508: as versions where both are versions, else as Python compares strings. */
function compareValues(left: string, operator: string, right: string): boolean {
  if (operator === "in") return right.includes(left);
  if (operator === "not in") return !right.includes(left);
  if (isVersion(left) && isSpecifier(`${operator}${right}`)) return satisfies(left, `${operator}${right}`);
  switch (operator) {
    case "==":
    case "===":
      return left === right;
    case "!=":
      return left !== right;
    case "<":
      return left < right;
    case "<=":
      return left <= right;
    case ">":
      return left > right;
    case ">=":
      return left >= right;
    default:
      return false;
  }
}

const VARIABLES: Readonly<Record<string, string>> = {
  "os.name": "os_name",
  "sys.platform": "sys_platform",
  "platform.machine": "platform_machine",
  "platform.version": "platform_version",
  "platform.python_implementation": "platform_python_implementation",
  python_implementation: "platform_python_implementation",
  ...Object.fromEntries(
    [
      "implementation_name",
      "implementation_version",
      "os_name",
      "platform_machine",
      "platform_python_implementation",
      "platform_release",
      "platform_system",
      "platform_version",
      "python_full_version",
      "python_version",
      "sys_platform",
      "extra",
    ].map((name) => [name, name]),
  ),
};

const TOKEN = /\s*(?:(\(|\))|(===|~=|==|!=|<=|>=|<|>)|"([^"]*)"|'([^']*)'|([A-Za-z_][A-Za-z0-9_.]*))/y;

type Token = { readonly kind: "punctuation" | "operator" | "literal" | "word"; readonly text: string };

/** Recursive descent: `or` binds weaker than `and`. */
class MarkerParser {
  readonly #requirement: string;
  readonly #tokens: Token[] = [];
  #depth = 0;

  constructor(requirement: string, text: string) {
    this.#requirement = requirement;
    TOKEN.lastIndex = 0;
    const trimmed = text.trim();
    while (TOKEN.lastIndex < trimmed.length) {
      const match = TOKEN.exec(trimmed);
      if (match === null) throw this.#invalid();
      const [, punctuation, operator, double, single, word] = match;
      if (punctuation !== undefined) this.#tokens.push({ kind: "punctuation", text: punctuation });
      else if (operator !== undefined) this.#tokens.push({ kind: "operator", text: operator });
      else if (word !== undefined) this.#tokens.push({ kind: "word", text: word });
      else this.#tokens.push({ kind: "literal", text: (double ?? single) as string });
    }
    this.#tokens.reverse();
  }

  parse(): Marker {
    const marker = this.#or();
    if (this.#tokens.length > 0) throw this.#invalid();
    return marker;
  }

  #or(): Marker {
    let left = this.#and();
    while (this.#accept("word", "or")) left = { type: "or", left, right: this.#and() };
    return left;
  }

  #and(): Marker {
    let left = this.#comparison();
    while (this.#accept("word", "and")) left = { type: "and", left, right: this.#comparison() };
    return left;
  }

  #comparison(): Marker {
    if (this.#accept("punctuation", "(")) {
      if (++this.#depth > MAX_DEPTH) throw this.#invalid();
      const inner = this.#or();
      if (!this.#accept("punctuation", ")")) throw this.#invalid();
      this.#depth--;
      return inner;
    }
    const left = this.#operand();
    const operator = this.#operator();
    return { type: "compare", left, operator, right: this.#operand() };
  }

  #operator(): string {
    if (this.#accept("word", "in")) return "in";
    if (this.#accept("word", "not")) {
      if (this.#accept("word", "in")) return "not in";
      throw this.#invalid();
    }
    const token = this.#tokens.pop();
    if (token?.kind !== "operator") throw this.#invalid();
    return token.text;
  }

  #operand(): Operand {
    const token = this.#tokens.pop();
    if (token?.kind === "literal") return { literal: token.text };
    const variable = token?.kind === "word" && Object.hasOwn(VARIABLES, token.text) ? VARIABLES[token.text] : undefined;
    if (variable === undefined) throw this.#invalid();
    return { variable };
  }

  #accept(kind: Token["kind"], text: string): boolean {
    const token = this.#tokens.at(-1);
    if (token?.kind !== kind || token.text !== text) return false;
    this.#tokens.pop();
    return true;
  }

  #invalid(): PackageError {
    return invalid(this.#requirement, "its environment marker cannot be read");
  }
}

const NO_ADDRESSES =
  'packages come from the sources that the server is set up with, not from an address or a file; give a name, as in "humanize" or "humanize>=4"';

/** What else pip and micropip take for a requirement, and why it is none here; null: it may be one. */
function describeOtherForm(text: string): string | null {
  if (/^-/.test(text)) return "options such as -r, -e and --index-url are not taken; give requirements alone";
  if (/^[A-Za-z][A-Za-z0-9+.-]*:(\/|\.)/.test(text) || /^git@|^(git|hg|svn|bzr)\+/.test(text)) return NO_ADDRESSES;
  if (/^[./~\\]|^[A-Za-z]:\\/.test(text) || /\.(whl|zip|tar\.gz|tgz|tar\.bz2|egg)$/i.test(text)) return NO_ADDRESSES;
  if (/^[^\s@;[\]]+\//.test(text)) return NO_ADDRESSES;
  return null;
}

function invalid(text: string, why: string): PackageError {
  return new PackageError("package_invalid_requirement", `The requirement "${shorten(text)}" cannot be used: ${why}.`);
}

function shorten(text: string): string {
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}
