import { EventEmitter } from "node:events";
import { SerialQueue } from "../shared/serial-queue.ts";
import { steadyNowMs } from "../shared/steady-clock.ts";
import { EVERYBODY, HOUR_MS, MINUTE_MS, OTHER, type StatisticsEvent, TREND_HOURS } from "./counters.ts";
import { type DashboardStatistics, formatSuccessRate, formatUptime, type StatisticsSnapshot } from "./snapshot.ts";
import type { StatisticsStore } from "./store.ts";
import { quantileMs } from "./time-histogram.ts";

/** An execution that came to its end, by whichever endpoint. */
export interface ExecutionRecord {
  readonly type: "execution";
  readonly principal: string;
  readonly ip: string;
  readonly userAgent: string;
  readonly success: boolean;
  /** Class name of the exception; null if there was none. */
  readonly errorType: string | null;
  readonly executionTimeMs: number;
}

export interface StatisticsOptions {
  /** Closed with the statistics. */
  readonly store: StatisticsStore;
  /** ms since 1970; default: the steady clock. */
  readonly now?: () => number;
  /**
   * Most ms until recorded events are on the disk; default 100. A stop loses none, a server that is killed those of this time.
   */
  readonly writeEveryMs?: number;
  /** Most ms until they are in the counters, if those can be reached; default 1000. Whatever is read has them at once. */
  readonly foldEveryMs?: number;
}

/** Events held in memory until they are written, or the database takes them again. */
const MAX_BACKLOG_EVENTS = 10_000;
const RETRY_EVERY_MS = 1000;
const MAX_NAME_CHARACTERS = 256;
const TOP_NAMES = 10;
const MAX_ERROR_CATEGORIES = 50;
const RECENT_EXECUTIONS = 20;

const NONE: ReadonlyMap<string, number> = new Map();

/**
 * Who ran what, how often and for how long; see {@link StatisticsStore} for where that is kept.
 *
 * Emits `change` when something of a principal's, or of everybody's, was recorded or cleared; a listener that sends it on
 * should throttle.
 */
export class Statistics extends EventEmitter<{ change: [principal: string] }> {
  readonly #store: StatisticsStore;
  readonly #now: () => number;
  readonly #writeEveryMs: number;
  readonly #foldEveryMs: number;
  readonly #startedAtMs: number;
  /** What was recorded since the last write. */
  #backlog: StatisticsEvent[] = [];
  /** The database has refused the last write. */
  #isRefused = false;
  #writeTimer: NodeJS.Timeout | undefined;
  /** Until events are in the counters, or database and counters are tried again. */
  #foldTimer: NodeJS.Timeout | undefined;
  readonly #updates = new SerialQueue();
  #closed = false;

  constructor({ store, now = steadyNowMs, writeEveryMs = 100, foldEveryMs = 1000 }: StatisticsOptions) {
    super();
    // One listener for each dashboard that is open.
    this.setMaxListeners(0);
    this.#now = now;
    this.#writeEveryMs = writeEveryMs;
    this.#foldEveryMs = foldEveryMs;
    this.#startedAtMs = now();
    this.#store = store;
    // What was recorded before a restart.
    void this.#update();
  }

  /** Events that wait in memory: those of the last moment, and all while the database refuses them (a full disk). */
  get waitingEvents(): number {
    return this.#backlog.length;
  }

