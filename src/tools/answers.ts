/** What a client posts to answer calls: `{results: [{id, result} | {id, error: {message, data?}}]}`. */

import { ClientError } from "../shared/errors.ts";
import { JsonLimitError, type JsonLimits, JsonSyntaxError } from "../shared/json/json-scanner.ts";
import { elementsOf, membersOf } from "../shared/json/json-source.ts";
import { JsonText } from "../shared/json/json-text.ts";
import { TaskThread } from "../shared/task-thread.ts";
import { MAX_TOOL_CALLS } from "../wire/host-calls.ts";
import type { ToolAnswer } from "./events.ts";
import { VALUE_LIMITS } from "./pending-calls.ts";

const MAX_INLINE_BYTES = 128 * 1024;
const MAX_MESSAGE_CHARACTERS = 100_000;
/** The answers themselves stand three levels deep, and each has a few values beside its result. */
const BODY_LIMITS = {
  ...VALUE_LIMITS,
  maxDepth: VALUE_LIMITS.maxDepth + 4,
  maxNodes: VALUE_LIMITS.maxNodes + 10 * MAX_TOOL_CALLS,
};

/** An answer whose values are texts of JSON, as they were written: numbers keep all their digits. */
export type SplitAnswer =
  | { readonly id: string; readonly result: string }
  | { readonly id: string; readonly message: string; readonly data?: string };

export type SplitAnswers = readonly SplitAnswer[] | { readonly refused: string };

export interface AnswersTask {
  /** JSON that was scanned. */
  readonly body: Uint8Array;
  /** Of the one call that the body answers; null: it names its calls. */
  readonly id: string | null;
  /** Names of the members, from the outermost, in which the object with the answers is; default: it is the body. */
  readonly within?: readonly string[];
}

/** Takes part of a second; one that takes longer must not hold up others' for ever. */
const MAX_SPLIT_MS = 20_000;

const thread = new TaskThread<AnswersTask, SplitAnswers>({
  program: new URL("answers-worker.ts", import.meta.url),
  lost: () => new ClientError("json_too_complex", "JSON too complex: it takes too much memory, or too long"),
  timeoutMs: MAX_SPLIT_MS,
  idleMs: 60_000,
});

/**
 * @param body JSON in UTF-8.
 * @param principal who sends it: large ones of different principals are read in turns.
 * @param within see {@link AnswersTask}.
 * @throws {ClientError} 400 `invalid_json`, `json_too_complex`, `invalid_request`.
 */
export async function readAnswers(
  body: Uint8Array,
  principal: string,
  within: readonly string[] = [],
): Promise<readonly ToolAnswer[]> {
  return await read({ body, id: null, within }, principal);
}

async function read(task: AnswersTask, principal: string): Promise<readonly ToolAnswer[]> {
  // Linear, and in turns: what is too deep, or no JSON, is not looked at by anything else.
  await checked(task.body, BODY_LIMITS);
  const answers = task.body.length <= MAX_INLINE_BYTES ? splitAnswers(task) : await thread.run(task, { principal });
  if ("refused" in answers) throw new ClientError("invalid_request", answers.refused);
  return await Promise.all(answers.map(toAnswer));
}

/**
 * What answers one call that the answer need not name: `{result}` or `{error: {message, data?}}`.
 *
 * @throws {ClientError} as {@link readAnswers}.
 */
export async function readAnswer(body: Uint8Array, id: string, principal: string): Promise<ToolAnswer> {
  const [answer] = await read({ body, id }, principal);
  if (!answer) throw new ClientError("invalid_json");
  return answer;
}

async function toAnswer(answer: SplitAnswer): Promise<ToolAnswer> {
  const { id } = answer;
  if ("result" in answer) return { id, result: await textOf(answer.result) };
  const { message, data } = answer;
  return { id, error: { message, ...(data !== undefined && { data: await textOf(data) }) } };
}

async function checked(json: Uint8Array, limits: JsonLimits): Promise<JsonText> {
  try {
    return await JsonText.checkInSlices(json, limits);
  } catch (error) {
    if (error instanceof JsonLimitError)
      throw new ClientError("json_too_complex", `JSON too complex: ${error.message}`);
    if (error instanceof JsonSyntaxError) throw new ClientError("invalid_json");
    throw error;
  }
}

async function textOf(source: string): Promise<JsonText> {
  return await checked(Buffer.from(source), VALUE_LIMITS);
}

export function splitAnswers({ body, id, within = [] }: AnswersTask): SplitAnswers {
  const form = 'The body must be {"results": [{"id", "result"} or {"id", "error": {"message", "data"?}}, …]}.';
  let text = Buffer.from(body.buffer, body.byteOffset, body.length).toString("utf8").trim();
  try {
    for (const name of within) text = (text.startsWith("{") ? member(membersOf(text), name) : undefined) ?? "";
    if (id !== null) return [splitAnswer(text, id)];
    const results = text.startsWith("{") ? member(membersOf(text), "results") : undefined;
    if (!results?.startsWith("[")) return { refused: form };
    const elements = elementsOf(results);
    if (elements.length > MAX_TOOL_CALLS) return { refused: `At most ${MAX_TOOL_CALLS} results can come at a time.` };
    return elements.map((element) => splitAnswer(element, null));
  } catch (error) {
    if (!(error instanceof FormError)) throw error;
    return { refused: error.message };
  }
}

class FormError extends Error {
  override readonly name = "FormError";
}

function splitAnswer(element: string, known: string | null): SplitAnswer {
  if (!element.startsWith("{")) throw new FormError("Each result must be an object with id, and result or error.");
  const members = membersOf(element);
  const id = known ?? textIn(member(members, "id"));
  const result = member(members, "result");
  const error = member(members, "error");
  if (id === undefined) throw new FormError("Each result needs the id of its call, a string.");
  if (error === undefined || error === "null") {
    if (result === undefined) throw new FormError(`The result ${id} has neither result nor error.`);
    return { id, result };
  }
  if (result !== undefined && result !== "null") throw new FormError(`The result ${id} has both result and error.`);
  const inside = error.startsWith("{") ? membersOf(error) : [];
  // A text by itself says it as well.
  const message = textIn(error) ?? textIn(member(inside, "message"));
  if (message === undefined || message.length > MAX_MESSAGE_CHARACTERS)
    throw new FormError(`The error of ${id} needs a message of at most ${MAX_MESSAGE_CHARACTERS} characters.`);
  const data = member(inside, "data");
  return { id, message, ...(data !== undefined && { data }) };
}

/** The last of a name, as JSON.parse has it. */
function member(members: readonly (readonly [string, string])[], name: string): string | undefined {
  return members.findLast(([other]) => other === name)?.[1];
}

function textIn(source: string | undefined): string | undefined {
  return source?.startsWith('"') ? (JSON.parse(source) as string) : undefined;
}
