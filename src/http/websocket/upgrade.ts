import { type IncomingMessage, type Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Express, Request, Response } from "express";
import { type WebSocket, WebSocketServer } from "ws";
import { ClientError } from "../../shared/errors.ts";

export const SUBPROTOCOL = "pyodide-express.v1";
/** A key in a subprotocol, since a page can set no header: base64url of it follows. It is never answered with. */
const KEY_PROTOCOL = "pyodide-express.key.";
/** A message may carry a value of a tool, of 10 MB, or code with a large context. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/**
 * Makes a request a WebSocket.
 *
 * @param onFailed it has become none: the handshake is wrong, or the client is gone.
 * @param subprotocol which of those that the client offers is spoken; null: none. Default: the server's own.
 */
type Upgrade = (onOpen: (socket: WebSocket) => void, onFailed: () => void, subprotocol?: string | null) => void;

const upgrades = new WeakMap<IncomingMessage, Upgrade>();
/** Of requests whose WebSocket speaks another protocol than the server's own. */
const subprotocols = new WeakMap<IncomingMessage, string | null>();

/** @throws {ClientError} 426 `upgrade_required`: the request asks for no WebSocket, or the server has none. */
export function upgradeOf(request: Request, response: Response): Upgrade {
  const upgrade = upgrades.get(request);
  if (upgrade) return upgrade;
  response.setHeader("Upgrade", "websocket");
  throw new ClientError("upgrade_required");
}

/**
 * Whether a request asks for a WebSocket. Others that name a protocol (`h2c`, which some HTTP clients offer with each first
 * request) are served as if they did not.
 */
export function asksForWebSocket(request: Pick<IncomingMessage, "method" | "headers">): boolean {
  return request.method === "GET" && request.headers.upgrade?.toLowerCase() === "websocket";
}

/** What a client offers, in its order. */
export function subprotocolsOf(request: IncomingMessage): readonly string[] {
  return (request.headers["sec-websocket-protocol"] ?? "").split(",").map((name) => name.trim());
}

/** The API key that a client has put among its subprotocols; undefined: none. */
export function keyInSubprotocols(request: IncomingMessage): Buffer | undefined {
  if (!asksForWebSocket(request)) return undefined;
  const offered = subprotocolsOf(request).find((name) => name.startsWith(KEY_PROTOCOL));
  return offered === undefined ? undefined : Buffer.from(offered.slice(KEY_PROTOCOL.length), "base64url");
}

/**
 * Serves requests for WebSockets by the application, so that keys, origins, limits and logs are those of every request. What it
 * does not accept it answers, as HTTP.
 */
export function serveUpgrades(http: Server, app: Express): void {
  const sockets = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload: MAX_MESSAGE_BYTES,
    // A few bytes of it would be many of ours.
    perMessageDeflate: false,
    handleProtocols: (_offered, request) => {
      const chosen = subprotocols.get(request);
      return chosen === undefined ? SUBPROTOCOL : (chosen ?? false);
    },
  });
  http.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    const response = new ServerResponse(request);
    let isAccepted = false;
    const onError = () => socket.destroy();
    socket.on("error", onError);
    response.shouldKeepAlive = false;
    response.assignSocket(socket);
    response.once("finish", () => {
      if (isAccepted) return;
      response.detachSocket(socket);
      socket.end();
    });
    const onGone = () => response.emit("close");
    socket.once("close", onGone);
    upgrades.set(request, (onOpen, onFailed, subprotocol) => {
      isAccepted = true;
      if (subprotocol !== undefined) subprotocols.set(request, subprotocol);
      let isOpen = false;
      socket.once("close", () => {
        if (!isOpen) onFailed();
      });
      response.detachSocket(socket);
      response.statusCode = 101;
      // What counts requests, and what they hold, is told that this one is over.
      response.emit("finish");
      socket.off("close", onGone);
      response.emit("close");
      socket.off("error", onError);
      sockets.handleUpgrade(request, socket, head, (opened) => {
        isOpen = true;
        onOpen(opened);
      });
    });
    app(request, response);
  });
}
