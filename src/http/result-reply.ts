/** The reply with what came of an execution, or with what its code waits for. */
import type { Response } from "express";
import type { ExecutionResult } from "../sandbox/outcome.ts";
import { jsonParts, listParts } from "../shared/json/json-parts.ts";
import type { Reply, Step } from "../tools/events.ts";
import { sendJsonParts } from "./json-reply.ts";

/** `ExecResult` of the HTTP contract. */
export function toReply(result: ExecutionResult) {
  const { executionTimeMs, cpuTimeMs, truncated, executionCount, notKept, ...rest } = result;
  return {
    ...rest,
    timestamp: new Date().toISOString(),
    executionTime: Math.round(executionTimeMs * 1000) / 1000,
    cpuTime: cpuTimeMs,
    ...(truncated && { truncated }),
    ...(executionCount !== null && { executionCount }),
    ...(notKept && { code: notKept.code }),
  };
}

/** Sends a result. What the server could not store for want of room, or of a store, has the status of that: 507, 503. */
export function sendResult(response: Response, result: ExecutionResult): void {
  setStatus(response, statusOf(result));
  sendJsonParts(response, jsonParts(toReply(result)));
}

/** As {@link sendResult}, to be sent later, or by another server. */
export function resultReply(result: ExecutionResult): Reply {
  return { ...statusOf(result), body: Buffer.concat(jsonParts(toReply(result))) };
}

export function sendReply(response: Response, reply: Reply): void {
  setStatus(response, reply);
  sendJsonParts(response, [reply.body]);
}

/** What an execution waits for, as the reply of a request that does not wait with it. */
export function stepReply({ continuation, calls, stdout, stderr }: Step): Reply {
  const head = { success: true, status: "tool_call_required", continuation, timestamp: new Date().toISOString() };
  const requests = calls.filter((event) => event.type === "input_request");
  const inputRequests = requests.map(({ id, prompt, password }) => ({ id, prompt, password }));
  const tail = { ...(inputRequests.length > 0 && { inputRequests }), stdout, stderr };
  const toolCalls = calls.filter((event) => event.type === "tool_call");
  const body = Buffer.concat([
    Buffer.from(`${JSON.stringify(head).slice(0, -1)},"toolCalls":`),
    ...listParts(toolCalls.map(({ id, name, input }) => jsonParts({ id, name, input }))),
    Buffer.from(`,${JSON.stringify(tail).slice(1)}`),
  ]);
  return { status: 200, body };
}

function statusOf({ notKept }: ExecutionResult): Omit<Reply, "body"> {
  return notKept && notKept.status >= 500
    ? { status: notKept.status, retryAfterS: notKept.retryAfterS }
    : { status: 200 };
}

function setStatus(response: Response, { status, retryAfterS }: Omit<Reply, "body">): void {
  response.status(status);
  if (retryAfterS !== undefined) response.setHeader("Retry-After", String(retryAfterS));
}
