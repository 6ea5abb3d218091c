/** Inputs for each property: few within `npm test`, `FUZZ_RUNS=100000` for a release. */
export const FUZZ_RUNS = Number(process.env.FUZZ_RUNS ?? 300);
export const FUZZ_TIMEOUT_MS = 60_000 + FUZZ_RUNS * 100;
