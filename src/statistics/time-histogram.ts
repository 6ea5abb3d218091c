/**
 * A histogram of times with buckets of equal ratio: bounded (some 360 buckets from 10 µs to ten minutes), and exact to
 * ±2.5 % at every scale, which a sample of the values is not for p99.
 */
const RATIO = 1.05;
const SMALLEST_MS = 0.01;
const LARGEST_MS = 600_000;

/** The bucket of a time: 0 up to 10 µs, then one more for every 5 %. */
export function bucketOf(timeMs: number): number {
  const bounded = Math.min(Math.max(timeMs, SMALLEST_MS), LARGEST_MS);
  return Math.ceil(Math.log(bounded / SMALLEST_MS) / Math.log(RATIO));
}

/** Middle of a bucket's bounds, ms. */
function timeOf(bucket: number): number {
  return bucket === 0 ? SMALLEST_MS : (SMALLEST_MS * (RATIO ** (bucket - 1) + RATIO ** bucket)) / 2;
}

/**
 * @param counts how often each bucket was met, ordered by bucket.
 * @param quantile 0.95 for p95.
 * @returns ms; 0 if nothing was counted.
 */
export function quantileMs(counts: readonly (readonly [bucket: number, count: number])[], quantile: number): number {
  const total = counts.reduce((sum, [, count]) => sum + count, 0);
  let rank = Math.max(1, Math.ceil(quantile * total));
  for (const [bucket, count] of counts) {
    rank -= count;
    if (rank <= 0) return timeOf(bucket);
  }
  return 0;
}
