import type { ExecutionRequest } from "../executor/execution.ts";
import type { ExecutionResult } from "../sandbox/outcome.ts";
import { ClientError } from "../shared/errors.ts";
import { goneWith, type LiveSession } from "./live-session.ts";
import { countsOf, DEFAULT_NAMESPACE, hasNamespace, placeOf } from "./namespaces.ts";
import { runInTurn, type SessionRunOptions } from "./session-run.ts";
import type { SessionLease } from "./store.ts";

/** How long an editor waits for what runs in the session, and for a sandbox, ms. It asks again with the next key. */
const PATIENCE_MS = 1000;

/** Aborted when a question has waited for too long; `end` where it waits no more. */
export interface Patience {
  readonly signal: AbortSignal;
  readonly end: () => void;
}

export function patience(): Patience {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(new ClientError("session_occupied")), PATIENCE_MS);
  return { signal: abort.signal, end: () => clearTimeout(timer) };
}

/**
 * Answers an editor's question on a session, which stays as it is: nothing is stored, and the sandbox's copy serves further questions
 * alone. A session that exists in its sandbox alone is asked there, and goes on there.
 *
 * @param request its `question` is answered: the value of the result is the answer.
 * @throws {ClientError} 404 where there is no such namespace; what an execution throws where it cannot be loaded.
 */
export async function ask(
  options: SessionRunOptions,
  live: LiveSession,
  lease: SessionLease,
  request: ExecutionRequest,
  { end }: Pick<Patience, "end">,
): Promise<ExecutionResult> {
  const { record } = lease;
  const { namespace: name = DEFAULT_NAMESPACE } = request;
  if (!hasNamespace(record, name)) throw new ClientError("not_found", "Namespace not found");
  const pinned = live.resident?.pinned ?? null;
  const counts = countsOf(record, live.resident?.counts);
  const { result, left, refusedFiles, staleFiles } = await runInTurn(options, live, lease, {
    request,
    namespace: placeOf(record, name),
    number: counts.executions + 1,
    reseed: false,
    onBegin: end,
  });
  if (left !== null && options.pool.keeps(left.key)) {
    if (pinned !== null && refusedFiles) options.pool.evict(left.key);
    else {
      const { key, files, contents } = left;
      const { revision } = record;
      live.resident = { key, revision, counts, files, contents, staleFiles, pinned, isAltered: pinned === null };
    }
  }
  if (pinned !== null && live.resident === null) live.setback ??= goneWith(pinned);
  return result;
}
