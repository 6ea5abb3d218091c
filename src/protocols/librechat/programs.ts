import type { OutputEvent } from "../../sandbox/running-job.ts";
import type { ExecutionContext, Services } from "../../service/execution-service.ts";
import { contentOf, Slices, textMembers } from "../../shared/json/json-members.ts";
import { isObject } from "../../shared/json/json-object.ts";
import { JsonText } from "../../shared/json/json-text.ts";
import type { Reply, Step, ToolAnswer } from "../../tools/events.ts";
import type { ToolExecution } from "../../tools/tool-executions.ts";
import type { KeptContent } from "../../workspaces/own-files.ts";
import { HOME } from "../../workspaces/paths.ts";
import { refused } from "../bodies.ts";
import { isOutOfTime, withCutNote } from "../execution-limits.ts";
import { nameInHome, type ProgramRun, runProgram, sandboxPath } from "../program.ts";
import { Storage, type StoredFile } from "./storage.ts";

const MAX_FILES = 1000;
const IMAGE = /\.(?:png|jpe?g|gif|webp|svg|pdf)$/i;

/** A file that a program is to find, as a request names it. */
interface FileReference {
  readonly id: string;
  readonly session: string;
  readonly name: string;
}

export interface ProgramRequest {
  readonly code: string;
  readonly args?: readonly string[];
  readonly timeoutMs?: number | undefined;
  readonly files: readonly FileReference[];
  /** Of the run, and of the files that it will have left. */
  readonly sessionId: string;
}

/** Files that a program begins with: by their paths in the sandbox, what they were before. */
type Inputs = ReadonlyMap<string, StoredFile>;

export interface LibreChatRun {
  readonly run: ProgramRun;
  /** Of this run, and of the files that it has left. */
  readonly sessionId: string;
  readonly files: readonly object[];
}

/** @throws {ClientError} 400 in LibreChat's words. */
export function fileReferences(given: unknown): readonly FileReference[] {
  if (given === undefined || given === null) return [];
  if (!Array.isArray(given) || given.length > MAX_FILES) throw refused("files must be an array");
  return given.map((file: unknown, index) => {
    if (!isObject(file)) throw refused(`files[${index}] must be an object`);
    const { id, name } = file;
    const session = file.storage_session_id ?? file.session_id;
    for (const [member, value] of Object.entries({ id, storage_session_id: session, name }))
      if (typeof value !== "string" || value === "")
        throw refused(`files[${index}].${member} must be a non-empty string`);
    return { id, name, session } as FileReference;
  });
}

/**
 * Runs a program with the files that it names, and keeps those that it has left, if it came to its end.
 *
 * @throws {ClientError} 404 `not_found` for a file that is not there; what `runProgram` throws, and `Storage.create`.
 */
export async function runForLibreChat(
  services: Services,
  { code, args = [], timeoutMs, files, sessionId }: ProgramRequest,
  context: ExecutionContext,
  listeners: { readonly tools?: ToolExecution | null; readonly onOutput?: (event: OutputEvent) => void } = {},
): Promise<LibreChatRun> {
  const storage = new Storage(services, context.principal.id);
  const inputs = new Map<string, StoredFile>();
  for (const { id, session, name } of files) inputs.set(pathOf(name), await storage.get(session, id));
  const program = { code, file: "main.py", args, kept: keptContents(storage, inputs), timeoutMs };
  const run = await runProgram(services, program, context, listeners);
  return { run, sessionId, files: await keep(storage, sessionId, run, inputs, context.signal) };
}

/** What a program finds, each file to be read when it opens it. */
export function keptContents(storage: Pick<Storage, "read">, inputs: Inputs): ReadonlyMap<string, KeptContent> {
  return new Map(
    Array.from(inputs, ([path, file]) => {
      const { sha256, size } = file;
      return [path, { sha256, size, read: async () => await storage.read(file) }] as const;
    }),
  );
}

/** Where it is in the sandbox: `/mnt/data`, whatever its name begins with. */
function pathOf(name: string): string {
  const path = sandboxPath(name.startsWith("/") ? name : `./${name}`);
  if (nameInHome(path) === null) throw refused(`files[].name leads out of /mnt/data: ${name.slice(0, 100)}`);
  return path;
}

