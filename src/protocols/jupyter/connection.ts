import { randomUUID } from "node:crypto";
import type { WebSocket } from "ws";
import { CLOSE } from "../../http/websocket/connection.ts";
import { readMessages } from "../../http/websocket/read-messages.ts";
import type { Caller } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import { Delivery, Message, RefusedRequestError, type Request, readRequest } from "./messages.ts";
import { readFrame, type WireFormat } from "./wire-format.ts";

/** More that a client has not read, and output is left out, bytes. */
const MAX_BUFFERED_BYTES = 8 * 1024 * 1024;
/** With what is never left out: a client that has read nothing of it reads nothing. */
const MAX_UNREAD_BYTES = 4 * MAX_BUFFERED_BYTES;
const CLOSE_TIMEOUT_MS = 2_000;

export interface ConnectionOptions {
  readonly socket: WebSocket;
  readonly format: WireFormat;
  readonly caller: Caller;
  readonly heartbeatMs: number;
  /** Counts a message as a request. @throws {ClientError} 429 `rate_limited`. */
  readonly count: () => Promise<void>;
  readonly onRequest: (request: Request) => void;
  /** It is answered with why it is not done. */
  readonly onRefused: (request: Request, error: Error) => void;
  readonly onClose: (connection: Connection) => void;
}

/** One WebSocket to one kernel: reads messages, one after another, and writes what comes of them. */
export class Connection {
  readonly caller: Caller;
  readonly #options: ConnectionOptions;
  #leftOut = 0;

  constructor(options: ConnectionOptions) {
    this.#options = options;
    this.caller = options.caller;
    const { socket, heartbeatMs } = options;
    readMessages(socket, {
      heartbeatMs,
      take: (bytes, isBinary) => this.#take(bytes, isBinary),
      onClose: () => options.onClose(this),
    });
  }

  send(delivery: Delivery): void {
    const { message } = delivery;
    const { socket } = this.#options;
    const unread = socket.bufferedAmount;
    if (unread === 0) this.#tellOfLeftOut();
    // From the first that is left out to when all is read: one gap, and one note for it.
    if (message.isOutput && (this.#leftOut > 0 || (unread > 0 && unread + message.bytes > MAX_BUFFERED_BYTES))) {
      this.#leftOut++;
      return;
    }
    if (unread > MAX_UNREAD_BYTES) {
      socket.terminate();
      return;
    }
    this.#write(delivery);
  }

  /** A note of the server's own, among what code prints. */
  tell(text: string): void {
    const content = { name: "stderr", text };
    const message = new Message({ channel: "iopub", type: "stream", session: randomUUID(), parent: null, content });
    this.#write(new Delivery(message));
  }

  /** The same client has opened another. */
  replace(): void {
    this.close(CLOSE.policy, "the client has opened another connection for this session");
  }

  close(code: number, reason: string): void {
    const { socket } = this.#options;
    socket.close(code, reason);
    setTimeout(() => socket.terminate(), CLOSE_TIMEOUT_MS).unref();
  }

  #write(delivery: Delivery): void {
    const { socket, format } = this.#options;
    socket.send(delivery.frame(format), { binary: format === "v1" }, () => {
      if (socket.bufferedAmount === 0) this.#tellOfLeftOut();
    });
  }

  #tellOfLeftOut(): void {
    if (this.#leftOut === 0) return;
    const text = `[${this.#leftOut} messages of output were left out: this client reads too slowly.]\n`;
    this.#leftOut = 0;
    this.tell(text);
  }

  /** Never rejects. What can be answered is; a client of which nothing can be read is none. */
  async #take(bytes: Buffer, isBinary: boolean): Promise<void> {
    const { format, caller, count, onRequest, onRefused } = this.#options;
    let request: Request;
    let refusal: Error | null = null;
    try {
      request = await readRequest(readFrame(bytes, isBinary, format), caller.principal);
    } catch (error) {
      if (!(error instanceof RefusedRequestError)) return this.#closeUnread(error);
      request = error.request;
      refusal = error;
    }
    try {
      await count();
    } catch (error) {
      refusal = error as Error;
    }
    if (refusal === null) onRequest(request);
    else onRefused(request, refusal);
  }

  #closeUnread(error: unknown): void {
    const message = error instanceof ClientError ? error.message : "the message cannot be read";
    // A reason has 123 bytes at the most.
    this.close(CLOSE.unsupportedData, message.slice(0, 120));
  }
}
