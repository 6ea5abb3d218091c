import qs from "qs";
import { isObject } from "../shared/json/json-object.ts";
import { JsonLimitError, JsonSyntaxError, MAX_NAME_BYTES, scanJson } from "../shared/json/json-scanner.ts";
import { membersOf } from "../shared/json/json-source.ts";
import { BODY_LIMITS } from "./body-limits.ts";
import { type ContextSource, contextSource } from "./context-source.ts";
import { type Charset, decodeText, InvalidEncodingError, withoutMark } from "./text-decoding.ts";

const MAX_PARAMETERS = 1000;
const MAX_FORM_DEPTH = 32;

export interface RawBody {
  readonly kind: "json" | "form";
  readonly bytes: Uint8Array;
  readonly charset: Charset;
  /** A member that is a document, of JSON: see {@link ParsedBody.document}. Then the body may have as many values as documents have. */
  readonly document?: string;
}

export interface ParsedBody {
  readonly value: unknown;
  /** Where the member `context` is an object, how it was written: JavaScript's numbers are not all that JSON has. */
  readonly context?: ContextSource;
  /** Where the member that is a document is an object: its text, laid out; it is not in `value`. Numbers are as they were written. */
  readonly document?: string;
}

/** A notebook of plots has some hundred thousand. */
const DOCUMENT_LIMITS = { ...BODY_LIMITS, maxNodes: 3_000_000 };

/** The form has more parameters than are taken. */
class TooManyParametersError extends Error {
  override readonly name = "TooManyParametersError";
}

class LongParameterError extends Error {
  override readonly name = "LongParameterError";
}

/**
 * What was wrong with a body; `parameter`: the name of one is too long; `form`: deeper than a form may be; `encoding`: not text in its
 * encoding.
 */
export type Refusal = "limit" | "parameters" | "parameter" | "form" | "syntax" | "encoding";

function refusalOf(error: unknown): Refusal {
  if (error instanceof InvalidEncodingError) return "encoding";
  if (error instanceof JsonLimitError) return "limit";
  if (error instanceof TooManyParametersError) return "parameters";
  if (error instanceof LongParameterError) return "parameter";
  return error instanceof RangeError ? "form" : "syntax";
}

/** As {@link parseRawBody}; what is wrong with the body is an answer, too: one that can leave a thread. */
export function parseOrRefuse(body: RawBody): ParsedBody | { readonly refused: Refusal; readonly message: string } {
  try {
    return parseRawBody(body);
  } catch (error) {
    return { refused: refusalOf(error), message: (error as Error).message };
  }
}

/**
 * @throws {JsonSyntaxError} for what is not JSON, or no object or array.
 * @throws {JsonLimitError} for what is deeper, or has more values, than is taken. Nothing of it was parsed then.
 * @throws {InvalidEncodingError}
 * @throws {TooManyParametersError}
 * @throws {LongParameterError}
 * @throws {RangeError} for a form that is deeper than is taken.
 */
function parseRawBody({ kind, bytes, charset, document }: RawBody): ParsedBody {
  if (kind === "form") return parseForm(bytes, charset);
  if (document !== undefined) return parseWithDocument(decodeText(bytes, charset), bytes, document);
  const text = decodeText(bytes, charset);
  return parseJson(text, charset === "utf-8" ? bytes : new TextEncoder().encode(text));
}

function parseJson(text: string, bytes: Uint8Array): ParsedBody {
  if (bytes.length === 0) return { value: {} };
  const { kind } = scanJson(withoutMark(bytes), BODY_LIMITS);
  if (kind !== "object" && kind !== "array") throw new SyntaxError("a scalar");
  const value = JSON.parse(text) as { context?: unknown };
  if (kind === "array" || !isObject(value.context)) return { value };
  const context = membersOf(text).findLast(([name]) => name === "context")?.[1];
  return { value, ...(context !== undefined && { context: contextSource(context) }) };
}

function parseWithDocument(text: string, bytes: Uint8Array, name: string): ParsedBody {
  const { kind } = scanJson(withoutMark(bytes), DOCUMENT_LIMITS);
  if (kind !== "object") throw new SyntaxError("no object");
  const { [name]: document, ...value } = JSON.parse(text) as Record<string, unknown>;
  if (!isObject(document)) return { value: { ...value, [name]: document } };
  return { value, document: JSON.stringify((parseAsWritten(text) as typeof value)[name], null, 1) };
}

/** With numbers that are written again as they are: JavaScript would lose digits of some. For `JSON.stringify` alone. */
function parseAsWritten(text: string): unknown {
  return JSON.parse(text, (_name: string, value: unknown, ...[context]: readonly { readonly source: string }[]) =>
    typeof value === "number" && context !== undefined && String(value) !== context.source
      ? (JSON as unknown as { rawJSON(source: string): unknown }).rawJSON(context.source)
      : value,
  );
}

/** @returns null: the text is not the JSON of an object, or of one that is too complex. */
export function parseContext(text: string): { value: object; source: ContextSource } | null {
  if (text.trim() === "") return null;
  try {
    const { value } = parseJson(text, new TextEncoder().encode(text));
    return isObject(value) ? { value, source: contextSource(text) } : null;
  } catch (error) {
    if (error instanceof JsonLimitError || error instanceof SyntaxError || error instanceof JsonSyntaxError)
      return null;
    throw error;
  }
}

/** @param text a character for each byte. What only looks like an escape stays, as browsers have it. */
function percentDecoded(text: string): Uint8Array {
  const bytes = Buffer.from(text, "latin1");
  let length = 0;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    const escaped = byte === PERCENT ? hexByte(bytes[at + 1], bytes[at + 2]) : -1;
    if (escaped >= 0) at += 2;
    bytes[length++] = escaped >= 0 ? escaped : byte === PLUS ? SPACE : byte;
  }
  return bytes.subarray(0, length);
}

const [PERCENT, PLUS, SPACE] = [0x25, 0x2b, 0x20];

/** @returns negative: these are not two hexadecimal digits. */
function hexByte(high = 0, low = 0): number {
  const value = hexDigit(high) * 16 + hexDigit(low);
  return Number.isNaN(value) ? -1 : value;
}

function hexDigit(character: number): number {
  if (character >= 0x30 && character <= 0x39) return character - 0x30;
  const letter = character | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : Number.NaN;
}

/** As `express.urlencoded` with `extended`, but that bytes which are not in the encoding are an error, percent-encoded or not. */
function parseForm(bytes: Uint8Array, charset: Charset): ParsedBody {
  const { buffer, byteOffset, length } = withoutMark(bytes);
  const text = Buffer.from(buffer, byteOffset, length).toString("latin1");
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
  const decoder = (part: string, _decoder: unknown, _charset: unknown, kind?: "key" | "value") => {
    const decoded = decodeText(percentDecoded(part), charset);
    // A name of an object, as those of JSON's members are.
    if (kind === "key" && decoded.length > MAX_NAME_BYTES)
      throw new LongParameterError(`a name has more than ${MAX_NAME_BYTES} characters`);
    return decoded;
  };
  const value = qs.parse(text, { ...options, decoder, parameterLimit: MAX_PARAMETERS });
  // A form has texts only: an object is written as JSON, or with a parameter for each member.
  if (isObject(value.context)) return { value, context: contextSource(JSON.stringify(value.context)) };
  const context = typeof value.context === "string" ? parseContext(value.context) : null;
  return context === null ? { value } : { value: { ...value, context: context.value }, context: context.source };
}
