import { randomUUID } from "node:crypto";
import type { Server } from "@modelcontextprotocol/sdk/server/index.js";
import {
  CallToolRequestSchema,
  InitializeRequestSchema,
  isJSONRPCNotification,
  isJSONRPCRequest,
  type JSONRPCMessage,
  JSONRPCMessageSchema,
  ListResourcesRequestSchema,
  ListResourceTemplatesRequestSchema,
  ListToolsRequestSchema,
  ReadResourceRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";
import type { z } from "zod";
import { readJson } from "../../http/body.ts";
import { holdReply } from "../../http/middleware/held-requests.ts";
import type { ProtocolOptions } from "../../http/protocol.ts";
import type { Asked } from "../../http/routes.ts";
import { ClientError } from "../../shared/errors.ts";
import { isObject } from "../../shared/json/json-object.ts";
import { readAnswers } from "../../tools/answers.ts";
import { Exchange } from "./exchange.ts";
import { type Exchanges, type GivenUp, SESSION, sessionOf } from "./exchanges.ts";
import { REFUSED, type Refused, refuse } from "./refusal.ts";
import { newServer, TOOLS } from "./server.ts";
import type { McpTool } from "./tool.ts";

/** Without arguments a client does not send these as they are meant, and the SDK would call it an error of its own. */
const PARAMETERS: ReadonlyMap<string, z.ZodType> = new Map(
  Object.entries({
    initialize: InitializeRequestSchema,
    "tools/call": CallToolRequestSchema,
    "tools/list": ListToolsRequestSchema,
    "resources/list": ListResourcesRequestSchema,
    "resources/templates/list": ListResourceTemplatesRequestSchema,
    "resources/read": ReadResourceRequestSchema,
  }),
);

/** What a server has besides its own, for what tests ask of every server. */
export interface McpExtras {
  readonly tools?: readonly McpTool[];
  readonly extend?: (server: Server) => void;
}

export interface MessageHandlerOptions extends Pick<ProtocolOptions, "services" | "logger">, McpExtras {
  /** Where messages are sent to, for the log. */
  readonly path: string;
  readonly exchanges: Exchanges;
  readonly giveUp: (given: GivenUp) => void;
}

/** Replies to one message of a client. */
export type MessageHandler = (asked: Asked<unknown, Uint8Array, undefined>) => Promise<void>;

/** What takes messages. Importing this loads the SDK. */
export function messageHandler({
  services,
  logger,
  path,
  exchanges,
  giveUp,
  tools = [],
  extend,
}: MessageHandlerOptions): MessageHandler {
  const all = [...TOOLS, ...tools];
  const isLong = new Set(all.filter((tool) => tool.isLong).map(({ name }) => name));

  /** What belongs to a request that came before. */
  const takeFrom = (principal: string, session: string, value: JSONRPCMessage) => {
    if (!isJSONRPCNotification(value)) for (const exchange of exchanges.of(principal, session)) exchange.receive(value);
    else if (value.method === "notifications/cancelled") {
      const requestId = value.params?.requestId;
      if (typeof requestId === "string" || typeof requestId === "number") giveUp({ principal, session, requestId });
    }
  };

  return async (asked) => {
    const { request, response, principal, body } = asked;
    const session = sessionOf(request);
    const message = await readMessage(body, principal.id);
    if ("refused" in message) return refuse(response, 400, message);
    const { value } = message;
    if (!isJSONRPCRequest(value)) {
      if (session !== undefined) takeFrom(principal.id, session, value);
      response.status(202).end();
      return;
    }
    const wrong = PARAMETERS.get(value.method)?.safeParse(value).error?.issues[0];
    if (wrong !== undefined) {
      const where = wrong.path.map(String).join(".");
      return refuse(response, 200, {
        refused: REFUSED.parameters,
        message: `Invalid ${where}: ${wrong.message}`,
        id: value.id,
      });
    }
    // Each request is to name the session from here on.
    if (value.method === "initialize") response.setHeader(SESSION, randomUUID());
    const { name, _meta } = (value.params ?? {}) as { name?: unknown; _meta?: { progressToken?: unknown } };
    const isStream = (value.method === "tools/call" && isLong.has(String(name))) || _meta?.progressToken !== undefined;
    const keepAliveMs = services.config.STREAM_HEARTBEAT_S * 1000;
    const exchange = new Exchange({ request, response, message: value, isStream, keepAliveMs });
    using _ = exchanges.begin(principal.id, session, exchange);
    const server = newServer({
      tools: all,
      track: (work) => exchange.track(work),
      onError: (err) => logger.error({ err, requestId: response.locals.requestId, path }, "request failed"),
      call: {
        services,
        principal,
        caller: asked.caller,
        record: asked.record,
        signal: AbortSignal.any([asked.signal, reasoned(exchange.cancelled)]),
        cancelled: exchange.cancelled,
        answers: async () => await readAnswers(body, principal.id, ["params", "arguments"]),
        hold: (bytes) => holdReply(response, bytes),
        onDelivered: (delivered) => void response.once("finish", delivered),
      },
    });
    extend?.(server);
    await exchange.run(server);
  };
}

async function readMessage(
  body: Uint8Array,
  principal: string,
): Promise<Refused | { readonly value: z.output<typeof JSONRPCMessageSchema> }> {
  const sent = await readJson(body, principal);
  if (Array.isArray(sent))
    return {
      refused: REFUSED.request,
      message: "There are no batches since version 2025-06-18: send each message by itself.",
      id: null,
    };
  const parsed = JSONRPCMessageSchema.safeParse(sent);
  if (parsed.success) return { value: parsed.data };
  const id = isObject(sent) && (typeof sent.id === "string" || typeof sent.id === "number") ? sent.id : null;
  return { refused: REFUSED.request, message: "This is no message of JSON-RPC 2.0.", id };
}

/** With a reason that what runs knows: its client takes no reply. */
function reasoned(signal: AbortSignal): AbortSignal {
  const controller = new AbortController();
  signal.addEventListener("abort", () => controller.abort(new ClientError("client_gone")), { once: true });
  return controller.signal;
}
