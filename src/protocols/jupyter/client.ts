import type { Connection } from "./connection.ts";
import type { HeldMessages } from "./held-messages.ts";
import { Delivery, type Message } from "./messages.ts";

/** More is not held for a client that is away, and output is left out, bytes. */
const MAX_HELD_OUTPUT_BYTES = 8 * 1024 * 1024;
/** With what is never left out: a client that has missed more begins anew. */
const MAX_HELD_BYTES = 2 * MAX_HELD_OUTPUT_BYTES;

export interface ClientOptions {
  readonly id: string;
  /** Id of the principal whose kernel it is. */
  readonly owner: string;
  /** Of all clients of this server. */
  readonly messages: HeldMessages;
}

/** What a kernel knows by one `session_id`: a connection, or what is held until it is back. */
export class Client {
  readonly id: string;
  readonly #options: ClientOptions;
  #connection: Connection | null = null;
  #held: Message[] = [];
  #heldBytes = 0;
  /** Messages of output for which there was no room. */
  #leftOut = 0;
  #isForgotten = false;

  constructor(options: ClientOptions) {
    this.#options = options;
    this.id = options.id;
  }

  get isConnected(): boolean {
    return this.#connection !== null;
  }

  /** Sends what was held. A connection that it has already is replaced: the client may know sooner than the server that one is lost. */
  attach(connection: Connection): void {
    this.#connection?.replace();
    this.#connection = connection;
    const leftOut = this.#leftOut;
    for (const message of this.#take()) connection.send(new Delivery(message));
    if (leftOut > 0) connection.tell(`[${leftOut} messages of output were left out: this client was away.]\n`);
  }

  /** @returns whether it was this one that it had. */
  detach(connection: Connection): boolean {
    if (this.#connection !== connection) return false;
    this.#connection = null;
    return true;
  }

  /** @returns false where more would have to be held for it than may be: it is to be forgotten. */
  send(delivery: Delivery): boolean {
    if (this.#connection !== null) {
      this.#connection.send(delivery);
      return true;
    }
    if (this.#isForgotten) return true;
    const { message } = delivery;
    const { owner, messages } = this.#options;
    const bytes = this.#heldBytes + message.bytes;
    const hasRoom = bytes <= (message.isOutput ? MAX_HELD_OUTPUT_BYTES : MAX_HELD_BYTES);
    if (!hasRoom || !messages.hold(owner, message)) {
      // Replies and states are what a client that is back waits for.
      if (!message.isOutput) return false;
      this.#leftOut++;
      return true;
    }
    this.#held.push(message);
    this.#heldBytes = bytes;
    return true;
  }

  /** It does not come back: nothing is held for it any more, of what its requests still come to either. */
  forget(): void {
    this.#isForgotten = true;
    this.#take();
  }

  close(code: number, reason: string): void {
    this.#connection?.close(code, reason);
  }

  /** @returns what was held, which is not any more. */
  #take(): readonly Message[] {
    const { owner, messages } = this.#options;
    const held = this.#held;
    for (const message of held) messages.release(owner, message);
    this.#held = [];
    this.#heldBytes = 0;
    this.#leftOut = 0;
    return held;
  }
}
