import { ClientError } from "../shared/errors.ts";
import type { JsonText } from "../shared/json/json-text.ts";
import { whileWaiting } from "../shared/while-waiting.ts";
import {
  HOST_CALLS,
  type HostCall,
  type HostCallAnswer,
  type HostCallName,
  type HostCalls,
  isHostCall,
} from "../wire/host-calls.ts";
import type { AnswerMessage } from "../wire/messages.ts";

const SMALL_ARGUMENT_BYTES = 64 * 1024;
const MAX_ARGUMENT_NODES = 10_000;

export interface Answered {
  readonly answer: Omit<AnswerMessage, "type" | "call">;
  readonly body?: Uint8Array | undefined;
}

/** Answers a call of user code, once its argument is known to be small and of the right form. Never rejects: a refusal is an answer. */
export async function answerCall(
  calls: HostCalls,
  operation: string,
  argument: JsonText,
  signal: AbortSignal,
): Promise<Answered> {
  try {
    const call = isHostCall(operation) ? calls[operation] : undefined;
    if (!isHostCall(operation) || !call) {
      throw new ClientError("unknown_operation", `the sandbox does not offer ${JSON.stringify(operation)} here`);
    }
    const { value, body, packages } = await answer(operation, call as HostCall<HostCallName>, argument, signal);
    return { answer: { value, ...(packages && { packages: packages.listing }) }, body };
  } catch (error) {
    // User code reads it: only what is meant for clients may be said.
    const unsaid = signal.aborted ? "the execution is being stopped" : "the host could not do that";
    const reason = error instanceof ClientError ? error.message : unsaid;
    return { answer: { value: null, error: reason } };
  }
}

async function answer<N extends HostCallName>(
  operation: N,
  call: HostCall<N>,
  argument: JsonText,
  signal: AbortSignal,
): Promise<HostCallAnswer<N>> {
  const limits = { maxBytes: call.maxArgumentBytes ?? SMALL_ARGUMENT_BYTES, maxNodes: MAX_ARGUMENT_NODES };
  const parsed = argument.parse(limits);
  if ("tooLarge" in parsed)
    throw new ClientError("argument_too_large", `the argument is too large: ${parsed.tooLarge}`);
  const checked = HOST_CALLS[operation].safeParse(parsed.value);
  if (!checked.success) throw new ClientError("invalid_argument");
  const answered = call.answer(checked.data as Parameters<typeof call.answer>[0], signal);
  if (!(answered instanceof Promise)) return answered;
  // Whatever the call waits for: code that waits for an answer cannot be interrupted.
  return await whileWaiting(signal, answered);
}
