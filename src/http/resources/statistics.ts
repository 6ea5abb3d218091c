import { type RequestHandler, type Response, Router } from "express";
import type { Services } from "../../service/execution-service.ts";
import { callerOf } from "../caller.ts";
import { principalOf, requireScope } from "../middleware/authentication.ts";
import { describeStatus, type StatusOptions } from "./status.ts";

/** `/api/dashboard/stats`, `/api/dashboard/stats/clear` and `/api/stats`. */
export function statisticsRoutes(services: Services, status: StatusOptions): Router {
  const router = Router();
  const { statistics, executor } = services;
  const timestamp = () => new Date().toISOString();
  router.use(["/api/dashboard/stats", "/api/stats"], requireScope("stats"));

  router.get("/api/dashboard/stats", async (_request, response) => {
    const { stats } = await statistics.snapshot(visibleTo(response));
    response.json({ success: true, stats, timestamp: timestamp() });
  });

  router.post("/api/dashboard/stats/clear", async (request, response) => {
    await statistics.clear(visibleTo(response));
    services.securityLog?.append({ event: "statistics_clear", ...callerOf(request, response), details: {} });
    response.json({ success: true, message: "Statistics cleared successfully", timestamp: timestamp() });
  });

  router.get("/api/stats", async (_request, response) => {
    const { executionStats } = await statistics.snapshot(visibleTo(response));
    response.json({
      uptime: process.uptime(),
      memory: process.memoryUsage(),
      pyodide: describeStatus(status, visibleTo(response) === undefined),
      pyodideReady: executor.isReady,
      timestamp: timestamp(),
      executionStats,
    });
  });
  return router;
}

/** `/metrics`, which Prometheus asks: before the checks of host and origin, and with the key that it always needs. */
export function metricsRoutes({ metrics }: Services, whoAsks: RequestHandler): Router {
  const router = Router();
  // They count everybody's executions, which no other principal is to see.
  router.get("/metrics", whoAsks, requireScope("admin"), async (_request, response) => {
    response.type(metrics.contentType).send(await metrics.text());
  });
  return router;
}

/** Whose statistics a caller sees: its own; an administrator everybody's. */
export function visibleTo(response: Response): string | undefined {
  const { id, scopes } = principalOf(response);
  return scopes.has("admin") ? undefined : id;
}
