import { z } from "zod";
import { type Job, type JobResult, KILL_GRACE_MS } from "../sandbox/sandbox.ts";
import { ClientError } from "../shared/errors.ts";
import { JsonLimitError } from "../shared/json/json-scanner.ts";
import { JsonText } from "../shared/json/json-text.ts";
import { type FileListing, MAX_PACKAGE_READ_BYTES, type RunnerOutcome } from "../wire/frames.ts";
import type { PackageArchive, Workspace } from "../wire/host-calls.ts";
import type { ExecutionRequest, ExecutionResult, ExecutionStatus } from "./execution.ts";

/** What the sandbox may ask for by itself; all that is not of the network's. */
const SMALL_ARGUMENT_BYTES = 64 * 1024;
const MAX_ARGUMENT_NODES = 10_000;
const path = z.string().max(4096);
const archivePart = z.strictObject({
  sha256: z.string().max(64),
  offset: z.int().nonnegative(),
  length: z.int().nonnegative().max(MAX_PACKAGE_READ_BYTES),
});
const requirements = z.array(z.string().max(1000)).max(100);

import type { SandboxPool } from "./pool.ts";

/** Runs executions: each on a sandbox that nothing has touched since its checkpoint. */
export class Engine {
  readonly pool: SandboxPool;
  readonly #isStarting: () => boolean;

  /** @param isStarting environments are being built still. */
  constructor(pool: SandboxPool, isStarting = () => false) {
    this.pool = pool;
    this.#isStarting = isStarting;
  }

  /** All that it is to run can be run. Until then some may be. */
  get isReady(): boolean {
    return this.pool.isReady && !this.#isStarting();
  }

  /**
   * Runs code in a pristine interpreter. Python errors, timeouts and crashes are results.
   *
   * @throws {ClientError} 429 when too many wait, 503 when the server stops.
   * @throws the signal's reason, if it is aborted while the execution waits for a sandbox.
   */
  async execute(request: ExecutionRequest): Promise<ExecutionResult> {
    const { environment, principal, signal, onWait, workspace } = request;
    return await this.pool.use({ environment, principal, signal, onWait }, async (sandbox) => {
      const files = workspace ? await listFiles(workspace) : null;
      request.onStart?.();
      const result = await sandbox.execute({
        ...toJob(request),
        mode: "stateless",
        execution: null,
        reseed: true,
        files,
      });
      const failure = result.files && workspace ? await applyChanges(workspace, result.files) : null;
      const outcome = toExecutionResult(result, request.timeoutMs);
      if (failure === null) return outcome;
      return notKept(outcome, "WorkspaceError", `The execution's files were not kept: ${failure.message}`, failure);
    });
  }
}

async function listFiles(workspace: Workspace): Promise<FileListing> {
  const [entries, { bytes, files }] = await Promise.all([workspace.list(), workspace.quota()]);
  return { entries, maxBytes: bytes, maxFiles: files };
}

/** @returns why the files could not be kept; null: they were. */
async function applyChanges(
  workspace: Workspace,
  { changes, contents }: NonNullable<JobResult["files"]>,
): Promise<ClientError | null> {
  try {
    await workspace.apply(changes, contents);
    return null;
  } catch (error) {
    // The code has run: the caller gets its output, and is told that its files are as they were.
    if (error instanceof ClientError) return error;
    throw error;
  }
}

