import { readFileSync } from "node:fs";
import { Router } from "express";
import { z } from "zod";
import { createDocument, type ZodOpenApiOperationObject, type ZodOpenApiResponsesObject } from "zod-openapi";
import { prefixOf } from "./middleware/base-path.ts";
import { installBody, resetBody } from "./resources/packages.ts";
import { checkpointBody, sessionBody } from "./resources/sessions.ts";
import * as replies from "./schemas.ts";
import { executeBody } from "./validation.ts";

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string;
};

const TAGS = [
  {
    name: "Running code",
    description: "Every execution has a pristine interpreter; the caller's files and packages are there.",
  },
  {
    name: "Sessions",
    description:
      "A session keeps its variables and files between executions, whatever happens to the process that ran them.",
  },
  {
    name: "Files",
    description: "A caller's files outlive executions. Uploads land where the code runs, in /home/pyodide.",
  },
  { name: "Packages and state", description: "Packages that are installed here are the caller's alone." },
  { name: "Statistics", description: "Of the caller's own executions; a key with the scope `admin` sees everybody's." },
  { name: "Server", description: "Whether it works, and how." },
  { name: "Pages", description: "For people." },
];

const filename = z.object({
  filename: z.string().meta({ description: "Name of one file, without a folder.", example: "data.csv" }),
});

function json(description: string, schema: z.ZodType): ZodOpenApiResponsesObject[`${1 | 2 | 3 | 4 | 5}${string}`] {
  return { description, content: { "application/json": { schema } } };
}

const wrong = (description: string) => ({ 400: json(description, replies.errorReply) });
const missing = { 404: json("There is no such file.", replies.errorReply) };
const session = z.object({ id: z.string().meta({ description: "The session's id." }) });
const filePath = z.object({
  path: z.string().meta({ description: "In the home folder, or below `tmp/` or `plots/`.", example: "data.csv" }),
});
const sessionFile = session.extend(filePath.shape);
const noSession = { 404: json("There is no such session, or none of the caller's.", replies.errorReply) };
const overloaded = {
  413: json("The body is too large, or the workspace full.", replies.errorReply),
  429: json("Too many executions wait. `Retry-After` says when to try again.", replies.errorReply),
  503: json("The server starts, stops, or cannot keep its security log.", replies.errorReply),
  507: json(
    "There is no room: `storage_full`, or `store_full` for the caller's share of sessions.",
    replies.errorReply,
  ),
};

/** What every operation with a body may answer besides. */
const bodyRefused = {
  408: json("The body comes too slowly.", replies.errorReply),
  415: json("Its encoding, or its type, is not read; `error` says which are.", replies.errorReply),
};

/** What every operation behind a key may answer besides. */
const refused = {
  401: json("No API key, or a wrong one, while the server wants one.", replies.errorReply),
  403: json("The API key lacks the scope.", replies.errorReply),
};

const execution = {
  ...overloaded,
  507: json(
    "There is no room for what the code left, or for its session: `storage_full`, `store_full`. What it came to is in the reply.",
    z.union([replies.execReply, replies.errorReply]),
  ),
  ...wrong("The request is wrong; `error` says what."),
};

const jsonBody = (schema: z.ZodType, example: unknown) => ({
  required: !schema.safeParse({}).success,
  content: { "application/json": { schema, example } },
});
const executeRequest = jsonBody(executeBody, { code: "sum(range(10))" });

/** Any kind of file, as it is. */
const fileContent = {
  required: true,
  content: { "application/octet-stream": { schema: z.string().meta({ override: { format: "binary" } }) } },
};

const upload: Omit<ZodOpenApiOperationObject, "operationId"> = {
  summary: "Upload a file",
  description:
    "One file in the field `csvFile` (or `file`), of a type in UPLOAD_TYPES: .csv, .json, .txt and .py unless set. " +
    "Characters other than letters, digits, dots and hyphens become `_`; where another upload's name became the same, a " +
    "number is added. The latest CSV is also there as `uploaded_file.csv`.",
  requestBody: {
    required: true,
    content: {
      "multipart/form-data": {
        schema: z.object({ csvFile: z.string().meta({ override: { format: "binary" }, description: "The file." }) }),
      },
    },
  },
  responses: {
    200: json("The file is there, and this is what it looks like.", replies.uploadReply),
    ...wrong("No file, two files, another type or field, or a file that is too large."),
    413: json("The workspace is full.", replies.errorReply),
  },
};

