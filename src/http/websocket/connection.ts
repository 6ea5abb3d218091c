import type { WebSocket } from "ws";
import type { Caller } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import { readAnswers } from "../../tools/answers.ts";
import { readJson } from "../body.ts";
import { MAX_INLINE_BYTES } from "../body-limits.ts";
import { createSession, toReply } from "../resources/sessions.ts";
import type { RouteServices } from "../routes.ts";
import { executeBody, parseBody } from "../validation.ts";
import { type Channel, type EventSink, encoded } from "./channel.ts";
import {
  executionOf,
  executionOfLargeResults,
  type Message,
  nameIn,
  readMessage,
  type SessionMessage,
  typeOf,
} from "./messages.ts";
import { readMessages } from "./read-messages.ts";

/** https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1 */
export const CLOSE = { normal: 1000, goingAway: 1001, unsupportedData: 1003, none: 1005, policy: 1008 } as const;

/** Requests about sessions that one connection has under way. */
const MAX_REQUESTS = 100;

export interface ConnectionOptions {
  readonly socket: WebSocket;
  readonly services: RouteServices;
  readonly caller: Caller;
  /** What it has from the beginning. */
  readonly channel: Channel;
  readonly heartbeatMs: number;
  /** Counts a message as a request. @throws {ClientError} 429 `rate_limited`. */
  readonly count: () => Promise<void>;
  /** Finds the channel that the client had before. @throws {ClientError} 404 `channel_not_found`. */
  readonly resume: (id: string) => Channel;
  /** @param isOver the client has said that it does not come back. */
  readonly onClose: (channel: Channel, isOver: boolean) => void;
}

/** One WebSocket of a client: reads messages, one after another, and writes its channel's events. */
export class Connection implements EventSink {
  readonly #options: ConnectionOptions;
  #channel: Channel;
  /** Requests about sessions that are not answered yet. */
  #requests = 0;
  readonly #gone = new AbortController();

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.#channel = options.channel;
    const { socket, heartbeatMs } = options;
    readMessages(socket, {
      heartbeatMs,
      take: async (bytes, isBinary) => {
        if (isBinary) socket.close(CLOSE.unsupportedData, "messages are text");
        else await this.#take(bytes);
      },
      onClose: (code) => {
        this.#gone.abort(new ClientError("client_gone"));
        this.#channel.detach(this);
        options.onClose(this.#channel, code === CLOSE.normal || code === CLOSE.none);
      },
    });
    this.#write({ type: "ready", channel: this.#channel.id });
    this.#channel.attach(this, 0);
  }

  get bufferedBytes(): number {
    return this.#options.socket.bufferedAmount;
  }

  write(bytes: Uint8Array, done: () => void): void {
    this.#options.socket.send(bytes, { binary: false }, done);
  }

  /** Says that the server ends. */
  announceEnd(): void {
    this.#write({ type: "closing" });
  }

  close(code: number, reason: string): void {
    this.#options.socket.close(code, reason);
  }

  terminate(): void {
    this.#options.socket.terminate();
  }

  #write(event: object): void {
    this.write(encoded(event), () => {});
  }

  /** Never rejects: what is wrong with a message is an event. */
  async #take(bytes: Buffer): Promise<void> {
    let names = {};
    try {
      try {
        await this.#options.count();
      } catch (error) {
        if (bytes.length <= MAX_INLINE_BYTES)
          names = nameIn(await readJson(bytes, this.#options.caller.principal).catch(() => null));
        throw error;
      }
      const execution = executionOfLargeResults(bytes);
      if (execution !== null) {
        names = { execution };
        await this.#channel.answer(execution, await readAnswers(bytes, this.#options.caller.principal));
        return;
      }
      // The thread that reads a large one takes its memory along.
      const { length } = bytes;
      const value = await readJson(bytes, this.#options.caller.principal);
      names = nameIn(value);
      switch (typeOf(value)) {
        case "execute":
          return this.#channel.execute(executionOf(value), parseBody(executeBody, value), this.#options.caller, length);
        case "results":
          if (length > MAX_INLINE_BYTES) {
            throw new ClientError(
              "invalid_request",
              "In a large message type and execution stand first, in this order.",
            );
          }
          return await this.#channel.answer(
            executionOf(value),
            await readAnswers(bytes, this.#options.caller.principal),
          );
        default:
          this.#do(readMessage(value));
      }
    } catch (error) {
      this.#channel.emitError(error, names);
    }
  }

  #do(message: Message): void {
    const channel = this.#channel;
    switch (message.type) {
      case "interrupt":
        channel.interrupt(message.execution);
        return;
      case "resume":
        this.#resume(message.channel, message.after);
        return;
      default:
        break;
    }
    // Not waited for: it may have to wait for an execution that the next message answers, or interrupts.
    if (this.#requests >= MAX_REQUESTS) throw new ClientError("too_many_executions");
    this.#requests++;
    void this.#serve(message)
      // Before any reply, as over HTTP: what a client was told has its line, even if the server is killed.
      .finally(() => this.#options.services.securityLog?.writing)
      .then((session) => channel.emit({ type: "session", request: message.request, session }))
      .catch((error) => channel.emitError(error, { request: message.request }))
      .finally(() => this.#requests--);
  }

  /** @returns what the client is told of the session; null: it is deleted. */
  async #serve(message: SessionMessage): Promise<object | null> {
    const { services } = this.#options;
    const { sessions } = services;
    const { id: principal } = this.#channel.principal;
    const { signal } = this.#gone;
    switch (message.type) {
      case "create_session": {
        const made = await createSession(services, principal, message);
        this.#record("session_create", { session: made.id });
        return toReply(made);
      }
      case "get_session":
        return toReply(await sessions.get(principal, message.session));
      case "reset_session":
        return toReply(await sessions.reset(principal, message.session, signal));
      case "fork_session": {
        const made = await sessions.fork(principal, message.session, signal);
        this.#record("session_create", { session: made.id, forkOf: message.session });
        return toReply(made);
      }
      case "delete_session":
        await sessions.delete(principal, message.session, signal);
        this.#record("session_delete", { session: message.session });
        return null;
    }
  }

  #record(event: "session_create" | "session_delete", details: Record<string, string>): void {
    void this.#options.services.securityLog?.append({ event, ...this.#options.caller, details });
  }

  #resume(id: string, after: number): void {
    if (!this.#channel.isFresh) {
      throw new ClientError("invalid_request", "Resume has to be the first message of a connection.");
    }
    const channel = this.#options.resume(id);
    this.#channel.detach(this);
    this.#channel = channel;
    this.#write({ type: "resumed", channel: channel.id, executions: channel.executions });
    channel.attach(this, after);
  }
}
