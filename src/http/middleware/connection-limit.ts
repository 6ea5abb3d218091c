import type { Server } from "node:http";
import type { Socket } from "node:net";
import { clientNetwork } from "./client-networks.ts";

export interface ConnectionLimitOptions {
  /** Most connections of all clients. */
  readonly maxConnections: number;
  /** Most of one network. */
  readonly maxOfNetwork: number;
  /** Whether an address is a reverse proxy's, which may have all: Express's `trust proxy fn`. */
  readonly isProxy: (address: string, index: number) => boolean;
}

/** Bounds connections, so that no single client has all that a server can hold. What is too much is closed without a word. */
export function limitConnections(
  server: Server,
  { maxConnections, maxOfNetwork, isProxy }: ConnectionLimitOptions,
): void {
  server.maxConnections = maxConnections;
  const open = new Map<string, number>();
  server.on("connection", (socket: Socket) => {
    const { remoteAddress } = socket;
    if (remoteAddress === undefined || isProxy(remoteAddress, 0)) return;
    const network = clientNetwork(remoteAddress);
    const count = open.get(network) ?? 0;
    if (count >= maxOfNetwork) {
      socket.destroy();
      return;
    }
    open.set(network, count + 1);
    socket.once("close", () => {
      const left = (open.get(network) ?? 1) - 1;
      if (left > 0) open.set(network, left);
      else open.delete(network);
    });
  });
}
