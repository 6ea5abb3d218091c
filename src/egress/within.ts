import { NetworkFailure } from "./failure.ts";

const MAX_TIMER_MS = 2 ** 31 - 1;

/** Waits for work, no longer than that. @throws `late` after `limitMs`. @throws {NetworkFailure} when the signal is aborted. */
export async function within<T>(
  work: Promise<T>,
  signal: AbortSignal,
  limitMs: number | null,
  late: NetworkFailure,
): Promise<T> {
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const onAbort = () => reject(new NetworkFailure("timeout", "the request was stopped"));
  const timer = limitMs === null ? undefined : setTimeout(() => reject(late), Math.min(limitMs, MAX_TIMER_MS));
  signal.addEventListener("abort", onAbort);
  if (signal.aborted) onAbort();
  // The loser of the race may still fail: without a handler that would end the process.
  work.catch(() => {});
  stopped.catch(() => {});
  try {
    return await Promise.race([work, stopped]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
}
