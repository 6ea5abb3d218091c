import { JsonFragments } from "../../shared/json/json-parts.ts";
import type { JsonText } from "../../shared/json/json-text.ts";
import { displayedJson } from "../displayed-json.ts";

/** For clients that draw themselves: others would only store it. */
const OWN = "application/vnd.pyodide-express.";
const IS_JSON = /^application\/(?:json|.+\+json)$/;

/** A MIME bundle as a notebook has it: in it, what is JSON is no text. */
export function notebookData(bundle: JsonText): JsonFragments {
  const members = Object.entries(bundle.parseAll() as Record<string, string>)
    .filter(([type]) => !type.startsWith(OWN))
    // Code displays what it likes.
    .map(([type, text]) => [type, (IS_JSON.test(type) ? displayedJson(text) : null) ?? text]);
  return new JsonFragments(Object.fromEntries(members));
}
