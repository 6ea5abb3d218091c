import { randomBytes } from "node:crypto";
import type { Request, Response } from "express";
import type { Logger } from "pino";
import { ClientError } from "../../shared/errors.ts";
import { callerOf } from "../caller.ts";
import { principalOf } from "../middleware/authentication.ts";
import type { RouteServices, WebSockets } from "../routes.ts";
import { Channel } from "./channel.ts";
import { CLOSE, Connection } from "./connection.ts";
import { EventBudget } from "./event-log.ts";
import { SUBPROTOCOL, subprotocolsOf, upgradeOf } from "./upgrade.ts";

/** All events of one principal that are held, bytes. */
const MAX_EVENT_BYTES = 256 * 1024 * 1024;
/** For events that are written when all work has ended, ms. */
const FLUSH_MS = 2_000;

export interface ChannelsOptions {
  readonly logger: Logger;
  /** Most of one principal, those included that wait for their client. */
  readonly maxOfPrincipal: number;
  /** A channel whose connection is lost goes on for so long, ms. */
  readonly resumeMs: number;
  readonly heartbeatMs: number;
  /** Counts one message of a principal as a request of its. @throws {ClientError} 429 `rate_limited`. */
  readonly count: (principal: string, ip: string | null) => Promise<void>;
}

interface Own {
  readonly channels: Map<string, Held>;
  readonly budget: EventBudget;
}

interface Held {
  readonly channel: Channel;
  connection: Connection | null;
  /** Runs while its client is away. */
  expiry: NodeJS.Timeout | undefined;
}

/** The channels of this server. */
export class Channels implements WebSockets {
  readonly #options: ChannelsOptions;
  readonly #owners = new Map<string, Own>();
  readonly #connections = new Set<Connection>();
  #allClosed: () => void = () => {};

  constructor(options: ChannelsOptions) {
    this.#options = options;
  }

  /**
   * Makes a request a WebSocket.
   *
   * @throws {ClientError} 426 `upgrade_required`, 400 `bad_request`, 429 `too_many_connections`.
   */
  accept(request: Request, response: Response, services: RouteServices): void {
    const upgrade = upgradeOf(request, response);
    if (!subprotocolsOf(request).includes(SUBPROTOCOL)) {
      throw new ClientError("bad_request", `The client has to offer the subprotocol ${SUBPROTOCOL}.`);
    }
    const principal = principalOf(response);
    const caller = callerOf(request, response);
    const own = this.#owners.get(principal.id) ?? { channels: new Map(), budget: new EventBudget(MAX_EVENT_BYTES) };
    if (own.channels.size >= this.#options.maxOfPrincipal) throw new ClientError("too_many_connections");
    this.#owners.set(principal.id, own);
    const { logger, heartbeatMs, count } = this.#options;
    const id = randomBytes(18).toString("base64url");
    const channel = new Channel({
      id,
      principal,
      services,
      budget: own.budget,
      onError: (error) => logger.error({ err: error, requestId: caller.requestId }, "a message failed"),
    });
    const held: Held = { channel, connection: null, expiry: undefined };
    // From here on it counts: many could be on their way.
    own.channels.set(id, held);
    upgrade(
      (socket) => {
        const connection = new Connection({
          socket,
          services,
          caller,
          channel,
          heartbeatMs,
          count: async () => await count(principal.id, caller.ip),
          resume: (wanted) => this.#resume(principal.id, wanted, id, connection),
          onClose: (last, isOver) => this.#closed(principal.id, last, connection, isOver),
        });
        held.connection = connection;
        this.#connections.add(connection);
      },
      () => this.#end(principal.id, held),
    );
  }

  /** Tells clients that the server ends. */
  begin(): void {
    for (const connection of this.#connections) connection.announceEnd();
  }

  /** Once nothing runs any more: closes all, and waits a while for what is still being sent. */
  async end(): Promise<void> {
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    this.#allClosed = resolve;
    for (const connection of this.#connections) connection.close(CLOSE.goingAway, "the server stops");
    const timer = setTimeout(resolve, this.#connections.size === 0 ? 0 : FLUSH_MS);
    await closed;
    clearTimeout(timer);
    for (const connection of this.#connections) connection.terminate();
    for (const [principal, { channels }] of this.#owners) {
      for (const held of channels.values()) this.#end(principal, held);
    }
  }

  /** @param fresh the channel that the connection had until now, of which nothing stays. */
  #resume(principal: string, wanted: string, fresh: string, connection: Connection): Channel {
    const own = this.#owners.get(principal);
    const held = own?.channels.get(wanted);
    if (!held || wanted === fresh) throw new ClientError("channel_not_found");
    own?.channels.delete(fresh);
    clearTimeout(held.expiry);
    // Its old connection may not know yet that it is lost.
    const before = held.connection;
    held.connection = connection;
    if (before !== null) {
      held.channel.detach(before);
      before.terminate();
    }
    return held.channel;
  }

  #closed(principal: string, channel: Channel, connection: Connection, isOver: boolean): void {
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#allClosed();
    const held = this.#owners.get(principal)?.channels.get(channel.id);
    // Another connection has it.
    if (!held || held.connection !== connection) return;
    held.connection = null;
    const { resumeMs } = this.#options;
    if (isOver || resumeMs === 0) this.#end(principal, held);
    else held.expiry = setTimeout(() => this.#end(principal, held), resumeMs).unref();
  }

  #end(principal: string, { channel, expiry }: Held): void {
    clearTimeout(expiry);
    channel.end();
    const own = this.#owners.get(principal);
    own?.channels.delete(channel.id);
    // The budget goes along when nothing counts in it any more.
    if (own?.channels.size === 0) this.#owners.delete(principal);
  }
}
