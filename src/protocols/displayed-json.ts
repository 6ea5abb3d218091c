import { contentOf, Slices, textMembers } from "../shared/json/json-members.ts";
import { JsonFragments } from "../shared/json/json-parts.ts";
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

/** Of which members of a bundle something is said, by their MIME types. */
export interface MemberChoice {
  /** Whether it is JSON in the foreign message, where code has displayed some; else it is a text. */
  readonly isJson: (type: string) => boolean;
  /** Default: all are passed on. */
  readonly isPassedOn?: (type: string) => boolean;
}

/** A MIME bundle as an object of a foreign message. Made while the event loop goes on, however large the bundle is. */
export async function displayedData(
  bundle: JsonText,
  { isJson, isPassedOn = () => true }: MemberChoice,
  slices = new Slices(),
): Promise<JsonFragments> {
  const members: [string, JsonText][] = [];
  for (const [type, text] of await textMembers(bundle, slices)) {
    if (!isPassedOn(type)) continue;
    // Code displays what it likes.
    members.push([type, (isJson(type) ? await displayedJson(text, slices) : null) ?? text]);
  }
  return new JsonFragments(Object.fromEntries(members));
}
