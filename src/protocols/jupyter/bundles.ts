import type { JsonText } from "../../shared/json/json-text.ts";

/** For clients that draw themselves: others would only store it. */
const OWN = "application/vnd.pyodide-express.";
const IS_JSON = /^application\/(?:json|.+\+json)$/;

/** A MIME bundle as a notebook has it: in it, what is JSON is no text. */
export function notebookData(bundle: JsonText): Readonly<Record<string, unknown>> {
  const members = Object.entries(bundle.parseAll() as Record<string, string>);
  return Object.fromEntries(
    members
      .filter(([type]) => !type.startsWith(OWN))
      .map(([type, text]) => [type, IS_JSON.test(type) ? parsed(text) : text]),
  );
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Code displays what it likes.
    return text;
  }
}
