import { readdirSync, readFileSync, rmSync } from "node:fs";
import { rm } from "node:fs/promises";
import path from "node:path";
import type { RequestHandler } from "express";
import multer from "multer";
import { z } from "zod";
import { runInternal, type Services } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import { makeFolder, makeFolderSync } from "../../shared/make-folder.ts";
import type { Principal } from "../../shared/principal.ts";
import { StorageStartupError } from "../../shared/storage-startup-error.ts";
import { storageError, troubleOf } from "../../shared/storage-trouble.ts";
import { wrongContentType } from "../content-type.ts";
import { sanitiseFilename } from "../filenames.ts";
import { HttpError } from "../http-error.ts";
import { type Asked, type BodyKind, type Route, reply, route } from "../routes.ts";
import { bytes } from "../schemas.ts";
import { isTextFile } from "../text-content.ts";
import { invalidEncoding } from "../text-decoding.ts";

const FIELDS = ["csvFile", "file"];
/** What can be described; the rest is only stored. */
const TABLES = [".csv", ".json"];
const LATEST_CSV = "uploaded_file.csv";
/** As multer makes them up. */
const TEMPORARY_NAME = /^[0-9a-f]{32}$/;
const ANALYSIS_TIMEOUT_MS = 30_000;
const ANALYSIS = readFileSync(new URL("../../programs/analyse_upload.py", import.meta.url), "utf8");

const analysis = z
  .looseObject({
    success: z.boolean().meta({ description: "False for a file that is no table; it is uploaded all the same." }),
    filename: z.string(),
    shape: z
      .array(z.int())
      .nullable()
      .meta({ description: "Rows and columns.", example: [120, 4] }),
    columns: z.array(z.string()).nullable(),
    sample: z.array(z.unknown()).nullable().meta({ description: "The first five rows." }),
    memory_usage: bytes.nullable().meta({ description: "Bytes that the table takes in Python." }),
    error: z.string().nullable().optional(),
  })
  .meta({ id: "FileAnalysis" });

const uploadBody: BodyKind<Express.Multer.File> = {
  type: "multipart/form-data",
  schema: z.object({ csvFile: z.string().meta({ override: { format: "binary" }, description: "The file." }) }),
  required: true,
  errors: [
    "no_file",
    "unexpected_field",
    "too_many_files",
    "file_type",
    "file_too_large",
    "invalid_upload",
    "wrong_content_type",
  ],
  middleware: receiveFile,
  parse: ({ file }) => {
    if (!file) throw new ClientError("no_file");
    return file;
  },
};

/** `POST /api/upload`, also `/api/upload-csv`. */
export const uploadRoutes: readonly Route[] = [
  upload("/api/upload", "upload", "Upload a file"),
  upload("/api/upload-csv", "uploadCsv", "Upload a file (other name, of the compatibility contract)"),
];

function upload(path: string, operation: string, summary: string): Route {
  return route({
    method: "post",
    path,
    scope: "files",
    tag: "Files",
    operation,
    summary,
    description:
      "One file in the field `csvFile` (or `file`), of a type in UPLOAD_TYPES: .csv, .json, .txt and .py unless set. " +
      "Characters other than letters, digits, dots and hyphens become `_`; where another upload's name became the same, a " +
      "number is added. The latest CSV is also there as `uploaded_file.csv`.",
    body: uploadBody,
    reply: reply("The file is there, and this is what it looks like.", {
      file: z.looseObject({
        originalName: z.string().meta({ example: "my data.csv" }),
        size: bytes,
        pyodideFilename: z.string().meta({ description: "Its name in `/home/pyodide`.", example: "my_data.csv" }),
        isText: z
          .boolean()
          .meta({ description: "Whether its content has the form of text. What has not is stored all the same." }),
        keepFile: z.boolean(),
        tempPath: z.string().meta({
          description: "Its base name is what `/api/uploaded-files` lists and deletes. No path of the server's.",
          example: "uploads/my_data.csv",
        }),
      }),
      analysis,
    }),
    errors: ["workspace_full", "storage_full", "store_unavailable"],
    handler: takeIn,
  });
}

async function takeIn({
  services,
  principal,
  body: file,
  signal,
  record,
}: Asked<unknown, Express.Multer.File, unknown>) {
  const originalName = file.originalname;
  const wanted = sanitiseFilename(originalName);
  const alsoAs = extensionOf(wanted) === ".csv" ? [LATEST_CSV] : [];
  const workspace = services.workspaces.of(principal.id);
  const store = async () => {
    const isText = await isTextFile(file.path);
    return { ...(await workspace.upload({ hostFile: file.path }, { filename: wanted, originalName, alsoAs })), isText };
  };
  // Before anybody is answered: the temporary file never outlives its request.
  const stored = await store().finally(async () => await rm(file.path, { force: true }));
  const { filename } = stored;
  services.statistics.recordUpload(principal.id);
  record("file_upload", {
    success: true,
    filename,
    originalName,
    size: stored.size,
    sha256: stored.sha256,
    isText: stored.isText,
  });
  return {
    file: {
      originalName,
      size: stored.size,
      pyodideFilename: filename,
      keepFile: true,
      // The base name is what `/api/uploaded-files` lists and deletes; it is no path of the host.
      tempPath: `uploads/${filename}`,
      isText: stored.isText,
    },
    analysis: await analyse(services, principal, filename, signal),
  };
}

