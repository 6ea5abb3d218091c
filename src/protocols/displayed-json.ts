import { contentOf, type Slices } from "../shared/json/json-members.ts";
import { JsonLimitError, JsonSyntaxError } from "../shared/json/json-scanner.ts";
import { JsonText } from "../shared/json/json-text.ts";

/** A figure of a million points. */
const LIMITS = { maxDepth: 200, maxNodes: 1_000_000, maxNameBytes: Number.POSITIVE_INFINITY };

/**
 * What code displays as JSON, as a member of a foreign message, where it is no text. It is looked through, while the event loop goes on, and
 * passed on as it is: to parse it and write it again is ten times the work, of the sandbox's choosing.
 *
 * @param text a member of a bundle.
 * @returns null: it is no JSON, or more than that.
 */
export async function displayedJson(text: JsonText, slices: Slices): Promise<JsonText | null> {
  const bytes = await contentOf(text, slices);
  try {
    return await JsonText.checkInSlices(bytes, LIMITS);
  } catch (error) {
    if (error instanceof JsonSyntaxError || error instanceof JsonLimitError) return null;
    throw error;
  } finally {
    // Of many small ones, too, not all are looked through in one turn.
    await slices.after(bytes.length);
  }
}
