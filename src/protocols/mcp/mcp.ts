import { randomUUID } from "node:crypto";
import type { Server } from "@modelcontextprotocol/sdk/server/index.js";
import {
  CallToolRequestSchema,
  ErrorCode,
  InitializeRequestSchema,
  isJSONRPCNotification,
  isJSONRPCRequest,
  type JSONRPCMessage,
  JSONRPCMessageSchema,
  ListResourcesRequestSchema,
  ListResourceTemplatesRequestSchema,
  ListToolsRequestSchema,
  ReadResourceRequestSchema,
  type RequestId,
} from "@modelcontextprotocol/sdk/types.js";
import express, { type Request, type Response } from "express";
import type { z } from "zod";
import { MAX_BODY_BYTES, readJson } from "../../http/body.ts";
import { wrongContentType } from "../../http/content-type.ts";
import { endpoint, type Protocol, type ProtocolEndpoint, type ProtocolOptions } from "../../http/protocol.ts";
import type { Asked, BodyKind } from "../../http/routes.ts";
import { ClientError } from "../../shared/errors.ts";
import { isObject } from "../../shared/json/json-object.ts";
import { readAnswers } from "../../tools/answers.ts";
import { Exchange, Exchanges, type GivenUp } from "./exchange.ts";
import { newServer, TOOLS } from "./server.ts";
import type { McpTool } from "./tool.ts";

const PATH = "/mcp";
/** What servers of a fleet tell each other. */
const GIVEN_UP = "mcp-given-up";
const SESSION = "Mcp-Session-Id";
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

/**
 * The Model Context Protocol by streamable HTTP, https://modelcontextprotocol.io/specification: in the versions that the SDK speaks.
 *
 * Nothing is kept between requests, so any server of a fleet takes any of them. The session of the protocol is a name, under which a client can cancel its
 * requests; sessions of Python are named in the tools' arguments.
 */
export function mcp(
  { services, logger, broadcast }: ProtocolOptions,
  { tools = [], extend }: McpExtras = {},
): Protocol {
  const exchanges = new Exchanges();
  // Another server may run what a client gives up here.
  broadcast.listen(GIVEN_UP, (told) => exchanges.giveUp(told as GivenUp));
  const giveUp = (given: GivenUp) => {
    exchanges.giveUp(given);
    broadcast.tell(GIVEN_UP, given);
  };
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

  const post = async (asked: Asked<unknown, Uint8Array, undefined>): Promise<void> => {
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
        refused: ErrorCode.InvalidParams,
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
      onError: (err) => logger.error({ err, requestId: response.locals.requestId, path: PATH }, "request failed"),
      call: {
        services,
        principal,
        caller: asked.caller,
        record: asked.record,
        signal: AbortSignal.any([asked.signal, reasoned(exchange.cancelled)]),
        cancelled: exchange.cancelled,
        answers: async () => await readAnswers(body, principal.id, ["params", "arguments"]),
        onDelivered: (delivered) => void response.once("finish", delivered),
      },
    });
    extend?.(server);
    await exchange.run(server);
  };

  const end = async ({ request, response, principal }: Asked<unknown, unknown, unknown>): Promise<void> => {
    const session = sessionOf(request);
    if (session === undefined)
      return refuse(response, 400, { refused: ErrorCode.InvalidRequest, message: `There is no ${SESSION}.`, id: null });
    giveUp({ principal: principal.id, session });
    response.status(204).end();
  };

  return {
    name: "mcp",
    owns: ({ path }) => path === PATH || path.startsWith(`${PATH}/`),
    // Numbers of answers go on with the digits that they have.
    readsBody: () => false,
    refusesOtherSites: true,
    endpoints: [
      endpoint({ method: "post", path: PATH, scope: "any key", body: messageBody, handler: post }),
      endpoint({ method: "delete", path: PATH, scope: "any key", handler: end }),
      ...NOT_ALLOWED,
    ],
    sendError: (response, error) => {
      const { code, message, hint } = error;
      const refused = ERROR_CODES[code] ?? (error.status >= 500 ? ErrorCode.InternalError : SERVER_ERROR);
      const data = {
        code,
        ...(hint !== undefined && { hint }),
        ...(error.retryAfterS !== undefined && { retryAfter: error.retryAfterS }),
      };
      refuse(response, error.status, { refused, message, id: null, data });
    },
  };
}

/** Of the range that JSON-RPC leaves to servers. */
const SERVER_ERROR = -32000;
const ERROR_CODES: Readonly<Partial<Record<string, number>>> = {
  invalid_json: ErrorCode.ParseError,
  json_too_complex: ErrorCode.InvalidRequest,
  invalid_request: ErrorCode.InvalidRequest,
};

/** A server that sends nothing of its own accord has no stream to offer (GET). */
const NOT_ALLOWED: readonly ProtocolEndpoint[] = (["get", "put", "patch"] as const).map((method) =>
  endpoint({
    method,
    path: PATH,
    scope: "any key",
    handler: ({ response }) => {
      response.setHeader("Allow", "POST, DELETE");
      refuse(response, 405, { refused: SERVER_ERROR, message: "Method not allowed", id: null });
    },
  }),
);

const messageBody: BodyKind<Uint8Array> = {
  type: "application/json",
  schema: JSONRPCMessageSchema as never,
  required: true,
  errors: ["wrong_content_type", "invalid_json", "json_too_complex"],
  middleware: () => express.raw({ type: () => true, limit: MAX_BODY_BYTES }),
  parse: (request) => {
    const wrong = wrongContentType(request, ["application/json"]);
    if (wrong !== null) throw new ClientError("wrong_content_type", wrong);
    return Buffer.isBuffer(request.body) ? request.body : new Uint8Array(0);
  },
};

interface Refused {
  readonly refused: number;
  readonly message: string;
  readonly id: RequestId | null;
  readonly data?: object;
}

async function readMessage(
  body: Uint8Array,
  principal: string,
): Promise<Refused | { readonly value: z.output<typeof JSONRPCMessageSchema> }> {
  const sent = await readJson(body, principal);
  if (Array.isArray(sent))
    return {
      refused: ErrorCode.InvalidRequest,
      message: "There are no batches since version 2025-06-18: send each message by itself.",
      id: null,
    };
  const parsed = JSONRPCMessageSchema.safeParse(sent);
  if (parsed.success) return { value: parsed.data };
  const id = isObject(sent) && (typeof sent.id === "string" || typeof sent.id === "number") ? sent.id : null;
  return { refused: ErrorCode.InvalidRequest, message: "This is no message of JSON-RPC 2.0.", id };
}

function refuse(response: Response, status: number, { refused: code, message, id, data }: Refused): void {
  response.status(status).json({ jsonrpc: "2.0", id, error: { code, message, ...(data && { data }) } });
}

/** @throws {ClientError} 400 */
function sessionOf(request: Request): string | undefined {
  const session = request.get(SESSION);
  if (session === undefined || /^[\x21-\x7e]{1,128}$/.test(session)) return session;
  throw new ClientError("invalid_request", `${SESSION} must be 1 to 128 visible ASCII characters.`);
}

/** With a reason that what runs knows: its client takes no reply. */
function reasoned(signal: AbortSignal): AbortSignal {
  const controller = new AbortController();
  signal.addEventListener("abort", () => controller.abort(new ClientError("client_gone")), { once: true });
  return controller.signal;
}
