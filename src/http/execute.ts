import express, { type Request, type Response, Router } from "express";
import type { ExecutionResult } from "../engine/execution.ts";
import { badRequest, ClientError } from "../errors.ts";
import { requireScope } from "./authentication.ts";
import { runCode, type Services } from "./code-runner.ts";
import { executeBody, parseBody } from "./validation.ts";

/** `ExecResult` of the HTTP contract. */
export function toReply(result: ExecutionResult) {
  const { executionTimeMs, truncated, ...rest } = result;
  return {
    ...rest,
    timestamp: new Date().toISOString(),
    executionTime: Math.round(executionTimeMs * 1000) / 1000,
    ...(truncated && { truncated }),
  };
}

/** `POST /api/execute`, `/api/execute-raw` and `/api/execute-stream`. */
export function executeRoutes(services: Services): Router {
  const router = Router();
  const body = (request: Request) => parseBody(executeBody, request.body, Boolean(request.is("urlencoded")));

  router.post("/api/execute", requireScope("execute"), async (request, response) => {
    response.json(toReply(await runCode(services, body(request), request, response)));
  });

  const text = express.text({ type: "text/plain", limit: "10mb" });
  router.post("/api/execute-raw", requireScope("execute"), text, async (request, response) => {
    response.json(toReply(await runCode(services, { code: rawCode(request) }, request, response)));
  });

  router.post("/api/execute-stream", requireScope("execute"), async (request, response) => {
    const checked = body(request);
    const send = openEventStream(response);
    send({ type: "status", message: "Starting execution..." });
    try {
      const result = await runCode(services, checked, request, response, (event) => {
        // The bundle's keys are user code's: none may pass for the type.
        send(event.type === "output" ? { ...event.bundle, data: event.bundle, type: "output" } : event);
      });
      send({ type: "result", ...toReply(result) });
    } catch (error) {
      // Too late for a status; the reply's shape says it.
      const known = error instanceof ClientError;
      const message = known ? error.message : "Internal server error";
      send({ type: "result", success: false, error: message, timestamp: new Date().toISOString() });
      // The error handler logs it, and sends nothing more.
      if (!known) throw error;
    } finally {
      send({ type: "complete" });
      response.end();
    }
  });
  return router;
}

/** Begins a `text/event-stream`; the function it returns sends one event. */
export function openEventStream(response: Response): (event: object) => void {
  response.writeHead(200, {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    Connection: "keep-alive",
    // nginx would hold events back until its buffer is full.
    "X-Accel-Buffering": "no",
  });
  return (event) => {
    if (!response.destroyed) response.write(`data: ${JSON.stringify(event)}\n\n`);
  };
}

function rawCode(request: Request): string {
  const { body } = request;
  if (typeof body !== "string" || body.trim() === "") {
    throw badRequest("no_code", "No Python code provided in request body");
  }
  return body;
}
