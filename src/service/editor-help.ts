/** What editors ask while code is written. Nothing of the code is executed, no execution is counted, and a session stays as it is. */
import { z } from "zod";
import type { ExecutionRequest } from "../executor/execution.ts";
import type { ExecutionResult } from "../sandbox/outcome.ts";
import { ClientError } from "../shared/errors.ts";
import type { Principal } from "../shared/principal.ts";
import type { EditorQuestion } from "../wire/messages.ts";
import type { Services } from "./execution-service.ts";

/** An editor that waits for longer has moved on. */
const TIMEOUT_MS = 2000;

/** Where an editor's code would run. */
export interface EditorPlace {
  readonly principal: Principal;
  /** Id of a session. */
  readonly session: string;
  readonly namespace?: string | undefined;
  readonly signal: AbortSignal;
}

/** What an editor has open. */
export interface EditorCode {
  readonly code: string;
  /** Characters (code points) before the cursor; default: all. */
  readonly cursor?: number | undefined;
}

// The sandbox's word, which its user's code may have changed.
const text = z.string().max(100_001);
const position = z.int().min(0).max(100_000);
const completion = z.object({
  matches: z.array(z.object({ text: z.string().max(1000), type: z.string().max(50) })).max(500),
  start: position,
  end: position,
  isCut: z.boolean(),
});
const inspection = z.object({ text });
const completeness = z.object({
  status: z.enum(["complete", "incomplete", "invalid", "unknown"]),
  indent: z.string().max(100_000).optional(),
});

/** What may stand at the cursor, the best first, and which characters of the code it replaces. */
export type Completion = z.output<typeof completion>;
/** Whether a prompt should run code, or ask for a line that begins with `indent`. */
export type Completeness = z.output<typeof completeness>;

/** @throws {ClientError} 400 for a cursor that is not in the code, 404, 503 `session_occupied`; what an execution in a session throws. */
export async function complete(services: Services, place: EditorPlace, asked: EditorCode): Promise<Completion> {
  const cursor = cursorOf(asked);
  const result = await askSession(services, place, { type: "complete", code: asked.code, cursor });
  const nothing = { matches: [], start: cursor, end: cursor, isCut: false };
  const found = answerOf(result, completion);
  return found && found.start <= found.end && found.end <= lengthOf(asked.code) ? found : nothing;
}

/**
 * What is at the cursor: signature, type and documentation; with `detail` 1 its source.
 *
 * @returns null: nothing that is known.
 * @throws as {@link complete}.
 */
export async function inspect(
  services: Services,
  place: EditorPlace,
  { detail = 0, ...asked }: EditorCode & { readonly detail?: 0 | 1 | undefined },
): Promise<string | null> {
  const question = { type: "inspect", code: asked.code, cursor: cursorOf(asked), detail } as const;
  return answerOf(await askSession(services, place, question), inspection)?.text ?? null;
}

/** Whether code is whole. Needs no session. @throws {ClientError} what a stateless execution throws. */
export async function isComplete(
  { executor, packages }: Services,
  { principal, signal }: Pick<EditorPlace, "principal" | "signal">,
  code: string,
): Promise<Completeness> {
  const environment = packages.defaultEnvironment;
  const result = await executor.execute({
    ...requestOf({ type: "is_complete", code }),
    environment,
    principal: principal.id,
    signal,
  });
  return answerOf(result, completeness) ?? { status: "unknown" };
}

async function askSession(
  services: Services,
  { principal, session, namespace, signal }: EditorPlace,
  question: EditorQuestion,
): Promise<ExecutionResult> {
  const { environment: asked } = await services.sessions.record(principal.id, session);
  const { environment, archive } = await services.packages.environmentOfSession(principal.id, asked);
  return await services.sessions.ask(session, {
    ...requestOf(question),
    namespace,
    environment,
    packages: archive ?? undefined,
    principal: principal.id,
    signal,
  });
}

function requestOf(question: EditorQuestion): Pick<ExecutionRequest, "code" | "question" | "timeoutMs"> {
  return { code: "", question, timeoutMs: TIMEOUT_MS };
}

/** What the runner answers at the most: 500 names, each with what it is, or one text. User code may put something else in its place. */
const ANSWER_LIMITS = { maxBytes: 4 * 1024 * 1024, maxNodes: 10_000 };

/** Null: there is none, or it took too long, or it is none that the runner gives. */
function answerOf<T extends z.ZodType>({ success, result }: ExecutionResult, schema: T): z.output<T> | null {
  const parsed = success ? result.parse(ANSWER_LIMITS) : null;
  return parsed === null || "tooLarge" in parsed ? null : (schema.safeParse(parsed.value).data ?? null);
}

function cursorOf({ code, cursor = lengthOf(code) }: EditorCode): number {
  if (cursor <= lengthOf(code)) return cursor;
  throw new ClientError("invalid_request", "Cursor must be a number of characters of the code.");
}

/** In code points, as Python counts: two surrogates that belong together are one. */
export function lengthOf(code: string): number {
  return code.length - (code.match(/[\ud800-\udbff][\udc00-\udfff]/g)?.length ?? 0);
}
