import { ClientError } from "../shared/errors.ts";
import { jsonParts } from "../shared/json/json-parts.ts";
import { type HostCalls, MAX_TOOL_VALUE_BYTES, type ToolAnswerHead } from "../wire/host-calls.ts";
import type { ToolAnswer, ToolEvent } from "./events.ts";

/** As code takes it. */
export interface Answer {
  readonly kind: ToolAnswerHead["kind"];
  readonly body: Uint8Array;
}

/** Of an execution that is over, or was none that offers anything: a session's memory may hold its calls. */
export const GONE: Answer = { kind: "error", body: encoded({ message: "the execution that made this call is over" }) };

/** What an execution is told that offers nothing. */
export const NO_TOOLS: Pick<HostCalls, "tool-wait"> = {
  "tool-wait": {
    answer: ({ ids }) => ({
      value: { calls: ids.map((id) => ({ id, kind: GONE.kind, bytes: GONE.body.length })), requests: [] },
      body: Buffer.concat(ids.map(() => GONE.body)),
    }),
  },
};

/** @throws {ClientError} for what is too large, or no answer to what was asked. */
export function toAnswer(answer: ToolAnswer, event: ToolEvent): Answer {
  if ("error" in answer) {
    const { message, data } = answer.error;
    const body = Buffer.concat(jsonParts({ message, data }));
    if (body.length > MAX_TOOL_VALUE_BYTES) throw tooLarge();
    return { kind: "error", body };
  }
  const { bytes, facts } = answer.result;
  if (bytes.length > MAX_TOOL_VALUE_BYTES) throw tooLarge();
  if (event.type === "input_request" && facts.kind !== "text")
    throw new ClientError("invalid_request", "The result of an input_request is the line that was written: a string.");
  return { kind: "result", body: bytes };
}

function tooLarge(): ClientError {
  return new ClientError("tool_value_too_large", `A result may have ${MAX_TOOL_VALUE_BYTES} bytes of JSON.`);
}

export function encoded(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value));
}
