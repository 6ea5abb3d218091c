import type { ServerResponse } from "node:http";
import type { ErrorRequestHandler, RequestHandler } from "express";
import type { Logger } from "pino";
import { ClientError } from "../../shared/errors.ts";
import { storageFull, troubleOf } from "../../shared/storage-trouble.ts";
import { HttpError } from "../http-error.ts";
import { protocolOf } from "../recognised-protocol.ts";
import { invalidEncoding, unsupportedCharset } from "../text-decoding.ts";

/** What body-parser and multer throw. */
interface HttpishError extends Error {
  readonly type?: string;
  readonly status?: number;
  /** The `Content-Encoding` that is not known. */
  readonly encoding?: string;
}

export const notFoundHandler: RequestHandler = () => {
  throw new ClientError("endpoint_not_found");
};

/** The one place where errors become replies. What is not meant for a client is logged and answered with a plain 500. */
export function errorHandler(logger: Logger): ErrorRequestHandler {
  return (error, request, response, _next) => {
    const known = toClientError(error);
    if (known === null)
      logger.error({ err: error, requestId: response.locals.requestId, path: request.path }, "request failed");
    // The client has gone, or the reply has begun: no error can be sent any more.
    if (response.headersSent || response.destroyed) {
      response.end();
      return;
    }
    const shown = known ?? new ClientError("internal");
    const protocol = protocolOf(response);
    if (protocol === undefined) return replyWithError(response, shown);
    if (shown.retryAfterS !== undefined) response.setHeader("Retry-After", String(shown.retryAfterS));
    protocol.sendError(response, shown, request);
  };
}

/** The form that every error has. */
export function replyWithError(response: ServerResponse, error: ClientError): void {
  const { status, message, code, retryAfterS, hint } = error;
  if (retryAfterS !== undefined) response.setHeader("Retry-After", String(retryAfterS));
  const body = JSON.stringify({ success: false, error: message, code, hint, timestamp: new Date().toISOString() });
  response.statusCode = status;
  response.setHeader("Content-Type", "application/json; charset=utf-8");
  response.setHeader("Content-Length", Buffer.byteLength(body));
  response.end(body);
}

/** @returns null: it is not meant for a client. */
export function toClientError(error: unknown): ClientError | null {
  if (error instanceof ClientError) return error;
  const { type, status, encoding } = error as HttpishError;
  switch (type) {
    case "entity.too.large":
      return new ClientError("too_large");
    case "entity.parse.failed":
      return new ClientError("invalid_json");
    case "encoding.unsupported":
      return unsupportedCharset(encoding ?? "", "the compressions gzip, deflate and br");
    case "parameters.too.many":
      return new ClientError("too_many_parameters");
    default:
      break;
  }
  if (error instanceof URIError) return invalidEncoding("Bad request: the path is not UTF-8 in percent-encoding");
  if (type === "request.aborted" || type === "request.size.invalid") {
    return new ClientError("bad_request", "Bad request");
  }
  if (typeof status === "number" && status >= 400 && status < 500) {
    return new HttpError(status, "bad_request", "Bad request");
  }
  // Wherever else it was that there was no room: a temporary file of an upload, say.
  if (troubleOf(error) === "full") return storageFull(error);
  return null;
}
