import type { Caller } from "../../service/execution-service.ts";
import { type ExecutionInput, runCode } from "../../service/execution-service.ts";
import { openTools } from "../../service/tool-calls.ts";
import { ClientError } from "../../shared/errors.ts";
import { jsonParts } from "../../shared/json/json-parts.ts";
import type { Principal } from "../../shared/principal.ts";
import type { ToolAnswer, ToolEvent } from "../../tools/events.ts";
import type { ToolExecution } from "../../tools/tool-executions.ts";
import { displayedFields } from "../json-reply.ts";
import { toReply } from "../result-reply.ts";
import type { RouteServices } from "../routes.ts";
import { type EventBudget, EventLog } from "./event-log.ts";

/** Executions of one channel at a time; how many of them run is decided where all executions are. */
const MAX_EXECUTIONS = 100;
/** Of one principal's executions that are not over. */
const MAX_INPUT_BYTES = 256 * 1024 * 1024;
const MAX_LOG_BYTES = 32 * 1024 * 1024;
const MAX_SENT_BYTES = 4 * 1024 * 1024;
/** A client that does not read has enough to read. */
const MAX_BUFFERED_BYTES = 1024 * 1024;
/** A client that is back has so long to answer what became overdue while it was away. */
const RETURN_GRACE_MS = 10_000;

/** Where a channel's events go. */
export interface EventSink {
  /** What was written and the client has not taken. */
  readonly bufferedBytes: number;
  /** @param done called when it has left. */
  write(bytes: Uint8Array, done: () => void): void;
}

interface Running {
  readonly abort: AbortController;
  tools: ToolExecution | null;
  /** Number of the event by which the client was asked, of each call that is open. */
  readonly asked: Map<string, number>;
}

export interface ChannelOptions {
  readonly id: string;
  readonly principal: Principal;
  readonly services: RouteServices;
  readonly budget: EventBudget;
  /** Told of errors that are the server's own. */
  readonly onError: (error: unknown) => void;
}

/** What one client has running, and the events of it. It outlives the client's connection, for a while. */
export class Channel {
  readonly id: string;
  readonly principal: Principal;
  readonly #options: ChannelOptions;
  readonly #log: EventLog;
  readonly #running = new Map<string, Running>();
  #sink: EventSink | null = null;
  #sentSeq = 0;
  #grace: NodeJS.Timeout | undefined;

  constructor(options: ChannelOptions) {
    this.id = options.id;
    this.principal = options.principal;
    this.#options = options;
    this.#log = new EventLog({ budget: options.budget, maxBytes: MAX_LOG_BYTES, maxSentBytes: MAX_SENT_BYTES });
  }

  get isAttached(): boolean {
    return this.#sink !== null;
  }

