/** Connect RPC with the JSON codec: https://connectrpc.com/docs/protocol. */
import express, { type Request, type Response } from "express";
import type { z } from "zod";
import { HttpError } from "../../http/http-error.ts";
import { endpoint, json, type ProtocolEndpoint } from "../../http/protocol.ts";
import { type Asked, type BodyKind, jsonBody } from "../../http/routes.ts";
import { parseBody } from "../../http/validation.ts";
import { ClientError } from "../../shared/errors.ts";

const STREAM_TYPE = "application/connect+json";
const MAX_MESSAGE_BYTES = 1024 * 1024;
const COMPRESSED = 1;
const END_OF_STREAM = 2;
const HEAD_BYTES = 5;
const KEEPALIVE_MS = 30_000;
/** A stream whose client has so much still to read ends. */
const MAX_UNREAD_BYTES = 4 * 1024 * 1024;

const CODES: Readonly<Record<number, string>> = {
  400: "invalid_argument",
  401: "unauthenticated",
  403: "permission_denied",
  404: "not_found",
  409: "failed_precondition",
  413: "resource_exhausted",
  415: "unimplemented",
  429: "resource_exhausted",
  499: "canceled",
  501: "unimplemented",
  502: "unavailable",
  503: "unavailable",
  504: "deadline_exceeded",
  507: "resource_exhausted",
};

/** Where a folder is to be made that is there. */
export class AlreadyExists extends ClientError {
  constructor(message: string) {
    super("invalid_path", message);
  }
}

type AskedBy<Body> = Asked<unknown, Body, unknown>;

/** A method that takes a message and returns one. */
export function unary<S extends z.ZodType>(
  method: string,
  scope: ProtocolEndpoint["scope"],
  message: S,
  handler: (asked: AskedBy<z.output<S>>) => object | Promise<object>,
): ProtocolEndpoint {
  const body = jsonBody(message, {} as z.input<S>);
  return endpoint({ method: "post", path: `/${method}` as string, scope, body, reply: json(), handler });
}

/** A method that takes a message and returns a stream of them. */
export function streaming<S extends z.ZodType>(
  method: string,
  scope: ProtocolEndpoint["scope"],
  message: S,
  handler: (asked: AskedBy<z.output<S>>, stream: MessageStream) => Promise<void>,
): ProtocolEndpoint {
  const body: BodyKind<z.output<S>> = {
    type: STREAM_TYPE,
    schema: message,
    required: true,
    errors: [],
    middleware: () => express.raw({ type: STREAM_TYPE, limit: MAX_MESSAGE_BYTES + HEAD_BYTES }),
    parse: ({ body: bytes }) => parseBody(message, readEnvelope(bytes)),
  };
  return endpoint({
    method: "post",
    path: `/${method}` as string,
    scope,
    body,
    handler: async (asked) => {
      const stream = new MessageStream(asked.response);
      try {
        await handler(asked, stream);
        stream.end();
      } catch (error) {
        if (!asked.response.headersSent) throw error;
        // A sandbox that ends takes its connections with it: by that the SDK knows it.
        if (error instanceof ClientError && error.status === 502) asked.response.destroy();
        stream.end(error instanceof ClientError ? error : new ClientError("internal"));
        throw error;
      }
    },
  });
}

/** Messages in envelopes of five bytes. */
export class MessageStream {
  readonly #response: Response;

  constructor(response: Response) {
    this.#response = response;
  }

  /** @param keepalive what is sent where there is nothing for long. */
  open(keepalive: object): void {
    this.#response.writeHead(200, {
      "Content-Type": STREAM_TYPE,
      "Cache-Control": "no-cache, no-transform",
      "X-Accel-Buffering": "no",
    });
    const timer = setInterval(() => this.send(keepalive), KEEPALIVE_MS);
    this.#response.once("close", () => clearInterval(timer));
  }

  /** Nothing more can be sent. */
  get isOver(): boolean {
    return this.#response.destroyed || this.#response.writableEnded;
  }

  send(message: object): void {
    this.write(toEnvelope(message));
  }

  /**
   * Ends the stream instead where its client does not read: what is sent would pile up here.
   *
   * @param envelopes whole ones, from {@link toEnvelope}: what goes to many is written once.
   */
  write(envelopes: Buffer): void {
    if (this.isOver) return;
    if (this.#response.writableLength > MAX_UNREAD_BYTES)
      this.end(new HttpError(429, "bad_request", "the stream has ended: its client does not read it"));
    else this.#response.write(envelopes);
  }

  end(error?: ClientError): void {
    if (this.isOver) return;
    this.#response.end(envelope(END_OF_STREAM, error ? { error: errorOf(error) } : {}));
  }
}

/** Replies with an error as the kind of the method has it. */
export function sendConnectError(response: Response, error: ClientError, request: Request): void {
  if (request.is(STREAM_TYPE)) {
    // A stream's status says nothing: what was wrong is in its last envelope.
    response
      .status(200)
      .type(STREAM_TYPE)
      .send(envelope(END_OF_STREAM, { error: errorOf(error) }));
    return;
  }
  response.status(error instanceof AlreadyExists ? 409 : error.status).json(errorOf(error));
}

export function isConnect({ path }: Request): boolean {
  return path.startsWith("/filesystem.Filesystem/") || path.startsWith("/process.Process/");
}

function errorOf(error: ClientError): { code: string; message: string } {
  const code = error instanceof AlreadyExists ? "already_exists" : (CODES[error.status] ?? "internal");
  return { code, message: error.message };
}

/** A message as {@link MessageStream} sends it. */
export function toEnvelope(message: object): Buffer {
  return envelope(0, message);
}

function envelope(flags: number, message: object): Buffer {
  const body = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt8(flags, 0);
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

/** @throws {ClientError} 400 */
function readEnvelope(bytes: unknown): unknown {
  const wrong = (what: string) => new ClientError("invalid_request", `The message cannot be read: ${what}.`);
  if (!Buffer.isBuffer(bytes)) throw wrong(`its type is not ${STREAM_TYPE}`);
  if (bytes.length < HEAD_BYTES) throw wrong("its envelope is cut off");
  if ((bytes.readUInt8(0) & COMPRESSED) !== 0) throw wrong("it is compressed");
  const length = bytes.readUInt32BE(1);
  if (bytes.length !== HEAD_BYTES + length) throw wrong("its envelope has another length, or there are several");
  try {
    return JSON.parse(bytes.toString("utf8", HEAD_BYTES));
  } catch {
    throw wrong("it is not JSON");
  }
}