type Operation = ZodOpenApiOperationObject & { readonly operationId: string };
type Method = "get" | "post" | "put" | "delete";

/** Every route there is: tag → `METHOD path` → operation. */
const OPERATIONS: Readonly<Record<string, Readonly<Record<string, Operation>>>> = {
  "Running code": {
    "POST /api/execute": {
      operationId: "execute",
      summary: "Run Python",
      description:
        "Python errors and timeouts are results: `success` is false, the status 200. There is one process and one thread: `ThreadPoolExecutor` runs its " +
        "tasks one after another, and `Thread`, `Process` and `subprocess` are refused with a sentence. numpy's default integer has 32 bits and overflows " +
        "without a warning; singular matrices give NaN, not `LinAlgError`; division by zero and overflow in arrays warn of nothing.",
      requestBody: executeRequest,
      responses: { 200: json("What came of it.", replies.execReply), ...execution },
    },
    "POST /api/execute-raw": {
      operationId: "executeRaw",
      summary: "Run Python sent as plain text",
      requestBody: { required: true, content: { "text/plain": { schema: z.string(), example: "sum(range(10))" } } },
      responses: { 200: json("What came of it.", replies.execReply), ...execution },
    },
    "POST /api/execute-stream": {
      operationId: "executeStream",
      summary: "Run Python and follow its output",
      description:
        "Server-sent events while the code runs; a comment every 15 s where there are none, also while it waits. Closing the connection stops the execution.",
      requestBody: executeRequest,
      responses: {
        200: {
          description: "`status`, then output as it appears, then `result` and `complete`.",
          content: { "text/event-stream": { schema: replies.streamEvent } },
        },
        ...wrong("The request is wrong; `error` says what."),
      },
    },
  },
  Sessions: {
    "POST /api/sessions": {
      operationId: "createSession",
      summary: "Create a session",
      requestBody: jsonBody(sessionBody, { ttl: 3600 }),
      responses: { 201: json("The session.", replies.sessionReply), ...wrong("The request is wrong."), ...overloaded },
    },
    "GET /api/sessions": {
      operationId: "listSessions",
      summary: "List the caller's sessions",
      responses: { 200: json("The sessions.", replies.sessionsReply) },
    },
    "GET /api/sessions/{id}": {
      operationId: "getSession",
      summary: "Describe a session",
      requestParams: { path: session },
      responses: { 200: json("The session.", replies.sessionReply), ...noSession },
    },
    "DELETE /api/sessions/{id}": {
      operationId: "deleteSession",
      summary: "End a session",
      requestParams: { path: session },
      responses: { 200: json("It is gone.", replies.messageReply), ...noSession },
    },
    "POST /api/sessions/{id}/fork": {
      operationId: "forkSession",
      summary: "Make a new session that begins as this one is",
      requestParams: { path: session },
      responses: { 201: json("The new session.", replies.sessionReply), ...noSession, ...overloaded },
    },
    "POST /api/sessions/{id}/interrupt": {
      operationId: "interruptSession",
      summary: "Interrupt what runs in a session",
      requestParams: { path: session },
      responses: { 200: json("Whether anything ran.", replies.interruptReply), ...noSession },
    },
    "GET /api/sessions/{id}/checkpoints": {
      operationId: "listCheckpoints",
      summary: "List a session's checkpoints",
      requestParams: { path: session },
      responses: { 200: json("The checkpoints.", replies.checkpointsReply), ...noSession },
    },
    "POST /api/sessions/{id}/checkpoints": {
      operationId: "createCheckpoint",
      summary: "Keep what a session is now under a name",
      requestParams: { path: session },
      requestBody: jsonBody(checkpointBody, { name: "before-training" }),
      responses: { 201: json("The checkpoint.", replies.checkpointReply), ...noSession, ...overloaded },
    },
    "POST /api/sessions/{id}/checkpoints/{name}/restore": {
      operationId: "restoreCheckpoint",
      summary: "Take a session back to a checkpoint",
      requestParams: { path: session.extend({ name: z.string() }) },
      responses: { 200: json("The session.", replies.sessionReply), ...noSession },
    },
    "GET /api/sessions/{id}/files": {
      operationId: "listSessionFiles",
      summary: "List a session's files",
      requestParams: { path: session },
      responses: { 200: json("The files.", replies.filesReply), ...noSession },
    },
    "GET /api/sessions/{id}/files/{path}": {
      operationId: "readSessionFile",
      summary: "Download a session's file",
      requestParams: { path: sessionFile },
      responses: { 200: download(), ...noSession },
    },
    "PUT /api/sessions/{id}/files/{path}": {
      operationId: "writeSessionFile",
      summary: "Write a session's file",
      requestParams: { path: sessionFile },
      requestBody: fileContent,
      responses: { 200: json("The file.", replies.fileReply), ...noSession, ...overloaded },
    },
    "DELETE /api/sessions/{id}/files/{path}": {
      operationId: "deleteSessionFile",
      summary: "Delete a session's file",
      requestParams: { path: sessionFile },
      responses: { 200: json("It is gone.", replies.messageReply), ...noSession },
    },
  },
  Files: {
    "POST /api/upload": { operationId: "upload", ...upload },
    "POST /api/upload-csv": {
      operationId: "uploadCsv",
      ...upload,
      summary: "Upload a file (other name, of the compatibility contract)",
    },
    "GET /api/files": {
      operationId: "listWorkspaceFiles",
      summary: "List the files of the caller's workspace",
      responses: { 200: json("The files.", replies.filesReply) },
    },
    "GET /api/files/{path}": {
      operationId: "readWorkspaceFile",
      summary: "Download a file of the workspace",
      requestParams: { path: filePath },
      responses: { 200: download(), ...wrong("Invalid filename."), ...missing },
    },
    "PUT /api/files/{path}": {
      operationId: "writeWorkspaceFile",
      summary: "Write a file of any kind to the workspace",
      requestParams: { path: filePath },
      requestBody: fileContent,
      responses: {
        200: json("The file.", replies.fileReply),
        ...wrong("Invalid filename."),
        409: json("A folder has this name.", replies.errorReply),
        ...overloaded,
      },
    },
    "DELETE /api/files/{path}": {
      operationId: "deleteWorkspaceFile",
      summary: "Delete a file of the workspace",
      requestParams: { path: filePath },
      responses: { 200: json("It is gone.", replies.messageReply), ...wrong("Invalid filename."), ...missing },
    },
    "GET /api/uploaded-files": {
      operationId: "listUploads",
      summary: "List uploads, newest first",
      responses: { 200: json("The uploads.", replies.uploadedFilesReply) },
    },
    "DELETE /api/uploaded-files/{filename}": {
      operationId: "deleteUpload",
      summary: "Delete an upload",
      requestParams: { path: filename },
      responses: { 200: json("It is gone.", replies.messageReply), ...wrong("Invalid filename."), ...missing },
    },
    "GET /api/pyodide-files": {
      operationId: "listFiles",
      summary: "List the files in /home/pyodide",
      responses: { 200: json("The files.", replies.pyodideFilesReply) },
    },
    "GET /api/pyodide-files/{filename}": {
      operationId: "readFile",
      summary: "Download a file from /home/pyodide",
      requestParams: { path: filename },
      responses: { 200: download(), ...wrong("Invalid filename."), ...missing },
    },
    "DELETE /api/pyodide-files/{filename}": {
      operationId: "deleteFile",
      summary: "Delete a file from /home/pyodide",
      requestParams: { path: filename },
      responses: { 200: json("It is gone.", replies.messageReply), ...wrong("Invalid filename."), ...missing },
    },
    "GET /api/file-info/{filename}": {
      operationId: "fileInfo",
      summary: "Where a file is, and how large",
      requestParams: { path: filename },
      responses: { 200: json("The files of this name.", replies.fileInfoReply), ...wrong("Invalid filename.") },
    },
    "POST /api/extract-plots": {
      operationId: "listPlots",
      summary: "List the plots that code saved",
      description: "Files under /plots/matplotlib and /plots/seaborn.",
      responses: { 200: json("Their paths.", replies.plotsReply) },
    },
    "GET /api/plots/{library}/{filename}": {
      operationId: "readPlot",
      summary: "Download a plot",
      requestParams: {
        path: filename.extend({ library: z.string().meta({ description: "`matplotlib` or `seaborn`." }) }),
      },
      responses: { 200: download(), ...wrong("Invalid filename."), ...missing },
    },
    "POST /api/clear-all-files": {
      operationId: "clearFiles",
      summary: "Delete all of the caller's files",
      responses: { 200: json("They are gone.", replies.clearedFilesReply) },
    },
  },
  "Packages and state": {
    "POST /api/install-package": {
      operationId: "installPackage",
      summary: "Install a package for later executions",
      requestBody: jsonBody(installBody, { package: "humanize==4.9.0" }),
      responses: {
        200: json("It is installed, or `success` is false and `error` says why not.", replies.installReply),
        ...wrong("This is no name of a package."),
      },
    },
    "GET /api/packages": {
      operationId: "listPackages",
      summary: "List the packages that code can import",
      requestParams: {
        query: z.object({ environment: z.string().optional().meta({ description: "Default: the server's." }) }),
      },
      responses: { 200: json("An execution whose result is the list.", replies.packagesReply), ...execution },
    },
    "GET /api/environments": {
      operationId: "listEnvironments",
      summary: "List environments and what they hold",
      responses: { 200: json("The environments.", replies.environmentsReply) },
    },
    "POST /api/reset": {
      operationId: "reset",
      summary: "Remove the packages that were installed",
      description: "Interpreters need no reset: every execution has a pristine one. Files stay.",
      requestBody: jsonBody(resetBody, {}),
      responses: { 200: json("Done.", replies.messageReply) },
    },
  },
  Statistics: {
    "GET /api/dashboard/stats": {
      operationId: "dashboardStatistics",
      summary: "Numbers of the dashboard",
      responses: { 200: json("The numbers.", replies.dashboardReply) },
    },
    "GET /api/dashboard/stats/stream": {
      operationId: "followStatistics",
      summary: "Follow the numbers of the dashboard",
      description:
        "Server-sent events: one at once, then one when something changed, at most one a second; comments between them.",
      responses: {
        200: { description: "The numbers.", content: { "text/event-stream": { schema: replies.dashboardReply } } },
        429: json("Too many dashboards of this principal are open.", replies.errorReply),
      },
    },
    "POST /api/dashboard/stats/clear": {
      operationId: "clearStatistics",
      summary: "Start the statistics from zero",
      responses: { 200: json("Done.", replies.messageReply) },
    },
    "GET /api/stats": {
      operationId: "statistics",
      summary: "Statistics and the server's state",
      responses: { 200: json("Both.", replies.statisticsReply) },
    },
    "GET /metrics": {
      operationId: "metrics",
      summary: "Metrics for Prometheus, of everybody's executions: needs the scope admin",
      responses: { 200: { description: "Text of Prometheus.", content: { "text/plain": { schema: z.string() } } } },
    },
  },
  Server: {
    "GET /api/status": {
      operationId: "status",
      summary: "State of the interpreters",
      responses: { 200: json("The state.", replies.statusReply) },
    },
    "GET /api/health": {
      operationId: "selfTest",
      summary: "Run 2 + 2",
      responses: {
        200: json("It is 4.", replies.selfTestReply),
        503: json("It is not, or not yet.", replies.selfTestReply),
      },
    },
    "GET /health": {
      operationId: "health",
      summary: "Whether the server answers (no key needed)",
      security: [],
      responses: { 200: json("It does.", replies.healthReply) },
    },
    "GET /ready": {
      operationId: "ready",
      summary: "Whether the server can run code now (no key needed)",
      security: [],
      responses: {
        200: json("It can.", replies.readyReply),
        503: json("Not now, and how far it is.", replies.readyReply),
      },
    },
    "GET /docs.json": {
      operationId: "openApi",
      summary: "This document",
      security: [],
      responses: { 200: json("OpenAPI 3.1.", z.looseObject({ openapi: z.string() })) },
    },
  },
  Pages: {
    "GET /": page("playground", "Write and run Python in the browser"),
    "GET /docs": page("docs", "This document, to be read"),
    "GET /api/dashboard/stats/dashboard": page("dashboard", "Live statistics"),
  },
};

