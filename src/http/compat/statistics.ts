import { z } from "zod";
import { dashboardFields, visibleTo } from "../resources/statistics.ts";
import { bare, type Route, route } from "../routes.ts";
import { memory, ms, timestamp } from "../schemas.ts";
import { describeStatus, statusSchema } from "../server-status.ts";

const statisticsReply = z.looseObject({
  uptime: z.number().meta({ description: "Seconds." }),
  memory,
  pyodide: statusSchema,
  pyodideReady: z.boolean(),
  timestamp,
  executionStats: z.looseObject({
    ...dashboardFields,
    totalExecutions: z.int(),
    successRate: z.number().min(0).max(1).meta({ description: "A fraction; 0 while there is none." }),
    averageExecutionTime: ms,
    errorCategories: z.record(z.string(), z.int()).meta({ description: "Class of exception → count." }),
  }),
});

/** `GET /api/stats`: the fields of two generations of clients. */
export const legacyStatisticsRoutes: readonly Route[] = [
  route({
    method: "get",
    path: "/api/stats",
    scope: "stats",
    tag: "Statistics",
    operation: "statistics",
    summary: "Statistics and the server's state",
    reply: bare("Both.", statisticsReply),
    errors: ["store_unavailable"],
    handler: async ({ services, response }) => {
      const { executionStats } = await services.statistics.snapshot(visibleTo(response));
      return {
        uptime: process.uptime(),
        memory: { ...process.memoryUsage() },
        pyodide: describeStatus(services.status, visibleTo(response) === undefined),
        pyodideReady: services.executor.isReady,
        timestamp: new Date().toISOString(),
        executionStats,
      };
    },
  }),
];
