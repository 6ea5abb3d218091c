/**
 * Scans are products: each structure with each operation, each open file with each move. The nightly run tries all pairs
 * (`SCAN_ALL=1`); `npm test` an even sample, in which each member of either side comes about equally often.
 */
const ALL = process.env.SCAN_ALL === "1";

/** Whether the pair of the `i`th of one side and the `j`th of the other, of `count`, is part of this run. */
export const isSampled = (i: number, j: number, count: number): boolean => ALL || i % count === j;
