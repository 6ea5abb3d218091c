import type { Server } from "node:http";
import type { Socket } from "node:net";
import { Tally } from "../../shared/tally.ts";
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
  const open = new Tally<string>();
  server.on("connection", (socket: Socket) => {
    const { remoteAddress } = socket;
    if (remoteAddress === undefined || isProxy(remoteAddress, 0)) return;
    const network = clientNetwork(remoteAddress);
    if (open.of(network) >= maxOfNetwork) {
      socket.destroy();
      return;
    }
    open.add(network);
    socket.once("close", () => open.remove(network));
  });
}