  /** Never throws: statistics must not fail an execution. */
  record({ type, principal, ip, userAgent, success, errorType, executionTimeMs }: ExecutionRecord): void {
    this.#record({
      type,
      principal,
      ip: printable(ip),
      agent: printable(userAgent),
      success,
      error: success ? null : printable(errorType ?? "Error"),
      timeMs: Number.isFinite(executionTimeMs) ? Math.max(0, executionTimeMs) : 0,
    });
  }

  recordPackage(principal: string): void {
    this.#record({ type: "package", principal, ip: "", agent: "", success: true, error: null, timeMs: 0 });
  }

  recordUpload(principal: string): void {
    this.#record({ type: "upload", principal, ip: "", agent: "", success: true, error: null, timeMs: 0 });
  }

  /**
   * @param principal whose statistics; default: everybody's, for those who may see that.
   * @throws what the store throws: {@link ClientError} 503 `store_unavailable` where counters are in Redis.
   */
  async snapshot(principal: string = EVERYBODY): Promise<StatisticsSnapshot> {
    await this.#update();
    const counters = await this.#store.countersOf(principal);
    const latest = await this.#store.latestExecutions(principal, RECENT_EXECUTIONS);
    const total = (name: string) => counters.get("total")?.get(name) ?? 0;
    const executions = total("executions");
    const averageExecutionTime = executions === 0 ? 0 : round(total("timeMs") / executions);
    const lastHourExecutions = this.#sumOfLastHour(counters.get("minute"));
    const lastHourSuccesses = this.#sumOfLastHour(counters.get("minuteSuccess"));
    const times = [...(counters.get("time") ?? NONE)]
      .map(([bucket, count]) => [Number(bucket), count] as const)
      .sort(([a], [b]) => a - b);
    const uptimeSeconds = Math.max(0, Math.floor((this.#now() - this.#startedAtMs) / 1000));
    const errors = mostFrequent(counters.get("error"));
    const stats: DashboardStatistics = {
      overview: {
        totalExecutions: executions,
        successRate: formatSuccessRate(total("successes"), executions),
        averageExecutionTime,
        executionTimePercentiles: {
          p50: round(quantileMs(times, 0.5)),
          p95: round(quantileMs(times, 0.95)),
          p99: round(quantileMs(times, 0.99)),
        },
        uptimeSeconds,
        uptimeHuman: formatUptime(uptimeSeconds),
      },
      recent: {
        lastHourExecutions,
        recentSuccessRate: formatSuccessRate(lastHourSuccesses, lastHourExecutions),
        packagesInstalled: total("packages"),
        filesUploaded: total("uploads"),
      },
      topIPs: topOf(mostFrequent(counters.get("ip"))).map(([ip, count]) => ({ ip, count })),
      topErrors: topOf(errors).map(([error, count]) => ({ error, count })),
      userAgents: topOf(mostFrequent(counters.get("agent"))).map(([agent, count]) => ({ agent, count })),
      hourlyTrend: this.#trend(counters.get("hour")),
      recentExecutions: latest.map((execution) => ({
        timestamp: new Date(execution.atMs).toISOString(),
        principal: execution.principal,
        success: execution.success,
        error: execution.error,
        executionTime: round(execution.timeMs),
      })),
    };
    return {
      stats,
      executionStats: {
        ...stats,
        totalExecutions: executions,
        successRate: executions === 0 ? 0 : total("successes") / executions,
        averageExecutionTime,
        errorCategories: categories(errors),
      },
    };
  }

  /**
   * Forgets one principal's statistics, which leaves everybody's as they are; without a principal, all there are.
   *
   * @throws what the store throws.
   */
  async clear(principal: string = EVERYBODY): Promise<void> {
    await this.#update();
    await this.#store.clear(principal);
    this.emit("change", principal);
  }

  /** Writes what waits, brings the counters up to date if they can be reached, closes the store. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#update();
    clearTimeout(this.#writeTimer);
    clearTimeout(this.#foldTimer);
    this.#store.close();
  }

  #record(event: Omit<StatisticsEvent, "atMs">): void {
    if (this.#closed) return;
    if (this.#backlog.length < MAX_BACKLOG_EVENTS) this.#backlog.push({ ...event, atMs: this.#now() });
    this.#writeTimer ??= setTimeout(() => this.#write(), this.#writeEveryMs).unref();
    this.emit("change", event.principal);
  }

  #insertBacklog(): boolean {
    try {
      if (this.#backlog.length > 0) this.#store.insert(this.#backlog);
      this.#backlog = [];
      this.#isRefused = false;
    } catch {
      this.#isRefused = true;
    }
    return !this.#isRefused;
  }

  #write(): void {
    this.#writeTimer = undefined;
    // A database that refuses is tried by the other timer alone.
    if (!this.#isRefused) this.#insertBacklog();
    this.#foldTimer ??= this.#schedule(this.#isRefused ? RETRY_EVERY_MS : this.#foldEveryMs);
  }

  #schedule(afterMs: number): NodeJS.Timeout {
    return setTimeout(() => {
      this.#foldTimer = undefined;
      void this.#update();
    }, afterMs).unref();
  }

  /** One after another, and each with all that was recorded before it. Never rejects. */
  #update(): Promise<void> {
    return this.#updates.run(() => this.#fold());
  }

  /** Where database or counters refuse, what is recorded stays where it is, and a timer tries again. */
  async #fold(): Promise<void> {
    try {
      if (this.#insertBacklog()) {
        await this.#store.fold(this.#now());
        return;
      }
    } catch {}
    if (!this.#closed) this.#foldTimer ??= this.#schedule(RETRY_EVERY_MS);
  }

  #trend(hours: ReadonlyMap<string, number> = NONE): number[] {
    const oldest = Math.floor(this.#now() / HOUR_MS) - TREND_HOURS + 1;
    return Array.from({ length: TREND_HOURS }, (_, i) => hours.get(String(oldest + i)) ?? 0);
  }

  #sumOfLastHour(minutes: ReadonlyMap<string, number> = NONE): number {
    const newest = Math.floor(this.#now() / MINUTE_MS);
    let sum = 0;
    for (const [minute, count] of minutes) if (Number(minute) > newest - 60 && Number(minute) <= newest) sum += count;
    return sum;
  }
}

function mostFrequent(names: ReadonlyMap<string, number> = NONE): [string, number][] {
  return [...names].sort(([a, countA], [b, countB]) => countB - countA || (a < b ? -1 : 1));
}

const topOf = (names: readonly [string, number][]) => names.filter(([name]) => name !== OTHER).slice(0, TOP_NAMES);

function categories(errors: readonly [string, number][]): Record<string, number> {
  const named = errors.filter(([name]) => name !== OTHER).slice(0, MAX_ERROR_CATEGORIES);
  const total = errors.reduce((sum, [, count]) => sum + count, 0);
  const other = total - named.reduce((sum, [, count]) => sum + count, 0);
  // fromEntries defines its properties, so that an exception class named __proto__ is one like any other.
  return Object.fromEntries(other > 0 ? [...named, [OTHER, other] as const] : named);
}

/** Text that a client chose, as a name of a counter: bounded, and with nothing in it that a terminal acts upon. */
function printable(text: string): string {
  return text.slice(0, MAX_NAME_CHARACTERS).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, "\ufffd");
}

const round = (timeMs: number) => Math.round(timeMs * 100) / 100;