/** @returns the files as clients are told of them: new and changed ones with new ids, then those that are as they came. */
async function keep(
  storage: Storage,
  sessionId: string,
  run: ProgramRun,
  inputs: Inputs,
  signal: AbortSignal,
): Promise<readonly object[]> {
  const left = run.exitCode === 0 ? await leftBy(run, inputs) : new Map<string, Uint8Array>();
  const kept = left.size === 0 ? [] : await storage.create(sessionId, left, signal);
  const made = kept.map(({ id, name, path }) => {
    const before = inputs.get(path);
    const modified = before && { modified_from: { id: before.id, storage_session_id: before.storageSession } };
    return { id, name, path: name, storage_session_id: sessionId, session_id: sessionId, ...modified };
  });
  const inherited = Array.from(inputs).flatMap(([path, { id, storageSession }]) => {
    if (left.has(path) || !run.files.has(path)) return [];
    const name = nameInHome(path);
    return [{ id, name, storage_session_id: storageSession, session_id: storageSession, inherited: true }];
  });
  return [...made, ...inherited];
}

/** What a program has written to the home folder. A figure that it only showed is a file, too: clients show no others. */
async function leftBy({ result, files }: ProgramRun, inputs: Inputs): Promise<ReadonlyMap<string, Uint8Array>> {
  const left = new Map<string, Uint8Array>();
  for (const [path, content] of files.changed) {
    const isCache = path.includes("/__pycache__/");
    if (nameInHome(path) !== null && !isCache && inputs.get(path)?.isReadOnly !== true) left.set(path, content);
  }
  if ([...left.keys()].some((path) => IMAGE.test(path))) return left;
  let number = 0;
  // Code may display 64 MiB: others have their turn meanwhile.
  const slices = new Slices();
  for (const bundle of result.outputs) {
    const image = (await textMembers(bundle, slices)).get("image/png");
    if (image === undefined) continue;
    const base64 = (await contentOf(image, slices)).toString("latin1");
    do number++;
    while (files.has(`${HOME}/plot_${number}.png`));
    left.set(`${HOME}/plot_${number}.png`, Buffer.from(base64, "base64"));
  }
  return left;
}

/** Reply of `/exec`. */
export function execReply({ run: { result, exitCode }, sessionId, files }: LibreChatRun): object {
  const { stdout, executionTimeMs } = result;
  const stderr = withCutNote(result.stderr, result);
  const isLate = isOutOfTime(result);
  return {
    session_id: sessionId,
    files,
    stdout,
    stderr,
    code: exitCode,
    signal: exitCode === null ? "SIGKILL" : null,
    message: isLate ? "Time limit exceeded" : null,
    status: exitCode === 0 ? null : isLate ? "TO" : exitCode === null ? "SG" : "RE",
    wall_time: executionTimeMs,
  };
}

/** Last reply of `/exec/programmatic`. Its clients show those errors that they know. */
export function programmaticReply({ run: { result, exitCode }, sessionId, files }: LibreChatRun): Reply {
  const { stdout } = result;
  const stderr = withCutNote(result.stderr, result);
  if (exitCode === 0) return replyOf({ status: "completed", session_id: sessionId, stdout, stderr, files });
  const error =
    exitCode !== null
      ? `Sandbox exited with code ${exitCode}`
      : isOutOfTime(result)
        ? "Time limit exceeded"
        : "Execution failed or timed out";
  return replyOf({ status: "error", error, session_id: sessionId, stdout, stderr });
}

/** What a program waits for. */
export function stepReply(sessionId: string, { continuation, calls, stdout, stderr }: Step): Reply {
  const toolCalls = calls.flatMap((call) =>
    call.type === "tool_call" ? [{ id: call.id, name: call.name, input: call.input.parseAll() }] : [],
  );
  return replyOf({
    status: "tool_call_required",
    session_id: sessionId,
    continuation_token: continuation,
    tool_calls: toolCalls,
    partial_stdout: stdout,
    partial_stderr: stderr,
  });
}

/** @throws {ClientError} 400 in LibreChat's words. */
export function toolAnswers(given: unknown): readonly ToolAnswer[] {
  if (!Array.isArray(given)) throw refused("tool_results must be an array when continuation_token is provided");
  if (given.length === 0)
    throw refused("tool_results must be a non-empty array; resubmit with at least one result per pending tool call");
  return given.map((answer: unknown, index): ToolAnswer => {
    if (!isObject(answer) || typeof answer.call_id !== "string")
      throw refused(`tool_results[${index}].call_id must be a string`);
    const { call_id: id, result = null, is_error, error_message } = answer;
    if (is_error !== true) return { id, result: JsonText.of(result) };
    const message = typeof error_message === "string" ? error_message : "Tool execution failed";
    return { id, error: { message } };
  });
}

function replyOf(body: object): Reply {
  return { status: 200, body: Buffer.from(JSON.stringify(body)) };
}
