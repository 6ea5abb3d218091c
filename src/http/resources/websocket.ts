import { z } from "zod";
import { type Route, route, sentByHandler } from "../routes.ts";

/** `GET /api/ws`: what is said on it is in docs/websocket.md. */
export const webSocketRoutes: readonly Route[] = [
  route({
    method: "get",
    path: "/api/ws",
    scope: "execute",
    tag: "Running code",
    operation: "openWebSocket",
    summary: "Run Python, and answer its calls, over a WebSocket",
    description:
      "Subprotocol `pyodide-express.v1`. Messages are JSON: executions, several at a time, their output, the calls of their code and the answers. The key is in a header as " +
      "everywhere, or, where a page can set none, in a subprotocol: `pyodide-express.key.` and the key in base64url. docs/websocket.md has the messages.",
    reply: sentByHandler("It is a WebSocket from here on.", z.unknown(), { status: 101 }),
    errors: ["upgrade_required", "bad_request", "too_many_connections"],
    handler: ({ services, request, response }) => services.channels.accept(request, response, services),
  }),
];
