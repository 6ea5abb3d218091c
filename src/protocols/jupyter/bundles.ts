import { Slices, textMembers } from "../../shared/json/json-members.ts";
import { JsonFragments } from "../../shared/json/json-parts.ts";
import type { JsonText } from "../../shared/json/json-text.ts";
import { displayedJson } from "../displayed-json.ts";

/** For clients that draw themselves: others would only store it. */
const OWN = "application/vnd.pyodide-express.";
const IS_JSON = /^application\/(?:json|.+\+json)$/;

/** A MIME bundle as a notebook has it: in it, what is JSON is no text. Made while the event loop goes on, however large the bundle is. */
export async function notebookData(bundle: JsonText, slices = new Slices()): Promise<JsonFragments> {
  const members: [string, JsonText][] = [];
  for (const [type, text] of await textMembers(bundle, slices)) {
    if (type.startsWith(OWN)) continue;
    // Code displays what it likes.
    members.push([type, (IS_JSON.test(type) ? await displayedJson(text, slices) : null) ?? text]);
  }
  return new JsonFragments(Object.fromEntries(members));
}
