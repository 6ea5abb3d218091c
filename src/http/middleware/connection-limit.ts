import type { Server } from "node:http";
import type { Socket } from "node:net";
import type { RequestHandler } from "express";
import { ClientError } from "../../shared/errors.ts";
import { Tally } from "../../shared/tally.ts";
import { clientNetwork } from "./client-networks.ts";

export interface ConnectionLimitOptions {
  /** Most connections of all clients. */
  readonly maxConnections: number;
  /** Connections beyond these, each for one probe. */
  readonly forProbes: number;
  /** How long a connection for a probe may take, ms; default 5000. */
  readonly probeMs?: number;
  /** Most of one network. */
  readonly maxOfNetwork: number;
  /** Whether an address is a reverse proxy's, which may have all: Express's `trust proxy fn`. */
  readonly isProxy: (address: string, index: number) => boolean;
}

const PROBE_MS = 5_000;

/** Connections that were opened when there were as many as there may be. */
const probing = new WeakSet<Socket>();

/**
 * Bounds connections, so that no single client has all that a server can hold. What is too much is closed without a word.
 *
 * A server that has all its connections is not dead: some more are taken, on which it says how it is, and nothing else
 * ({@link refuseBeyondConnections}).
 */
export function limitConnections(
  server: Server,
  { maxConnections, forProbes, probeMs = PROBE_MS, maxOfNetwork, isProxy }: ConnectionLimitOptions,
): void {
  server.maxConnections = maxConnections + forProbes;
  const open = new Tally<string>();
  let count = 0;
  server.on("connection", (socket: Socket) => {
    const { remoteAddress } = socket;
    const network = remoteAddress === undefined || isProxy(remoteAddress, 0) ? null : clientNetwork(remoteAddress);
    if (network !== null && open.of(network) >= maxOfNetwork) {
      socket.destroy();
      return;
    }
    if (network !== null) open.add(network);
    count++;
    const timer = count > maxConnections ? keepForProbe(socket, probeMs) : undefined;
    socket.once("close", () => {
      clearTimeout(timer);
      count--;
      if (network !== null) open.remove(network);
    });
  });
}

function keepForProbe(socket: Socket, probeMs: number): NodeJS.Timeout {
  probing.add(socket);
  return setTimeout(() => socket.destroy(), probeMs).unref();
}

/**
 * Keeps the connections beyond the limit for probes.
 *
 * @param isProbe by path.
 * @returns middleware that fails with {@link ClientError} 503 `connection_limit`, and has such a connection end with its reply.
 */
export function refuseBeyondConnections(isProbe: (path: string) => boolean): RequestHandler {
  return (request, response, next) => {
    if (!probing.has(request.socket)) return next();
    response.set("Connection", "close");
    if (!isProbe(request.path)) throw new ClientError("connection_limit");
    next();
  };
}
