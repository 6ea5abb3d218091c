import { randomUUID } from "node:crypto";
import cors from "cors";
import express, {
  type ErrorRequestHandler,
  type Express,
  type Request,
  type RequestHandler,
  type Response,
} from "express";
import helmet from "helmet";
import type { Logger } from "pino";
import type { RateLimiterAbstract } from "rate-limiter-flexible";
import type { SecurityEvent, SecurityEventName } from "../security-log/event.ts";
import type { Services } from "../service/execution-service.ts";
import { ClientError } from "../shared/errors.ts";
import { MAX_BODY_BYTES, readBodies } from "./body.ts";
import { originOf } from "./caller.ts";
import { KEYED_ROUTES, ROUTES } from "./endpoints.ts";
import { authenticate, knownPrincipal } from "./middleware/authentication.ts";
import { basePath } from "./middleware/base-path.ts";
import { clientAddress } from "./middleware/client-address.ts";
import { clientNetwork } from "./middleware/client-networks.ts";
import { refuseBeyondConnections } from "./middleware/connection-limit.ts";
import { allowedOrigins, refuseOtherSites, refuseOtherSockets } from "./middleware/cross-site.ts";
import { errorHandler, notFoundHandler } from "./middleware/error-handler.ts";
import { limitHeldRequests } from "./middleware/held-requests.ts";
import type { KeyGuesses } from "./middleware/key-guesses.ts";
import { refuseOverload } from "./middleware/overload.ts";
import { rateLimit } from "./middleware/rate-limit.ts";
import { trustProxy } from "./middleware/trust-proxy.ts";
import { openApiRoutes } from "./openapi.ts";
import { type Protocol, serveProtocols } from "./protocol.ts";
import { protocolOf, recogniseProtocol } from "./recognised-protocol.ts";
import { isAnswers } from "./resources/executions.ts";
import { assetRoutes, pageRoutes } from "./resources/pages.ts";
import { metricsRoutes } from "./resources/statistics.ts";
import { probeRoutes } from "./resources/status.ts";
import { mount, type RouteServices } from "./routes.ts";

export interface AppOptions extends RouteServices {
  readonly logger: Logger;
  /** Undefined: no limit. */
  readonly rateLimiter: RateLimiterAbstract | undefined;
  readonly keyGuesses: KeyGuesses;
  /** Most of one principal. */
  readonly maxOpenRequests: number;
  /** Of other servers; the first that a request belongs to has it. */
  readonly protocols: readonly Protocol[];
}

const PROBES: ReadonlySet<string> = new Set(probeRoutes.map(({ path }) => path));

/** The whole HTTP interface as an Express application. @throws {StartupError} if a setting cannot be used. */
export function createApp(options: AppOptions): Express {
  const { config, logger } = options;
  const app = express();
  app.disable("x-powered-by");
  app.set("trust proxy", trustProxy(config));
  app.use(requestId, clientAddress, basePath(config, app.get("trust proxy fn")));
  app.use(recogniseProtocol(options.protocols));
  app.use(countRequests(options));
  app.use(securityHeaders());
  const origins = allowedOrigins(config);
  // A text for `*`, not a list: in a list the middleware would compare it with the origin.
  const origin = origins === "*" ? origins : origins.length > 0 && [...origins];
  app.use(cors({ origin, exposedHeaders: ["X-Request-Id", "Retry-After", "Mcp-Session-Id"] }));
  const overload = refuseOverload({
    admission: () => options.executor.pool.admission,
    onRefused: recordOverload(options),
  });
  app.use(refuseBeyondConnections((path) => PROBES.has(path)));
  app.use(overload.ofAll);
  const whoAsks = authenticate(config, options.keyGuesses);
  app.use(serveProtocols(options.protocols, ({ openEndpoints = [] }) => openEndpoints, options, null));
  // Balancers and monitors ask by whatever name and from whatever page, and none of it tells of a caller, or it needs a key.
  app.use(ofOurOwn(mount(probeRoutes, options)));
  app.use("/metrics", ofOurOwn(whoAsks));
  app.use(ofOurOwn(mount(metricsRoutes, options)));
  app.use(refuseOtherSites(config), refuseOtherSockets(config));
  app.use(ofOurOwn(mount([...pageRoutes, ...openApiRoutes], options)));
  app.use(ofOurOwn(assetRoutes()));

  // Who asks comes before what they send: no stranger gets 30 MB parsed.
  app.use(whoAsks);
  app.use(overload.ofPrincipal);
  app.use(rateLimit(options.rateLimiter));
  app.use(
    limitHeldRequests({
      maxRequests: options.maxOpenRequests,
      maxBodyBytes: Math.max(MAX_BODY_BYTES, config.MAX_FILE_SIZE),
    }),
  );
  app.use(readBodies(isReadFirst));
  app.use(serveProtocols(options.protocols, ({ endpoints }) => endpoints, options, notFoundHandler));
  app.use(mount(KEYED_ROUTES, options));
  app.use(notFoundHandler);
  app.use(recordRefusals(options));
  app.use(errorHandler(logger));
  return app;
}

