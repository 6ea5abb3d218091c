import { isUtf8 } from "node:buffer";
import express, { type Request, type Response } from "express";
import { z } from "zod";
import { stubsFor } from "../../service/tool-calls.ts";
import { ClientError } from "../../shared/errors.ts";
import { readAnswers } from "../../tools/answers.ts";
import type { Proceeded } from "../../tools/continuations.ts";
import type { ToolAnswer } from "../../tools/events.ts";
import { MAX_BODY_BYTES } from "../body.ts";
import { contextOf } from "../caller.ts";
import { wrongContentType } from "../content-type.ts";
import { sendReply } from "../result-reply.ts";
import { type BodyKind, jsonBody, type Route, reply, route, sentByHandler } from "../routes.ts";
import { count, execReply, timestamp } from "../schemas.ts";
import { charsetOf, decodeBody, withoutMark } from "../text-decoding.ts";
import { toolFields } from "../validation.ts";

const callError = z.object({ message: z.string(), data: z.unknown().optional() });
const answer = z.union([
  z.object({ id: z.string(), result: z.unknown() }),
  z.object({ id: z.string(), error: callError }),
]);

/** Read by its route: values go on as they were written, with all digits of their numbers. */
export const answersBody: BodyKind<(principal: string) => Promise<readonly ToolAnswer[]>> = {
  type: "application/json",
  schema: z.object({ results: z.array(answer) }).meta({ id: "ToolResults" }),
  example: { results: [{ id: "call_1k3x9", result: { rows: 3 } }] },
  required: true,
  errors: ["wrong_content_type", "invalid_request", "invalid_json", "json_too_complex"],
  middleware: () => express.raw({ type: () => true, limit: MAX_BODY_BYTES }),
  parse: (request) => {
    const bytes = bytesOf(request);
    return async (principal) => await readAnswers(bytes, principal);
  },
};

const ofSession = z
  .string("Session must be a string.")
  .optional()
  .meta({ description: "The tools that this session's executions have by default, too." });

/** Body of `POST /api/tools/stubs`. */
const stubsBody = z.object({
  tools: toolFields.tools,
  mcp: toolFields.mcp,
  session: ofSession,
  toolMode: toolFields.toolMode,
});

/** Query of `GET /api/tools/stubs`. */
const stubsQuery = z.object({
  mcp: z.string("Mcp must be given once.").max(8192, "Mcp too long.").optional().meta({
    description: "Names of MCP servers, with commas between them. Default, without `session`: all that there are.",
  }),
  session: ofSession,
  toolMode: toolFields.toolMode,
});
const STUB_ERRORS = ["invalid_tools", "unknown_mcp_server", "mcp_unavailable", "session_not_found"] as const;

const toolCall = z.looseObject({ id: z.string(), name: z.string(), input: z.record(z.string(), z.unknown()) });
const inputRequest = z.looseObject({ id: z.string(), prompt: z.string(), password: z.boolean() });

const step = z
  .looseObject({
    success: z.literal(true),
    status: z.literal("tool_call_required"),
    continuation: z.string().meta({ description: "Where answers go: `POST /api/executions/:continuation`." }),
    toolCalls: z.array(toolCall).meta({ description: "Calls without an answer." }),
    inputRequests: z.array(inputRequest).optional().meta({ description: "What `input()` asks, with `interactive`." }),
    stdout: z.string().meta({ description: "What was printed so far." }),
    stderr: z.string(),
    timestamp,
  })
  .meta({ id: "ToolCallRequired" });
/** What a request is told of an execution that may wait for its client. */
export const replyOfStep = z.union([execReply, step]);

/** Replies with what comes next of an execution: what it waits for, or its result. A client that has not got all of it asks again. */
export function sendNext(response: Response, { reply, delivered }: Proceeded): void {
  response.once("finish", delivered);
  sendReply(response, reply);
}

