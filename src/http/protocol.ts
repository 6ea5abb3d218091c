import type { RequestHandler } from "express";
import type { Logger } from "pino";
import type { Broadcast } from "../shared/broadcast.ts";
import { protocolOf, type RecognisedProtocol } from "./recognised-protocol.ts";
import { type BodyKind, type Endpoint, mount, type Reply, type RouteServices } from "./routes.ts";

// biome-ignore lint/suspicious/noExplicitAny: as in `Route`.
export type ProtocolEndpoint = Endpoint<any, any, any, any>;

/**
 * A foreign protocol, which clients of other servers speak. Behind its endpoints is what is behind each of the server's own: keys, scopes, limits,
 * statistics and the security log.
 */
export interface Protocol extends RecognisedProtocol {
  /** Behind the key, the limits and the reading of bodies. What is at none of them is a 404 `endpoint_not_found`. */
  readonly endpoints: readonly ProtocolEndpoint[];
  /** Without a key: health, a version. */
  readonly openEndpoints?: readonly ProtocolEndpoint[];
  /** Ends what it holds once no request is taken any more. */
  readonly close?: () => Promise<void> | void;
}

/** What an adapter is made with. */
export interface ProtocolOptions {
  readonly services: RouteServices;
  readonly logger: Logger;
  /** To the other servers of a fleet. */
  readonly broadcast: Broadcast;
  /** Counts one thing more that a principal asks for as a request: a message of a connection, each further execution of one message. @throws {ClientError} 429 `rate_limited`. */
  readonly count: (principal: string, ip: string | null) => Promise<void>;
}

/** Declares an endpoint of a protocol. Without `reply` the handler replies itself. */
export function endpoint<const Path extends string, Value = void, Body = undefined>(
  declaration: Pick<
    Endpoint<Path, Body, undefined, Value>,
    "method" | "path" | "scope" | "takesDerived" | "handler"
  > & {
    readonly body?: BodyKind<Body>;
    readonly reply?: Pick<Reply<Value>, "send">;
  },
): ProtocolEndpoint {
  const declared: Endpoint<Path, Body, undefined, Value> = { reply: { send: null }, ...declaration };
  return declared;
}

/** A JSON reply that is what the handler returns. */
export function json<Value>(status = 200): Pick<Reply<Value>, "send"> {
  return { send: (response, value) => response.status(status).json(value) };
}

/** Hands each request to the endpoints of its protocol. @param last takes what is at none of them; null: the next middleware does. */
export function serveProtocols(
  protocols: readonly Protocol[],
  endpointsOf: (protocol: Protocol) => readonly ProtocolEndpoint[],
  services: RouteServices,
  last: RequestHandler | null,
): RequestHandler {
  const routers = new Map<RecognisedProtocol, RequestHandler>(
    protocols.map((protocol) => [protocol, mount(endpointsOf(protocol), services)]),
  );
  return (request, response, next) => {
    const router = routers.get(protocolOf(response) as RecognisedProtocol);
    if (router === undefined) return next();
    router(request, response, (error?: unknown) => {
      if (error !== undefined || last === null) next(error);
      else last(request, response, next);
    });
  };
}
