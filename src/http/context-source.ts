import { JsonLimitError } from "../shared/json/json-scanner.ts";
import { compactJson } from "../shared/json/json-source.ts";

const MAX_CONTEXT_CHARACTERS = 10_000;

/** The JSON text that a `context` was written as, compact; or why it is refused. */
export type ContextSource = { readonly json: string } | { readonly refused: string };

/** The sources of values of `context`. */
const sources = new WeakMap<object, ContextSource>();

/** How a value of `context` was written in a body; undefined: it came in no body. */
export function sourceOf(value: object): ContextSource | undefined {
  return sources.get(value);
}

export function rememberSource(value: object, source: ContextSource): void {
  sources.set(value, source);
}

/** @param text the JSON of an object, of any length: takes time in proportion to it. */
export function contextSource(text: string): ContextSource {
  try {
    const json = compactJson(text, MAX_CONTEXT_CHARACTERS);
    if (json !== null) return { json };
    return { refused: `Context too large. Maximum size: ${MAX_CONTEXT_CHARACTERS} characters.` };
  } catch (error) {
    if (!(error instanceof JsonLimitError)) throw error;
    return { refused: `Context numbers must be finite: ${error.message}.` };
  }
}
