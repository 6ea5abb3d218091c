import type { Response } from "express";
import { z } from "zod";
import { contextOf } from "../../http/caller.ts";
import { endpoint, json, type Protocol, type ProtocolOptions } from "../../http/protocol.ts";
import { sendNext } from "../../http/resources/executions.ts";
import { sendFile } from "../../http/resources/file-collection.ts";
import type { Asked } from "../../http/routes.ts";
import { MAX_TIMEOUT_MS, parseBody } from "../../http/validation.ts";
import { openTools } from "../../service/tool-calls.ts";
import type { ClientError } from "../../shared/errors.ts";
import { toolDefinition } from "../../tools/definitions.ts";
import { nameOf } from "../../workspaces/paths.ts";
import { argumentsOf, jsonObject, refused, shown } from "../bodies.ts";
import { keyInAddress } from "../credentials.ts";
import { execReply, fileReferences, programmaticReply, runForLibreChat, stepReply, toolAnswers } from "./programs.ts";
import { newStorageId, objectName, Storage, type StoredFile } from "./storage.ts";
import { type Upload, type Uploaded, uploadBody, uploadError } from "./uploads.ts";

const ROOT = "/librechat/v1";
const FILES = ["execute", "files"] as const;
const PYTHON: ReadonlySet<unknown> = new Set(["py", "python", "python3"]);
const TYPE = "application/octet-stream";

const body = jsonObject("The body must be JSON.");
const toolList = z.object({ tools: z.array(toolDefinition, "tools must be a list of objects with a name") });

/** LibreChat's code interpreter: https://github.com/ClickHouse/code-interpreter, and its client in `danny-avila/agents`. */
export function librechat({ services }: ProtocolOptions): Protocol {
  const storageOf = ({ principal }: Pick<Asked<unknown, unknown, unknown>, "principal">) =>
    new Storage(services, principal.id);
  return {
    name: "librechat",
    owns: ({ path }) => path.startsWith(`${ROOT}/`),
    credentialOf: keyInAddress,
    executes: ({ method, path }) => method === "POST" && path === `${ROOT}/exec`,
    openEndpoints: [
      endpoint({
        method: "get",
        path: `${ROOT}/health`,
        scope: "no key",
        reply: json(),
        handler: () => ({ status: "ok" }),
      }),
    ],
    endpoints: [
      endpoint({
        method: "post",
        path: `${ROOT}/exec`,
        scope: "execute",
        body,
        reply: json(),
        handler: async ({ request, response, body }) => {
          const { lang, code, args, files, timeout } = body;
          if (!PYTHON.has(lang)) throw refused(`Unsupported language: ${shown(lang)}. This server runs py.`);
          if (typeof code !== "string") throw refused("Missing required field: code");
          const program = {
            code,
            args: argumentsOf(args),
            timeoutMs: timeoutOf(timeout),
            files: fileReferences(files),
            sessionId: newStorageId(),
          };
          return execReply(await runForLibreChat(services, program, contextOf(request, response)));
        },
      }),

      endpoint({
        method: "post",
        path: `${ROOT}/exec/programmatic`,
        scope: "execute",
        body,
        handler: async (asked) => {
          const { body, principal, response, request } = asked;
          const { continuation_token: token } = body;
          if (token === undefined || token === null || token === "") return await begin(asked);
          if (typeof token !== "string") throw refused("Invalid continuation token");
          const { signal } = contextOf(request, response);
          sendNext(
            response,
            await services.continuations.proceed(principal.id, token, toolAnswers(body.tool_results), signal),
          );
        },
      }),

      endpoint({
        method: "post",
        path: `${ROOT}/upload`,
        scope: FILES,
        body: uploadBody,
        reply: json(),
        handler: async (asked) => {
          const { files } = asked.body;
          for (const file of files) if ("error" in file) throw uploadError(file.error);
          const { id, stored } = await take(asked, storageOf(asked));
          return { ...uploaded("success", id), files: stored };
        },
      }),

      endpoint({
        method: "post",
        path: `${ROOT}/upload/batch`,
        scope: FILES,
        body: uploadBody,
        handler: async (asked) => {
          const { id, stored } = await take(asked, storageOf(asked));
          const failed = asked.body.files.flatMap((file) =>
            "error" in file ? [{ status: "error", filename: file.filename, error: file.error }] : [],
          );
          const message = failed.length === 0 ? "success" : stored.length === 0 ? "error" : "partial_success";
          asked.response.status(message === "error" ? 400 : 200).json({
            ...uploaded(message, id),
            files: [...stored.map((file) => ({ status: "success", ...file })), ...failed],
            succeeded: stored.length,
            failed: failed.length,
            ...(asked.body.hasMore && { filesLimitReached: true, maxFiles: asked.body.files.length }),
          });
        },
      }),

      endpoint({
        method: "get",
        path: `${ROOT}/files/:session`,
        scope: FILES,
        reply: json(),
        handler: async (asked) => {
          const detailOf = DETAILS.get(asked.request.query.detail) ?? objectName;
          return (await storageOf(asked).list(asked.params.session)).map(detailOf);
        },
      }),

      endpoint({
        method: "delete",
        path: `${ROOT}/files/:session/:file`,
        scope: FILES,
        reply: json(),
        handler: async (asked) => {
          const { session, file } = asked.params;
          const found = await storageOf(asked).get(session, file);
          await storageOf(asked).remove(found, asked.signal);
          asked.record("file_delete", { path: found.path, session });
          return { message: "File deleted successfully", session_id: session, fileId: file };
        },
      }),

      endpoint({
        method: "get",
        path: `${ROOT}/download/:session/:file`,
        scope: FILES,
        handler: async (asked) => {
          const file = await storageOf(asked).get(asked.params.session, asked.params.file);
          await sendFile(asked.response, nameOf(file.path), (onSize) => storageOf(asked).read(file, onSize));
        },
      }),

      endpoint({
        method: "get",
        path: `${ROOT}/sessions/:session/objects/:file`,
        scope: FILES,
        reply: json(),
        handler: async (asked) => metadataOf(await storageOf(asked).get(asked.params.session, asked.params.file)),
      }),
    ],
    sendError,
  };
}

