import type { Connection } from "./connection.ts";
import type { Message } from "./messages.ts";

/** More is not held for a client that is away, and output is left out, bytes. */
const MAX_HELD_OUTPUT_BYTES = 8 * 1024 * 1024;
/** With what is never left out: a client that has missed more begins anew. */
const MAX_HELD_BYTES = 2 * MAX_HELD_OUTPUT_BYTES;

/** What a kernel knows by one `session_id`: a connection, or what is held until it is back. */
export class Client {
  readonly id: string;
  #connection: Connection | null = null;
  #held: Message[] = [];
  #heldBytes = 0;

  constructor(id: string) {
    this.id = id;
  }

  get isConnected(): boolean {
    return this.#connection !== null;
  }

  /** Sends what was held. A connection that it has already is replaced: the client may know sooner than the server that one is lost. */
  attach(connection: Connection): void {
    this.#connection?.replace();
    this.#connection = connection;
    const held = this.#held;
    this.#held = [];
    this.#heldBytes = 0;
    for (const message of held) connection.send(message);
  }

  /** @returns whether it was this one that it had. */
  detach(connection: Connection): boolean {
    if (this.#connection !== connection) return false;
    this.#connection = null;
    return true;
  }

  /** @returns false where more would have to be held for it than may be: it is to be forgotten. */
  send(message: Message): boolean {
    if (this.#connection !== null) {
      this.#connection.send(message);
      return true;
    }
    const bytes = this.#heldBytes + message.bytes;
    // Replies and states are what a client that is back waits for.
    if (message.isOutput && bytes > MAX_HELD_OUTPUT_BYTES) return true;
    if (bytes > MAX_HELD_BYTES) {
      this.#held = [];
      return false;
    }
    this.#held.push(message);
    this.#heldBytes = bytes;
    return true;
  }

  close(code: number, reason: string): void {
    this.#connection?.close(code, reason);
  }
}
