import express, { type Request } from "express";
import { z } from "zod";
import type { OutputEvent } from "../../sandbox/running-job.ts";
import { runCode } from "../../service/execution-service.ts";
import { openTools } from "../../service/tool-calls.ts";
import { ClientError, type ErrorCode } from "../../shared/errors.ts";
import { contextOf } from "../caller.ts";
import { wrongContentType } from "../content-type.ts";
import { EventStream, streamFormat } from "../event-stream.ts";
import { outputEvent } from "../json-reply.ts";
import { resultReply, sendResult, stepReply, toReply } from "../result-reply.ts";
import { type BodyKind, jsonBody, type Reply, type Route, route, sentByHandler } from "../routes.ts";
import { bundleMetadata, errorReply, execReply, mimeBundle } from "../schemas.ts";
import { charsetOf, decodeBody } from "../text-decoding.ts";
import { executeBody } from "../validation.ts";
import { replyOfStep, sendNext } from "./executions.ts";

const RAW_LIMIT = "10mb";

const executionId = z
  .string()
  .optional()
  .meta({ description: "Where answers go, if the code may ask for some: `/api/executions/:execution/results`." });

const streamEvent = z
  .union([
    z.looseObject({ type: z.literal("status"), message: z.string(), execution: executionId }),
    z.looseObject({ type: z.enum(["stdout", "stderr"]), content: z.string() }),
    z.looseObject({
      type: z.literal("output"),
      data: mimeBundle,
      displayId: z
        .string()
        .nullish()
        .meta({ description: "A name by which it can be updated: `display(…, display_id=…)`." }),
      update: z
        .boolean()
        .nullish()
        .meta({ description: "True: it takes the place of what was displayed by that name." }),
      metadata: bundleMetadata.nullish(),
    }),
    z
      .looseObject({
        type: z.literal("clear_output"),
        wait: z.boolean().meta({ description: "When something else comes, and not at once." }),
      })
      .meta({ description: "`clear_output()`: what was shown so far is to be taken back." }),
    z.looseObject({
      type: z.literal("tool_call"),
      id: z.string().meta({ description: "Names the call in its answer." }),
      name: z.string(),
      input: z.record(z.string(), z.unknown()).meta({ description: "The arguments." }),
    }),
    z.looseObject({
      type: z.literal("input_request"),
      id: z.string(),
      prompt: z.string(),
      password: z.boolean().meta({ description: "What is written is not to be shown." }),
    }),
    z.looseObject({
      type: z.literal("result"),
      ...execReply.partial().required({ success: true, error: true, timestamp: true }).shape,
    }),
    z.looseObject({ type: z.literal("complete") }),
  ])
  .meta({ id: "StreamEvent", description: "Data of one server-sent event." });

const example = jsonBody(executeBody, { code: "sum(range(10))" });

const rawBody: BodyKind<string> = {
  type: "text/plain",
  schema: z.string(),
  example: "sum(range(10))",
  required: true,
  // JSON and forms are read before, for all routes at once.
  errors: ["wrong_content_type", "no_code", "invalid_json", "json_too_complex", "too_many_parameters"],
  middleware: () => express.raw({ type: "text/plain", limit: RAW_LIMIT }),
  parse: rawCode,
};

/** Why what a request offers to code is not taken. */
const REFUSED_TOOLS: readonly ErrorCode[] = [
  "invalid_tools",
  "unknown_tool_endpoint",
  "too_few_sandboxes",
  "too_many_tool_executions",
];

const result = sentByHandler("What came of it.", execReply);
const resultOrStep = sentByHandler(
  "What came of it, or with `tools` or `interactive` what the code waits for.",
  replyOfStep,
);
/** What the code came to is in the reply, although something of it could not be kept. */
const notKept: readonly Reply<never>[] = [503, 507].map((status) =>
  sentByHandler("What came of it, with the `code` of why it was not kept.", z.union([execReply, errorReply]), {
    status,
  }),
);

/** Why code does not run. */
const REFUSED: readonly ErrorCode[] = [
  "unknown_environment",
  "starting",
  "environment_broken",
  "queue_full",
  "principal_queue_full",
  "server_stopping",
  "audit_unavailable",
  "store_unavailable",
  "storage_full",
];
const REFUSED_NETWORK: readonly ErrorCode[] = ["invalid_network", "unknown_secret", "secret_host", "secret_unreadable"];
const REFUSED_IN_SESSION: readonly ErrorCode[] = [
  "other_environment",
  "namespace_without_session",
  "invalid_namespace_name",
  "namespace_limit",
  "session_not_found",
  "session_queue_full",
  "session_busy",
  "session_moved",
  "session_unloadable",
  "session_damaged",
  "session_environment_changed",
  "session_environment_gone",
  "interrupted",
  "store_full",
];

