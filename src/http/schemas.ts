import { z } from "zod";
import { ERRORS, type ErrorCode, errorKind } from "../shared/errors.ts";

/**
 * What replies look like, for the OpenAPI document. They are loose because a later version may add fields to any of them;
 * `test/openapi.test.ts` holds them against what the server really sends.
 */
const timestamp = z.iso.datetime().meta({ description: "ISO 8601, UTC." });
const success = z.literal(true);
const bytes = z.int().min(0);
const ms = z.number().min(0);

const codes = (Object.keys(ERRORS) as ErrorCode[]).filter((code) => !errorKind(code).inPython);
const errorCode = z
  .enum(codes)
  .meta({ id: "ErrorCode", description: "What is wrong, for programs; stable. docs/errors.md says what each means." });

export const errorReply = z
  .looseObject({
    success: z.literal(false),
    error: z.string().meta({ description: "What is wrong, for people.", example: "Code cannot be empty" }),
    code: errorCode.optional(),
    hint: z.string().meta({ description: "What would be right, where `error` does not say it." }).optional(),
    timestamp,
  })
  .meta({ id: "Error" });

const mimeBundle = z
  .record(z.string(), z.string())
  .meta({ id: "MimeBundle", description: "MIME type → data; images are base64.", example: { "text/plain": "42" } });

const errorInfo = z
  .looseObject({
    type: z.string().meta({
      description: "Class of the exception; `Timeout`, `Cancelled` and `SandboxDied` are the server's own.",
      example: "ZeroDivisionError",
    }),
    message: z.string().meta({ example: "division by zero" }),
    traceback: z.string().meta({ description: "Frames of the code that was sent." }),
    line: z.int().nullable().meta({ description: "From 1, in the code that was sent." }),
    column: z.int().nullable(),
  })
  .meta({ id: "ErrorInfo" });

export const execReply = z
  .looseObject({
    success: z.boolean().meta({ description: "False for Python errors and timeouts, whose HTTP status is 200 too." }),
    status: z.enum(["completed", "error", "timeout", "cpu_limit", "cancelled", "sandbox_died"]).meta({
      description:
        "How it ended. Set by the server from what it knows of the sandbox: code that raises an exception called `Timeout` " +
        "has the status `error`.",
    }),
    result: z.unknown().meta({
      description: "Value of the last expression as JSON; null for None. What is no JSON becomes `str(value)`.",
      example: 2,
    }),
    error: z.string().nullable().meta({ description: "`str(exception)`.", example: "division by zero" }),
    stdout: z.string(),
    stderr: z.string().meta({ description: "Ends with the traceback if there was an exception." }),
    outputs: z.array(mimeBundle).meta({ description: "What `display()` and figures showed, in order." }),
    timestamp,
    executionTime: ms.meta({ description: "ms that the code ran, without waiting in the queue." }),
    cpuTime: ms.nullable().meta({
      description: "ms of CPU time that it took, in steps of 10; null where the server's system does not tell.",
    }),
    errorInfo: errorInfo.optional(),
    truncated: z.boolean().optional().meta({ description: "True if output or result were cut at their limits." }),
    code: errorCode.optional().meta({ description: "Why files or session could not be kept." }),
  })
  .meta({ id: "ExecResult" });

export const streamEvent = z
  .union([
    z.looseObject({ type: z.literal("status"), message: z.string() }),
    z.looseObject({ type: z.enum(["stdout", "stderr"]), content: z.string() }),
    z.looseObject({ type: z.literal("output"), data: mimeBundle }),
    z.looseObject({
      type: z.literal("result"),
      ...execReply.partial().required({ success: true, error: true, timestamp: true }).shape,
    }),
    z.looseObject({ type: z.literal("complete") }),
  ])
  .meta({ id: "StreamEvent", description: "Data of one server-sent event." });

const analysis = z
  .looseObject({
    success: z.boolean().meta({ description: "False for a file that is no table; it is uploaded all the same." }),
    filename: z.string(),
    shape: z
      .array(z.int())
      .nullable()
      .meta({ description: "Rows and columns.", example: [120, 4] }),
    columns: z.array(z.string()).nullable(),
    sample: z.array(z.unknown()).nullable().meta({ description: "The first five rows." }),
    memory_usage: bytes.nullable().meta({ description: "Bytes that the table takes in Python." }),
    error: z.string().nullable().optional(),
  })
  .meta({ id: "FileAnalysis" });

export const uploadReply = z.looseObject({
  success,
  file: z.looseObject({
    originalName: z.string().meta({ example: "my data.csv" }),
    size: bytes,
    pyodideFilename: z.string().meta({ description: "Its name in `/home/pyodide`.", example: "my_data.csv" }),
    isText: z
      .boolean()
      .meta({ description: "Whether its content has the form of text. What has not is stored all the same." }),
    keepFile: z.boolean(),
    tempPath: z.string().meta({
      description: "Its base name is what `/api/uploaded-files` lists and deletes. No path of the server's.",
      example: "uploads/my_data.csv",
    }),
  }),
  analysis,
  timestamp,
});

export const uploadedFilesReply = z.looseObject({
  success,
  files: z.array(z.looseObject({ filename: z.string(), size: bytes, uploaded: timestamp, modified: timestamp })),
  count: z.int(),
  uploadDir: z.string(),
});

export const pyodideFilesReply = z.looseObject({
  success,
  result: z.looseObject({
    success,
    files: z.array(z.looseObject({ name: z.string(), size: bytes, modified: timestamp })),
    count: z.int(),
  }),
});

