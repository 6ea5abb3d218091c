import type { Logger } from "pino";

/** How often one fault is a line of the log, ms; those between are counted. */
const REPEAT_MS = 60_000;
const MAX_FAULTS = 100;
const MAX_FRAMES = 20;

interface Fault {
  readonly loggedAtMs: number;
  /** Those that were not logged since. */
  count: number;
}

/**
 * Errors that nothing caught: of a promise that is not awaited, of a socket's event. Each is a bug, and none is a reason for all callers to
 * lose the server: what it serves are requests and sandboxes that know nothing of each other. It is logged, and the server goes on.
 *
 * What an error says is not logged, since it may hold a client's text or a key: its class, its code and where it came from are.
 *
 * @returns a function that has such errors end the process again.
 */
export function surviveUncaught(logger: Logger): () => void {
  const faults = new Map<string, Fault>();
  const log = (msg: string) => (error: unknown) => {
    const fault = describe(error);
    const key = JSON.stringify([msg, fault]);
    const known = faults.get(key);
    const nowMs = performance.now();
    if (known !== undefined && nowMs - known.loggedAtMs < REPEAT_MS) {
      known.count++;
      return;
    }
    if (faults.size >= MAX_FAULTS) faults.clear();
    faults.set(key, { loggedAtMs: nowMs, count: 0 });
    logger.error({ ...fault, ...(known && { notLogged: known.count }) }, msg);
  };
  const onRejection = log(
    "A promise was rejected, and nothing was waiting for it. The server goes on; please report this.",
  );
  const onException = log("An error was thrown, and nothing caught it. The server goes on; please report this.");
  process.on("unhandledRejection", onRejection);
  process.on("uncaughtException", onException);
  return () => {
    process.off("unhandledRejection", onRejection);
    process.off("uncaughtException", onException);
  };
}

function describe(error: unknown): { readonly type: string; readonly code?: string; readonly at: readonly string[] } {
  if (!(error instanceof Error)) return { type: typeof error, at: [] };
  const { code } = error as NodeJS.ErrnoException;
  const lines = (error.stack ?? "").split("\n").filter((line) => /^ {4}at /.test(line));
  return {
    type: error.constructor.name,
    ...(typeof code === "string" && /^\w{1,64}$/.test(code) && { code }),
    at: lines.slice(0, MAX_FRAMES).map((line) => line.trim().slice(0, 300)),
  };
}
