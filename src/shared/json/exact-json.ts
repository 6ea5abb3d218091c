/** Of ES2026, which TypeScript does not describe yet. */
const { rawJSON } = JSON as unknown as { readonly rawJSON: (text: string) => unknown };

/**
 * As `JSON.parse`, but that a number which JavaScript would write otherwise (long integers, `1.0`) is a value of which `JSON.stringify` makes the text
 * that it had.
 */
export function parseExact(text: string): unknown {
  return JSON.parse(text, (_name, value: unknown, context?: { readonly source?: string }) =>
    typeof value === "number" && context?.source !== undefined && String(value) !== context.source
      ? rawJSON(context.source)
      : value,
  );
}
