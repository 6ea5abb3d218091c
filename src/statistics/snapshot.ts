/** Numbers the dashboard shows; `/api/dashboard/stats` sends it as `stats`. */
export interface DashboardStatistics {
  readonly overview: {
    readonly totalExecutions: number;
    /** Percent with one decimal, `"66.7"`; 0 while there is none. */
    readonly successRate: string | 0;
    /** ms */
    readonly averageExecutionTime: number;
    /** ms, to ±2.5 %. */
    readonly executionTimePercentiles: { readonly p50: number; readonly p95: number; readonly p99: number };
    readonly uptimeSeconds: number;
    /** `1m 7s` */
    readonly uptimeHuman: string;
  };
  readonly recent: {
    readonly lastHourExecutions: number;
    /** Of the last hour, as in `overview`. */
    readonly recentSuccessRate: string | 0;
    /** Since the statistics were last cleared. */
    readonly packagesInstalled: number;
    readonly filesUploaded: number;
  };
  /** Ten at most, most first. */
  readonly topIPs: readonly { readonly ip: string; readonly count: number }[];
  readonly topErrors: readonly { readonly error: string; readonly count: number }[];
  readonly userAgents: readonly { readonly agent: string; readonly count: number }[];
  /** Executions in each clock hour (UTC); 24 items, the last one is the current hour. */
  readonly hourlyTrend: readonly number[];
  /** Newest first. */
  readonly recentExecutions: readonly RecentExecution[];
}

export interface RecentExecution {
  readonly timestamp: string;
  readonly principal: string;
  readonly success: boolean;
  readonly error: string | null;
  /** ms */
  readonly executionTime: number;
}

/** What `/api/stats` sends as `executionStats`: the flat fields of one generation of clients, and those of the other. */
export interface ExecutionStatistics extends DashboardStatistics {
  readonly totalExecutions: number;
  /** A fraction, 0.667; 0 while there is none. */
  readonly successRate: number;
  /** ms */
  readonly averageExecutionTime: number;
  /** Exception class → count; `(other)` holds what is too rare to be kept by name. */
  readonly errorCategories: Readonly<Record<string, number>>;
}

export interface StatisticsSnapshot {
  readonly stats: DashboardStatistics;
  readonly executionStats: ExecutionStatistics;
}

/** Percent with one decimal, as the contract has it. */
export function formatSuccessRate(successes: number, executions: number): string | 0 {
  return executions === 0 ? 0 : ((successes / executions) * 100).toFixed(1);
}

/** `67` → `1m 7s`, `90061` → `1d 1h 1m 1s`. */
export function formatUptime(uptimeSeconds: number): string {
  const parts: [number, string][] = [
    [Math.floor(uptimeSeconds / 86_400), "d"],
    [Math.floor(uptimeSeconds / 3600) % 24, "h"],
    [Math.floor(uptimeSeconds / 60) % 60, "m"],
    [Math.floor(uptimeSeconds) % 60, "s"],
  ];
  const largest = parts.findIndex(([amount]) => amount > 0);
  return parts
    .slice(largest)
    .map(([amount, unit]) => `${amount}${unit}`)
    .join(" ");
}