export const fileInfoReply = z.looseObject({
  success,
  filename: z.string(),
  uploadedFile: z.looseObject({
    exists: z.boolean(),
    size: bytes.optional(),
    uploaded: timestamp.optional(),
    modified: timestamp.optional(),
  }),
  pyodideFile: z.looseObject({ exists: z.boolean(), size: bytes.optional(), modified: timestamp.optional() }),
});

export const plotsReply = z.looseObject({
  success,
  extracted_files: z.array(z.string()).meta({ example: ["/plots/matplotlib/figure.png"] }),
  count: z.int(),
  timestamp,
});

export const clearedFilesReply = z.looseObject({
  success,
  message: z.string(),
  cleared: z.looseObject({ uploaded_files: z.int(), pyodide_files: z.int() }),
  timestamp,
});

export const messageReply = z.looseObject({ success, message: z.string(), timestamp }).meta({ id: "Done" });

const session = z
  .looseObject({
    id: z.string(),
    environment: z.string(),
    state: z.string().meta({ description: "`resident`, `hibernated`, …; on the server that answers." }),
    createdAt: timestamp,
    lastUsedAt: timestamp,
    expiresAt: timestamp,
    memoryBytes: bytes.meta({ description: "Of its stored state, compressed." }),
    fileBytes: bytes,
    executions: z.int().min(0),
    checkpoints: z.int().min(0),
    pinned: z.string().optional().meta({ description: "Why it cannot leave its sandbox." }),
  })
  .meta({ id: "Session" });
const checkpoint = z
  .looseObject({
    name: z.string(),
    createdAt: timestamp,
    executions: z.int().min(0),
    memoryBytes: bytes,
    fileBytes: bytes,
  })
  .meta({ id: "Checkpoint" });
const file = z
  .looseObject({ path: z.string(), name: z.string(), size: bytes, modified: timestamp })
  .meta({ id: "File" });
const count = z.int().min(0);

export const sessionReply = z.looseObject({ success, session, timestamp });
export const sessionsReply = z.looseObject({ success, sessions: z.array(session), count, timestamp });
export const interruptReply = z.looseObject({ success, interrupted: z.boolean(), timestamp });
export const checkpointReply = z.looseObject({ success, checkpoint, timestamp });
export const checkpointsReply = z.looseObject({ success, checkpoints: z.array(checkpoint), count, timestamp });
export const filesReply = z.looseObject({ success, files: z.array(file), count, timestamp });
export const fileReply = z.looseObject({ success, file, timestamp });

export const installReply = z.looseObject({
  success: z.boolean().meta({ description: "False if the package cannot be installed; `error` says why." }),
  message: z.string().optional(),
  installed: z.array(z.looseObject({ name: z.string(), version: z.string() })).optional(),
  error: z.string().optional(),
  code: errorCode.optional(),
  timestamp,
});

export const packagesReply = execReply.extend({
  result: z.looseObject({
    python_version: z.string(),
    installed_packages: z.array(z.string()),
    loaded_modules: z.array(z.string()),
    total_packages: z.int(),
  }),
});

export const environmentsReply = z.looseObject({
  success,
  default: z.string(),
  environments: z.array(
    z.looseObject({
      name: z.string(),
      pythonVersion: z.string(),
      packages: z.array(
        z.looseObject({
          name: z.string(),
          version: z.string(),
          source: z.string(),
          licence: z.string().nullable(),
          sha256: z.string(),
          lockStatus: z
            .enum(["same", "other-version", "other-build", "not-listed"])
            .meta({ description: "How the file stands to Pyodide's own lock file." }),
          compiled: z.boolean(),
        }),
      ),
      warnings: z.array(z.string()),
      problem: z
        .string()
        .nullable()
        .meta({
          description:
            "Why sandboxes of it, or of what the caller has installed on top of it, do not start; such requests are 503 " +
            "`environment_broken` until it is tried again. Null: they do.",
        }),
      imageBytes: bytes,
      archiveBytes: bytes,
      builtAt: z.string(),
      buildMs: ms,
    }),
  ),
  timestamp,
});

const status = z
  .looseObject({
    isReady: z.boolean(),
    initialized: z.boolean(),
    executionTimeout: ms.meta({ description: "Timeout of a request that names none, ms." }),
    version: z.string().meta({ description: "Pyodide's.", example: "314.0.7" }),
    timestamp,
    pool: z
      .looseObject({
        size: z.int(),
        idle: z.int().optional(),
        busy: z.int().optional(),
        starting: z.int().optional(),
        failed: z.int().optional(),
        queued: z.int().optional(),
      })
      .meta({ description: "All but `size` for the scope `admin` only: it tells of everybody's executions." }),
  })
  .meta({ id: "Status" });

export const statusReply = status;

export const selfTestReply = z.looseObject({
  success: z.boolean(),
  status: z.enum(["healthy", "not_ready"]),
  message: z.string(),
  pyodide: status,
  testResult: execReply.nullable().meta({ description: "Of `2 + 2`." }),
  timestamp,
});

const memory = z.record(z.string(), bytes).meta({ description: "`process.memoryUsage()` of the server, bytes." });

export const healthReply = z.looseObject({
  status: z.literal("ok"),
  server: z.literal("running"),
  pyodide: status,
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

export const readyReply = z.looseObject({
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

const successRate = z
  .union([z.string(), z.literal(0)])
  .meta({ description: "Percent with one decimal; 0 while there is none.", example: "66.7" });

const dashboardFields = {
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

export const dashboardReply = z
  .looseObject({ success, stats: z.looseObject(dashboardFields), timestamp })
  .meta({ id: "DashboardStatistics" });

export const statisticsReply = z.looseObject({
  uptime: z.number().meta({ description: "Seconds." }),
  memory,
  pyodide: status,
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
