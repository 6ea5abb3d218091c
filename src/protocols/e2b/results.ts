import type { JsonText } from "../../shared/json/json-text.ts";
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
const CHART = "application/vnd.pyodide-express.chart+json";
const TABLE = "application/vnd.pyodide-express.table+json";

/** A MIME bundle as E2B's SDKs read it. */
export function toResult(bundle: JsonText, isMain: boolean): object {
  const result: Record<string, unknown> = { type: "result", is_main_result: isMain };
  const extra: Record<string, string> = {};
  for (const [type, data] of Object.entries(bundle.parseAll() as Record<string, string>)) {
    if (type === "text/plain") result.text = unquoted(data);
    else if (Object.hasOwn(TEXTS, type)) result[TEXTS[type as keyof typeof TEXTS]] = data;
    else if (type === "application/json") result.json = displayedJson(data);
    else if (type === CHART) result.chart = displayedJson(data);
    else if (type === TABLE) result.data = columnsOf(data);
    else extra[type] = data;
  }
  return Object.keys(extra).length > 0 ? { ...result, extra } : result;
}

export function toErrorEvent({ type, message, traceback }: ErrorInfo): object {
  return { type: "error", name: type, value: message, traceback };
}

/** As E2B shows a text: `repr` without its quotes. */
function unquoted(text: string): string {
  const quote = text[0];
  const isQuoted = text.length > 1 && (quote === "'" || quote === '"') && text.endsWith(quote);
  return isQuoted ? text.slice(1, -1) : text;
}

/** @returns undefined where it is no table of ours: user code may have written it. */
function columnsOf(text: string): unknown {
  const parsed = displayedJson(text)?.parse(TABLE_LIMITS);
  return parsed && "value" in parsed ? (parsed.value as { columns?: unknown } | null)?.columns : undefined;
}
