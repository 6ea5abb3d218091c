import { bucketOf } from "./time-histogram.ts";

/** Something that happened. `ip`, `agent`, `error` and `timeMs` say something only of an execution. */
export interface StatisticsEvent {
  readonly atMs: number;
  readonly type: "execution" | "package" | "upload";
  readonly principal: string;
  readonly ip: string;
  readonly agent: string;
  readonly success: boolean;
  readonly error: string | null;
  readonly timeMs: number;
}

/** Kind → name → count. */
export type Counters = ReadonlyMap<string, ReadonlyMap<string, number>>;

/** Stands for all principals together, and is none. */
export const EVERYBODY = "";
/** The name that holds what has no name of its own any more. */
export const OTHER = "(other)";
export const MINUTE_MS = 60_000;
export const HOUR_MS = 3_600_000;
export const TREND_HOURS = 24;

/** Kinds whose names clients choose. Over twice {@link MAX_NAMES}, all but so many of the most frequent become one. */
export const NAMED_KINDS: readonly string[] = ["ip", "agent", "error"];
export const MAX_NAMES = 500;
export const KINDS: readonly string[] = [...NAMED_KINDS, "total", "time", "hour", "minute", "minuteSuccess"];

/** Kinds whose names are times, with the first name that is still shown. */
export function shownSince(nowMs: number): ReadonlyMap<string, number> {
  const minute = Math.floor((nowMs - HOUR_MS) / MINUTE_MS);
  return new Map([
    ["hour", Math.floor(nowMs / HOUR_MS) - TREND_HOURS],
    ["minute", minute],
    ["minuteSuccess", minute],
  ]);
}

/** Principal → kind → name → count, each event counted for its principal and for everybody. */
export function sumUp(events: readonly StatisticsEvent[]): Map<string, Map<string, Map<string, number>>> {
  const sums = new Map<string, Map<string, Map<string, number>>>();
  for (const event of events) {
    for (const principal of new Set([EVERYBODY, event.principal])) {
      let kinds = sums.get(principal);
      if (kinds === undefined) {
        kinds = new Map();
        sums.set(principal, kinds);
      }
      for (const [kind, name, count] of countsOf(event)) {
        const names = getOrMake(kinds, kind);
        names.set(String(name), (names.get(String(name)) ?? 0) + count);
      }
    }
  }
  return sums;
}

function countsOf(event: StatisticsEvent): [kind: string, name: string | number, count: number][] {
  if (event.type === "package") return [["total", "packages", 1]];
  if (event.type === "upload") return [["total", "uploads", 1]];
  const minute = Math.floor(event.atMs / MINUTE_MS);
  return [
    ["total", "executions", 1],
    ["total", "timeMs", event.timeMs],
    ["time", bucketOf(event.timeMs), 1],
    ["hour", Math.floor(event.atMs / HOUR_MS), 1],
    ["minute", minute, 1],
    ["ip", event.ip, 1],
    ["agent", event.agent, 1],
    ["total", "successes", Number(event.success)],
    ["minuteSuccess", minute, Number(event.success)],
    ...(event.success ? [] : [["error", event.error ?? "Error", 1] satisfies [string, string, number]]),
  ];
}

export function getOrMake(groups: Map<string, Map<string, number>>, key: string): Map<string, number> {
  let group = groups.get(key);
  if (group === undefined) {
    group = new Map();
    groups.set(key, group);
  }
  return group;
}
