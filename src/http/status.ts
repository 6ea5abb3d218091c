import { Router } from "express";
import type { Engine } from "../engine/engine.ts";
import { ClientError } from "../errors.ts";
import { toReply } from "./execute.ts";

const HEALTH_TIMEOUT_MS = 10_000;

export interface LoggingStatus {
  readonly level: string;
  readonly logFile: string | null;
  readonly securityLogFile: string | null;
  readonly isFileLoggingEnabled: boolean;
  readonly logDirectory: string | null;
}

export interface StatusOptions {
  readonly engine: Engine;
  readonly executionTimeoutMs: number;
  /** Pyodide's version. */
  readonly version: string;
  readonly logging: LoggingStatus;
  readonly environment: () => string;
  /** Further facts: environments, isolation layers. */
  readonly facts: () => Record<string, unknown>;
}

/** What clients know as the state of Pyodide. */
export function describeStatus({ engine, executionTimeoutMs, version, facts }: StatusOptions) {
  return {
    isReady: engine.pool.isReady,
    initialized: engine.pool.isReady,
    executionTimeout: executionTimeoutMs,
    version,
    timestamp: new Date().toISOString(),
    pool: engine.pool.status(),
    ...facts(),
  };
}

/** `/api/status` and `/api/health`. */
export function statusRoutes(options: StatusOptions): Router {
  const { engine } = options;
  const router = Router();
  const status = () => describeStatus(options);
  router.get("/api/status", (_request, response) => {
    response.json(status());
  });
  router.get("/api/health", async (_request, response) => {
    const testResult = engine.pool.isReady ? await selfTest(options) : null;
    const healthy = testResult?.success === true && testResult.result === 4;
    response.status(healthy ? 200 : 503).json({
      success: healthy,
      status: healthy ? "healthy" : "not_ready",
      message: healthy ? "Python execution is working correctly" : "Python execution is not ready",
      pyodide: status(),
      testResult,
      timestamp: new Date().toISOString(),
    });
  });
  return router;
}

/** `/health` and `/ready`, which load balancers ask without a key. */
export function probeRoutes(options: StatusOptions): Router {
  const { engine } = options;
  const router = Router();
  router.get("/health", (_request, response) => {
    response.json({
      status: "ok",
      server: "running",
      pyodide: describeStatus(options),
      logging: options.logging,
      timestamp: new Date().toISOString(),
      uptime: process.uptime(),
      memory: process.memoryUsage(),
    });
  });
  router.get("/ready", (_request, response) => {
    const ready = engine.pool.isReady;
    response.status(ready ? 200 : 503).json({ ready, timestamp: new Date().toISOString() });
  });
  return router;
}

async function selfTest(options: StatusOptions) {
  try {
    return toReply(
      await options.engine.execute({
        code: "2 + 2",
        environment: options.environment(),
        timeoutMs: HEALTH_TIMEOUT_MS,
        principal: "health",
      }),
    );
  } catch (error) {
    // A full queue is no fault: the sandboxes are working.
    if (error instanceof ClientError && error.status !== 429) return null;
    throw error;
  }
}
