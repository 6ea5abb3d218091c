import type { RunnerOutcome } from "../sandbox/protocol.ts";
import { type Job, type JobResult, KILL_GRACE_MS } from "../sandbox/sandbox.ts";
import type { ExecutionRequest, ExecutionResult } from "./execution.ts";
import type { SandboxPool } from "./pool.ts";

export interface EngineOptions {
  readonly pool: SandboxPool;
  readonly defaultEnvironment: string;
  readonly quota: { readonly bytes: number; readonly files: number };
}

/** Runs executions: each on a sandbox that nothing has touched since its checkpoint. */
export class Engine {
  readonly pool: SandboxPool;
  readonly #options: EngineOptions;

  constructor(options: EngineOptions) {
    this.pool = options.pool;
    this.#options = options;
  }

  /**
   * Runs code in a pristine interpreter. Python errors, timeouts and crashes are results.
   *
   * @throws {ClientError} 429 when too many wait, 503 when the server stops, 413 when the workspace's quota is exceeded.
   * @throws the signal's reason, if it is aborted while the execution waits for a sandbox.
   */
  async execute(request: ExecutionRequest): Promise<ExecutionResult> {
    const environment = request.environment ?? this.#options.defaultEnvironment;
    const { principal, signal, workspace } = request;
    return await this.pool.use({ environment, principal, signal }, async (sandbox) => {
      const files = workspace ? await workspace.list() : null;
      const decoders = { stdout: new TextDecoder(), stderr: new TextDecoder() };
      const { onOutput } = request;
      const job: Job = {
        code: request.code,
        context: request.context ?? null,
        stdin: request.stdin ?? "",
        timeoutMs: request.timeoutMs,
        mode: "stateless",
        reseed: true,
        files: files && { entries: files, maxBytes: this.#options.quota.bytes, maxFiles: this.#options.quota.files },
        packages: null,
        signal,
        onOutput:
          onOutput &&
          ((stream, bytes) => {
            const content = decoders[stream].decode(bytes, { stream: true });
            if (content !== "") onOutput({ type: stream, content });
          }),
        onDisplay: onOutput && ((bundle) => onOutput({ type: "output", bundle })),
        onCall: async (operation, argument) => {
          if (operation === "read-file" && workspace && typeof argument === "string") {
            return { value: null, body: await workspace.read(argument) };
          }
          throw new Error(`unknown operation ${JSON.stringify(operation)}`);
        },
      };
      const result = await sandbox.execute(job);
      if (result.files && workspace) await workspace.apply(result.files.changes, result.files.contents);
      return toExecutionResult(result, request.timeoutMs);
    });
  }
}

function toExecutionResult(result: JobResult, timeoutMs: number): ExecutionResult {
  const outcome = result.end === "finished" ? result.outcome : stopped(result, timeoutMs);
  return {
    success: outcome.success,
    result: outcome.result,
    error: outcome.error,
    ...(outcome.errorInfo && { errorInfo: outcome.errorInfo }),
    stdout: Buffer.from(result.stdout).toString("utf8"),
    stderr: Buffer.from(result.stderr).toString("utf8"),
    outputs: result.displayed,
    executionTimeMs: result.executionTimeMs,
    truncated: result.truncated || outcome.truncated === true,
  };
}

/** What an execution that was stopped from outside comes to, whatever its code made of the interrupt. */
function stopped({ end, outcome, killed }: JobResult, timeoutMs: number): RunnerOutcome {
  const timeout = end === "timeout";
  const message = timeout ? `Execution timed out after ${timeoutMs}ms` : "Execution was cancelled";
  const how = killed ? ` It did not react to an interrupt and was killed ${KILL_GRACE_MS} ms later.` : "";
  const { traceback = "", line = null, column = null } = outcome.errorInfo ?? {};
  return {
    success: false,
    result: null,
    error: message,
    errorInfo: {
      type: timeout ? "Timeout" : "Cancelled",
      message: message + (how && `.${how}`),
      traceback,
      line,
      column,
    },
    outputs: [],
  };
}
