/**
 * Waits for something, unless the one who waits is gone: the work itself goes on, or ends by a signal of its own.
 *
 * @throws the signal's reason as soon as it is aborted.
 */
export async function whileWaiting<T>(signal: AbortSignal, work: T | Promise<T>): Promise<T> {
  const gone = Promise.withResolvers<never>();
  const leave = () => gone.reject(signal.reason);
  signal.addEventListener("abort", leave, { once: true });
  if (signal.aborted) leave();
  try {
    return await Promise.race([work, gone.promise]);
  } finally {
    signal.removeEventListener("abort", leave);
  }
}
