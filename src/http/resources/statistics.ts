import type { Response } from "express";
import { z } from "zod";
import { principalOf } from "../middleware/authentication.ts";
import { done, type Route, reply, route, sentByHandler } from "../routes.ts";
import { ms, timestamp } from "../schemas.ts";
import { streamStatistics } from "./stats-stream.ts";

const successRate = z
  .union([z.string(), z.literal(0)])
  .meta({ description: "Percent with one decimal; 0 while there is none.", example: "66.7" });

export const dashboardFields = {
  overview: z.looseObject({
    totalExecutions: z.int(),
    successRate,
    averageExecutionTime: ms,
    executionTimePercentiles: z.looseObject({ p50: ms, p95: ms, p99: ms }),
    uptimeSeconds: z.int(),
    uptimeHuman: z.string().meta({ example: "1m 7s" }),
  }),
  recent: z.looseObject({
    lastHourExecutions: z.int(),
    recentSuccessRate: successRate,
    packagesInstalled: z.int(),
    filesUploaded: z.int(),
  }),
  topIPs: z.array(z.looseObject({ ip: z.string(), count: z.int() })),
  topErrors: z.array(z.looseObject({ error: z.string(), count: z.int() })),
  userAgents: z.array(z.looseObject({ agent: z.string(), count: z.int() })),
  hourlyTrend: z
    .array(z.int())
    .length(24)
    .meta({ description: "Executions in each clock hour (UTC); the last item is the current hour." }),
  recentExecutions: z.array(
    z.looseObject({
      timestamp,
      principal: z.string(),
      success: z.boolean(),
      error: z.string().nullable(),
      executionTime: ms,
    }),
  ),
};

const FLEET_HEARTBEAT_MS = 5_000;

const dashboard = reply("The numbers.", { stats: z.looseObject(dashboardFields) }, { id: "DashboardStatistics" });

/** `/api/dashboard/stats`, its stream, and `/api/dashboard/stats/clear`. */
export const statisticsRoutes: readonly Route[] = [
  route({
    method: "get",
    path: "/api/dashboard/stats",
    scope: "stats",
    tag: "Statistics",
    operation: "dashboardStatistics",
    summary: "Numbers of the dashboard",
    reply: dashboard,
    errors: ["store_unavailable"],
    handler: async ({ services, response }) => {
      const { stats } = await services.statistics.snapshot(visibleTo(response));
      return { stats };
    },
  }),

  route({
    method: "get",
    path: "/api/dashboard/stats/stream",
    scope: "stats",
    tag: "Statistics",
    operation: "followStatistics",
    summary: "Follow the numbers of the dashboard",
    description:
      "Server-sent events: one at once, then one when something changed, at most one a second; comments between them.",
    reply: sentByHandler("The numbers.", dashboard.schema, { type: "text/event-stream" }),
    errors: ["too_many_streams"],
    handler: ({ services: { config, statistics }, principal, response }) =>
      streamStatistics({
        statistics,
        principal: principal.id,
        visible: visibleTo(response),
        response,
        commentMs: config.STREAM_HEARTBEAT_S * 1000,
        // Only what this server counts is announced; what the others of a fleet count shows with the next event.
        ...(config.REDIS_URL !== "" && { heartbeatMs: FLEET_HEARTBEAT_MS }),
      }),
  }),

  route({
    method: "post",
    path: "/api/dashboard/stats/clear",
    scope: "stats",
    tag: "Statistics",
    operation: "clearStatistics",
    summary: "Start the statistics from zero",
    reply: done("Done."),
    errors: ["store_unavailable"],
    handler: async ({ services, response, record }) => {
      await services.statistics.clear(visibleTo(response));
      record("statistics_clear", {});
      return { message: "Statistics cleared successfully" };
    },
  }),
];

/** `/metrics`, which Prometheus asks: before the checks of host and origin, and with the key that it always needs. */
export const metricsRoutes: readonly Route[] = [
  route({
    method: "get",
    path: "/metrics",
    // They count the executions of all principals, which no other principal is to see.
    scope: "admin",
    tag: "Statistics",
    operation: "metrics",
    summary: "Metrics for Prometheus, of everybody's executions: needs the scope admin",
    reply: sentByHandler("Text of Prometheus.", z.string(), { type: "text/plain" }),
    errors: [],
    handler: async ({ services: { metrics }, response }) => {
      response.type(metrics.contentType).send(await metrics.text());
    },
  }),
];

/** Whose statistics a caller sees: its own; an administrator those of all. */
export function visibleTo(response: Response): string | undefined {
  const { id, scopes } = principalOf(response);
  return scopes.has("admin") ? undefined : id;
}
