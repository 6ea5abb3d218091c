import { ClientError } from "../shared/errors.ts";
import type { Reply, Step, ToolAnswer, ToolClient, ToolEvent } from "./events.ts";
import { belongsTo } from "./execution-id.ts";
import { inputBytesOf } from "./pending-calls.ts";
import type { ToolExecution, ToolExecutions } from "./tool-executions.ts";

/** Ids of continuations that ended without their client are kept so many, so that it is told. */
const MAX_REMEMBERED = 10_000;
/** Arguments in one reply; calls that have no room in it come with the next ones. */
const MAX_STEP_BYTES = 16 * 1024 * 1024;
/** What a last reply takes besides its bytes: many small ones fill memory, too. */
const KEPT_BYTES = 4 * 1024;

interface Listeners {
  /** It has its last reply, which its client has not taken. */
  readonly onOver: (continuation: Continuation) => void;
  /** Nothing of it is left. */
  readonly onEnded: (continuation: Continuation) => void;
}

export interface NewContinuation {
  readonly principal: string;
  /** How long its client may be away, ms. */
  readonly leaseMs: number;
  readonly render: (step: Step) => Reply;
}

/**
 * An execution of which each request sees a part: until the code waits for its client, which answers with the next request.
 *
 * It outlives its requests. While its client is away it has a lease, and ends when that does.
 */
export class Continuation implements ToolClient {
  readonly principal: string;
  readonly #options: NewContinuation;
  readonly #listeners: Listeners;
  readonly #printed = { stdout: "", stderr: "" };
  readonly #cancelled = new AbortController();
  #execution: ToolExecution | null = null;
  #outcome: { readonly reply: Reply } | { readonly error: unknown } | null = null;
  #changed = Promise.withResolvers<void>();
  #lease: NodeJS.Timeout | undefined;
  #attending = 0;
  #hasStepped = false;
  #isExpired = false;
  #isEnded = false;

  constructor(options: NewContinuation, listeners: Listeners) {
    this.principal = options.principal;
    this.#options = options;
    this.#listeners = listeners;
  }

  get id(): string | null {
    return this.#execution?.id ?? null;
  }

  /** Its lease has ended, and nothing of it is left. */
  get isExpired(): boolean {
    return this.#isExpired;
  }

  /** Whether last replies of its principal's are more than there is room for. */
  get hasToMakeRoom(): boolean {
    return this.#execution?.calls.held.isOver("replies") ?? false;
  }

  send(): void {
    // What is open is listed when the code waits.
  }

  blocked(): void {
    this.#change();
  }

  isAttended(): boolean {
    return this.#attending > 0;
  }

  print(stream: "stdout" | "stderr", text: string): void {
    this.#printed[stream] += text;
  }

