import { type Slices, textMembers } from "../../shared/json/json-members.ts";
import { JsonFragments } from "../../shared/json/json-parts.ts";
import { JsonText } from "../../shared/json/json-text.ts";
import type { ErrorInfo } from "../../wire/guest-messages.ts";
import { displayedJson } from "../displayed-json.ts";

const TEXTS = {
  "text/html": "html",
  "text/markdown": "markdown",
  "image/svg+xml": "svg",
  "image/png": "png",
  "image/jpeg": "jpeg",
  "application/pdf": "pdf",
  "text/latex": "latex",
  "application/javascript": "javascript",
} as const;
/** No table of ours has more, see `sandbox_runner/tables.py`. */
const TABLE_LIMITS = { maxBytes: 2 * 1024 * 1024, maxNodes: 200_000 };
const QUOTE = Buffer.from('"');
/** As they are written in JSON. */
const REPR_QUOTES = [Buffer.from("'"), Buffer.from('\\"')];
const CHART = "application/vnd.pyodide-express.chart+json";
const TABLE = "application/vnd.pyodide-express.table+json";

/** A MIME bundle as E2B's SDKs read it. Made while the event loop goes on, however large the bundle is. */
export async function toResult(bundle: JsonText, isMain: boolean, slices: Slices): Promise<object> {
  const result: Record<string, unknown> = { type: "result", is_main_result: isMain };
  const extra: [string, JsonText][] = [];
  for (const [type, data] of await textMembers(bundle, slices)) {
    if (type === "text/plain") result.text = unquoted(data);
    else if (Object.hasOwn(TEXTS, type)) result[TEXTS[type as keyof typeof TEXTS]] = data;
    else if (type === "application/json") result.json = await displayedJson(data, slices);
    else if (type === CHART) result.chart = await displayedJson(data, slices);
    else if (type === TABLE) result.data = await columnsOf(data, slices);
    else extra.push([type, data]);
  }
  return extra.length > 0 ? { ...result, extra: new JsonFragments(Object.fromEntries(extra)) } : result;
}

export function toErrorEvent({ type, message, traceback }: ErrorInfo): object {
  return { type: "error", name: type, value: message, traceback };
}

/** As E2B shows a text: `repr` without its quotes. */
function unquoted(text: JsonText): JsonText {
  const { bytes } = text;
  for (const quote of REPR_QUOTES) {
    const begin = 1 + quote.length;
    const end = bytes.length - begin;
    if (begin > end || !quote.equals(bytes.subarray(1, begin)) || !quote.equals(bytes.subarray(end, -1))) continue;
    return JsonText.scannedText(Buffer.concat([QUOTE, bytes.subarray(begin, end), QUOTE]));
  }
  return text;
}

/** @returns undefined where it is no table of ours: user code may have written it. */
async function columnsOf(text: JsonText, slices: Slices): Promise<unknown> {
  const parsed = (await displayedJson(text, slices))?.parse(TABLE_LIMITS);
  return parsed && "value" in parsed ? (parsed.value as { columns?: unknown } | null)?.columns : undefined;
}
