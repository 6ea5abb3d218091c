import { Readable } from "node:stream";
import { setImmediate } from "node:timers/promises";
import express, { type Request, type RequestHandler } from "express";
import multer from "multer";
import { z } from "zod";
import { MAX_BODY_BYTES } from "../../http/body.ts";
import type { BodyKind, RouteServices } from "../../http/routes.ts";
import { ClientError } from "../../shared/errors.ts";
import type { UploadedFile } from "./filesystem.ts";

const MULTIPART = "multipart/form-data";
const FIELD = "file";
/** Of one form. */
export const MAX_FILES = 1000;
const MAX_OTHER_FIELDS = 20;
const SLICE_BYTES = 64 * 1024;

/** Files of a form, with their names; or the body as it is. */
export type Upload =
  | { readonly form: readonly UploadedFile[]; readonly content: null }
  | { readonly form: null; readonly content: Uint8Array };

/** The body of an upload, whatever its type; it may be compressed. */
export const uploadBody: BodyKind<Upload> = {
  type: MULTIPART,
  schema: z.unknown(),
  required: true,
  errors: [],
  middleware: receive,
  parse: (request) => {
    if (request.files !== undefined) {
      const files = request.files as readonly Express.Multer.File[];
      if (Object.hasOwn(request.body, FIELD)) throw invalid(`The field ${FIELD} must be a file.`);
      return { form: files.map(({ originalname: path, buffer: content }) => ({ path, content })), content: null };
    }
    const { body } = request;
    if (Buffer.isBuffer(body)) return { form: null, content: body };
    // A body that was read as something else must not become an empty file.
    if (body !== undefined && Object.keys(body).length > 0) throw new Error("the body of an upload is not bytes");
    return { form: null, content: new Uint8Array(0) };
  },
};

/** Of a form, while it is parsed: multer puts its fields where they were. */
const received = new WeakMap<Request, Buffer>();

function receive({ config }: RouteServices): RequestHandler {
  const collect = express.raw({ type: () => true, limit: Math.max(MAX_BODY_BYTES, config.MAX_FILE_SIZE) });
  const options = {
    storage: multer.memoryStorage(),
    preservePath: true,
    // As browsers and SDKs send names; multer's own default is Latin-1.
    defParamCharset: "utf8",
    limits: {
      fileSize: config.MAX_FILE_SIZE,
      files: MAX_FILES,
      fields: MAX_OTHER_FIELDS,
      parts: MAX_FILES + MAX_OTHER_FIELDS,
      fieldNameSize: 100,
      fieldSize: SLICE_BYTES,
      headerPairs: 100,
    },
    streamHandler: feed,
  };
  const readForm = multer(options).any();
  return (request, response, next) => {
    collect(request, response, (error?: unknown) => {
      if (error !== undefined || !request.is(MULTIPART)) return next(error);
      if (Buffer.isBuffer(request.body)) received.set(request, request.body);
      readForm(request, response, (wrong?: unknown) => {
        received.delete(request);
        next(wrong === undefined ? undefined : toClientError(wrong));
      });
    });
  };
}

/** In slices, between which others have their turn: a form is parsed on the event loop. */
function feed(request: Request, parser: NodeJS.WritableStream): void {
  const bytes = received.get(request) ?? Buffer.alloc(0);
  async function* slices() {
    for (let at = 0; at < bytes.length; at += SLICE_BYTES) {
      yield bytes.subarray(at, at + SLICE_BYTES);
      await setImmediate();
    }
  }
  Readable.from(slices()).pipe(parser);
}

function toClientError(error: unknown): ClientError {
  if (error instanceof ClientError) return error;
  const code = error instanceof multer.MulterError ? error.code : undefined;
  if (code === "LIMIT_FILE_SIZE") return new ClientError("too_large");
  if (code === "LIMIT_FILE_COUNT" || code === "LIMIT_PART_COUNT") return new ClientError("too_many_files");
  return invalid("The form cannot be read.");
}

function invalid(message: string): ClientError {
  return new ClientError("invalid_request", message);
}
