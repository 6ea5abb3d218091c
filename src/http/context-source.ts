/** The texts that values of `context` were written as. */
const sources = new WeakMap<object, string>();

/** How an object was written in a body; undefined: it came in no body. */
export function sourceOf(value: object): string | undefined {
  return sources.get(value);
}

export function rememberSource(value: object, source: string): void {
  sources.set(value, source);
}
