import { createServer, type Server } from "node:http";
import type { Express } from "express";
import { limitConnections } from "../http/middleware/connection-limit.ts";
import { Draining } from "../http/middleware/draining.ts";
import { replyWithError } from "../http/middleware/error-handler.ts";
import { holdBackEarly } from "../http/middleware/overload.ts";
import { limitSlowBodies } from "../http/middleware/slow-bodies.ts";
import { asksForWebSocket, serveUpgrades } from "../http/websocket/upgrade.ts";
import { StartupError } from "../shared/errors.ts";
import type { Config } from "../shared/settings.ts";

const HTTP_LIMITS = {
  // Bodies are held to a rate, see `slow-bodies.ts`.
  requestTimeout: 0,
  connectionsCheckingInterval: 2_000,
  maxHeaderSize: 16 * 1024,
};
/**
 * A balancer may open a connection before it has a request for it: for Node that is one whose headers take long, so this has to be
 * beyond the time that an idle connection may have.
 */
const HEADERS_MARGIN_MS = 5_000;
/** Half of the descriptors that a process commonly may have, 4096 or more with Node's own raising of the limit. */
export const MAX_CONNECTIONS = 2_000;
/** Of one address, be it a company's: a quarter is left for all others. */
const MAX_CONNECTIONS_OF_NETWORK = 1_500;
/** Beyond all of them, for a balancer or an orchestrator that asks how the server is. */
const CONNECTIONS_FOR_PROBES = 50;

/** The HTTP server with its limits on connections, headers and bodies; it does not listen yet. */
export function createListener(app: Express, config: Config): { readonly http: Server; readonly draining: Draining } {
  const keepAliveTimeout = config.KEEP_ALIVE_S * 1000;
  const http = createServer(
    {
      ...HTTP_LIMITS,
      keepAliveTimeout,
      headersTimeout: keepAliveTimeout + HEADERS_MARGIN_MS,
      shouldUpgradeCallback: asksForWebSocket,
    },
    holdBackEarly(app, app.get("trust proxy fn")),
  );
  limitSlowBodies(http, {
    minBytesPerSecond: config.BODY_MIN_RATE,
    windowMs: config.BODY_STALL_S * 1000,
    refuse: replyWithError,
  });
  serveUpgrades(http, app);
  const draining = new Draining(http);
  limitConnections(http, {
    maxConnections: MAX_CONNECTIONS,
    forProbes: CONNECTIONS_FOR_PROBES,
    maxOfNetwork: MAX_CONNECTIONS_OF_NETWORK,
    isProxy: app.get("trust proxy fn"),
  });
  return { http, draining };
}

/** @throws {StartupError} with what to do about it. */
export function listen(http: Server, config: Pick<Config, "PORT" | "HOST">, setting = "PORT"): Promise<void> {
  return new Promise((resolve, reject) => {
    http.once("error", (error: NodeJS.ErrnoException) => {
      const where = `${config.HOST}:${config.PORT}`;
      const hint = {
        EADDRINUSE: `Port ${config.PORT} is taken. Stop what uses it, or set ${setting} to another${setting === "PORT" ? " (0 picks a free one)" : ""}.`,
        EACCES: `Port ${config.PORT} needs privileges. Set ${setting} to one above 1023.`,
        EADDRNOTAVAIL: `${config.HOST} is not an address of this machine. Set HOST to one that is.`,
        ENOTFOUND: `${config.HOST} is not a known name. Set HOST to an address of this machine.`,
      }[error.code ?? ""];
      reject(new StartupError(hint ?? `Cannot listen on ${where}: ${error.message}`, { cause: error }));
    });
    http.listen(config.PORT, config.HOST, resolve);
  });
}
