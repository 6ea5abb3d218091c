/** How long to wait before the next attempt, ms: twice as long after each failure. @param failures so far, from 0. */
export function backoffMs(
  failures: number,
  { firstMs, longestMs }: { readonly firstMs: number; readonly longestMs: number },
): number {
  return Math.min(longestMs, firstMs * 2 ** failures);
}
