/** Which requests are under way, and of which session of the protocol. */
import type { RequestId } from "@modelcontextprotocol/sdk/types.js";
import type { Request } from "express";
import { ClientError } from "../../shared/errors.ts";
import type { Exchange } from "./exchange.ts";

export const SESSION = "Mcp-Session-Id";

/** Requests whose responses their client does not want. */
export interface GivenUp {
  readonly principal: string;
  readonly session: string;
  /** Absent: all of the session. */
  readonly requestId?: RequestId;
}

/** The requests that are under way, by the session of the protocol that they belong to. */
export class Exchanges {
  readonly #ofSession = new Map<string, Set<Exchange>>();

  /** @param session of the protocol; undefined: the client has none, and nothing can be said of its requests later. */
  begin(principal: string, session: string | undefined, exchange: Exchange): Disposable {
    if (session === undefined) return { [Symbol.dispose]: () => {} };
    const key = keyOf(principal, session);
    const all = this.#ofSession.get(key) ?? new Set();
    this.#ofSession.set(key, all.add(exchange));
    return {
      [Symbol.dispose]: () => {
        all.delete(exchange);
        if (all.size === 0 && this.#ofSession.get(key) === all) this.#ofSession.delete(key);
      },
    };
  }

  of(principal: string, session: string): readonly Exchange[] {
    return [...(this.#ofSession.get(keyOf(principal, session)) ?? [])];
  }

  /** Cancels what is meant, and runs here. */
  giveUp({ principal, session, requestId }: GivenUp): void {
    for (const exchange of this.of(principal, session))
      if (requestId === undefined || exchange.id === requestId) void exchange.cancel();
  }
}

const keyOf = (principal: string, session: string) => JSON.stringify([principal, session]);

/** @throws {ClientError} 400 */
export function sessionOf(request: Request): string | undefined {
  const session = request.get(SESSION);
  if (session === undefined || /^[\x21-\x7e]{1,128}$/.test(session)) return session;
  throw new ClientError("invalid_request", `${SESSION} must be 1 to 128 visible ASCII characters.`);
}