  /** Names of the executions that are not over. */
  get executions(): readonly string[] {
    return [...this.#running.keys()];
  }

  /** Whether it has had no event and no execution. */
  get isFresh(): boolean {
    return this.#log.lastSeq === 0 && this.#running.size === 0;
  }

  /** @param after number of the last event that the client has. */
  attach(sink: EventSink, after: number): void {
    this.#sink = sink;
    this.#sentSeq = Math.min(after, this.#log.lastSeq);
    this.#log.markSent(this.#sentSeq);
    // What was dropped before the client had it, and is not answered, is asked again.
    for (const [execution, { asked, tools }] of this.#running) {
      for (const event of tools?.calls.open ?? []) {
        const seq = asked.get(event.id) ?? 0;
        if (seq > after && seq < this.#log.firstSeq) this.#ask(execution, event);
      }
    }
    clearTimeout(this.#grace);
    this.#grace = setTimeout(() => {
      for (const { tools } of this.#running.values()) tools?.calls.settleOverdue();
    }, RETURN_GRACE_MS).unref();
    this.#pump();
  }

  detach(sink: EventSink): void {
    if (this.#sink !== sink) return;
    clearTimeout(this.#grace);
    this.#sink = null;
  }

  emit(event: object): void {
    this.#log.add((seq) => encoded({ ...event, seq }));
    this.#pump();
  }

  emitError(error: unknown, names: object = {}): void {
    if (!(error instanceof ClientError)) this.#options.onError(error);
    const known = error instanceof ClientError ? error : new ClientError("internal");
    const { message, code, status, retryAfterS } = known;
    this.emit({ type: "error", ...names, error: message, code, status, retryAfter: retryAfterS });
  }

  /**
   * @param bytes of the message, which are held until the execution is over.
   * @throws {ClientError} 409 `execution_exists`, 429 `too_many_executions`, `too_much_held`.
   */
  execute(name: string, input: ExecutionInput, caller: Caller, bytes: number): void {
    const { budget } = this.#options;
    if (this.#running.has(name)) throw new ClientError("execution_exists");
    if (this.#running.size >= MAX_EXECUTIONS) throw new ClientError("too_many_executions");
    // One alone is never refused.
    if (budget.inputBytes > 0 && budget.inputBytes + bytes > MAX_INPUT_BYTES) throw new ClientError("too_much_held");
    const running: Running = { abort: new AbortController(), tools: null, asked: new Map() };
    this.#running.set(name, running);
    budget.inputBytes += bytes;
    void this.#run(name, running, input, caller).finally(() => {
      budget.inputBytes -= bytes;
    });
  }

  /** @throws {ClientError} 404 `execution_not_found`. */
  interrupt(name: string): void {
    this.#find(name).abort.abort(new ClientError("interrupted"));
  }

  /** @throws {ClientError} 404 `execution_not_found`, and what `ToolExecutions.answer` throws. */
  async answer(name: string, answers: readonly ToolAnswer[]): Promise<void> {
    const { tools } = this.#find(name);
    if (tools === null) throw new ClientError("execution_not_found");
    await this.#options.services.tools.answer(this.principal.id, tools.id, answers);
  }

  /** Its client does not come back: what runs is stopped, and of what waits for an answer nothing is kept. */
  end(): void {
    clearTimeout(this.#grace);
    this.#sink = null;
    for (const { abort, tools } of this.#running.values()) {
      if (tools?.calls.isWaiting) tools.calls.expire();
      else abort.abort(new ClientError("client_gone"));
    }
    this.#log.clear();
  }

  #find(name: string): Running {
    const running = this.#running.get(name);
    if (!running) throw new ClientError("execution_not_found");
    return running;
  }

  /** Never rejects. */
  async #run(execution: string, running: Running, input: ExecutionInput, caller: Caller): Promise<void> {
    const { services, onError } = this.#options;
    const context = { principal: this.principal, caller, signal: running.abort.signal };
    try {
      using tools = await openTools(services, input, context, {
        send: (event) => this.#ask(execution, event),
        ended: (id) => running.asked.delete(id),
        isAttended: () => this.isAttached,
      });
      running.tools = tools;
      const result = await runCode(services, { ...input, display: input.display || "after-outputs" }, context, {
        tools,
        onWait: () => this.emit({ type: "status", execution, status: "waiting" }),
        onStart: () => this.emit({ type: "status", execution, status: "running" }),
        onOutput: (event) =>
          this.emit(
            event.type === "output"
              ? { type: "output", execution, ...displayedFields(event) }
              : { ...event, execution },
          ),
      });
      this.#running.delete(execution);
      this.emit({ type: "result", execution, ...toReply(result) });
    } catch (error) {
      this.#running.delete(execution);
      try {
        this.emitError(error, { execution });
      } catch (second) {
        onError(second);
      }
    }
  }

  #ask(execution: string, event: ToolEvent): void {
    this.emit({ ...event, execution });
    this.#running.get(execution)?.asked.set(event.id, this.#log.lastSeq);
  }

  /** Sends what the client has room for. */
  #pump(): void {
    for (;;) {
      const sink = this.#sink;
      const event = this.#log.after(this.#sentSeq);
      if (sink === null || event === undefined || sink.bufferedBytes > MAX_BUFFERED_BYTES) return;
      if (event.seq > this.#sentSeq + 1) {
        sink.write(encoded({ type: "lost", from: this.#sentSeq + 1, to: event.seq - 1 }), () => {});
      }
      this.#sentSeq = event.seq;
      this.#log.markSent(event.seq);
      sink.write(event.bytes, () => this.#pump());
    }
  }
}

export function encoded(event: object): Uint8Array {
  return Buffer.concat(jsonParts(event));
}