/** Begins a program that calls the client's tools, and replies with what it waits for, or with what came of it. */
async function begin({
  services,
  request,
  response,
  body,
}: Asked<unknown, Record<string, unknown>, unknown>): Promise<void> {
  const { code, tools, timeout, files } = body;
  const language = body.language ?? body.lang ?? "python";
  if (!PYTHON.has(language))
    throw refused(`Unsupported language "${shown(language)}"; the supported value is "python"`);
  if (typeof code !== "string" || code === "") throw refused("Missing required field: code");
  if (!Array.isArray(tools) || tools.length === 0)
    throw refused("Missing required field: tools (must be a non-empty array)");
  const timeoutMs = timeoutOf(timeout);
  const sessionId = newStorageId();
  const program = { code, timeoutMs, files: fileReferences(files), sessionId };
  const offered = { code, ...parseBody(toolList, { tools }), toolMode: "async" as const };
  const context = contextOf(request, response);
  const continuation = services.continuations.begin({
    principal: context.principal.id,
    leaseMs: services.config.TOOL_TIMEOUT_MS,
    render: (step) => stepReply(sessionId, step),
  });
  const execution = await openTools(services, offered, context, continuation);
  if (execution === null) throw new Error("tools were offered, and none opened");
  continuation.start(execution, async (signal) => {
    const run = await runForLibreChat(
      services,
      program,
      { ...context, signal },
      {
        tools: execution,
        onOutput: (event) => {
          if (event.type === "stdout" || event.type === "stderr") continuation.print(event.type, event.content);
        },
      },
    );
    return programmaticReply(run);
  });
  services.continuations.add(continuation);
  sendNext(response, await services.continuations.next(continuation, [], context.signal));
}

/** @returns ms; undefined: the server's. @throws {ClientError} 400 */
function timeoutOf(given: unknown): number | undefined {
  if (given === undefined || given === null) return undefined;
  if (typeof given !== "number" || given <= 0) throw refused("timeout must be a positive number of milliseconds");
  return Math.min(given, MAX_TIMEOUT_MS);
}

/** Keeps the files of an upload that can be taken. */
async function take({ body, signal, record }: Asked<unknown, Upload, unknown>, storage: Storage) {
  const right = body.files.filter((file): file is Exclude<Uploaded, { error: string }> => "path" in file);
  if (body.files.length === 0) throw refused("No files provided");
  const id = newStorageId();
  if (right.length === 0) return { id, stored: [] };
  const files = await storage.create(
    id,
    new Map(right.map(({ path, content }) => [path, content])),
    signal,
    body.isReadOnly,
  );
  for (const { path, size } of files) record("file_write", { path, size, session: id });
  const idOf = new Map(files.map((file) => [file.path, file.id]));
  return { id, stored: right.map(({ filename, path }) => ({ fileId: idOf.get(path), filename })) };
}

/** Older clients know the first of these names. */
function uploaded(message: string, id: string) {
  return { message, session_id: id, storage_session_id: id };
}

const DETAILS: ReadonlyMap<unknown, (file: StoredFile) => unknown> = new Map(
  Object.entries({
    summary: (file: StoredFile) => summaryOf(file),
    full: (file: StoredFile) => ({
      ...summaryOf(file),
      metadata: { "content-type": TYPE, "original-filename": file.name, "original-filename-encoded": "none" },
      contentType: TYPE,
    }),
    normalized: ({ id, name, storageSession, size, mtimeMs, isReadOnly }: StoredFile) => ({
      id,
      name,
      storage_session_id: storageSession,
      size,
      contentType: TYPE,
      lastModified: new Date(mtimeMs).toISOString(),
      ...(isReadOnly && { read_only: true }),
    }),
  }),
);

function summaryOf(file: StoredFile) {
  const { id, size, mtimeMs } = file;
  return {
    name: objectName(file),
    size,
    lastModified: new Date(mtimeMs).toISOString(),
    etag: `${id}-${mtimeMs}-${size}`,
  };
}

function metadataOf(file: StoredFile) {
  return { ...summaryOf(file), originalFilename: file.name, contentType: TYPE, readOnly: file.isReadOnly };
}

function sendError(response: Response, { status, code, message, retryAfterS = 1 }: ClientError): void {
  if (status === 429) response.status(429).json({ error: "rate_limited", message, retry_after_seconds: retryAfterS });
  else if (code === "execution_not_found" || code === "tool_wait_expired")
    response.status(404).json({ error: "Execution not found or expired" });
  else response.status(status).json({ error: message });
}