/** `POST /api/execute`, `/api/execute-raw` and `/api/execute-stream`. */
export const executeRoutes: readonly Route[] = [
  route({
    method: "post",
    path: "/api/execute",
    scope: "execute",
    tag: "Running code",
    operation: "execute",
    summary: "Run Python",
    description:
      "Python errors and timeouts are results: `success` is false, the status 200. There is one process and one thread: `ThreadPoolExecutor` runs its " +
      "tasks one after another, and `Thread`, `Process` and `subprocess` are refused with a sentence. numpy's default integer has 32 bits and overflows " +
      "without a warning; singular matrices give NaN, not `LinAlgError`; division by zero and overflow in arrays warn of nothing.",
    body: example,
    reply: resultOrStep,
    otherReplies: notKept,
    errors: [...REFUSED, ...REFUSED_NETWORK, ...REFUSED_IN_SESSION, ...REFUSED_TOOLS],
    handler: async ({ services, request, response, body }) => {
      const context = contextOf(request, response);
      const leaseMs = body.toolTimeout ?? services.config.TOOL_TIMEOUT_MS;
      const continuation = services.continuations.begin({
        principal: context.principal.id,
        leaseMs,
        render: stepReply,
      });
      const tools = await openTools(services, body, context, continuation);
      if (tools === null || tools.isAnsweredElsewhere) {
        using _ = tools;
        sendResult(response, await runCode(services, body, context, { tools }));
        return;
      }
      continuation.start(tools, async (signal) => {
        const onOutput = (event: OutputEvent) => {
          if (event.type === "stdout" || event.type === "stderr") continuation.print(event.type, event.content);
        };
        return resultReply(await runCode(services, body, { ...context, signal }, { tools, onOutput }));
      });
      services.continuations.add(continuation);
      sendNext(response, await services.continuations.next(continuation, [], context.signal));
    },
  }),

  route({
    method: "post",
    path: "/api/execute-raw",
    scope: "execute",
    tag: "Running code",
    operation: "executeRaw",
    summary: "Run Python sent as plain text",
    body: rawBody,
    reply: result,
    otherReplies: notKept,
    errors: REFUSED,
    handler: async ({ services, request, response, body: code }) => {
      // What the security log has the hash of: a byte order mark, or another encoding, is gone from the text.
      const codeBytes = request.body as Uint8Array;
      sendResult(response, await runCode(services, { code, codeBytes }, contextOf(request, response)));
    },
  }),

  route({
    method: "post",
    path: "/api/execute-stream",
    scope: "execute",
    tag: "Running code",
    operation: "executeStream",
    summary: "Run Python and follow its output",
    description:
      "Server-sent events while the code runs, or lines of JSON where `Accept` asks for `application/x-ndjson`; a comment every 15 s where there are none, also while it " +
      "waits. Closing the connection stops the execution. With `tools` or `interactive`, code calls this client: `tool_call` and `input_request` events are answered by " +
      "`POST /api/executions/:execution/results`, while the code waits.",
    body: example,
    reply: sentByHandler("`status`, then output as it appears, then `result` and `complete`.", streamEvent, {
      type: "text/event-stream",
    }),
    errors: [...REFUSED, ...REFUSED_NETWORK, ...REFUSED_IN_SESSION, ...REFUSED_TOOLS],
    handler: async ({ services, request, response, body }) => {
      const context = contextOf(request, response);
      using tools = await openTools(services, body, context, { send: (event) => send(event) });
      const stream = new EventStream(response, services.config.STREAM_HEARTBEAT_S * 1000, streamFormat(request));
      let hasBegun = false;
      const begin = () => {
        if (!hasBegun) stream.send({ type: "status", message: "Starting execution...", execution: tools?.id });
        hasBegun = true;
      };
      const send = (event: Parameters<EventStream["send"]>[0]) => {
        begin();
        stream.send(event);
      };
      try {
        const result = await runCode(services, { ...body, display: body.display || "after-outputs" }, context, {
          tools,
          // From here on no status is owed: what has no room was refused.
          onWait: () => stream.open(),
          onStart: begin,
          onOutput: (event) => send(event.type === "output" ? outputEvent(event) : event),
        });
        send({ type: "result", ...toReply(result) });
      } catch (error) {
        // Not begun: a status can still say it.
        if (!response.headersSent) throw error;
        const { message, code } =
          error instanceof ClientError ? error : { message: "Internal server error", code: undefined };
        send({ type: "result", success: false, error: message, code, timestamp: new Date().toISOString() });
        send({ type: "complete" });
        // Puts it on record, and ends the reply.
        throw error;
      }
      send({ type: "complete" });
      response.end();
    },
  }),
];

/** @throws {ClientError} 415 for a charset that is not known, 400 for bytes that are not in it. */
function rawCode(request: Request): string {
  const charset = charsetOf(request.get("content-type"));
  const code = Buffer.isBuffer(request.body) ? decodeBody(request.body, charset) : "";
  if (code.trim() !== "") return code;
  // The contract has this text for another type, too.
  const hint = wrongContentType(request, ["text/plain"]) ?? undefined;
  throw new ClientError("no_code", { hint });
}
