import type { Request, RequestHandler } from "express";
import multer from "multer";
import { z } from "zod";
import { HttpError } from "../../http/http-error.ts";
import { holdBody } from "../../http/middleware/held-requests.ts";
import type { BodyKind, RouteServices } from "../../http/routes.ts";
import { ClientError } from "../../shared/errors.ts";
import { nameInHome, sandboxPath } from "../program.ts";

/** What LibreChat sends at once of a skill, and some. */
const MAX_FILES = 200;
const TOO_LARGE = "File size limit exceeded";

/** A file of an upload; or why it is not taken. */
export type Uploaded =
  | { readonly filename: string; readonly path: string; readonly content: Uint8Array }
  | { readonly filename: string; readonly error: string };

export interface Upload {
  readonly files: readonly Uploaded[];
  /** Code may change them, and that is not shown. */
  readonly isReadOnly: boolean;
  readonly hasMore: boolean;
}

/** A form with files in fields of any name: they are read into memory, up to what a session may have. */
export const uploadBody: BodyKind<Upload> = {
  type: "multipart/form-data",
  schema: z.looseObject({}),
  required: true,
  errors: [],
  middleware: receive,
  parse: (request) => {
    const files = (Array.isArray(request.files) ? request.files : []) as readonly Received[];
    const { read_only } = (request.body ?? {}) as { read_only?: unknown };
    return {
      files: files.slice(0, MAX_FILES).map(toUploaded),
      isReadOnly: typeof read_only === "string" && read_only.toLowerCase() === "true",
      hasMore: files.length > MAX_FILES,
    };
  },
};

/** As {@link Collecting} leaves it. */
type Received = Express.Multer.File & { readonly isTooLarge?: boolean };

function toUploaded({ originalname: filename, buffer: content, isTooLarge }: Received): Uploaded {
  if (isTooLarge === true) return { filename, error: TOO_LARGE };
  try {
    // Names are told with their folders, and never lead out of the one that files are in.
    const path = sandboxPath(`./${filename}`);
    if (nameInHome(path) === null) return { filename, error: "Invalid filename" };
    return { filename: nameInHome(path) as string, path, content };
  } catch (error) {
    if (error instanceof ClientError) return { filename, error: "Invalid filename" };
    throw error;
  }
}

/** Of an upload that is taken whole or not at all. */
export function uploadError(error: string): ClientError {
  return error === TOO_LARGE ? new HttpError(413, "file_too_large", error) : new ClientError("invalid_upload", error);
}

function receive({ config }: RouteServices): RequestHandler {
  const maxBytes = config.SESSION_MAX_MB * 2 ** 20;
  const upload = multer({
    storage: new Collecting(config.MAX_FILE_SIZE, maxBytes),
    preservePath: true,
    // As browsers send names; multer's own default is Latin-1.
    defParamCharset: "utf8",
    // One more than are taken, so that it is known.
    limits: { files: MAX_FILES + 1, fields: 20, parts: MAX_FILES + 30, fieldSize: 64 * 1024, headerPairs: 100 },
  }).any();
  return (request, response, next) => {
    if (!request.is("multipart/form-data"))
      return next(new HttpError(400, "wrong_content_type", "Invalid content type. Must be multipart/form-data."));
    upload(request, response, (error: unknown) => {
      if (error === undefined || error instanceof ClientError) return next(error);
      if (error instanceof multer.MulterError && error.code === "LIMIT_FILE_COUNT")
        return next(new ClientError("too_many_files"));
      next(new ClientError("invalid_upload", "The upload is incomplete or malformed"));
    });
  };
}

/** Collects files of a request in memory: each up to its limit, and all of them up to theirs. */
class Collecting implements multer.StorageEngine {
  readonly #maxFileBytes: number;
  readonly #maxBytes: number;
  readonly #bytes = new WeakMap<Request, number>();

  constructor(maxFileBytes: number, maxBytes: number) {
    this.#maxFileBytes = maxFileBytes;
    this.#maxBytes = maxBytes;
  }

  _handleFile(
    request: Request,
    { stream }: Express.Multer.File,
    done: (error?: unknown, info?: Partial<Express.Multer.File>) => void,
  ): void {
    const chunks: Buffer[] = [];
    let size = 0;
    let isRefused = false;
    stream.on("data", (chunk: Buffer) => {
      size += chunk.length;
      const all = (this.#bytes.get(request) ?? 0) + chunk.length;
      this.#bytes.set(request, all);
      // The rest is read, and dropped: the form goes on after it.
      if (isRefused || size > this.#maxFileBytes || all > this.#maxBytes) {
        chunks.length = 0;
        return;
      }
      chunks.push(chunk);
      try {
        if (request.res) holdBody(request.res, all);
      } catch (error) {
        isRefused = true;
        chunks.length = 0;
        done(error);
      }
    });
    stream.once("error", done);
    stream.once("end", () => {
      if (isRefused) return;
      if ((this.#bytes.get(request) ?? 0) > this.#maxBytes)
        return done(new HttpError(413, "file_too_large", "The files of an upload are too large together"));
      const isTooLarge = size > this.#maxFileBytes;
      done(null, { buffer: Buffer.concat(chunks), size, isTooLarge } as Partial<Express.Multer.File>);
    });
  }

  _removeFile(_request: Request, _file: Express.Multer.File, done: (error: Error | null) => void): void {
    done(null);
  }
}
