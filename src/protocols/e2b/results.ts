import type { JsonText } from "../../shared/json/json-text.ts";
import type { ErrorInfo } from "../../wire/guest-messages.ts";

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
const CHART = "application/vnd.pyodide-express.chart+json";
const TABLE = "application/vnd.pyodide-express.table+json";

/** A MIME bundle as E2B's SDKs read it. */
export function toResult(bundle: JsonText, isMain: boolean): object {
  const result: Record<string, unknown> = { type: "result", is_main_result: isMain };
  const extra: Record<string, string> = {};
  for (const [type, data] of Object.entries(bundle.parseAll() as Record<string, string>)) {
    if (type === "text/plain") result.text = unquoted(data);
    else if (Object.hasOwn(TEXTS, type)) result[TEXTS[type as keyof typeof TEXTS]] = data;
    else if (type === "application/json") result.json = parsed(data);
    else if (type === CHART) result.chart = parsed(data);
    else if (type === TABLE) result.data = (parsed(data) as { columns?: unknown } | null)?.columns;
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

/** User code may have written it. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