/** A file that cannot be described is uploaded all the same. */
async function analyse(
  services: Services,
  principal: Principal,
  filename: string,
  signal: AbortSignal,
): Promise<z.input<typeof analysis>> {
  const nothing = { success: false, filename, shape: null, columns: null, sample: null, memory_usage: null };
  const extension = extensionOf(filename);
  if (!TABLES.includes(extension)) return { ...nothing, error: `A ${extension} file is no table.` };
  try {
    const { success, result, error } = await runInternal(
      services,
      principal,
      {
        code: ANALYSIS,
        context: JSON.stringify({ filename }),
        timeout: ANALYSIS_TIMEOUT_MS,
      },
      signal,
    );
    if (!success) return { ...nothing, error };
    const parsed = result.parse();
    if ("tooLarge" in parsed)
      return { ...nothing, error: `The description of the table is too large: ${parsed.tooLarge}.` };
    return parsed.value as z.input<typeof analysis>;
  } catch (error) {
    if (error instanceof ClientError) return { ...nothing, error: error.message };
    throw error;
  }
}

/** Puts the one file of the request on disk, and takes it away again whatever goes wrong. */
function receiveFile({ config }: Services): RequestHandler {
  makeUploadFolder(config.UPLOAD_DIR);
  const upload = multer({
    // Made anew where it is gone, or where the disk had no room for it when the server started.
    storage: multer.diskStorage({
      destination: (_request, _file, done) =>
        makeFolder(config.UPLOAD_DIR, 0o700).then(
          () => done(null, config.UPLOAD_DIR),
          (error) => done(error, config.UPLOAD_DIR),
        ),
    }),
    // As browsers send names; multer's own default is Latin-1.
    defParamCharset: "utf8",
    limits: { fileSize: config.MAX_FILE_SIZE, files: 1, fields: 20, parts: 30, fieldSize: 64 * 1024, headerPairs: 100 },
    fileFilter: (_request, file, accept) => {
      const extension = extensionOf(sanitiseFilename(file.originalname));
      // Also a name that was damaged before it came here: whatever it was, it cannot be asked for any more.
      if (file.originalname.includes("\ufffd")) return accept(invalidEncoding("The file name is not valid UTF-8"));
      if (!FIELDS.includes(file.fieldname)) return accept(new ClientError("unexpected_field"));
      if (config.UPLOAD_TYPES.includes(extension)) return accept(null, true);
      const message = `File type ${extension || "(none)"} not allowed. Allowed types: ${config.UPLOAD_TYPES.join(", ")}`;
      accept(new ClientError("file_type", message));
    },
  }).any();
  return (request, response, next) => {
    const wrong = wrongContentType(request, ["multipart/form-data"]);
    if (wrong !== null) return next(new HttpError(400, "wrong_content_type", `No file uploaded. ${wrong}`));
    if (!request.is("multipart/form-data")) return next(new ClientError("no_file"));
    upload(request, response, (error: unknown) => {
      // Multer has taken away what it wrote.
      if (error !== undefined) return next(toClientError(error, config.MAX_FILE_SIZE));
      const [file] = Array.isArray(request.files) ? request.files : [];
      if (file) request.file = file;
      next();
    });
  };
}

/** Makes the folder, and removes what a server that was killed has left there. @throws {StorageStartupError} */
function makeUploadFolder(folder: string): void {
  try {
    makeFolderSync(folder, 0o700);
    for (const name of readdirSync(folder)) {
      if (TEMPORARY_NAME.test(name)) rmSync(path.join(folder, name), { force: true });
    }
  } catch (cause) {
    // A full disk has room again some time; uploads are refused until then.
    if (troubleOf(cause) === "full") return;
    const damaged = "Set UPLOAD_DIR to a folder.";
    throw new StorageStartupError({ what: folder, folder, setting: "UPLOAD_DIR", damaged, cause });
  }
}

function toClientError(error: unknown, maxBytes: number): unknown {
  if (error instanceof multer.MulterError) {
    switch (error.code) {
      case "LIMIT_FILE_SIZE":
        return new ClientError("file_too_large", `File size too large. Maximum size: ${formatMb(maxBytes)}`);
      case "LIMIT_FILE_COUNT":
        return new ClientError("too_many_files");
      case "LIMIT_UNEXPECTED_FILE":
        return new ClientError("unexpected_field");
      default:
        return new ClientError("invalid_upload", error.message);
    }
  }
  // A body that was cut off, or is no multipart at all. What has a `syscall` is a failure of our own disk.
  if (error instanceof Error && !(error instanceof ClientError) && !("syscall" in error)) {
    return new ClientError("invalid_upload", "The upload is incomplete or malformed");
  }
  return storageError(error) ?? error;
}

function formatMb(bytes: number): string {
  const mb = bytes / (1024 * 1024);
  return Number.isInteger(mb) ? `${mb}MB` : `${bytes} bytes`;
}

function extensionOf(filename: string): string {
  return path.extname(filename).toLowerCase();
}
