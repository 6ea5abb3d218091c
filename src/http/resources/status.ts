import { z } from "zod";
import { ClientError, isQueueFull } from "../../shared/errors.ts";
import { toReply } from "../result-reply.ts";
import { bare, type Route, route, sentByHandler } from "../routes.ts";
import { bytes, execReply, memory, timestamp } from "../schemas.ts";
import { describeStatus, type StatusOptions, statusSchema } from "../server-status.ts";

const HEALTH_TIMEOUT_MS = 10_000;
/** After which a server that starts may be asked again, s. */
const RETRY_S = "2";

const selfTestReply = z.looseObject({
  success: z.boolean(),
  status: z.enum(["healthy", "not_ready"]),
  message: z.string(),
  pyodide: statusSchema,
  testResult: execReply.nullable().meta({ description: "Of `2 + 2`." }),
  timestamp,
});

const healthReply = z.looseObject({
  status: z.literal("ok"),
  server: z.literal("running"),
  pyodide: statusSchema,
  logging: z.looseObject({
    level: z.string(),
    logFile: z.string().nullable(),
    securityLogFile: z.string().nullable(),
    isFileLoggingEnabled: z.boolean(),
    logDirectory: z.string().nullable(),
  }),
  timestamp,
  uptime: z.number().meta({ description: "Seconds." }),
  memory,
});

const readyReply = z.looseObject({
  ready: z.boolean(),
  code: z.literal("starting").optional(),
  step: z
    .enum(["environments", "sandboxes"])
    .optional()
    .meta({ description: "What is waited for: environments that are built, or the first sandbox." }),
  environments: z
    .array(
      z.looseObject({
        name: z.string(),
        state: z.enum(["waiting", "building", "ready", "failed"]),
        step: z.enum(["packages", "archive", "image"]).optional().meta({
          description: "Packages are sought and fetched, then unpacked and compiled, then imported into an image.",
        }),
        seconds: z.number().optional().meta({ description: "Since its building began." }),
        downloadedBytes: bytes.optional(),
      }),
    )
    .optional()
    .meta({ description: "How far each environment is, while the server starts. What is `ready` can be used." }),
  status: z
    .literal("degraded")
    .optional()
    .meta({ description: "It answers, but something that it needs is away: `reasons` says what." }),
  reasons: z.array(z.string()).optional(),
  timestamp,
});

/** `/api/status` and `/api/health`. */
export const statusRoutes: readonly Route[] = [
  route({
    method: "get",
    path: "/api/status",
    scope: "any key",
    tag: "Server",
    operation: "status",
    summary: "State of the interpreters",
    reply: bare("The state.", statusSchema),
    errors: [],
    handler: ({ services, principal }) => describeStatus(services.status, principal.scopes.has("admin")),
  }),

  route({
    method: "get",
    path: "/api/health",
    scope: "any key",
    tag: "Server",
    operation: "selfTest",
    summary: "Run 2 + 2",
    reply: sentByHandler("It is 4.", selfTestReply),
    otherReplies: [sentByHandler("It is not, or not yet.", selfTestReply, { status: 503 })],
    errors: ["queue_full", "principal_queue_full"],
    handler: async ({ services: { status }, principal, response, signal }) => {
      const testResult = status.executor.isReady ? await selfTest(status, signal) : null;
      const healthy = testResult?.success === true && testResult.result.toString() === "4";
      response.status(healthy ? 200 : 503).json({
        success: healthy,
        status: healthy ? "healthy" : "not_ready",
        message: healthy ? "Python execution is working correctly" : "Python execution is not ready",
        pyodide: describeStatus(status, principal.scopes.has("admin")),
        testResult,
        timestamp: new Date().toISOString(),
      });
    },
  }),
];

/** `/health` and `/ready`, which load balancers ask without a key. */
export const probeRoutes: readonly Route[] = [
  route({
    method: "get",
    path: "/health",
    scope: "no key",
    tag: "Server",
    operation: "health",
    summary: "Whether the server answers (no key needed)",
    reply: bare("It does.", healthReply),
    errors: [],
    handler: ({ services: { status } }) => ({
      status: "ok" as const,
      server: "running" as const,
      pyodide: describeStatus(status, status.isOpen),
      logging: status.logging,
      timestamp: new Date().toISOString(),
      uptime: process.uptime(),
      memory: { ...process.memoryUsage() },
    }),
  }),

  route({
    method: "get",
    path: "/ready",
    scope: "no key",
    tag: "Server",
    operation: "ready",
    summary: "Whether the server can run code now (no key needed)",
    reply: sentByHandler("It can.", readyReply),
    otherReplies: [sentByHandler("Not now, and how far it is.", readyReply, { status: 503 })],
    errors: [],
    handler: ({ services: { status }, response }) => {
      const ready = status.executor.isReady;
      const environments = status.progress();
      // All is built, and yet there is no sandbox: the first of the default environment starts, or all are being replaced.
      const isBuilding = environments.some(({ state }) => state === "waiting" || state === "building");
      const reasons = status.troubles();
      if (!ready) response.setHeader("Retry-After", RETRY_S);
      response.status(ready ? 200 : 503).json({
        ready,
        ...(!ready && { code: "starting", step: isBuilding ? "environments" : "sandboxes", environments }),
        // Degraded is ready all the same: another server would be no better off.
        ...(ready && reasons.length > 0 && { status: "degraded", reasons }),
        timestamp: new Date().toISOString(),
      });
    },
  }),
];

async function selfTest(options: StatusOptions, signal: AbortSignal) {
  try {
    return toReply(
      await options.executor.execute({
        code: "2 + 2",
        environment: options.environment(),
        timeoutMs: HEALTH_TIMEOUT_MS,
        // No key has such a name.
        principal: "(health)",
        signal,
      }),
    );
  } catch (error) {
    // A full queue is no fault: the sandboxes are working.
    if (error instanceof ClientError && !isQueueFull(error)) return null;
    throw error;
  }
}
