/** What the endpoints of Jupyter's REST interface have in common. */
import express from "express";
import { z } from "zod";
import { MAX_BODY_BYTES, readJson } from "../../http/body.ts";
import { endpoint, type ProtocolEndpoint } from "../../http/protocol.ts";
import type { Asked, BodyKind, Method } from "../../http/routes.ts";
import { parseBody } from "../../http/validation.ts";
import type { Scope } from "../../shared/principal.ts";

/** Where all of Jupyter's interface is; what has no namesake of the server's own is at the root as well. */
export const BASE = "/jupyter";

/** Jupyter reads JSON whatever its type says, and many clients say none. */
const anyBody: BodyKind<Uint8Array> = {
  type: "application/json",
  schema: z.unknown(),
  required: false,
  errors: [],
  middleware: () => express.raw({ type: () => true, limit: MAX_BODY_BYTES }),
  parse: ({ body }) => (Buffer.isBuffer(body) ? body : new Uint8Array(0)),
};

/** A request to Jupyter's interface. Parameters are as Express has them: of `:id` a text, of `*path` a list. */
export type JupyterRequest = Asked<
  Readonly<Record<string, string | readonly string[] | undefined>>,
  Uint8Array,
  undefined
>;

export interface JupyterEndpoint {
  readonly method: Method;
  /** Below {@link BASE}. */
  readonly path: string;
  readonly scope: Scope | "any key" | "no key";
  /** Whether it is at the root, too. */
  readonly isAtRoot: boolean;
  /** Of the reply; 204 has no body. */
  readonly status?: number;
  readonly handler: (asked: JupyterRequest) => unknown;
}

/** The endpoints of one of Jupyter's, in each place. */
export function endpointsOf({
  method,
  path,
  scope,
  isAtRoot,
  status = 200,
  handler,
}: JupyterEndpoint): readonly ProtocolEndpoint[] {
  const places = isAtRoot ? [BASE, ""] : [BASE];
  return places.map((base) =>
    endpoint<string, unknown, Uint8Array | undefined>({
      method,
      path: `${base}${path}`,
      scope,
      ...(method === "get" || method === "delete" ? {} : { body: anyBody }),
      reply: {
        send: (response, value) => {
          if (status === 204) response.status(204).end();
          else if (value !== undefined && !response.headersSent) response.status(status).json(value);
        },
      },
      handler: (asked) => handler(asked as JupyterRequest),
    }),
  );
}

/** @throws {ClientError} 400 with the first thing that is wrong. */
export async function readBody<T extends z.ZodType>(
  schema: T,
  { body, principal }: JupyterRequest,
): Promise<z.output<T>> {
  return parseBody(schema, await readJson(body, principal.id));
}

export function idOf({ params }: JupyterRequest): string {
  return String(params.id);
}

/** Where the client has Jupyter's interface: before its paths. */
export function placeOf({ request }: JupyterRequest): string {
  return request.path.startsWith(`${BASE}/`) ? BASE : "";
}
