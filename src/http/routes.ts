import express, { type Request, type RequestHandler, type Response, Router } from "express";
import { z } from "zod";
import type { RequestEvent } from "../security-log/event.ts";
import type { Caller, Services } from "../service/execution-service.ts";
import type { ErrorCode } from "../shared/errors.ts";
import type { Principal, Scope } from "../shared/principal.ts";
import { parseRequest } from "./body.ts";
import { callerOf, clientGone } from "./caller.ts";
import { principalOf, requireKey, requireScope } from "./middleware/authentication.ts";
import { keepHeld } from "./middleware/held-requests.ts";
import { timestamp } from "./schemas.ts";
import type { StatusOptions } from "./server-status.ts";
import { parseBody } from "./validation.ts";

/** What stands behind the routes. */
export interface RouteServices extends Services {
  readonly status: StatusOptions;
  readonly channels: WebSockets;
}

/** What opens WebSockets: `websocket/channels.ts`. */
export interface WebSockets {
  /** @throws {ClientError} if the request does not become one. */
  accept(request: Request, response: Response, services: RouteServices): void;
}

export type Method = "get" | "post" | "put" | "patch" | "delete";

/** Groups of the OpenAPI document and of README's table, in their order. */
export type Tag =
  | "Running code"
  | "Sessions"
  | "Files"
  | "Secrets"
  | "Packages and state"
  | "Statistics"
  | "Server"
  | "Pages";

/** What a key must be good for; `any key`; or `no key`, where none is asked for. */
export type Access = Scope | readonly Scope[] | "any key" | "no key";

/** What a handler has of one request. */
export interface Asked<Params, Body, Query> {
  readonly services: RouteServices;
  readonly request: Request;
  readonly response: Response;
  /** Names in the path: of `:name` the text, of `*name` its components. */
  readonly params: Params;
  /** Checked. */
  readonly body: Body;
  readonly query: Query;
  readonly principal: Principal;
  /** Who asks, as logs and statistics have it. */
  readonly caller: Caller;
  /** Aborts when the client goes away before it has the reply: for whatever waits. */
  readonly signal: AbortSignal;
  /** Puts on record what the caller has done. */
  readonly record: (event: RequestEvent["event"], details: RequestEvent["details"]) => void;
}

/** A request's body: what is described, and how it is read. */
export interface BodyKind<Body> {
  readonly type: string;
  readonly schema: z.ZodType;
  readonly example?: unknown;
  readonly required: boolean;
  /** Why it may be refused, besides what every body may be refused for. */
  readonly errors: readonly ErrorCode[];
  /** What reads it before the handler; JSON and forms are read for all routes at once (`body.ts`). */
  readonly middleware?: (services: RouteServices) => RequestHandler;
  /** @throws {ClientError} */
  readonly parse: (request: Request) => Body;
}

export interface Reply<Value> {
  readonly status: number;
  readonly description: string;
  readonly type: string;
  readonly schema: z.ZodType;
  /** How a value that the handler returns is sent; null: it has replied itself. */
  readonly send: ((response: Response, value: Value) => void) | null;
}

/** What is served at a path: what stands before the handler is derived from it. */
export interface Endpoint<Path extends string = string, Body = unknown, Query = unknown, Value = unknown> {
  readonly method: Method;
  /** As Express has it: `/api/sessions/:id/files/*path`. */
  readonly path: Path;
  readonly scope: Access;
  /** Whether a credential that was derived from a key for one purpose counts too, since the handler keeps to that purpose; default: a key alone does. */
  readonly takesDerived?: boolean;
  readonly query?: z.ZodType<Query>;
  readonly body?: BodyKind<Body>;
  readonly reply: Pick<Reply<Value>, "send">;
  readonly handler: (asked: Asked<ParamsOf<Path>, Body, Query>) => Value | Promise<Value>;
}

/** An endpoint of the server's own, whole: OpenAPI and README's table are derived from it, too. */
export interface Declaration<Path extends string = string, Body = unknown, Query = unknown, Value = unknown>
  extends Endpoint<Path, Body, Query, Value> {
  readonly tag: Tag;
  /** The `operationId` of generated clients; stable. */
  readonly operation: string;
  readonly summary: string;
  readonly description?: string;
  readonly reply: Reply<Value>;
  /** Further replies that are no {@link ClientError}, by status. */
  readonly otherReplies?: readonly Reply<never>[];
  /** Codes that this endpoint may answer; those of key, scope, limits and body are added. */
  readonly errors: readonly ErrorCode[];
}

type ParamsOf<Path extends string> = Path extends `${string}:${infer Name}/${infer Rest}`
  ? { readonly [N in Name]: string } & ParamsOf<`/${Rest}`>
  : Path extends `${string}:${infer Name}`
    ? { readonly [N in Name]: string }
    : Path extends `${string}*${infer Name}`
      ? { readonly [N in Name]: readonly string[] }
      : unknown;

/** Of any shape: what is derived from declarations does not look at what handlers take. */
// biome-ignore lint/suspicious/noExplicitAny: a handler's parameter would make the type invariant.
export type Route = Declaration<any, any, any, any>;

/** Declares an endpoint. */
export function route<const Path extends string, Value, Body = undefined, Query = undefined>(
  declaration: Declaration<Path, Body, Query, Value>,
): Route {
  return declaration;
}

