import { isIP } from "node:net";
import type { Request, RequestHandler } from "express";
import { ClientError } from "../../shared/errors.ts";
import type { Config } from "../../shared/settings.ts";
import { protocolOf } from "../recognised-protocol.ts";
import { asksForWebSocket } from "../websocket/upgrade.ts";
import { parseApiKeys } from "./authentication.ts";

/** Methods that a page may send anywhere without harm: they change nothing, and it cannot read the answer. */
const SAFE_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);

/**
 * The origins whose pages may use the server from a browser, as CORS_ORIGIN names them.
 *
 * @returns `*` where it says so, or says nothing while there are no keys that another site's page could make use of.
 */
export function allowedOrigins(config: Pick<Config, "API_KEYS" | "API_KEY" | "CORS_ORIGIN">): "*" | readonly string[] {
  const origins = namedOrigins(config);
  return origins.length === 0 && parseApiKeys(config).length === 0 ? "*" : origins;
}

/** Where CORS_ORIGIN says nothing there are none. */
function namedOrigins({ CORS_ORIGIN }: Pick<Config, "CORS_ORIGIN">): "*" | readonly string[] {
  const origins = CORS_ORIGIN.split(",")
    .map((origin) => origin.trim())
    .filter((origin) => origin !== "");
  return origins.includes("*") ? "*" : origins;
}

/**
 * Keeps pages of other sites from using a server without keys, where CORS_ORIGIN says that they may not.
 *
 * CORS alone does not. A form, or a POST of plain text, is sent without the browser asking first, so its code runs though the
 * page sees no reply. And a page whose name resolves to this machine a moment later (DNS rebinding) has the server's own
 * origin; what it cannot choose is the `Host` header. With keys none of this helps a page, for it has no key, and no browser
 * sends one along.
 *
 * Of a protocol that demands it (`refusesOtherSites`), requests of other sites' pages are refused unless CORS_ORIGIN names them: with keys, too, and of every
 * method.
 *
 * @returns middleware that fails with {@link ClientError} 403 `wrong_host` or `cross_site`.
 */
export function refuseOtherSites(
  config: Pick<Config, "API_KEYS" | "API_KEY" | "CORS_ORIGIN" | "HOST">,
): RequestHandler {
  const hasKeys = parseApiKeys(config).length > 0;
  const usual = allowedOrigins(config);
  const named = namedOrigins(config);
  const hosts = (origins: readonly string[]) =>
    new Set(["localhost", config.HOST.toLowerCase(), ...origins.map((origin) => hostnameOf(origin))]);
  const usualHosts = usual === "*" ? null : hosts(usual);
  const namedHosts = named === "*" ? null : hosts(named);
  return (request, response, next) => {
    const isStrict = protocolOf(response)?.refusesOtherSites ?? false;
    const origins = isStrict ? named : usual;
    if (origins === "*" || (hasKeys && !isStrict)) return next();
    const name = hostnameOf(`http://${request.headers.host ?? ""}`);
    const names = isStrict ? namedHosts : usualHosts;
    // An address cannot be rebound.
    if (!hasKeys && (name === null || (isIP(name) === 0 && !names?.has(name)))) {
      return next(new ClientError("wrong_host"));
    }
    if (isOwn(request, origins) || (!isStrict && SAFE_METHODS.has(request.method))) return next();
    next(new ClientError("cross_site"));
  };
}

/**
 * Keeps pages of other sites from opening WebSockets: a browser asks nothing before it does, and lets the page read what comes, so
 * what CORS says of requests is checked here, with keys or without.
 *
 * @returns middleware that fails with {@link ClientError} 403 `cross_site`.
 */
export function refuseOtherSockets(config: Parameters<typeof allowedOrigins>[0]): RequestHandler {
  const origins = allowedOrigins(config);
  return (request, _response, next) => {
    if (origins === "*" || !asksForWebSocket(request) || isOwn(request, origins)) return next();
    next(new ClientError("cross_site"));
  };
}

/** Whether a request comes from no page, or from one that may use the server. */
function isOwn(request: Request, origins: readonly string[]): boolean {
  const { host = "" } = request.headers;
  const origin = request.get("origin");
  return (
    origin === undefined ||
    origin === `${request.protocol}://${host}` ||
    origin === `http://${host}` ||
    origins.includes(origin)
  );
}

/** In lower case, IPv6 without brackets; null if there is none. */
function hostnameOf(origin: string): string | null {
  const hostname = URL.parse(origin)?.hostname ?? "";
  return hostname === "" ? null : hostname.replace(/^\[(.*)\]$/, "$1");
}
