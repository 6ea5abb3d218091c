import express, { type Request, type Response, Router } from "express";
import type { Engine } from "../engine/engine.ts";
import type { ExecutionResult } from "../engine/execution.ts";
import { badRequest, ClientError } from "../errors.ts";
import { anonymous } from "./principal.ts";
import { type ExecuteBody, executeBody, parseBody } from "./validation.ts";

export interface ExecuteOptions {
  readonly engine: Engine;
  readonly defaultTimeoutMs: number;
}

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

/** `POST /api/execute` and `POST /api/execute-raw`. */
export function executeRoutes(options: ExecuteOptions): Router {
  const router = Router();
  router.post("/api/execute", async (request, response) => {
    const body = parseBody(executeBody, request.body, request.is("urlencoded") !== false);
    response.json(toReply(await run(body, options, response)));
  });
  router.post("/api/execute-raw", express.text({ type: "text/plain", limit: "10mb" }), async (request, response) => {
    const code = rawCode(request);
    response.json(toReply(await run({ code }, options, response)));
  });
  return router;
}

function rawCode(request: Request): string {
  const { body } = request;
  if (typeof body !== "string" || body.trim() === "") {
    throw badRequest("no_code", "No Python code provided in request body");
  }
  return body;
}

async function run(body: ExecuteBody, options: ExecuteOptions, response: Response): Promise<ExecutionResult> {
  return await options.engine.execute({
    code: body.code,
    context: body.context,
    stdin: body.stdin,
    environment: body.environment,
    timeoutMs: body.timeout ?? options.defaultTimeoutMs,
    principal: anonymous,
    signal: clientGone(response),
  });
}

/** Aborts when the client closes the connection before it has the answer. */
export function clientGone(response: Response): AbortSignal {
  const controller = new AbortController();
  response.once("close", () => {
    // Nobody reads this reply; as an error of the client's it is not logged as a fault of the server's.
    if (!response.writableFinished) controller.abort(new ClientError(499, "client_gone", "The client went away"));
  });
  return controller.signal;
}