/** What a schema takes, without `[key: string]: unknown`: what a handler returns is declared. */
type Sent<T> = T extends readonly (infer E)[]
  ? readonly Sent<E>[]
  : T extends object
    ? { readonly [K in keyof T as string extends K ? never : K]: Sent<T[K]> }
    : T;

/** A JSON reply in the envelope of the contract: `success: true`, what the handler returns, `timestamp`. */
export function reply<Shape extends z.ZodRawShape>(
  description: string,
  shape: Shape,
  { status = 200, id }: { readonly status?: number; readonly id?: string } = {},
): Reply<Sent<z.input<z.ZodObject<Shape>>>> {
  const schema = z.looseObject({ success: z.literal(true), ...shape, timestamp });
  return {
    status,
    description,
    type: "application/json",
    schema: id === undefined ? schema : schema.meta({ id }),
    send: (response, value) =>
      response.status(status).json({ success: true, ...value, timestamp: new Date().toISOString() }),
  };
}

const plain = reply("", { message: z.string() }, { id: "Done" });

/** A reply that says with a `message` that it is done. */
export const done = (description: string): typeof plain => ({ ...plain, description });

/** A JSON reply that is what the handler returns, and nothing else. */
export function bare<S extends z.ZodType>(description: string, schema: S, status = 200): Reply<Sent<z.input<S>>> {
  return {
    status,
    description,
    type: "application/json",
    schema,
    send: (response, value) => response.status(status).json(value),
  };
}

/** A reply that the handler sends itself. */
export function sentByHandler(
  description: string,
  schema: z.ZodType = z.string(),
  { status = 200, type = "application/json" }: { readonly status?: number; readonly type?: string } = {},
): Reply<void> {
  return { status, description, type, schema, send: null };
}

const bytes = z.string().meta({ override: { format: "binary" } });

/** A file's content, as it is. */
export const download = sentByHandler("The file.", bytes, { type: "application/octet-stream" });

/** A JSON object, or a form. */
export function jsonBody<S extends z.ZodType>(schema: S, example: z.input<S>): BodyKind<z.output<S>> {
  return {
    type: "application/json",
    schema,
    example,
    required: !schema.safeParse({}).success,
    errors: ["wrong_content_type", "invalid_request", "invalid_json", "json_too_complex", "too_many_parameters"],
    parse: (request) => parseRequest(schema, request),
  };
}

/** Any kind of file up to MAX_FILE_SIZE, as it is. */
export const fileBody: BodyKind<Uint8Array> = {
  type: "application/octet-stream",
  schema: bytes,
  required: true,
  errors: [],
  middleware: ({ config }) => express.raw({ type: () => true, limit: config.MAX_FILE_SIZE }),
  parse: ({ body }) => (Buffer.isBuffer(body) ? body : new Uint8Array(0)),
};

/** A router with these endpoints. Those that need a key run behind `authenticate`. */
// biome-ignore lint/suspicious/noExplicitAny: as in `Route`.
export function mount(routes: readonly Endpoint<any, any, any, any>[], services: RouteServices): Router {
  const router = Router();
  const firstNames = new Set(routes.map(({ path }) => firstName(path).toLowerCase()));
  const takesAny = [...firstNames].some((name) => /[:*{]/.test(name));
  for (const declared of routes) {
    const read = declared.body?.middleware?.(services);
    router[declared.method](
      declared.path,
      ...(declared.takesDerived ? [] : [requireKey]),
      ...scopesOf(declared).map(requireScope),
      ...(read ? [read] : []),
      serve(declared, services),
    );
  }
  if (takesAny) return router;
  const { handle } = router as unknown as { handle: RequestHandler };
  const handleOwn: RequestHandler = (request, response, next) => {
    // Each route that does not match costs an expression: most requests are for another router.
    if (firstNames.has(firstName(request.path).toLowerCase())) handle.call(router, request, response, next);
    else next();
  };
  return Object.assign(router, { handle: handleOwn });
}

/** Of `/api/execute`, `api`. */
const firstName = (path: string): string => path.slice(1, (path.indexOf("/", 1) + 1 || path.length + 1) - 1);

export function scopesOf({ scope }: Pick<Endpoint, "scope">): readonly Scope[] {
  if (scope === "any key" || scope === "no key") return [];
  return [scope].flat() as Scope[];
}

// biome-ignore lint/suspicious/noExplicitAny: as in `Route`.
function serve({ body, query, reply, handler }: Endpoint<any, any, any, any>, services: RouteServices): RequestHandler {
  return async (request, response) => {
    let value: unknown;
    let signal: AbortSignal | undefined;
    const letGo = keepHeld(response);
    try {
      value = await handler({
        services,
        request,
        response,
        params: request.params,
        body: body?.parse(request),
        query: query && parseBody(query, request.query),
        get principal() {
          return principalOf(response);
        },
        get caller() {
          return callerOf(request, response);
        },
        get signal() {
          signal ??= clientGone(response);
          return signal;
        },
        record: (event: RequestEvent["event"], details: RequestEvent["details"]) =>
          void services.securityLog?.append({ event, ...callerOf(request, response), details }),
      });
    } finally {
      letGo();
      // Before any reply, also one that says what went wrong after it was recorded.
      const { writing = null } = services.securityLog ?? {};
      if (writing !== null) await writing;
    }
    reply.send?.(response, value);
  };
}