function page(operationId: string, summary: string): Operation {
  return {
    operationId,
    summary,
    security: [],
    responses: { 200: { description: "The page.", content: { "text/html": { schema: z.string() } } } },
  };
}

function download(): ZodOpenApiResponsesObject["200"] {
  return {
    description: "The file.",
    content: { "application/octet-stream": { schema: z.string().meta({ override: { format: "binary" } }) } },
  };
}

/** The HTTP interface as an OpenAPI 3.1 document, made from the schemas that requests are checked with. */
export function openApiDocument() {
  const paths: Record<string, Partial<Record<Method, ZodOpenApiOperationObject>>> = {};
  for (const [tag, operations] of Object.entries(OPERATIONS)) {
    for (const [route, operation] of Object.entries(operations)) {
      const [method = "", path = ""] = route.split(" ");
      const responses = {
        ...operation.responses,
        ...(operation.requestBody && bodyRefused),
        ...(!operation.security && refused),
      };
      paths[path] = { ...paths[path], [method.toLowerCase()]: { tags: [tag], ...operation, responses } };
    }
  }
  const document = createDocument(
    {
      openapi: "3.1.0",
      info: {
        title: "Pyodide Express API",
        version,
        description: "Runs untrusted Python in WebAssembly: a pristine interpreter for every request.",
        license: { name: "MIT", identifier: "MIT" },
      },
      servers: [{ url: "/" }],
      tags: TAGS,
      // The empty one: a server without API keys wants none.
      security: [{}, { bearer: [] }, { apiKey: [] }],
      components: {
        securitySchemes: {
          bearer: { type: "http", scheme: "bearer" },
          apiKey: { type: "apiKey", in: "header", name: "X-API-Key" },
        },
      },
      paths,
    },
    // Checked by a function; its `meta` says what a document can say.
    { allowEmptySchema: { custom: true } },
  );
  for (const methods of Object.values(document.paths ?? {})) {
    for (const { requestBody } of Object.values(methods as Record<string, { requestBody?: JsonRequestBody }>)) {
      const schema = requestBody?.content["application/json"]?.schema;
      for (const [name, member] of Object.entries(schema?.properties ?? {})) {
        if (!schema?.required?.includes(name)) takeNull(member);
      }
    }
  }
  return document;
}

interface Member {
  type?: string | string[];
  enum?: unknown[];
}

interface JsonRequestBody {
  readonly content: Readonly<
    Record<string, { schema: { readonly properties?: Record<string, Member>; readonly required?: readonly string[] } }>
  >;
}

/** As `parseBody` does with what may be left out. */
function takeNull(member: Member): void {
  if (typeof member.type === "string") member.type = [member.type, "null"];
  // Routes share their schemas.
  if (member.enum && !member.enum.includes(null)) member.enum = [...member.enum, null];
}

/** `/docs.json`; needs no key, so mount it before `authenticate`. */
export function openApiRoutes(): Router {
  const router = Router();
  const document = openApiDocument();
  router.get("/docs.json", (_request, response) => {
    const servers = [{ url: prefixOf(response) || "/" }];
    response.set("Cache-Control", "public, no-cache").json({ ...document, servers });
  });
  return router;
}
