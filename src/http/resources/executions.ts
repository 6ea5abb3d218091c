import express, { type Request } from "express";
import { z } from "zod";
import { ClientError } from "../../shared/errors.ts";
import { readAnswers } from "../../tools/answers.ts";
import type { ToolAnswer } from "../../tools/events.ts";
import { MAX_BODY_BYTES } from "../body.ts";
import { wrongContentType } from "../content-type.ts";
import { type BodyKind, type Route, reply, route } from "../routes.ts";
import { count } from "../schemas.ts";
import { charsetOf, decodeText, InvalidEncodingError, invalidEncoding } from "../text-decoding.ts";

const callError = z.object({ message: z.string(), data: z.unknown().optional() });
const answer = z.union([
  z.object({ id: z.string(), result: z.unknown() }),
  z.object({ id: z.string(), error: callError }),
]);

/** Read by its route: values go on as they were written, with all digits of their numbers. */
export const answersBody: BodyKind<Promise<readonly ToolAnswer[]>> = {
  type: "application/json",
  schema: z.object({ results: z.array(answer) }).meta({ id: "ToolResults" }),
  example: { results: [{ id: "call_1k3x9", result: { rows: 3 } }] },
  required: true,
  errors: ["invalid_request", "invalid_json", "json_too_complex"],
  middleware: () => express.raw({ type: () => true, limit: MAX_BODY_BYTES }),
  parse: async (request) => await readAnswers(bytesOf(request)),
};

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
      const answers = await body;
      await services.tools.answer(principal.id, params.execution, answers);
      return { accepted: answers.length };
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
  const hasMark = body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf;
  if (charset === "utf-8") return hasMark ? body.subarray(3) : body;
  try {
    return Buffer.from(decodeText(body, charset));
  } catch (error) {
    throw error instanceof InvalidEncodingError ? invalidEncoding(error.message) : error;
  }
}
