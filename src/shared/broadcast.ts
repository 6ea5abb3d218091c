import { randomUUID } from "node:crypto";
import type { RedisConnection } from "./redis-connection.ts";
import { KEY_PREFIX } from "./redis-keys.ts";

const CHANNEL = `${KEY_PREFIX}broadcast`;

interface Sent {
  readonly from: string;
  readonly topic: string;
  readonly message: unknown;
}

/** Tells the other servers of a fleet something, once and without an answer; a server alone tells it to none. What is lost with Redis is lost. */
export class Broadcast {
  readonly #connection: RedisConnection | null;
  readonly #name = randomUUID();
  readonly #listeners = new Map<string, (message: unknown) => void>();

  constructor(connection: RedisConnection | null) {
    this.#connection = connection;
    if (connection === null) return;
    // It reconnects by itself, and subscribes again.
    const subscriber = connection.duplicate({ maxRetriesPerRequest: null, commandTimeout: undefined });
    subscriber.on("message", (_channel, text) => {
      const { from, topic, message } = JSON.parse(text) as Sent;
      if (from !== this.#name) this.#listeners.get(topic)?.(message);
    });
    subscriber.subscribe(CHANNEL).catch(() => {});
  }

  /** @param listener of what other servers tell of the topic. */
  listen(topic: string, listener: (message: unknown) => void): void {
    this.#listeners.set(topic, listener);
  }

  tell(topic: string, message: unknown): void {
    const sent: Sent = { from: this.#name, topic, message };
    this.#connection?.attempt((redis) => redis.publish(CHANNEL, JSON.stringify(sent))).catch(() => {});
  }
}
