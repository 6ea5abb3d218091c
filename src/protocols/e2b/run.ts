import { MAX_TIMEOUT_MS } from "../../http/validation.ts";
import type { ExecutionResult } from "../../sandbox/outcome.ts";
import type { OutputEvent } from "../../sandbox/running-job.ts";
import { type ExecutionContext, type ExecutionInput, runCode, type Services } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import { steadyNowMs } from "../../shared/steady-clock.ts";
import { gone, type Sandboxes } from "./sandboxes.ts";

/** Largest delay of a timer. */
const MAX_DELAY_MS = 2 ** 31 - 1;

export interface SandboxRun {
  readonly id: string;
  readonly input: Pick<ExecutionInput, "code" | "stdin" | "env" | "namespace" | "display" | "printTraceback">;
  readonly onWait?: () => void;
  readonly onStart?: () => void;
  readonly onOutput: (event: OutputEvent) => void;
}

/**
 * Runs code in a sandbox, until it ends, is paused or killed.
 *
 * @throws {ClientError} 502 if the sandbox does not run, or no more; what `runCode` throws.
 */
export async function runInSandbox(
  services: Services,
  sandboxes: Sandboxes,
  { id, input, onOutput, ...listeners }: SandboxRun,
  context: ExecutionContext,
): Promise<ExecutionResult> {
  const principal = context.principal.id;
  const { state } = await sandboxes.running(principal, id);
  const ended = new AbortController();
  let isOver = false;
  let timer: NodeJS.Timeout | undefined;
  const watchUntil = (endAtMs: number): void => {
    const delayMs = Math.min(MAX_DELAY_MS, Math.max(0, endAtMs - steadyNowMs()) + 1);
    timer = setTimeout(async () => {
      const now = await sandboxes.running(principal, id).catch(() => null);
      if (now === null) ended.abort(gone(id));
      else if (!isOver) watchUntil(now.state.endAtMs);
    }, delayMs).unref();
  };
  /** Waits for what interrupts it, which may refuse that too. */
  const stillRuns = async (): Promise<void> => {
    await services.sessions.settled(principal, id).catch(() => {});
    await sandboxes.running(principal, id);
  };
  watchUntil(state.endAtMs);
  try {
    const env = { ...state.env, ...input.env };
    const result = await runCode(
      services,
      // E2B has no end of an execution but its client's; this server has one.
      { ...input, env, session: id, timeout: MAX_TIMEOUT_MS },
      { ...context, signal: AbortSignal.any([context.signal, ended.signal]) },
      { ...listeners, onOutput },
    );
    if (ended.signal.aborted) throw gone(id);
    // Who stopped it may have been about to delete the sandbox, or to pause it.
    if (result.status === "cancelled" && !context.signal.aborted) await stillRuns();
    return result;
  } catch (error) {
    // It waited for its turn.
    if (isError(error, "interrupted") && !context.signal.aborted) await stillRuns();
    throw ended.signal.aborted || isError(error, "session_not_found") ? gone(id) : error;
  } finally {
    isOver = true;
    clearTimeout(timer);
  }
}

function isError(error: unknown, code: ClientError["code"]): boolean {
  return error instanceof ClientError && error.code === code;
}
