import type { Request, Response } from "express";
import type { Caller, ExecutionContext } from "../service/execution-service.ts";
import { ClientError } from "../shared/errors.ts";
import { principalOf } from "./middleware/authentication.ts";

/** Who asks, as logs and statistics have it. */
export function callerOf(request: Request, response: Response): Caller {
  return { ...originOf(request, response), principal: principalOf(response).id };
}

/** What is known of who asks before their key was looked at. */
export function originOf(request: Request, response: Response): Omit<Caller, "principal"> {
  return {
    ip: request.ip ?? null,
    userAgent: request.get("user-agent") ?? null,
    requestId: String(response.locals.requestId),
  };
}

export function contextOf(request: Request, response: Response): ExecutionContext {
  return { principal: principalOf(response), caller: callerOf(request, response), signal: clientGone(response) };
}

/** Aborts when the client closes the connection before it has the answer; it is aborted if that has happened. */
export function clientGone(response: Response): AbortSignal {
  const controller = new AbortController();
  const close = () => {
    // The client is gone and reads no reply: an error of the client's, so that it is not logged as a fault of the server's.
    if (!response.writableFinished) controller.abort(new ClientError("client_gone"));
  };
  if (response.closed) close();
  else response.once("close", close);
  return controller.signal;
}
