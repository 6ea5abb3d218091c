import { randomInt } from "node:crypto";
import { ClientError } from "../shared/errors.ts";
import { JsonLimitError, JsonSyntaxError, MAX_NAME_BYTES } from "../shared/json/json-scanner.ts";
import { JsonText } from "../shared/json/json-text.ts";
import {
  type HostCallAnswer,
  type HostCallArgument,
  type HostCalls,
  type HttpProgress,
  MAX_TOOL_VALUE_BYTES,
  type ToolAnswerHead,
  type ToolCallName,
  type ToolRefusal,
} from "../wire/host-calls.ts";
import type { ToolOffer } from "../wire/messages.ts";
import { mismatch } from "./argument-check.ts";
import { type Answer, encoded, GONE, toAnswer } from "./call-answers.ts";
import type { ToolSet } from "./definitions.ts";
import type { EndedCall, InnerTools, ToolAnswer, ToolClient, ToolEvent } from "./events.ts";
import { HeldBytes, type HeldShare } from "./held-bytes.ts";

/** What a value may hold: what Python's own reader of JSON goes into, and more values than a table of a million cells has. */
export const VALUE_LIMITS = { maxDepth: 100, maxNodes: 2_000_000, maxNameBytes: Number.POSITIVE_INFINITY };
/** Arguments go out as they came, also into streams of lines: code must not choose where lines end. */
const INPUT_LIMITS = { ...VALUE_LIMITS, maxNameBytes: MAX_NAME_BYTES, compact: true };
/** JSON text in JSON text: each quote of it is two characters. */
const MAX_START_BYTES = 2 * MAX_TOOL_VALUE_BYTES + 64 * 1024;
/** Of one trip into the sandbox. */
const MAX_TAKEN_BYTES = 16 * 1024 * 1024;
const MAX_TIMER_MS = 2 ** 31 - 1;

export interface PendingCallsOptions {
  readonly principal: string;
  readonly tools: ToolSet;
  /** `input()` asks the client. */
  readonly interactive: boolean;
  readonly mode: ToolOffer["mode"];
  /** Compare the code's calls with the signatures before it runs. */
  readonly check: boolean;
  readonly client: ToolClient;
  /** Tools that this server answers; default: none. */
  readonly inner?: InnerTools | null;
  /** Until a call has its answer, ms. */
  readonly callTimeoutMs: number;
  /** All that the execution may wait, ms. */
  readonly maxWaitMs: number;
  readonly maxCalls: number;
  /** What it holds in memory is counted here; default: by itself. */
  readonly held?: HeldShare;
  readonly onEnded?: (call: EndedCall) => void;
  /** Told when the code begins to wait for its client, and when it goes on. */
  readonly onWaiting?: ((isWaiting: boolean) => void) | undefined;
}

interface Call {
  readonly id: number;
  readonly event: ToolEvent;
  readonly startedAt: number;
  readonly timer: NodeJS.Timeout | undefined;
  /** Its time was over while the client was away. */
  isOverdue: boolean;
}

/** Waits for HTTP responses beside answers. */
type WaitForRequests = (ids: readonly number[], signal: AbortSignal) => Promise<readonly HttpProgress[]>;

/**
 * The calls of one execution to its caller's client: events go out to a {@link ToolClient}, answers come in by {@link answer}, in any order. All
 * transports share it; it knows none of them.
 *
 * Code that calls is stopped inside WebAssembly, so the calls live here: started, then answered, then taken by the code. Ids are random: a
 * session's memory may hold those of an execution that is over, and a client may be slow.
 */
export class PendingCalls implements Disposable {
  readonly offer: ToolOffer;
  readonly held: HeldShare;
  readonly #options: PendingCallsOptions;
  readonly #open = new Map<number, Call>();
  /** Answered, and not taken by the code yet. */
  readonly #answered = new Map<number, Answer>();
  /** Ids of calls that have had their answer, or their time. */
  readonly #ended = new Set<string>();
  readonly #expired = new AbortController();
  readonly #over = new AbortController();
  /** Wakes the code that waits; null: it does not. */
  #wake: (() => void) | null = null;
  #count = 0;
  #waitedMs = 0;
  #isOver = false;

  constructor(options: PendingCallsOptions) {
    const { tools, mode, interactive, check } = options;
    this.#options = options;
    this.held = options.held ?? new HeldBytes().share(options.principal);
    this.offer = { tools: Array.from(tools.values(), ({ signature }) => signature), mode, interactive, check };
  }

