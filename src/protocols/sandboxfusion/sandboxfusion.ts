import { z } from "zod";
import { contextOf } from "../../http/caller.ts";
import { sendJson } from "../../http/json-reply.ts";
import { holdReply } from "../../http/middleware/held-requests.ts";
import { endpoint, json, type Protocol, type ProtocolOptions } from "../../http/protocol.ts";
import { jsonBody } from "../../http/routes.ts";
import { MAX_TIMEOUT_MS } from "../../http/validation.ts";
import type { ExecutionResult } from "../../sandbox/outcome.ts";
import { ClientError } from "../../shared/errors.ts";
import { JsonFragments } from "../../shared/json/json-parts.ts";
import { base64InSlices } from "../../shared/json/json-strings.ts";
import { keyInAddress } from "../credentials.ts";
import { isOutOfTime, withCutNote } from "../execution-limits.ts";
import { type ProgramRun, runProgram, sandboxPath } from "../program.ts";
import { runCells } from "./cells.ts";

const PATHS: ReadonlySet<string> = new Set(["/run_code", "/run_jupyter", "/v1/ping"]);
const MAX_FILES = 1000;
/** Of all files of one reply, before base64. */
export const MAX_FETCHED_BYTES = 32 * 1024 * 1024;

const files = z
  .record(z.string(), z.string("files must be base64 texts by their paths").nullable())
  .optional()
  .transform((given) => Object.entries(given ?? {}).filter((entry): entry is [string, string] => entry[1] !== null))
  .refine((entries) => entries.length <= MAX_FILES, `files: more than ${MAX_FILES}`);
const fetchFiles = z.array(z.string("fetch_files must be paths")).max(MAX_FILES).optional();
const seconds = (name: string) => z.number(`${name} must be a number of seconds`).optional();

const codeBody = z.object({
  code: z.string("code must be a string"),
  language: z.string("language must be a string"),
  run_timeout: seconds("run_timeout"),
  stdin: z.string("stdin must be a string").nullish(),
  files,
  fetch_files: fetchFiles,
});

const cellsBody = z.object({
  cells: z.array(z.string("cells must be strings")).max(MAX_FILES),
  cell_timeout: seconds("cell_timeout"),
  total_timeout: seconds("total_timeout"),
  kernel: z.literal("python3", "kernel must be python3").optional(),
  files,
  fetch_files: fetchFiles,
});

/** https://github.com/bytedance/SandboxFusion/blob/main/sandbox/server/sandbox_api.py */
export function sandboxfusion({ services, count }: ProtocolOptions): Protocol {
  return {
    name: "sandboxfusion",
    owns: ({ path }) => PATHS.has(path),
    credentialOf: keyInAddress,
    executes: ({ method, path }) => method === "POST" && path.startsWith("/run_"),
    openEndpoints: [
      endpoint({ method: "get", path: "/v1/ping", scope: "no key", reply: json(), handler: () => "pong" }),
    ],
    endpoints: [
      endpoint({
        method: "post",
        path: "/run_code",
        scope: "execute",
        body: jsonBody(codeBody, { code: 'print("hello")', language: "python" }),
        reply: { send: sendJson },
        handler: async ({ request, response, body }) => {
          const { code, language, run_timeout = 10, stdin, files, fetch_files = [] } = body;
          if (language !== "python")
            return reply({
              status: "SandboxError",
              message: `The language ${language.slice(0, 100)} is not there: this server runs python.`,
            });
          const program = {
            code,
            file: "program.py",
            stdin: stdin ?? "",
            files: contentsOf(files),
            timeoutMs: toMs(run_timeout),
          };
          const run = await runProgram(services, program, contextOf(request, response));
          return reply({
            status: run.exitCode === 0 ? "Success" : "Failed",
            run_result: commandOf(run.result, run.exitCode),
            files: await fetched(run, fetch_files),
          });
        },
      }),
      endpoint({
        method: "post",
        path: "/run_jupyter",
        scope: "execute",
        body: jsonBody(cellsBody, { cells: ["a = 1", "a"] }),
        reply: { send: sendJson },
        handler: async ({ request, response, body }) => {
          const { cells, cell_timeout = 0, total_timeout = 45, files, fetch_files = [] } = body;
          const context = contextOf(request, response);
          const run = await runCells(services, context, {
            cells,
            count: async () => await count(context.principal.id, context.caller.ip),
            cellTimeoutMs: cell_timeout > 0 ? toMs(cell_timeout) : MAX_TIMEOUT_MS,
            totalTimeoutMs: toMs(total_timeout),
            files: contentsOf(files),
            wanted: placesOf(fetch_files),
            onWanted: (bytes) => {
              requireFetchable(bytes);
              holdReply(response, bytes);
            },
          });
          const { isOver, refusal, timeMs, files: left } = run;
          const status = isOver ? "Finished" : refusal ? "Error" : "TimeLimitExceeded";
          return {
            status: isOver ? "Success" : "Failed",
            message: refusal?.message ?? "",
            driver: { status, execution_time: timeMs / 1000, return_code: isOver ? 0 : null, stdout: "", stderr: "" },
            cells: run.cells,
            executor_pod_name: null,
            files: await encoded(left),
          };
        },
      }),
    ],
    // As FastAPI has it.
    sendError: (response, { status, code, message }) =>
      response.status(code === "invalid_request" ? 422 : status).json({ detail: message }),
  };
}