  /** @param run until the execution has its last reply; its signal is aborted if the first client goes away before it knows of a continuation. */
  start(execution: ToolExecution, run: (signal: AbortSignal) => Promise<Reply>): void {
    this.#execution = execution;
    void run(this.#cancelled.signal)
      .then(
        (reply) => {
          this.#outcome = { reply };
        },
        (error: unknown) => {
          this.#outcome = { error };
        },
      )
      .finally(() => {
        execution[Symbol.dispose]();
        this.#hold(execution);
        this.#change();
        if (this.#isExpired || (this.#attending === 0 && !this.#hasStepped)) this.#end();
        else this.#listeners.onOver(this);
      });
  }

  /**
   * Answers calls, and waits until the execution is over, or waits again.
   *
   * @param answers none: the reply before was lost.
   * @param gone aborted when the client goes away. Before it has been told of a continuation, that ends the execution.
   * @throws {ClientError} what {@link PendingCalls.answer} throws; the execution goes on waiting then. Whatever the execution has failed with.
   */
  async next(answers: readonly ToolAnswer[], gone?: AbortSignal): Promise<Reply> {
    if (this.#isExpired) throw new ClientError("tool_wait_expired");
    const calls = this.#execution?.calls;
    if (!calls) throw new Error("a continuation was asked before it has begun");
    clearTimeout(this.#lease);
    this.#attending++;
    const onGone = () => {
      if (!this.#hasStepped) this.#cancelled.abort(gone?.reason);
    };
    gone?.addEventListener("abort", onGone, { once: true });
    if (gone?.aborted) onGone();
    try {
      if (this.#outcome === null && answers.length > 0) calls.answer(answers);
      if (this.#outcome === null && this.#hasStepped) calls.settleOverdue();
      // Where this server's own tools are waited for, there is nothing to tell the client.
      const isClients = () => calls.isWaiting && calls.open.length > 0;
      while (this.#outcome === null && !isClients()) await this.#changed.promise;
      if (this.#outcome !== null) {
        if ("error" in this.#outcome) throw this.#outcome.error;
        return { ...this.#outcome.reply, isLast: true };
      }
      this.#hasStepped = true;
      return this.#options.render({
        continuation: this.#execution?.id ?? "",
        calls: firstOf(calls.open),
        ...this.#printed,
      });
    } finally {
      gone?.removeEventListener("abort", onGone);
      // No timer keeps what is not counted any more.
      if (--this.#attending === 0 && !this.#isEnded)
        this.#lease = setTimeout(() => this.#expire(), this.#options.leaseMs).unref();
    }
  }

  /** Stops what runs: its client wants it no more. */
  cancel(): void {
    this.#cancelled.abort(new ClientError("client_gone"));
  }

  /** The client has a reply: of the last one nothing has to be kept. */
  forgetIfOver(): void {
    if (this.#outcome !== null) this.#end();
  }

  /** Whether the reply that `next` has just returned is the last. */
  get isOver(): boolean {
    return this.#outcome !== null;
  }

  #expire(): void {
    this.#isExpired = true;
    if (this.#outcome !== null) this.#end();
    else this.#execution?.calls.expire();
  }

  /** Counts what stays until the client has taken it. */
  #hold({ calls }: ToolExecution): void {
    this.#printed.stdout = "";
    this.#printed.stderr = "";
    const body = this.#outcome !== null && "reply" in this.#outcome ? this.#outcome.reply.body.length : 0;
    calls.held.hold("replies", body + KEPT_BYTES);
  }

  #end(): void {
    this.#isEnded = true;
    clearTimeout(this.#lease);
    this.#execution?.calls.held.releaseAll("replies");
    this.#listeners.onEnded(this);
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
}

/** Calls whose arguments have room in one reply, oldest first: one at least. */
function firstOf(calls: readonly ToolEvent[]): readonly ToolEvent[] {
  let bytes = 0;
  const end = calls.findIndex((call) => {
    bytes += inputBytesOf(call);
    return bytes > MAX_STEP_BYTES;
  });
  return end === -1 ? calls : calls.slice(0, Math.max(1, end));
}

/** What a client is sent, and what is to be called when it has it. */
export interface Proceeded {
  readonly reply: Reply;
  readonly delivered: () => unknown;
}

/** The continuations of this server, and the way to those of others. */
export class Continuations {
  readonly #executions: ToolExecutions;
  readonly #continuations = new Map<string, Continuation>();
  /** Ended by their lease: id → principal, oldest first. */
  readonly #expired = new Map<string, string>();

  constructor(executions: ToolExecutions) {
    this.#executions = executions;
  }

  begin(options: NewContinuation): Continuation {
    return new Continuation(options, {
      onOver: (continuation) => this.#trim(continuation),
      onEnded: (continuation) => this.#end(continuation),
    });
  }

  /** It can be found from now on. */
  add(continuation: Continuation): void {
    if (continuation.id !== null) this.#continuations.set(continuation.id, continuation);
  }

  /**
   * Answers calls, and waits until the execution is over, or waits again, on whichever server it is.
   *
   * @param gone aborted when the client goes away.
   * @throws {ClientError} 404 if there is none, or it is another principal's; 410 if its lease has ended, or its server; what
   *   {@link Continuation.next} throws.
   */
  async proceed(principal: string, id: string, answers: readonly ToolAnswer[], gone?: AbortSignal): Promise<Proceeded> {
    const fleet = this.#executions.elsewhere(id);
    if (fleet === null) return await this.next(this.#get(principal, id), answers, gone);
    const reply = await fleet.proceed(principal, id, answers, gone);
    return { reply, delivered: () => reply.isLast && fleet.delivered(principal, id) };
  }

  /** As {@link proceed}, of one of this server's. */
  async next(continuation: Continuation, answers: readonly ToolAnswer[], gone?: AbortSignal): Promise<Proceeded> {
    try {
      const reply = await continuation.next(answers, gone);
      if (continuation.isOver) this.#trim(continuation);
      return { reply, delivered: () => reply.isLast && continuation.forgetIfOver() };
    } catch (error) {
      continuation.forgetIfOver();
      throw error;
    }
  }

  /** Another server's client has the last reply. */
  delivered(principal: string, id: string): void {
    const continuation = this.#continuations.get(id);
    if (continuation?.principal === principal) continuation.forgetIfOver();
  }

  /** Stops an execution, on whichever server it is. There need be none. */
  cancel(principal: string, id: string): void {
    const continuation = this.#continuations.get(id);
    if (continuation === undefined) this.#executions.fleetOf(id)?.cancel(principal, id);
    else if (belongsTo(principal, continuation)) continuation.cancel();
  }

  #get(principal: string, id: string): Continuation {
    const continuation = this.#continuations.get(id);
    if (continuation && belongsTo(principal, continuation)) return continuation;
    if (this.#expired.get(id) === principal) throw new ClientError("tool_wait_expired");
    throw new ClientError("execution_not_found");
  }

  /** Frees memory for the reply of one that is over: last replies of the same principal that no client has come for, oldest first. */
  #trim(newest: Continuation): void {
    for (const continuation of this.#continuations.values()) {
      if (!newest.hasToMakeRoom) return;
      if (continuation.principal !== newest.principal || continuation === newest || continuation.isAttended()) continue;
      continuation.forgetIfOver();
    }
  }

  #end(continuation: Continuation): void {
    const { id, principal, isExpired } = continuation;
    if (id === null || !this.#continuations.delete(id) || !isExpired) return;
    this.#expired.set(id, principal);
    const [oldest] = this.#expired.keys();
    if (this.#expired.size > MAX_REMEMBERED && oldest !== undefined) this.#expired.delete(oldest);
  }
}
