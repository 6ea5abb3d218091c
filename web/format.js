/** @param {number} bytes */
export function formatBytes(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB"];
  let amount = bytes / 1000;
  let unit = 0;
  for (; amount >= 999.95 && unit < units.length - 1; unit++) amount /= 1000;
  return `${amount.toFixed(1)} ${units[unit]}`;
}

/** @param {number} ms */
export function formatMs(ms) {
  if (ms >= 999.5) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms >= 100 ? Math.round(ms) : Number(ms.toFixed(1))} ms`;
}

/**
 * `1 row`, `2 rows`.
 *
 * @param {number} amount
 * @param {string} noun
 */
export function counted(amount, noun) {
  return `${amount} ${noun}${amount === 1 ? "" : "s"}`;
}
