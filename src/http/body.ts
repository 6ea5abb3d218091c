import { promisify } from "node:util";
import express, { type Request, type RequestHandler } from "express";
import type { z } from "zod";
import { ClientError } from "../shared/errors.ts";
import { TaskThread } from "../shared/task-thread.ts";
import { MAX_INLINE_BYTES } from "./body-limits.ts";
import { type ParsedBody, parseOrRefuse, type RawBody, type Refusal } from "./body-parsing.ts";
import { FORM, wrongContentType } from "./content-type.ts";
import { rememberSource } from "./context-source.ts";
import { HttpError } from "./http-error.ts";
import { knownPrincipal } from "./middleware/authentication.ts";
import { keepHeld } from "./middleware/held-requests.ts";
import { type Charset, charsetOf, invalidEncoding, unsupportedCharset } from "./text-decoding.ts";
import { parseBody } from "./validation.ts";

/** Of the body as it is once it was inflated. */
export const MAX_BODY_BYTES = 30 * 1024 * 1024;

/**
 * Reads bodies of `application/json` and forms into `request.body`. Depth and number of values are bounded before anything is
 * parsed, and what is large is parsed in another thread: no body holds the event loop.
 *
 * @param isRead which requests' bodies are read; the others' are left to their routes.
 */
export function readBodies(isRead: (request: Request) => boolean): RequestHandler {
  const collect = promisify(express.raw({ type: () => true, limit: MAX_BODY_BYTES }));
  return async (request, response, next) => {
    const kind = isRead(request) ? kindOf(request) : null;
    if (kind === null) return next();
    // Before anything is read.
    const charset = bodyCharset(request, kind);
    await collect(request, response);
    if (!Buffer.isBuffer(request.body)) return next();
    const letGo = keepHeld(response);
    const body = { kind, bytes: request.body, charset };
    const { value, context } = await parse(body, knownPrincipal(response) ?? "").finally(letGo);
    request.body = value;
    if (context !== undefined) rememberSource((value as { context: object }).context, context);
    next();
  };
}

/** JSON in UTF-8 that came in another way than as a request's body. @throws {ClientError} 400 */
export async function readJson(bytes: Uint8Array, principal: string): Promise<unknown> {
  const { value, context } = await parse({ kind: "json", bytes, charset: "utf-8" }, principal);
  if (context !== undefined) rememberSource((value as { context: object }).context, context);
  return value;
}

/** As {@link readJson}, of an object with a member that is a document: see `ParsedBody.document`. @throws {ClientError} 400 */
export async function readJsonWithDocument(
  bytes: Uint8Array,
  principal: string,
  member: string,
): Promise<Pick<ParsedBody, "value" | "document">> {
  return await parse({ kind: "json", bytes, charset: "utf-8", document: member }, principal);
}

function kindOf(request: Request): RawBody["kind"] | null {
  return request.is("application/json") ? "json" : request.is(FORM) ? "form" : null;
}

/** @throws {ClientError} 415 */
function bodyCharset(request: Request, kind: RawBody["kind"]): Charset {
  const charset = charsetOf(request.get("content-type"));
  // The syntax of a form is ASCII's, whatever its texts are.
  if (kind === "form" && charset.startsWith("utf-16")) throw unsupportedCharset(charset, "encodings that extend ASCII");
  return charset;
}

/**
 * Checks a request's JSON, or form.
 *
 * @throws {ClientError} 400 with the first thing that is wrong; a `Content-Type` that is not read is named, and is a 415 where
 *   the body could have been left out.
 */
export function parseRequest<T extends z.ZodType>(schema: T, request: Request): z.output<T> {
  const wrong = wrongContentType(request, ["application/json", FORM]);
  let value: z.output<T>;
  try {
    value = parseBody(schema, request.body, Boolean(request.is(FORM)));
  } catch (error) {
    if (wrong === null || !(error instanceof ClientError)) throw error;
    throw new HttpError(400, "wrong_content_type", `${error.message} ${wrong}`);
  }
  if (wrong !== null) throw new ClientError("wrong_content_type", wrong);
  return value;
}

/** A body of 30 MB takes a second at the most [measured]: one that takes longer must not hold up others' for ever. */
const MAX_PARSE_MS = 20_000;

const thread = new TaskThread<RawBody, ReturnType<typeof parseOrRefuse>>({
  program: new URL("body-worker.ts", import.meta.url),
  lost: () => refused("limit", "it takes too much memory, or too long"),
  timeoutMs: MAX_PARSE_MS,
});

/** @param principal who sends it: large bodies of different principals are parsed in turns. */
async function parse(body: RawBody, principal: string): Promise<ParsedBody> {
  const parsed = body.bytes.length <= MAX_INLINE_BYTES ? parseOrRefuse(body) : await parseInThread(body, principal);
  if ("refused" in parsed) throw refused(parsed.refused, parsed.message);
  return parsed;
}

async function parseInThread(body: RawBody, principal: string): Promise<ReturnType<typeof parseOrRefuse>> {
  const { bytes } = body;
  // Its memory moves over; where it shares that with others (Node's pool), a copy does.
  const own = bytes.byteLength === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
  return await thread.run({ ...body, bytes: own }, { transfer: [own.buffer as ArrayBuffer], principal });
}

function refused(reason: Refusal, message: string): ClientError {
  if (reason === "limit") return new ClientError("json_too_complex", `JSON too complex: ${message}`);
  if (reason === "encoding") return invalidEncoding(message);
  if (reason === "parameter") return new ClientError("json_too_complex", `Form too complex: ${message}`);
  if (reason === "parameters") return new ClientError("too_many_parameters");
  if (reason === "form") return new ClientError("bad_request", "Bad request");
  return new ClientError("invalid_json");
}
