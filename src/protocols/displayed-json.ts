import { JsonLimitError, JsonSyntaxError } from "../shared/json/json-scanner.ts";
import { JsonText } from "../shared/json/json-text.ts";

/** As {@link JsonText.check} with these, some 25 ms: a figure of a million points. */
const LIMITS = { maxDepth: 200, maxNodes: 1_000_000, maxNameBytes: Number.POSITIVE_INFINITY };

/**
 * What code displays as JSON, as a member of a foreign message, where it is no text. It is looked through and goes on as it is: to parse it and
 * write it again is ten times the work, of the sandbox's choosing.
 *
 * @returns null: it is no JSON, or more than that.
 */
export function displayedJson(text: string): JsonText | null {
  try {
    return JsonText.check(Buffer.from(text), LIMITS);
  } catch (error) {
    if (error instanceof JsonSyntaxError || error instanceof JsonLimitError) return null;
    throw error;
  }
}
