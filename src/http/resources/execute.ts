import express, { type Request, type Response, Router } from "express";
import type { ExecutionResult } from "../../sandbox/outcome.ts";
import { runCode, type Services } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import { parseRequest } from "../body.ts";
import { contextOf } from "../caller.ts";
import { wrongContentType } from "../content-type.ts";
import { EventStream } from "../event-stream.ts";
import { outputEvent, sendJson } from "../json-reply.ts";
import { requireScope } from "../middleware/authentication.ts";
import { charsetOf, decodeText, InvalidEncodingError, invalidEncoding } from "../text-decoding.ts";
import { executeBody } from "../validation.ts";

/** `ExecResult` of the HTTP contract. */
export function toReply(result: ExecutionResult) {
  const { executionTimeMs, cpuTimeMs, truncated, notKept, ...rest } = result;
  return {
    ...rest,
    timestamp: new Date().toISOString(),
    executionTime: Math.round(executionTimeMs * 1000) / 1000,
    cpuTime: cpuTimeMs,
    ...(truncated && { truncated }),
    ...(notKept && { code: notKept.code }),
  };
}

/** Sends a result. What the server could not store for want of room, or of a store, has the status of that: 507, 503. */
function sendResult(response: Response, result: ExecutionResult): void {
  const { notKept } = result;
  if (notKept && notKept.status >= 500) {
    response.status(notKept.status);
    if (notKept.retryAfterS !== undefined) response.setHeader("Retry-After", String(notKept.retryAfterS));
  }
  sendJson(response, toReply(result));
}

/** `POST /api/execute`, `/api/execute-raw` and `/api/execute-stream`. */
export function executeRoutes(services: Services): Router {
  const router = Router();
  const body = (request: Request) => parseRequest(executeBody, request);

  router.post("/api/execute", requireScope("execute"), async (request, response) => {
    sendResult(response, await runCode(services, body(request), contextOf(request, response)));
  });

  const bytes = express.raw({ type: "text/plain", limit: "10mb" });
  router.post("/api/execute-raw", requireScope("execute"), bytes, async (request, response) => {
    const code = rawCode(request);
    // What the security log has the hash of: a byte order mark, or another encoding, is gone from the text.
    const codeBytes = request.body as Uint8Array;
    sendResult(response, await runCode(services, { code, codeBytes }, contextOf(request, response)));
  });

  router.post("/api/execute-stream", requireScope("execute"), async (request, response) => {
    const checked = body(request);
    const stream = new EventStream(response, services.config.STREAM_HEARTBEAT_S * 1000);
    let hasBegun = false;
    const begin = () => {
      if (!hasBegun) stream.send({ type: "status", message: "Starting execution..." });
      hasBegun = true;
    };
    const send = (event: Parameters<EventStream["send"]>[0]) => {
      begin();
      stream.send(event);
    };
    try {
      const result = await runCode(services, checked, contextOf(request, response), {
        // From here on no status is owed: what has no room was refused.
        onWait: () => stream.open(),
        onStart: begin,
        onOutput: (event) => send(event.type === "output" ? outputEvent(event.bundle) : event),
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
  });
  return router;
}

/** @throws {ClientError} 415 for a charset that is not known, 400 for bytes that are not in it. */
function rawCode(request: Request): string {
  const charset = charsetOf(request.get("content-type"));
  let code = "";
  try {
    if (Buffer.isBuffer(request.body)) code = decodeText(request.body, charset);
  } catch (error) {
    throw error instanceof InvalidEncodingError ? invalidEncoding(error.message) : error;
  }
  if (code.trim() !== "") return code;
  // The contract has this text for another type, too.
  const hint = wrongContentType(request, ["text/plain"]) ?? undefined;
  throw new ClientError("no_code", { hint });
}
