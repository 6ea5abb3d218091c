import { z } from "zod";
import { ERRORS, type ErrorCode, errorKind } from "../shared/errors.ts";

/**
 * What several replies have in common; the others stand beside their routes. Objects are loose because a later version may add
 * fields to any of them; `test/http/openapi.test.ts` holds them against what the server really sends.
 */
export const timestamp = z.iso.datetime().meta({ description: "ISO 8601, UTC." });
export const bytes = z.int().min(0);
export const ms = z.number().min(0);

const codes = (Object.keys(ERRORS) as ErrorCode[]).filter((code) => !errorKind(code).inPython);
export const errorCode = z
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

export const mimeBundle = z
  .record(z.string(), z.string())
  .meta({ id: "MimeBundle", description: "MIME type → data; images are base64.", example: { "text/plain": "42" } });

export const bundleMetadata = z
  .record(z.string(), z.unknown())
  .meta({ description: "About a bundle's data, by MIME type.", example: { "image/png": { width: 640 } } });

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
    status: z
      .enum(["completed", "error", "timeout", "cpu_limit", "cancelled", "tool_wait_expired", "sandbox_died"])
      .meta({
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
    outputs: z.array(mimeBundle).meta({
      description:
        "What `display()` and figures showed, in order: as it was last, where it was updated, and without what was cleared.",
    }),
    display: mimeBundle.nullable().optional().meta({
      description:
        "The value as a MIME bundle, where the request has `display`, and in streams: `text/plain` is its `repr`. Null: there is no value.",
    }),
    displayMetadata: bundleMetadata.optional(),
    timestamp,
    executionTime: ms.meta({ description: "ms that the code ran, without waiting in the queue." }),
    cpuTime: ms.nullable().meta({
      description: "ms of CPU time that it took, in steps of 10; null where the server's system does not tell.",
    }),
    errorInfo: errorInfo.optional(),
    truncated: z.boolean().optional().meta({ description: "True if output or result were cut at their limits." }),
    executionCount: z.int().min(1).optional().meta({
      description: "Number of the execution in its session, from 1, as `In` and `Out` have it.",
    }),
    code: errorCode.optional().meta({ description: "Why files or session could not be kept." }),
  })
  .meta({ id: "ExecResult" });

export const fileSchema = z
  .looseObject({ path: z.string(), name: z.string(), size: bytes, modified: timestamp })
  .meta({ id: "File" });

export const memory = z
  .record(z.string(), bytes)
  .meta({ description: "`process.memoryUsage()` of the server, bytes." });
export const count = z.int().min(0);