/** What an execution needs of a sandbox, whatever it runs on. */
export function toJob(request: ExecutionRequest): Omit<Job, "mode" | "execution" | "reseed" | "files"> {
  const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
  const { onOutput, workspace } = request;
  const archives = new Map<string, PackageArchive>();
  const remember = (archive: PackageArchive) => archives.set(archive.listing.sha256, archive);
  if (request.packages) remember(request.packages);
  return {
    // An editor's byte order mark is not part of a program; Python itself skips it at the beginning of a file only.
    code: request.code.replace(/^\uFEFF+/, ""),
    context: request.context ?? null,
    stdin: request.stdin ?? "",
    timeoutMs: request.timeoutMs,
    packages: request.packages?.listing ?? null,
    signal: request.signal,
    onOutput:
      onOutput &&
      ((stream, bytes) => {
        const content = decoders[stream].decode(bytes, { stream: true });
        if (content !== "") onOutput({ type: stream, content });
      }),
    onDisplay: onOutput && ((bundle) => onOutput({ type: "output", bundle })),
    onCall: async (operation, argument, signal) => {
      if (operation === "read-file" && workspace) {
        return { value: null, body: await workspace.read(read(path, argument)) };
      }
      if (operation === "read-package") {
        const { sha256, offset, length } = read(archivePart, argument);
        const archive = archives.get(sha256);
        if (!archive) throw new ClientError(404, "unknown_archive", "no such package archive");
        return { value: null, body: archive.read(offset, length) };
      }
      if (operation === "install-packages" && request.installPackages) {
        const archive = await request.installPackages(read(requirements, argument));
        if (archive) remember(archive);
        return { value: archive?.listing ?? null };
      }
      if (operation === "explain-module" && request.explainModule) {
        return { value: await request.explainModule(read(path, argument)) };
      }
      if (operation.startsWith("http-") && request.network) {
        const { network } = request;
        return await network.call(operation, read(z.unknown(), argument, network.maxArgumentBytes), signal);
      }
      throw new ClientError(400, "unknown_operation", `the sandbox does not offer ${JSON.stringify(operation)} here`);
    },
  };
}

/** What user code asks for, once it is known to be small and of the right form. @throws {ClientError} */
function read<T extends z.ZodType>(schema: T, argument: JsonText, maxBytes = SMALL_ARGUMENT_BYTES): z.output<T> {
  let value: unknown;
  try {
    value = argument.parse({ maxBytes, maxNodes: MAX_ARGUMENT_NODES });
  } catch (error) {
    if (!(error instanceof JsonLimitError)) throw error;
    throw new ClientError(400, "argument_too_large", `the argument is too large: ${error.message}`);
  }
  const checked = schema.safeParse(value);
  if (!checked.success) throw new ClientError(400, "invalid_argument", "the argument is not of the right form");
  return checked.data;
}

/**
 * A result of which something could not be kept. The code has run: what came of it stays in the reply.
 *
 * @param type names the failure where the code itself has met with none.
 */
export function notKept(result: ExecutionResult, type: string, message: string, cause?: ClientError): ExecutionResult {
  const noted = { ...result, ...(cause && { notKept: cause }) };
  const { errorInfo } = result;
  if (errorInfo) return { ...noted, errorInfo: { ...errorInfo, message: `${errorInfo.message} ${message}` } };
  const lost = { type, message, traceback: "", line: null, column: null };
  return { ...noted, success: false, status: "error", error: message, errorInfo: lost };
}

export function toExecutionResult(result: JobResult, timeoutMs: number): ExecutionResult {
  const outcome = result.end === "finished" ? result.outcome : stopped(result, timeoutMs);
  return {
    success: outcome.success,
    status: statusOf(result),
    result: outcome.success ? result.value : JsonText.null,
    error: outcome.error,
    ...(outcome.errorInfo && { errorInfo: outcome.errorInfo }),
    stdout: Buffer.from(result.stdout).toString("utf8"),
    stderr: Buffer.from(result.stderr).toString("utf8"),
    outputs: result.displayed,
    executionTimeMs: result.executionTimeMs,
    processorTimeMs: result.processorTimeMs,
    truncated: result.truncated || outcome.truncated === true,
  };
}

function statusOf({ end, outcome, killed, crashed }: JobResult): ExecutionStatus {
  if (end === "timeout" || end === "cancelled") return end;
  if (end === "processor-time") return "cpu_limit";
  if (killed || crashed) return "sandbox_died";
  return outcome.success ? "completed" : "error";
}

/** What an execution that was stopped from outside comes to, whatever its code made of the interrupt. */
function stopped({ end, outcome, killed }: JobResult, timeoutMs: number): RunnerOutcome {
  const message = {
    finished: "",
    timeout: `Execution timed out after ${timeoutMs}ms`,
    "processor-time": "Execution timed out: it used all the processor time it may have",
    cancelled: "Execution was cancelled",
  }[end];
  const how = killed ? ` It did not react to an interrupt and was killed ${KILL_GRACE_MS} ms later.` : "";
  const { traceback = "", line = null, column = null } = outcome.errorInfo ?? {};
  return {
    success: false,
    error: message,
    errorInfo: {
      type: end === "cancelled" ? "Cancelled" : "Timeout",
      message: message + (how && `.${how}`),
      traceback,
      line,
      column,
    },
  };
}
