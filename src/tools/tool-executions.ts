import { ClientError } from "../shared/errors.ts";
import type { ToolAnswer } from "./events.ts";
import { belongsTo, newExecutionId, serverOf } from "./execution-id.ts";
import type { ToolFleet } from "./fleet.ts";
import { HeldBytes } from "./held-bytes.ts";
import { PendingCalls, type PendingCallsOptions } from "./pending-calls.ts";

export interface ToolExecutionsOptions {
  /** Executions that may wait for clients at a time, in all and of one principal. Each holds a sandbox. */
  readonly maxExecutions: number;
  readonly maxOfPrincipal: number;
  /** All that one execution may wait, ms. */
  readonly maxWaitMs: number;
  readonly maxCalls: number;
  /** This server's name. */
  readonly server: string;
  /** Null: this server shares nothing. */
  readonly fleet: ToolFleet | null;
}

type NewExecution = Omit<PendingCallsOptions, "maxWaitMs" | "maxCalls" | "held">;

interface Place {
  readonly isAnsweredElsewhere?: boolean;
  readonly onClose?: () => void;
}

/** An execution that may wait for its client, by an id that only the client knows. */
export class ToolExecution implements Disposable {
  /** Unguessable. */
  readonly id: string;
  readonly principal: string;
  readonly calls: PendingCalls;
  /** Not by the client that has sent the request. */
  readonly isAnsweredElsewhere: boolean;
  readonly #close: () => void;

  constructor(facts: Pick<ToolExecution, "id" | "principal" | "calls" | "isAnsweredElsewhere">, close: () => void) {
    this.id = facts.id;
    this.principal = facts.principal;
    this.calls = facts.calls;
    this.isAnsweredElsewhere = facts.isAnsweredElsewhere;
    this.#close = close;
  }

  [Symbol.dispose](): void {
    this.calls[Symbol.dispose]();
    this.#close();
  }
}

/** The executions of this server that may wait for their clients. */
export class ToolExecutions {
  readonly #options: ToolExecutionsOptions;
  readonly #executions = new Map<string, ToolExecution>();
  readonly #ofPrincipal = new Map<string, number>();
  /** For all calls of this server's. */
  readonly #held = new HeldBytes();

  constructor(options: ToolExecutionsOptions) {
    this.#options = options;
  }

  /**
   * Has an execution begin that may wait. Dispose of it when the execution is over.
   *
   * @param isAnsweredElsewhere not by the client that has sent the request. @param onClose called when it is disposed of.
   * @throws {ClientError} 429 `too_many_tool_executions`: one more could leave no sandbox to executions that do not wait.
   */
  begin(options: NewExecution, { isAnsweredElsewhere = false, onClose = () => {} }: Place = {}): ToolExecution {
    const { maxExecutions, maxOfPrincipal, maxWaitMs, maxCalls } = this.#options;
    const { principal } = options;
    const own = this.#ofPrincipal.get(principal) ?? 0;
    // Code that is only checked asks nothing.
    const mayWait = options.tools.size > 0 || options.interactive;
    if (mayWait && maxExecutions === 0) throw new ClientError("too_few_sandboxes");
    if (mayWait && (this.#executions.size >= maxExecutions || own >= maxOfPrincipal))
      throw new ClientError("too_many_tool_executions");
    const id = newExecutionId(this.#options.server);
    const calls = new PendingCalls({ ...options, maxWaitMs, maxCalls, held: this.#held.share(principal) });
    const execution = new ToolExecution({ id, principal, calls, isAnsweredElsewhere }, () => {
      this.#forget(execution);
      onClose();
    });
    if (mayWait) {
      this.#executions.set(id, execution);
      this.#ofPrincipal.set(principal, own + 1);
    }
    return execution;
  }

  /** @throws {ClientError} 404 if there is none, or it is another principal's. */
  get(principal: string, id: string): ToolExecution {
    const execution = this.#executions.get(id);
    if (!execution || !belongsTo(principal, execution)) throw new ClientError("execution_not_found");
    return execution;
  }

  /** Whether code in a session waits for its client on another server; on this one the session itself knows. */
  async isWaitingElsewhere(session: string): Promise<boolean> {
    return (await this.#options.fleet?.isWaiting(session)) ?? false;
  }

  /** As {@link ToolFleet.marksWaiting}; undefined: there is no other server. */
  marksWaiting(session: string | undefined): ((isWaiting: boolean) => void) | undefined {
    return session === undefined ? undefined : this.#options.fleet?.marksWaiting(session);
  }

  /**
   * Passes answers on to the execution that waits for them, on whichever server.
   *
   * @throws {ClientError} 404, and what {@link PendingCalls.answer} throws; 410 if its server is gone.
   */
  async answer(principal: string, id: string, answers: readonly ToolAnswer[]): Promise<void> {
    const elsewhere = this.elsewhere(id);
    if (elsewhere === null) this.get(principal, id).calls.answer(answers);
    else await elsewhere.answer(principal, id, answers);
  }

  /**
   * The way to the server that an execution is on.
   *
   * @returns null: it is on this one, or nowhere. @throws {ClientError} 410 if it was on a server that is gone.
   */
  elsewhere(id: string): ToolFleet | null {
    if (!this.#isElsewhere(id)) return null;
    const { fleet } = this.#options;
    if (fleet === null) throw new ClientError("tool_wait_expired");
    return fleet;
  }

  /** As {@link elsewhere}; null also where its server is gone. */
  fleetOf(id: string): ToolFleet | null {
    return this.#isElsewhere(id) ? this.#options.fleet : null;
  }

  #isElsewhere(id: string): boolean {
    const owner = serverOf(id);
    return owner !== null && owner !== this.#options.server;
  }

  #forget(execution: ToolExecution): void {
    if (!this.#executions.delete(execution.id)) return;
    const { principal } = execution;
    const left = (this.#ofPrincipal.get(principal) ?? 1) - 1;
    if (left > 0) this.#ofPrincipal.set(principal, left);
    else this.#ofPrincipal.delete(principal);
  }
}
