import { type Response, Router } from "express";
import { baseOf } from "../../environments/registry.ts";
import type { EnvironmentProgress } from "../../environments/start-progress.ts";
import type { Executor } from "../../executor/executor.ts";
import { ClientError, isQueueFull } from "../../shared/errors.ts";
import { principalOf } from "../middleware/authentication.ts";
import { toReply } from "./execute.ts";

const HEALTH_TIMEOUT_MS = 10_000;
/** After which a server that starts may be asked again, s. */
const RETRY_S = "2";

export interface LoggingStatus {
  readonly level: string;
  readonly logFile: string | null;
  readonly securityLogFile: string | null;
  readonly isFileLoggingEnabled: boolean;
  readonly logDirectory: string | null;
}

export interface StatusOptions {
  readonly executor: Executor;
  readonly executionTimeoutMs: number;
  /** Pyodide's version. */
  readonly version: string;
  readonly logging: LoggingStatus;
  readonly environment: () => string;
  /** No keys are set: everybody is one principal, who may see all there is. */
  readonly isOpen: boolean;
  /** How far each environment is. */
  readonly progress: () => readonly EnvironmentProgress[];
  /** What the server needs and does not have at the moment, without addresses and paths; none: all is well. */
  readonly troubles: () => readonly string[];
  /** Further facts: environments, isolation layers. */
  readonly facts: () => Record<string, unknown>;
}

/**
 * What clients know as the state of Pyodide.
 *
 * @param seesLoad whether it says what the sandboxes do and did, which is to say everybody's executions.
 */
export function describeStatus({ executor, executionTimeoutMs, version, facts }: StatusOptions, seesLoad: boolean) {
  const pool = executor.pool.status();
  return {
    isReady: executor.isReady,
    initialized: executor.isReady,
    executionTimeout: executionTimeoutMs,
    version,
    timestamp: new Date().toISOString(),
    pool: seesLoad ? pool : { size: pool.size },
    // The name of a derived environment tells of its caller, so others do not see it.
    brokenEnvironments: pool.broken.map(({ environment }) => environment).filter((name) => baseOf(name) === name),
    ...facts(),
  };
}

/** `/api/status` and `/api/health`. */
export function statusRoutes(options: StatusOptions): Router {
  const { executor } = options;
  const router = Router();
  const status = (response: Response) => describeStatus(options, principalOf(response).scopes.has("admin"));
  router.get("/api/status", (_request, response) => {
    response.json(status(response));
  });
  router.get("/api/health", async (_request, response) => {
    const testResult = executor.isReady ? await selfTest(options) : null;
    const healthy = testResult?.success === true && testResult.result.toString() === "4";
    response.status(healthy ? 200 : 503).json({
      success: healthy,
      status: healthy ? "healthy" : "not_ready",
      message: healthy ? "Python execution is working correctly" : "Python execution is not ready",
      pyodide: status(response),
      testResult,
      timestamp: new Date().toISOString(),
    });
  });
  return router;
}

/** `/health` and `/ready`, which load balancers ask without a key. */
export function probeRoutes(options: StatusOptions): Router {
  const { executor } = options;
  const router = Router();
  router.get("/health", (_request, response) => {
    response.json({
      status: "ok",
      server: "running",
      pyodide: describeStatus(options, options.isOpen),
      logging: options.logging,
      timestamp: new Date().toISOString(),
      uptime: process.uptime(),
      memory: process.memoryUsage(),
    });
  });
  router.get("/ready", (_request, response) => {
    const ready = executor.isReady;
    const environments = options.progress();
    // All is built, and yet there is no sandbox: the first of the default environment starts, or all are being replaced.
    const isBuilding = environments.some(({ state }) => state === "waiting" || state === "building");
    const reasons = options.troubles();
    if (!ready) response.setHeader("Retry-After", RETRY_S);
    response.status(ready ? 200 : 503).json({
      ready,
      ...(!ready && { code: "starting", step: isBuilding ? "environments" : "sandboxes", environments }),
      // Degraded is ready all the same: another server would be no better off.
      ...(ready && reasons.length > 0 && { status: "degraded", reasons }),
      timestamp: new Date().toISOString(),
    });
  });
  return router;
}

async function selfTest(options: StatusOptions) {
  try {
    return toReply(
      await options.executor.execute({
        code: "2 + 2",
        environment: options.environment(),
        timeoutMs: HEALTH_TIMEOUT_MS,
        // No key has such a name.
        principal: "(health)",
      }),
    );
  } catch (error) {
    // A full queue is no fault: the sandboxes are working.
    if (error instanceof ClientError && !isQueueFull(error)) return null;
    throw error;
  }
}
