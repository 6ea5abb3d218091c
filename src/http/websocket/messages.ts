import { z } from "zod";
import { ClientError } from "../../shared/errors.ts";
import { isObject } from "../../shared/json/json-object.ts";
import { MAX_INLINE_BYTES } from "../body-limits.ts";
import { sessionBody } from "../resources/sessions.ts";
import { parseBody } from "../validation.ts";

/** What clients call an execution, or a request. */
const NAME = /^[\w.:-]{1,64}$/;
const nameOf = (what: string) =>
  z
    .string(`${what} must be a string.`)
    .regex(NAME, `${what} must have 1 to 64 letters, digits, dots, colons, hyphens and underscores.`);

const execution = nameOf("Execution");
const request = nameOf("Request");
const session = z.string("Session must be a string.");

/** Messages besides `execute` and `results`, whose bodies are those of their endpoints. */
const MESSAGES = {
  interrupt: z.object({ execution }),
  resume: z.object({
    channel: z.string("Channel must be a string."),
    after: z.int("After must be the seq of an event.").min(0, "After must be the seq of an event."),
  }),
  create_session: sessionBody.extend({ request }),
  get_session: z.object({ request, session }),
  fork_session: z.object({ request, session }),
  reset_session: z.object({ request, session }),
  delete_session: z.object({ request, session }),
} as const;

export type MessageType = keyof typeof MESSAGES;
export type Message = { [T in MessageType]: { readonly type: T } & z.output<(typeof MESSAGES)[T]> }[MessageType];

export type SessionMessage = Extract<Message, { readonly request: string }>;

const TYPES = ["execute", "results", ...Object.keys(MESSAGES)];

/** @throws {ClientError} 400 `invalid_request`. */
export function readMessage(value: unknown): Message {
  const type = typeOf(value);
  if (!Object.hasOwn(MESSAGES, type))
    throw new ClientError("invalid_request", `Type must be one of ${TYPES.join(", ")}.`);
  const known = type as MessageType;
  return { type: known, ...(parseBody<z.ZodType>(MESSAGES[known], value) as object) } as Message;
}

/** @throws {ClientError} 400 `invalid_request`: the message is no object with a type. */
export function typeOf(value: unknown): string {
  if (!isObject(value) || typeof value.type !== "string") {
    throw new ClientError("invalid_request", "A message is a JSON object with a type.");
  }
  return value.type;
}

/** @throws {ClientError} 400 `invalid_request`. */
export function executionOf(value: unknown): string {
  return parseBody(z.object({ execution }), value).execution;
}

/**
 * Whose results a message has, without looking at all of it: values of results are never parsed here.
 *
 * A message that is small is parsed to be read. In a large one `type` and `execution` have to stand first.
 *
 * @returns null: it is another message, or a small one.
 */
export function executionOfLargeResults(bytes: Uint8Array): string | null {
  if (bytes.length <= MAX_INLINE_BYTES) return null;
  const start = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 1024)).toString("latin1");
  const match = /^\s*\{\s*"type"\s*:\s*"results"\s*,\s*"execution"\s*:\s*"([\w.:-]{1,64})"\s*,/.exec(start);
  return match?.[1] ?? null;
}

/** What the id of a request, or an execution, is in a message that is refused, for the client to know which. */
export function nameIn(value: unknown): { readonly execution?: string; readonly request?: string } {
  if (!isObject(value)) return {};
  const own = (member: unknown) => (typeof member === "string" && NAME.test(member) ? member : undefined);
  const [forExecution, forRequest] = [own(value.execution), own(value.request)];
  return {
    ...(forExecution !== undefined && { execution: forExecution }),
    ...(forRequest !== undefined && { request: forRequest }),
  };
}
