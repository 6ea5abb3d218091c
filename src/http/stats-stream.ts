import { type Response, Router } from "express";
import type { Statistics } from "../audit/statistics.ts";
import { ClientError } from "../errors.ts";
import { type Principal, principalOf } from "./authentication.ts";

export interface StatisticsStreamOptions {
  readonly statistics: Statistics;
  /** Least ms between two events of one stream; default 1000. */
  readonly minIntervalMs?: number;
  /** Most ms between two events, so that proxies keep the connection and clocks on the page go on; default 15 s. */
  readonly heartbeatMs?: number;
  /** Streams open at a time; default 100. */
  readonly maxStreams?: number;
}

/** Whose statistics a principal sees: with `admin` everybody's (undefined), else its own. */
export function visibleStatistics(principal: Principal): string | undefined {
  return principal.scopes.has("admin") ? undefined : principal.id;
}

/**
 * `GET /api/dashboard/stats/stream`: what `GET /api/dashboard/stats` replies, as server-sent events: one at once, then one
 * whenever something changed. Runs behind `authenticate` and `requireScope("stats")`.
 *
 * Fails with {@link ClientError} 429 `too_many_streams` while `maxStreams` are open.
 */
export function statisticsStreamRoutes({
  statistics,
  minIntervalMs = 1000,
  heartbeatMs = 15_000,
  maxStreams = 100,
}: StatisticsStreamOptions): Router {
  let openStreams = 0;
  const router = Router();
  router.get("/api/dashboard/stats/stream", (_request, response) => {
    if (openStreams >= maxStreams) {
      throw new ClientError(429, "too_many_streams", "Too many dashboards are open", { retryAfterS: 10 });
    }
    const principal = visibleStatistics(principalOf(response));
    let due: NodeJS.Timeout | undefined;
    let sentAtMs = 0;
    let dueAtMs = Number.POSITIVE_INFINITY;
    const schedule = (atMs: number) => {
      if (atMs >= dueAtMs) return;
      clearTimeout(due);
      dueAtMs = atMs;
      due = setTimeout(send, Math.max(0, atMs - performance.now()));
    };
    const send = () => {
      // A client that does not read gets the newest numbers once it does, and costs no memory until then.
      if (!response.writableNeedDrain && !writeEvent(response, statistics, principal)) return;
      sentAtMs = performance.now();
      dueAtMs = Number.POSITIVE_INFINITY;
      schedule(sentAtMs + heartbeatMs);
    };
    const onChange = () => schedule(sentAtMs + minIntervalMs);

    openStreams += 1;
    response.once("close", () => {
      openStreams -= 1;
      clearTimeout(due);
      statistics.off("change", onChange);
    });
    // nginx holds events back unless it is told not to.
    response.set({
      "Content-Type": "text/event-stream; charset=utf-8",
      "Cache-Control": "no-store",
      "X-Accel-Buffering": "no",
    });
    response.flushHeaders();
    statistics.on("change", onChange);
    send();
  });
  return router;
}

/** @returns false if there is nothing to send any more: a timer has nobody to throw to, and the page connects anew. */
function writeEvent(response: Response, statistics: Statistics, principal: string | undefined): boolean {
  try {
    const { stats } = statistics.snapshot(principal);
    response.write(`data: ${JSON.stringify({ success: true, stats, timestamp: new Date().toISOString() })}\n\n`);
    return true;
  } catch {
    response.end();
    return false;
  }
}