/** `/api/executions`: answers to what code asks of its caller's client. */
export const executionRoutes: readonly Route[] = [
  route({
    method: "post",
    path: "/api/executions/:execution/results",
    scope: "execute",
    tag: "Running code",
    operation: "answerCalls",
    summary: "Answer calls of a running execution",
    description:
      "For `tool_call` and `input_request` events of a stream: `execution` is in its first event. Answers may come in any order, and from any connection; all of " +
      "a request's are taken, or none.",
    body: answersBody,
    reply: reply("They have reached the execution.", { accepted: count }, { status: 202 }),
    errors: ["execution_not_found", "unknown_tool_call", "tool_call_answered", "tool_value_too_large", "too_much_held"],
    handler: async ({ services, principal, params, body }) => {
      const answers = await body(principal.id);
      await services.tools.answer(principal.id, params.execution, answers);
      return { accepted: answers.length };
    },
  }),

  route({
    method: "post",
    path: "/api/executions/:continuation",
    scope: "execute",
    tag: "Running code",
    operation: "continueExecution",
    summary: "Answer calls, and go on with an execution",
    description:
      "For an execution that `/api/execute` has answered with `tool_call_required`: it goes on until it waits again, or is over. Without results it says again where it " +
      "stands: a reply that was lost is asked for so. An execution that is left alone for its `toolTimeout` ends (410), and its session is as it was before.",
    body: answersBody,
    reply: sentByHandler("What it waits for now, or what came of it.", replyOfStep),
    errors: [
      "execution_not_found",
      "tool_wait_expired",
      "unknown_tool_call",
      "tool_call_answered",
      "tool_value_too_large",
      "too_much_held",
      "server_stopping",
      "store_unavailable",
      "storage_full",
    ],
    handler: async ({ services, principal, request, response, params, body }) => {
      const { signal } = contextOf(request, response);
      const answers = await body(principal.id);
      sendNext(response, await services.continuations.proceed(principal.id, params.continuation, answers, signal));
    },
  }),

  route({
    method: "get",
    path: "/api/tools/stubs",
    scope: "execute",
    tag: "Running code",
    operation: "knownToolStubs",
    summary: "Write the tools that code has without its client's as a Python stub file",
    description: "Those of MCP servers, and of a session. For a model's prompt.",
    query: stubsQuery,
    reply: sentByHandler("The text of a `.pyi` file.", z.string(), { type: "text/plain" }),
    errors: ["invalid_request", ...STUB_ERRORS],
    handler: async ({ services, principal, response, query }) => {
      const { mcp, session } = query;
      const wanted = mcp === undefined ? session === undefined : mcp.split(",").filter((name) => name !== "");
      const input = { ...query, mcp: wanted === false ? undefined : wanted };
      response.type("text/plain").send(await stubsFor(services, input, principal.id));
    },
  }),

  route({
    method: "post",
    path: "/api/tools/stubs",
    scope: "execute",
    tag: "Running code",
    operation: "toolStubs",
    summary: "Write tools as a Python stub file",
    description:
      "What a model is shown of the functions that its code may call: signatures, types and docstrings, as they are while code runs.",
    body: jsonBody(stubsBody, { tools: [{ name: "query", description: "Runs SQL." }] }),
    reply: sentByHandler("The text of a `.pyi` file.", z.string(), { type: "text/plain" }),
    errors: STUB_ERRORS,
    handler: async ({ services, principal, response, body }) => {
      response.type("text/plain").send(await stubsFor(services, body, principal.id));
    },
  }),
];

/** Whether a request's body is left to these routes. */
export function isAnswers(request: Request): boolean {
  return request.method === "POST" && request.path.startsWith("/api/executions/");
}

/** @throws {ClientError} 415, 400 */
function bytesOf(request: Request): Uint8Array {
  const wrong = wrongContentType(request, ["application/json"]);
  if (wrong !== null) throw new ClientError("wrong_content_type", wrong);
  const charset = charsetOf(request.get("content-type"));
  const body: unknown = request.body;
  if (!Buffer.isBuffer(body)) return new Uint8Array(0);
  // Values go on as bytes: what is no UTF-8 must not.
  if (charset === "utf-8" && isUtf8(body)) return withoutMark(body);
  return Buffer.from(decodeBody(body, charset));
}
