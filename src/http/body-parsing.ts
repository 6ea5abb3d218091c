import qs from "qs";
import { JsonLimitError, JsonSyntaxError, scanJson } from "../json/json-scanner.ts";
import { membersOf } from "../json/json-source.ts";
import { type ContextSource, contextSource } from "./context-source.ts";

/** What a request's body may hold: as deep as results are, and more values than any request has. */
const LIMITS = { maxDepth: 200, maxNodes: 50_000 };
const MAX_PARAMETERS = 1000;
const MAX_FORM_DEPTH = 32;

export interface RawBody {
  readonly kind: "json" | "form";
  readonly bytes: Uint8Array;
  /** Lower case. */
  readonly charset: string;
}

export interface ParsedBody {
  readonly value: unknown;
  /** Where the member `context` is an object, how it was written: JavaScript's numbers are not all that JSON has. */
  readonly context?: ContextSource;
}

/** The form has more parameters than are taken. */
export class TooManyParametersError extends Error {
  override readonly name = "TooManyParametersError";
}

/** What was wrong with a body; `form`: deeper than a form may be. */
export type Refusal = "limit" | "parameters" | "form" | "syntax";

export function refusalOf(error: unknown): Refusal {
  if (error instanceof JsonLimitError) return "limit";
  if (error instanceof TooManyParametersError) return "parameters";
  return error instanceof RangeError ? "form" : "syntax";
}

/**
 * @throws {JsonSyntaxError} for what is not JSON, or no object or array.
 * @throws {JsonLimitError} for what is deeper, or has more values, than is taken. Nothing of it was parsed then.
 * @throws {TooManyParametersError}
 * @throws {RangeError} for a form that is deeper than is taken.
 */
export function parseRawBody({ kind, bytes, charset }: RawBody): ParsedBody {
  const text = new TextDecoder(charset).decode(bytes);
  if (kind === "form") return parseForm(text, charset);
  return parseJson(text, charset === "utf-8" ? bytes : new TextEncoder().encode(text));
}

function parseJson(text: string, bytes: Uint8Array): ParsedBody {
  if (bytes.length === 0) return { value: {} };
  const hasMark = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
  const { kind } = scanJson(hasMark ? bytes.subarray(3) : bytes, LIMITS);
  if (kind !== "object" && kind !== "array") throw new SyntaxError("a scalar");
  const value = JSON.parse(text) as { context?: unknown };
  if (kind === "array" || !isObject(value.context)) return { value };
  const context = membersOf(text).findLast(([name]) => name === "context")?.[1];
  return { value, ...(context !== undefined && { context: contextSource(context) }) };
}

/** @returns null: the text is not the JSON of an object, or of one that is too complex. */
export function parseContext(text: string): { value: object; source: ContextSource } | null {
  if (text.trim() === "") return null;
  try {
    const { value } = parseJson(text, new TextEncoder().encode(text));
    return isObject(value) ? { value: value as object, source: contextSource(text) } : null;
  } catch (error) {
    if (error instanceof JsonLimitError || error instanceof SyntaxError || error instanceof JsonSyntaxError)
      return null;
    throw error;
  }
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** As `express.urlencoded` with `extended`. */
function parseForm(text: string, charset: string): ParsedBody {
  let parameters = text.length === 0 ? 0 : 1;
  for (let at = text.indexOf("&"); at !== -1 && parameters <= MAX_PARAMETERS; at = text.indexOf("&", at + 1))
    parameters++;
  if (parameters > MAX_PARAMETERS) throw new TooManyParametersError("too many parameters");
  const options = {
    allowPrototypes: true,
    arrayLimit: Math.max(100, parameters),
    depth: MAX_FORM_DEPTH,
    strictDepth: true,
  };
  const percent = charset === "latin1" ? "iso-8859-1" : "utf-8";
  const value = qs.parse(text, { ...options, charset: percent, parameterLimit: MAX_PARAMETERS });
  // A form has texts only: an object is written as JSON, or with a parameter for each member.
  if (isObject(value.context)) return { value, context: contextSource(JSON.stringify(value.context)) };
  const context = typeof value.context === "string" ? parseContext(value.context) : null;
  return context === null ? { value } : { value: { ...value, context: context.value }, context: context.source };
}