/** For requests of the server's own protocol: what is at these paths in another is that one's. */
function ofOurOwn(handler: RequestHandler): RequestHandler {
  const handleOwn: RequestHandler = (request, response, next) => {
    // Returned: the router waits for it, and a rejection is the request's error.
    return protocolOf(response) === undefined ? handler(request, response, next) : next();
  };
  // As a router's, its routes can be listed.
  return Object.assign(handleOwn, { stack: (handler as { readonly stack?: unknown }).stack });
}

/** Whether a request's JSON, or form, is read for its route. A session's files come as they are, JSON ones too. */
function isReadFirst(request: Request): boolean {
  const protocol = request.res && protocolOf(request.res);
  if (protocol !== undefined) return protocol.readsBody?.(request) ?? true;
  return request.method !== "PUT" && !isAnswers(request);
}

function securityHeaders(): RequestHandler {
  return helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'self'"],
        baseUri: ["'none'"],
        formAction: ["'self'"],
        frameAncestors: ["'none'"],
        objectSrc: ["'none'"],
        imgSrc: ["'self'", "data:", "blob:"],
      },
    },
    // Over plain HTTP on a laptop this would only lock the page out; a TLS proxy adds its own.
    strictTransportSecurity: false,
  });
}

/** A request's name in replies and logs: the caller's own, if it is a plain one. */
const requestId: RequestHandler = (request, response, next) => {
  const given = request.get("x-request-id");
  const id = given !== undefined && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : randomUUID();
  response.locals.requestId = id;
  response.setHeader("X-Request-Id", id);
  next();
};

const PATTERNS = ROUTES.map(({ method, path }) => ({
  method: method.toUpperCase(),
  path: path as string,
  pattern: new RegExp(`^${path.replace(/[.]/g, "\\.").replace(/:\w+/g, "[^/]+").replace(/\*\w+/g, ".+")}/?$`, "i"),
}));

/** The route that a request was for that was refused before it: a wrong key, a body that cannot be read. */
function routeOfRefused({ method, path }: Request): string | undefined {
  const asked = method === "HEAD" ? "GET" : method;
  return PATTERNS.find((route) => route.method === asked && route.pattern.test(path))?.path;
}

function countRequests({ metrics }: Services): RequestHandler {
  return (request, response, next) => {
    response.once("finish", () => {
      const matched = request.route?.path as string | readonly string[] | undefined;
      const route = typeof matched === "string" ? matched : matched?.[0];
      metrics.recordRequest(request.method, route ?? routeOfRefused(request), response.statusCode);
    });
    next();
  };
}

/** Of what is not there, or not allowed: no path of ours is longer but for names that a client chose. */
const MAX_PATH_CHARACTERS = 200;

const REFUSALS: Readonly<Record<string, SecurityEventName>> = {
  unauthorized: "auth_failure",
  too_many_wrong_keys: "auth_failure",
  missing_scope: "access_denied",
  rate_limited: "rate_limited",
  wrong_host: "access_denied",
  cross_site: "access_denied",
};

/** The rest of a minute's refusals is one line of the security log for each principal, or address where none is known yet. */
const OVERLOAD_BURST = 10;

/** Counts an execution that was refused before anything was known of it but who asks, and by then maybe not even that. */
function recordOverload({ securityLog, metrics }: Services): (request: Request, response: Response) => void {
  return (request, response) => {
    const principal = knownPrincipal(response);
    metrics.recordExecution("rejected", "unread");
    const details = { success: false, outcome: "rejected", path: request.path.slice(0, MAX_PATH_CHARACTERS) };
    securityLog?.appendFolded(
      { event: "code_execution_error", ...originOf(request, response), principal, details },
      principal ?? clientNetwork(request.ip),
      OVERLOAD_BURST,
    );
  };
}

/** Puts on record who was turned away: the first in a minute from an address, and how many more there were. */
function recordRefusals({ securityLog }: Services): ErrorRequestHandler {
  return async (error: unknown, request, response: Response, next) => {
    const reason = error instanceof ClientError ? error.code : "internal";
    const event = REFUSALS[reason];
    if (event !== undefined) {
      const principal = knownPrincipal(response);
      const refusal: SecurityEvent = {
        event,
        ...originOf(request, response),
        principal,
        details: { reason, method: request.method, path: request.path.slice(0, MAX_PATH_CHARACTERS) },
      };
      securityLog?.appendFolded(refusal, `${principal ?? ""}|${clientNetwork(request.ip)}`);
      await securityLog?.writing;
    }
    next(error);
  };
}
