import express from "express";
import { z } from "zod";
import { MAX_BODY_BYTES } from "../../http/body.ts";
import { wrongContentType } from "../../http/content-type.ts";
import { endpoint, type Protocol, type ProtocolEndpoint, type ProtocolOptions } from "../../http/protocol.ts";
import type { Asked, BodyKind } from "../../http/routes.ts";
import { ClientError } from "../../shared/errors.ts";
import { Exchanges, type GivenUp, SESSION, sessionOf } from "./exchanges.ts";
import type { McpExtras, MessageHandler } from "./messages.ts";
import { REFUSED, refuse } from "./refusal.ts";

const PATH = "/mcp";
/** What servers of a fleet tell each other. */
const GIVEN_UP = "mcp-given-up";

/**
 * The Model Context Protocol by streamable HTTP, https://modelcontextprotocol.io/specification: in the versions that the SDK speaks.
 *
 * Nothing is kept between requests, so any server of a fleet takes any of them. The session of the protocol is a name, under which a client can cancel its
 * requests; sessions of Python are named in the tools' arguments.
 */
export function mcp(options: ProtocolOptions, extras: McpExtras = {}): Protocol {
  const { broadcast } = options;
  const exchanges = new Exchanges();
  // Another server may run what a client gives up here.
  broadcast.listen(GIVEN_UP, (told) => exchanges.giveUp(told as GivenUp));
  const giveUp = (given: GivenUp) => {
    exchanges.giveUp(given);
    broadcast.tell(GIVEN_UP, given);
  };

  let taking: Promise<MessageHandler> | undefined;
  const post = async (asked: Asked<unknown, Uint8Array, undefined>): Promise<void> => {
    // With the SDK, when the first message comes: a start would take so much longer for what many servers are never asked.
    taking ??= import("./messages.ts").then(({ messageHandler }) =>
      messageHandler({ ...options, ...extras, path: PATH, exchanges, giveUp }),
    );
    const take = await taking;
    await take(asked);
  };

  const end = async ({ request, response, principal }: Asked<unknown, unknown, unknown>): Promise<void> => {
    const session = sessionOf(request);
    if (session === undefined)
      return refuse(response, 400, { refused: REFUSED.request, message: `There is no ${SESSION}.`, id: null });
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
      const refused = ERROR_CODES[code] ?? (error.status >= 500 ? REFUSED.internal : REFUSED.server);
      const data = {
        code,
        ...(hint !== undefined && { hint }),
        ...(error.retryAfterS !== undefined && { retryAfter: error.retryAfterS }),
      };
      refuse(response, error.status, { refused, message, id: null, data });
    },
  };
}

const ERROR_CODES: Readonly<Partial<Record<string, number>>> = {
  invalid_json: REFUSED.parse,
  json_too_complex: REFUSED.request,
  invalid_request: REFUSED.request,
};

/** A server that sends nothing of its own accord has no stream to offer (GET). */
const NOT_ALLOWED: readonly ProtocolEndpoint[] = (["get", "put", "patch"] as const).map((method) =>
  endpoint({
    method,
    path: PATH,
    scope: "any key",
    handler: ({ response }) => {
      response.setHeader("Allow", "POST, DELETE");
      refuse(response, 405, { refused: REFUSED.server, message: "Method not allowed", id: null });
    },
  }),
);

const messageBody: BodyKind<Uint8Array> = {
  type: "application/json",
  schema: z.unknown(),
  required: true,
  errors: ["wrong_content_type", "invalid_json", "json_too_complex"],
  middleware: () => express.raw({ type: () => true, limit: MAX_BODY_BYTES }),
  parse: (request) => {
    const wrong = wrongContentType(request, ["application/json"]);
    if (wrong !== null) throw new ClientError("wrong_content_type", wrong);
    return Buffer.isBuffer(request.body) ? request.body : new Uint8Array(0);
  },
};
