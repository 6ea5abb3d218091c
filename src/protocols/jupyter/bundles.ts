import type { Slices } from "../../shared/json/json-members.ts";
import type { JsonFragments } from "../../shared/json/json-parts.ts";
import type { JsonText } from "../../shared/json/json-text.ts";
import { displayedData, type MemberChoice } from "../displayed-json.ts";

/** For clients that draw themselves: others would only store it. */
const OWN = "application/vnd.pyodide-express.";
const IS_JSON = /^application\/(?:json|.+\+json)$/;
const CHOICE: MemberChoice = { isJson: (type) => IS_JSON.test(type), isPassedOn: (type) => !type.startsWith(OWN) };

/** A MIME bundle as a notebook has it: in it, what is JSON is no text. Made as {@link displayedData}. */
export async function notebookData(bundle: JsonText, slices?: Slices): Promise<JsonFragments> {
  return await displayedData(bundle, CHOICE, slices);
}