function reply(given: {
  readonly status: string;
  readonly message?: string;
  readonly run_result?: object;
  readonly files?: object;
}) {
  return { message: "", compile_result: null, run_result: null, executor_pod_name: null, files: {}, ...given };
}

function commandOf(result: ExecutionResult, exitCode: number | null) {
  const { executionTimeMs, stdout } = result;
  const isLate = isOutOfTime(result);
  return {
    status: isLate ? "TimeLimitExceeded" : "Finished",
    execution_time: executionTimeMs / 1000,
    // What was killed has the number of its signal.
    return_code: isLate ? null : (exitCode ?? -9),
    stdout,
    stderr: withCutNote(result.stderr, result),
  };
}

/** Those that are there. @throws {ClientError} see {@link encoded}. */
async function fetched({ files }: ProgramRun, names: readonly string[]): Promise<JsonFragments> {
  const found = Array.from(placesOf(names), ([name, path]) => {
    const content = files.contentOf(path);
    return content === undefined ? [] : [[name, content] as const];
  });
  return await encoded(found.flat());
}

/** @throws {ClientError} 400 `file_too_large` before any is made base64: one file has a thousand spellings, and a reply is one text. */
export async function encoded(
  contents: Iterable<readonly [name: string, content: Uint8Array]>,
): Promise<JsonFragments> {
  const all = [...contents];
  const bytes = all.reduce((sum, [, { length }]) => sum + length, 0);
  requireFetchable(bytes);
  const written: [name: string, base64: JsonFragments][] = [];
  for (const [name, content] of all) written.push([name, await base64InSlices(content)]);
  return new JsonFragments(Object.fromEntries(written));
}

function requireFetchable(bytes: number): void {
  if (bytes > MAX_FETCHED_BYTES)
    throw new ClientError(
      "file_too_large",
      `fetch_files: ${bytes} bytes; at most ${MAX_FETCHED_BYTES} can be fetched.`,
    );
}

/** By name the path of each; of what can be nowhere in the sandbox there is none. */
function placesOf(names: readonly string[]): ReadonlyMap<string, string> {
  const places = new Map<string, string>();
  for (const name of names) {
    try {
      places.set(name, sandboxPath(name));
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
    }
  }
  return places;
}

function contentsOf(files: readonly (readonly [name: string, base64: string])[]): ReadonlyMap<string, Uint8Array> {
  return new Map(files.map(([name, content]) => [sandboxPath(name), Buffer.from(content, "base64")]));
}

function toMs(seconds: number): number {
  if (seconds <= 0) throw new ClientError("invalid_request", "A timeout must be a positive number of seconds.");
  return Math.min(MAX_TIMEOUT_MS, Math.ceil(seconds * 1000));
}