  /** Aborted, with a `tool_wait_expired`, when the execution is to end because nothing answers it. */
  get expired(): AbortSignal {
    return this.#expired.signal;
  }

  /** Whether the code is stopped, and waits for the client. */
  get isWaiting(): boolean {
    return this.#wake !== null;
  }

  /** What the client was asked and has not answered, oldest first. */
  get open(): readonly ToolEvent[] {
    return Array.from(this.#open.values(), ({ event }) => event).filter((event) => !this.#isInner(event));
  }

  /** What code asks of the host. @param waitForRequests for code that waits for a response beside answers. */
  calls(waitForRequests: WaitForRequests): Required<Pick<HostCalls, ToolCallName>> {
    return {
      "tool-start": {
        maxArgumentBytes: MAX_START_BYTES,
        answer: async (argument, signal) => ({ value: await this.#start(argument, signal) }),
      },
      "tool-wait": { stopsClock: true, answer: (argument, signal) => this.#wait(argument, signal, waitForRequests) },
    };
  }

  /**
   * Takes what the client says: all of it, or none.
   *
   * @throws {ClientError} 404 `unknown_tool_call`; 409 `tool_call_answered`, also for one whose time was over; 400 `invalid_request`; 413
   *   `tool_value_too_large`; 429 `too_much_held`.
   */
  answer(answers: readonly ToolAnswer[]): void {
    const found = answers.map((answer) => ({ answer, call: this.#callOf(answer.id) }));
    if (new Set(answers.map(({ id }) => id)).size < answers.length)
      throw new ClientError("tool_call_answered", "One call has two answers.");
    const bodies = found.map(({ answer, call }) => ({ call, ...toAnswer(answer, call.event) }));
    const bytes = bodies.reduce((sum, { body }) => sum + body.length, 0);
    if (bodies.length > 0 && !this.held.hasRoom("answers", bytes)) throw new ClientError("too_much_held");
    for (const { call, kind, body } of bodies)
      this.#settle(call, { kind, body }, kind === "error" ? "error" : "answered");
    this.#wakeUp();
  }

  /** What was answered cannot be passed on: a call without an answer has this one, for which there is always room. */
  fail(id: string, message: string): void {
    const call = this.#open.get(idOf(id));
    if (call?.event.id !== id) return;
    this.#settle(call, { kind: "error", body: encoded({ message }) }, "error");
    this.#wakeUp();
  }

  /** The client is back: calls whose time was over while it was away, and that it has not answered, are too late. */
  settleOverdue(): void {
    for (const call of [...this.#open.values()]) if (call.isOverdue) this.#timeOut(call);
  }

  /** Ends the execution: nothing will answer it. */
  expire(): void {
    if (!this.#isOver) this.#expired.abort(new ClientError("tool_wait_expired"));
  }

  /** The execution is over. */
  [Symbol.dispose](): void {
    this.#isOver = true;
    this.#over.abort();
    for (const call of [...this.#open.values()]) this.#end(call, "abandoned", 0);
    this.#answered.clear();
    this.held.releaseAll("answers");
    this.#wakeUp();
  }

  async #start(argument: HostCallArgument<"tool-start">, signal: AbortSignal): Promise<number | ToolRefusal> {
    const { client, maxCalls, callTimeoutMs, onEnded } = this.#options;
    const name = "tool" in argument ? argument.tool : "input";
    const stopped: ToolRefusal = { kind: "error", message: "the execution is being stopped" };
    if (++this.#count > maxCalls)
      return { kind: "error", message: `an execution may make ${maxCalls} calls of tools at the most` };
    let event = "tool" in argument ? await this.#toolCall(argument) : this.#inputRequest(argument);
    // Its arguments may have been looked at in another thread.
    if (!("kind" in event) && (this.#isOver || signal.aborted)) return stopped;
    if (!("kind" in event) && !this.held.hasRoom("inputs", inputBytesOf(event))) event = TOO_MUCH_ASKED;
    if ("kind" in event) {
      const input = "tool" in argument ? argument.input : "";
      const inputBytes = Buffer.byteLength(input);
      onEnded?.({ name, inputBytes, resultBytes: 0, durationMs: 0, outcome: "refused", input });
      return event;
    }
    this.held.hold("inputs", inputBytesOf(event));
    const id = idOf(event.id);
    const timer = setTimeout(() => this.#late(id), Math.min(callTimeoutMs, MAX_TIMER_MS)).unref();
    this.#open.set(id, { id, event, startedAt: performance.now(), timer, isOverdue: false });
    if (this.#isInner(event)) void this.#askInner(id, event);
    else client.send(event);
    return id;
  }

  #isInner(event: ToolEvent): event is Extract<ToolEvent, { type: "tool_call" }> {
    return event.type === "tool_call" && (this.#options.inner?.tools.has(event.name) ?? false);
  }

  /** Never rejects. */
  async #askInner(id: number, { name, input }: Extract<ToolEvent, { type: "tool_call" }>): Promise<void> {
    const answered = (await this.#options.inner?.call(name, input, this.#over.signal)) ?? null;
    const call = this.#open.get(id);
    // Its time is over, or its execution is.
    if (!call || answered === null) return;
    const body = "error" in answered ? encoded(answered.error) : answered.result.bytes;
    if (!this.held.hasRoom("answers", body.length)) return this.fail(call.event.id, TOO_MUCH_ANSWERED);
    const [kind, outcome] = "error" in answered ? (["error", "error"] as const) : (["result", "answered"] as const);
    this.#settle(call, { kind, body }, outcome);
    this.#wakeUp();
  }

  async #toolCall({
    tool: name,
    input,
  }: Extract<HostCallArgument<"tool-start">, { tool: string }>): Promise<ToolEvent | ToolRefusal> {
    const tool = this.#options.tools.get(name);
    if (!tool) return { kind: "error", message: `there is no tool ${JSON.stringify(name)} in this execution` };
    const bytes = new TextEncoder().encode(input);
    let text: JsonText;
    try {
      if (bytes.length > MAX_TOOL_VALUE_BYTES)
        throw new JsonLimitError(`they have more than ${MAX_TOOL_VALUE_BYTES} bytes as JSON`);
      text = await JsonText.checkInSlices(bytes, INPUT_LIMITS);
    } catch (error) {
      // The runner of this image writes no such JSON: other code has.
      if (error instanceof JsonSyntaxError)
        return { kind: "error", message: `the arguments are no compact JSON: ${error.message}` };
      if (!(error instanceof JsonLimitError)) throw error;
      return { kind: "error", message: `the arguments are too large: ${error.message}` };
    }
    if (text.facts.kind !== "object") return { kind: "type", message: "takes arguments by name" };
    const wrong = await mismatch(this.#options.principal, tool, text);
    if (wrong !== null) return { kind: "type", message: wrong };
    return { type: "tool_call", id: this.#newId(), name, input: text };
  }

  #inputRequest({
    prompt,
    password,
  }: Extract<HostCallArgument<"tool-start">, { prompt: string }>): ToolEvent | ToolRefusal {
    if (!this.#options.interactive) return { kind: "error", message: "nothing can be asked in this execution" };
    return { type: "input_request", id: this.#newId(), prompt, password };
  }

  #newId(): string {
    let id = randomInt(2 ** 47);
    while (this.#open.has(id) || this.#ended.has(publicId(id))) id = randomInt(2 ** 47);
    return publicId(id);
  }

  #callOf(id: string): Call {
    const call = this.#open.get(idOf(id));
    if (call?.event.id === id && !this.#isInner(call.event)) return call;
    if (this.#ended.has(id))
      throw new ClientError("tool_call_answered", "The call has its answer, or its time was over.");
    throw new ClientError("unknown_tool_call");
  }

  async #wait(
    { ids, requests, timeoutMs }: HostCallArgument<"tool-wait">,
    signal: AbortSignal,
    waitForRequests: WaitForRequests,
  ): Promise<HostCallAnswer<"tool-wait">> {
    const isReady = () => ids.some((id) => !this.#open.has(id));
    let begun: readonly HttpProgress[] = [];
    if (!isReady() && ids.length + requests.length > 0) {
      const startedAt = performance.now();
      const { promise: woken, resolve } = Promise.withResolvers<void>();
      // Each answer wakes it; an execution waits in one place at a time.
      this.#wake = () => {
        if (!isReady() && !this.#isOver) return;
        // At once: who has answered looks whether the code still waits.
        this.#wake = null;
        resolve();
      };
      const stop = new AbortController();
      const timers = [
        setTimeout(() => this.expire(), Math.min(this.#options.maxWaitMs - this.#waitedMs, MAX_TIMER_MS)).unref(),
        ...(timeoutMs === null ? [] : [setTimeout(resolve, Math.min(timeoutMs, MAX_TIMER_MS)).unref()]),
      ];
      const onAbort = () => resolve();
      signal.addEventListener("abort", onAbort, { once: true });
      if (signal.aborted) resolve();
      const responses = requests.length === 0 ? null : waitForRequests(requests, stop.signal);
      void responses?.then(onAbort, onAbort);
      this.#options.onWaiting?.(true);
      // Where only this server is waited for, there is nothing for the client to do.
      if (!signal.aborted && (this.open.length > 0 || this.#open.size === 0)) this.#options.client.blocked?.();
      await woken;
      this.#options.onWaiting?.(false);
      this.#wake = null;
      stop.abort();
      for (const timer of timers) clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      this.#waitedMs += performance.now() - startedAt;
      // What has come at the same moment is not lost.
      begun = (await responses?.catch(() => [])) ?? [];
    }
    return this.#take(ids, begun);
  }

  #take(ids: readonly number[], requests: readonly HttpProgress[]): HostCallAnswer<"tool-wait"> {
    const calls: ToolAnswerHead[] = [];
    const bodies: Uint8Array[] = [];
    let bytes = 0;
    // In the order in which they came, so that coroutines go on in it.
    const wanted = new Set(ids);
    const ended = [...this.#answered.keys()].filter((id) => wanted.delete(id));
    for (const id of [...ended, ...wanted]) {
      if (this.#open.has(id)) continue;
      const answer = this.#answered.get(id) ?? GONE;
      if (calls.length > 0 && bytes + answer.body.length > MAX_TAKEN_BYTES) break;
      if (this.#answered.delete(id)) this.held.release("answers", answer.body.length);
      bytes += answer.body.length;
      calls.push({ id, kind: answer.kind, bytes: answer.body.length });
      bodies.push(answer.body);
    }
    return { value: { calls, requests }, body: Buffer.concat(bodies, bytes) };
  }

  #late(id: number): void {
    const call = this.#open.get(id);
    if (!call) return;
    if (this.#isInner(call.event) || (this.#options.client.isAttended?.() ?? true)) this.#timeOut(call);
    else call.isOverdue = true;
  }

  #timeOut(call: Call): void {
    const message = `no answer came within ${this.#options.callTimeoutMs} ms`;
    this.#settle(call, { kind: "timeout", body: encoded({ message }) }, "timeout");
    this.#wakeUp();
  }

  #settle(call: Call, answer: Answer, outcome: EndedCall["outcome"]): void {
    this.#end(call, outcome, answer.body.length);
    this.#ended.add(call.event.id);
    this.#answered.set(call.id, answer);
    this.held.hold("answers", answer.body.length);
  }

  #end({ id, event, startedAt, timer }: Call, outcome: EndedCall["outcome"], resultBytes: number): void {
    clearTimeout(timer);
    this.#open.delete(id);
    const inputBytes = inputBytesOf(event);
    this.held.release("inputs", inputBytes);
    if (!this.#isInner(event)) this.#options.client.ended?.(event.id);
    this.#options.onEnded?.({
      name: event.type === "tool_call" ? event.name : "input",
      inputBytes,
      resultBytes,
      durationMs: performance.now() - startedAt,
      outcome,
      input: event.type === "tool_call" ? event.input : event.prompt,
    });
  }

  #wakeUp(): void {
    this.#wake?.();
  }
}

const TOO_MUCH_ASKED: ToolRefusal = {
  kind: "error",
  message: "calls that have no answer yet hold too much: wait for some of them before you make more",
};
/** Where no client can be told to send its answer again. */
export const TOO_MUCH_ANSWERED = "answers that the code has not taken hold too much: there is no room for this one";

/** What a call's arguments, or a prompt, hold. */
export function inputBytesOf(event: ToolEvent): number {
  return event.type === "tool_call" ? event.input.bytes.length : Buffer.byteLength(event.prompt);
}

/** As the client sees it. */
function publicId(id: number): string {
  return `call_${id.toString(36)}`;
}

function idOf(id: string): number {
  return Number.parseInt(id.replace(/^call_/, ""), 36);
}
