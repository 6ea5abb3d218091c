import type { Response } from "express";
import { ClientError } from "../../shared/errors.ts";
import { Tally } from "../../shared/tally.ts";
import { EVERYBODY } from "../../statistics/counters.ts";
import type { Statistics } from "../../statistics/statistics.ts";
import { EventStream } from "../event-stream.ts";

export interface StatisticsStreamOptions {
  readonly statistics: Statistics;
  readonly response: Response;
  /** Id of the one who asks. */
  readonly principal: string;
  /** Whose statistics the stream shows; undefined: those of all. */
  readonly visible: string | undefined;
  /** Least ms between two events of one stream; default 1000. */
  readonly minIntervalMs?: number;
  /**
   * Most ms between two events, so that clocks on the page go on, and what other servers of a
   * fleet have counted shows; default 15 s.
   */
  readonly heartbeatMs?: number;
  /** Most ms without a write, also while the store does not answer; default 15 s. */
  readonly commentMs?: number;
  /** Streams of one principal open at a time; default 20. */
  readonly maxStreams?: number;
}

/** Streams that are open, by principal. */
const openStreams = new WeakMap<Statistics, Tally<string>>();

/**
 * What `GET /api/dashboard/stats` replies, as server-sent events: one at once, then one whenever something changed that its
 * principal may see, and one every `heartbeatMs`.
 *
 * @throws {ClientError} `too_many_streams` while its principal has `maxStreams` open.
 */
export function streamStatistics({
  statistics,
  response,
  principal: id,
  visible: principal,
  minIntervalMs = 1000,
  heartbeatMs = 15_000,
  commentMs = 15_000,
  maxStreams = 20,
}: StatisticsStreamOptions): void {
  const open = openStreams.getOrInsertComputed(statistics, () => new Tally<string>());
  if (open.of(id) >= maxStreams) throw new ClientError("too_many_streams");
  const stream = new EventStream(response, commentMs);
  stream.open();
  let due: NodeJS.Timeout | undefined;
  let sentAtMs = 0;
  let dueAtMs = Number.POSITIVE_INFINITY;
  const schedule = (atMs: number) => {
    if (atMs >= dueAtMs) return;
    clearTimeout(due);
    dueAtMs = atMs;
    due = setTimeout(() => void send(), Math.max(0, atMs - performance.now()));
  };
  let isSending = false;
  const send = async () => {
    sentAtMs = performance.now();
    dueAtMs = Number.POSITIVE_INFINITY;
    if (isSending) return schedule(sentAtMs + minIntervalMs);
    isSending = true;
    try {
      // A client that does not read gets the newest numbers once it does, and costs no memory until then.
      if (!response.writableNeedDrain) {
        const { stats } = await statistics.snapshot(principal);
        stream.send({ success: true, stats, timestamp: new Date().toISOString() });
      }
    } catch {
      // The store refuses. No caller would catch what a timer throws; the page connects anew, and gets the error then.
      response.end();
    } finally {
      isSending = false;
    }
    if (!response.writableEnded && !response.destroyed) schedule(sentAtMs + heartbeatMs);
  };
  const onChange = (whose: string) => {
    // The event itself would tell of another principal's execution, whatever it says.
    if (principal === undefined || whose === principal || whose === EVERYBODY) schedule(sentAtMs + minIntervalMs);
  };

  open.add(id);
  response.once("close", () => {
    open.remove(id);
    clearTimeout(due);
    statistics.off("change", onChange);
  });
  statistics.on("change", onChange);
  void send();
}
