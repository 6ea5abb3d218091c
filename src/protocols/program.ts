import { posix } from "node:path";
import type { NetworkInput } from "../egress/network-rules.ts";
import { MAX_STDIN_CHARACTERS } from "../http/validation.ts";
import type { ExecutionResult } from "../sandbox/outcome.ts";
import type { OutputEvent } from "../sandbox/running-job.ts";
import { type ExecutionContext, runCode, type Services } from "../service/execution-service.ts";
import { ClientError } from "../shared/errors.ts";
import type { ToolExecution } from "../tools/tool-executions.ts";
import type { ErrorInfo } from "../wire/guest-messages.ts";
import { type KeptContent, OwnFiles } from "../workspaces/own-files.ts";
import { HOME, workspaceFolder } from "../workspaces/paths.ts";
import { workspaceLimits } from "../workspaces/workspace-index.ts";

/** Of a number of 64 bits, with its sign. */
const MAX_LONG_CHARACTERS = 20;
/** As much as `/api/execute-raw` takes: some clients write their data into the code. */
const MAX_CODE_CHARACTERS = 10 * 1024 * 1024;

/** A program as the clients of other servers send it: it runs once, with files that nothing else sees, and ends with an exit status. */
export interface Program {
  readonly code: string;
  /** Its file's path, as `sys.argv[0]` has it; relative ones are in the home folder, where it runs. */
  readonly file: string;
  readonly args?: readonly string[];
  readonly stdin?: string;
  /** Files that it begins with, by their paths in the sandbox: see {@link sandboxPath}. */
  readonly files?: ReadonlyMap<string, Uint8Array>;
  /** Further ones, which are read when it opens them. */
  readonly kept?: ReadonlyMap<string, KeptContent>;
  /** ms; default: the server's. */
  readonly timeoutMs?: number | undefined;
  readonly environment?: string | undefined;
  readonly network?: NetworkInput | undefined;
}

/** What came of a program. */
export interface ProgramRun {
  readonly result: ExecutionResult;
  /** As a shell has it; null: it was stopped, or its sandbox died. */
  readonly exitCode: number | null;
  readonly files: OwnFiles;
}

interface ProgramListeners {
  readonly onOutput?: (event: OutputEvent) => void;
  readonly tools?: ToolExecution | null;
}

/** @throws {ClientError} what `runCode` throws; 400 `invalid_request`, `invalid_path`; 413 `workspace_full`. */
export async function runProgram(
  services: Services,
  { code, file, args = [], stdin = "", files = new Map(), kept, timeoutMs, environment, network }: Program,
  context: ExecutionContext,
  { onOutput, tools = null }: ProgramListeners = {},
): Promise<ProgramRun> {
  if (code.length > MAX_CODE_CHARACTERS)
    throw new ClientError("invalid_request", `Code too long. Maximum length: ${MAX_CODE_CHARACTERS} characters.`);
  if (stdin.length > MAX_STDIN_CHARACTERS)
    throw new ClientError("invalid_request", `Stdin too long. Maximum length: ${MAX_STDIN_CHARACTERS} characters.`);
  const own = await OwnFiles.of(files, workspaceLimits(services.config), kept);
  const input = { code, argv: [file, ...args], stdin, timeout: timeoutMs, environment, network, ownFiles: own };
  const result = await runCode(services, input, context, { ...(onOutput && { onOutput }), tools });
  return { result, exitCode: exitCodeOf(result), files: own };
}

/**
 * Where a file of a client's is in the sandbox: what is relative is in the home folder, which `/mnt/data` is, too.
 *
 * @throws {ClientError} 400 `invalid_path` for what is in no folder that programs write to.
 */
export function sandboxPath(name: string): string {
  const path = workspaceFolder(name);
  if (name.endsWith("/") || path === HOME)
    throw new ClientError("invalid_path", `This is no name of a file: ${JSON.stringify(name.slice(0, 100))}`);
  return path;
}

/** A file of the home folder as clients name it, relative to that; null: it is elsewhere. */
export function nameInHome(path: string): string | null {
  const name = posix.relative(HOME, path);
  return name === "" || name.startsWith("../") ? null : name;
}

function exitCodeOf({ status, success, errorInfo }: ExecutionResult): number | null {
  if (success) return 0;
  if (status !== "error") return null;
  const code = errorInfo && exitStatusOf(errorInfo);
  if (code == null) return 1;
  // As CPython: what no C `long` holds is -1. The operating system keeps eight bits of a status.
  const number = code.length > MAX_LONG_CHARACTERS ? -1n : BigInt(code);
  return Number(BigInt.asUintN(8, number === BigInt.asIntN(64, number) ? number : -1n));
}

/** What the code gave to `sys.exit`; null: it has not exited with a number. */
export function exitStatusOf({ type, message }: Pick<ErrorInfo, "type" | "message">): string | null {
  if (type !== "SystemExit" && type !== "ProcessExit") return null;
  return /^exited with status (-?\d+)$/.exec(message)?.[1] ?? null;
}
