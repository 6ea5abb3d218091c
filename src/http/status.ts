import { Router } from "express";
import type { Engine } from "../engine/engine.ts";
import { ClientError } from "../errors.ts";
import { toReply } from "./execute.ts";
import { anonymous } from "./principal.ts";

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
  /** Further facts: environments, isolation layers. */
  readonly facts: () => Record<string, unknown>;
}

/** `/api/status`, `/api/health`, `/health` and `/ready`. */
export function statusRoutes(options: StatusOptions): Router {
  const { engine } = options;
  const status = () => ({
    isReady: engine.pool.isReady,
    initialized: engine.pool.isReady,
    executionTimeout: options.executionTimeoutMs,
    version: options.version,
    timestamp: new Date().toISOString(),
    pool: engine.pool.status(),
    ...options.facts(),
  });
  const router = Router();
  router.get("/api/status", (_request, response) => {
    response.json(status());
  });
  router.get("/api/health", async (_request, response) => {
    const testResult = engine.pool.isReady ? await selfTest(engine) : null;
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
  router.get("/health", (_request, response) => {
    response.json({
      status: "ok",
      server: "running",
      pyodide: status(),
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

async function selfTest(engine: Engine) {
  try {
    return toReply(await engine.execute({ code: "2 + 2", timeoutMs: HEALTH_TIMEOUT_MS, principal: anonymous }));
  } catch (error) {
    // A full queue is no fault: the sandboxes are working.
    if (error instanceof ClientError && error.status !== 429) return null;
    throw error;
  }
}
