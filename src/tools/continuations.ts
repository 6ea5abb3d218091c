import { ClientError } from "../shared/errors.ts";
import type { Reply, Step, ToolAnswer, ToolClient } from "./events.ts";
import { belongsTo } from "./execution-id.ts";
import type { ToolExecution, ToolExecutions } from "./tool-executions.ts";

/** Ids of continuations that ended without their client are kept so many, so that it is told. */
const MAX_REMEMBERED = 10_000;
/** Last replies that no client has taken: of all together. */
const MAX_UNTAKEN_BYTES = 64 * 1024 * 1024;

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
  readonly #onEnded: (continuation: Continuation) => void;
  readonly #printed = { stdout: "", stderr: "" };
  readonly #cancelled = new AbortController();
  #execution: ToolExecution | null = null;
  #outcome: { readonly reply: Reply } | { readonly error: unknown } | null = null;
  #changed = Promise.withResolvers<void>();
  #lease: NodeJS.Timeout | undefined;
  #attending = 0;
  #hasStepped = false;
  #isExpired = false;

  constructor(options: NewContinuation, onEnded: (continuation: Continuation) => void) {
    this.principal = options.principal;
    this.#options = options;
    this.#onEnded = onEnded;
  }

  get id(): string | null {
    return this.#execution?.id ?? null;
  }

  /** Its lease has ended, and nothing of it is left. */
  get isExpired(): boolean {
    return this.#isExpired;
  }

  /** Of the last reply, once that is there; otherwise 0. */
  get bytes(): number {
    return this.#outcome !== null && "reply" in this.#outcome ? this.#outcome.reply.body.length : 0;
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
        this.#change();
        if (this.#isExpired || (this.#attending === 0 && !this.#hasStepped)) this.#onEnded(this);
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
      return this.#options.render({ continuation: this.#execution?.id ?? "", calls: calls.open, ...this.#printed });
    } finally {
      gone?.removeEventListener("abort", onGone);
      if (--this.#attending === 0) this.#lease = setTimeout(() => this.#expire(), this.#options.leaseMs);
    }
  }

  /** The client has a reply: of the last one nothing has to be kept. */
  forgetIfOver(): void {
    if (this.#outcome === null) return;
    clearTimeout(this.#lease);
    this.#onEnded(this);
  }

  /** Whether the reply that `next` has just returned is the last. */
  get isOver(): boolean {
    return this.#outcome !== null;
  }

  #expire(): void {
    this.#isExpired = true;
    if (this.#outcome !== null) this.#onEnded(this);
    else this.#execution?.calls.expire();
  }

  #change(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }
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
    return new Continuation(options, (continuation) => this.#end(continuation));
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
      if (continuation.isOver) this.#trim();
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

  #get(principal: string, id: string): Continuation {
    const continuation = this.#continuations.get(id);
    if (continuation && belongsTo(principal, continuation)) return continuation;
    if (this.#expired.get(id) === principal) throw new ClientError("tool_wait_expired");
    throw new ClientError("execution_not_found");
  }

  /** Frees memory: last replies that their clients have not come for, oldest first. */
  #trim(): void {
    let bytes = 0;
    for (const continuation of [...this.#continuations.values()].reverse()) {
      bytes += continuation.bytes;
      if (continuation.isOver && !continuation.isAttended() && bytes > MAX_UNTAKEN_BYTES) continuation.forgetIfOver();
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
