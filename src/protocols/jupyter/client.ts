import type { Connection } from "./connection.ts";
import type { Message } from "./messages.ts";

/** Held for a client that is away, bytes. */
const MAX_HELD_BYTES = 8 * 1024 * 1024;

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

  send(message: Message): void {
    if (this.#connection !== null) {
      this.#connection.send(message);
      return;
    }
    // Replies and states are small, and a client that is back waits for them.
    if (message.isOutput && this.#heldBytes + message.bytes > MAX_HELD_BYTES) return;
    this.#held.push(message);
    this.#heldBytes += message.bytes;
  }

  close(code: number, reason: string): void {
    this.#connection?.close(code, reason);
  }
}
