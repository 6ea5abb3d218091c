import { JsonText } from "../../src/shared/json/json-text.ts";
import { type ToolDefinition, toolSet } from "../../src/tools/definitions.ts";
import type { EndedCall, ToolEvent } from "../../src/tools/events.ts";
import { PendingCalls, type PendingCallsOptions } from "../../src/tools/pending-calls.ts";
import type { JobChanges } from "./sandbox.ts";

/** What a test's client makes of a call: its result. What it throws is the error; undefined: it does not answer. */
export type Answerer = (name: string, input: unknown) => unknown;

/** A job whose calls are answered in this process, by the parts that a server has. */
export function offered(
  definitions: readonly ToolDefinition[],
  answerer: Answerer,
  more: Partial<PendingCallsOptions> = {},
): JobChanges & { readonly pending: PendingCalls; readonly ended: EndedCall[] } {
  const ended: EndedCall[] = [];
  const answer = (event: ToolEvent) => {
    const isTool = event.type === "tool_call";
    try {
      const result = answerer(
        isTool ? event.name : "input",
        isTool ? JSON.parse(event.input.toString()) : event.prompt,
      );
      if (result !== undefined) pending.answer([{ id: event.id, result: JsonText.of(result) }]);
    } catch (error) {
      pending.answer([{ id: event.id, error: { message: (error as Error).message } }]);
    }
  };
  const pending = new PendingCalls({
    principal: "tester",
    tools: toolSet(definitions),
    interactive: true,
    mode: "sync",
    check: false,
    client: { send: (event) => void setImmediate(answer, event) },
    callTimeoutMs: 60_000,
    maxWaitMs: 600_000,
    maxCalls: 1000,
    onEnded: (call) => ended.push(call),
    ...more,
  });
  return { tools: pending.offer, signal: pending.expired, calls: () => pending.calls(async () => []), pending, ended };
}
