import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

/** How an execution ended (`ExecutionStatus`, where `completed` is `success`), or that it never began. */
export type ExecutionOutcome =
  | "success"
  | "error"
  | "timeout"
  | "cpu_limit"
  | "tool_wait_expired"
  | "cancelled"
  | "sandbox_died"
  | "tool_call_required"
  | "rejected";

/** Asked when Prometheus asks, so that a gauge is never behind. */
export interface MetricsSources {
  /** Executions that wait for a sandbox. */
  readonly queueDepth: () => number;
  /** State → number of sandboxes: `{ starting: 1, idle: 3, busy: 2 }`. Name every state, or a gauge stays as it was. */
  readonly sandboxes: () => Readonly<Record<string, number>>;
  readonly securityLogHealthy: () => boolean;
  /** As `/ready` says. */
  readonly ready: () => boolean;
  readonly degraded: () => boolean;
}

/** Enough for every route and environment there is; more are folded into `other`. */
const MAX_LABEL_VALUES = 200;
/** From a rewind behind `1 + 1` to the longest timeout. */
const TIME_BUCKETS_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

/**
 * What `/metrics` shows. Labels are bounded: nothing that a client chose makes a time series without end.
 */
export class Metrics {
  readonly #registry = new Registry();
  readonly #executions: Counter<"outcome" | "environment">;
  readonly #executionSeconds: Histogram<"outcome" | "environment">;
  readonly #processorSeconds: Counter<"principal">;
  readonly #rewinds: Counter;
  readonly #discards: Counter<"reason">;
  readonly #requests: Counter<"method" | "route" | "status">;
  readonly #environments = boundedLabel(MAX_LABEL_VALUES);
  readonly #reasons = boundedLabel(MAX_LABEL_VALUES);
  readonly #routes = boundedLabel(MAX_LABEL_VALUES);
  readonly #methods = boundedLabel(10);
  readonly #principals = boundedLabel(MAX_LABEL_VALUES);

  constructor(sources: MetricsSources) {
    const registers = [this.#registry];
    collectDefaultMetrics({ register: this.#registry });
    this.#executions = new Counter({
      name: "pyodide_executions_total",
      help: "Executions that came to an end",
      labelNames: ["outcome", "environment"],
      registers,
    });
    this.#executionSeconds = new Histogram({
      name: "pyodide_execution_duration_seconds",
      help: "Time that code ran, without waiting in the queue",
      labelNames: ["outcome", "environment"],
      buckets: TIME_BUCKETS_S,
      registers,
    });
    this.#processorSeconds = new Counter({
      name: "pyodide_execution_cpu_seconds_total",
      help: "Processor time of executions, where the system tells it",
      labelNames: ["principal"],
      registers,
    });
    this.#rewinds = new Counter({
      name: "pyodide_rewinds_total",
      help: "Sandboxes rewound after an execution",
      registers,
    });
    this.#discards = new Counter({
      name: "pyodide_discards_total",
      help: "Sandboxes discarded instead of rewound",
      labelNames: ["reason"],
      registers,
    });
    this.#requests = new Counter({
      name: "http_requests_total",
      help: "HTTP requests answered",
      labelNames: ["method", "route", "status"],
      registers,
    });
    new Gauge({
      name: "pyodide_ready",
      help: "1 while all that is defined can be run",
      registers,
      collect() {
        this.set(Number(sources.ready()));
      },
    });
    new Gauge({
      name: "pyodide_degraded",
      help: "1 while something that the server needs does not work; /ready says what",
      registers,
      collect() {
        this.set(Number(sources.degraded()));
      },
    });
    new Gauge({
      name: "pyodide_queue_depth",
      help: "Executions that wait for a sandbox",
      registers,
      collect() {
        this.set(sources.queueDepth());
      },
    });
    new Gauge({
      name: "pyodide_sandboxes",
      help: "Sandboxes by state",
      labelNames: ["state"],
      registers,
      collect() {
        for (const [state, count] of Object.entries(sources.sandboxes())) this.set({ state }, count);
      },
    });
    new Gauge({
      name: "pyodide_security_log_healthy",
      help: "1 while the security log can be written",
      registers,
      collect() {
        this.set(Number(sources.securityLogHealthy()));
      },
    });
  }

  /** @param executionTimeMs without waiting; undefined for code that never ran. */
  recordExecution(outcome: ExecutionOutcome, environment: string, executionTimeMs?: number): void {
    const labels = { outcome, environment: this.#environments(environment) };
    this.#executions.inc(labels);
    if (executionTimeMs !== undefined) this.#executionSeconds.observe(labels, executionTimeMs / 1000);
  }

  /** @param ms in steps of 10. */
  recordCpuTime(principal: string, ms: number): void {
    this.#processorSeconds.inc({ principal: this.#principals(principal) }, ms / 1000);
  }

  recordRewind(): void {
    this.#rewinds.inc();
  }

  /** @param reason from the sandbox's verdict; numbers in it become `N`, so that "heap of 163 MiB" is one reason. */
  recordDiscard(reason: string): void {
    this.#discards.inc({ reason: this.#reasons(reason.replace(/\d+(\.\d+)?/g, "N").slice(0, 80)) });
  }

  /** @param route the pattern that matched, `/api/uploaded-files/:filename`; undefined: none did. Never the path itself. */
  recordRequest(method: string, route: string | undefined, status: number): void {
    this.#requests.inc({
      method: this.#methods(method),
      route: route === undefined ? "unmatched" : this.#routes(route),
      status: String(status),
    });
  }

  /** The body of `/metrics`; its type is {@link contentType}. */
  async text(): Promise<string> {
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }
}

/** @returns a function that passes the first `maxValues` different values through, and turns others into `other`. */
function boundedLabel(maxValues: number): (value: string) => string {
  const seen = new Set<string>();
  return (value) => {
    if (seen.has(value)) return value;
    if (seen.size >= maxValues) return "other";
    seen.add(value);
    return value;
  };
}
