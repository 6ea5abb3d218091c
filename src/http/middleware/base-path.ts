import type { RequestHandler, Response } from "express";
import { normalisePrefix } from "../../shared/path-prefix.ts";
import type { Config } from "../../shared/settings.ts";

/**
 * Takes BASE_PATH off a request's path, if the proxy has left it there, and folds `//` in what remains. What stands before the
 * path for the client is in {@link prefixOf}: `X-Forwarded-Prefix`, where it comes from a trusted proxy, else BASE_PATH.
 *
 * @param trusts Express's `trust proxy fn`.
 */
export function basePath(
  { BASE_PATH }: Pick<Config, "BASE_PATH">,
  trusts: (address: string, index: number) => boolean,
): RequestHandler {
  return (request, response, next) => {
    const forwarded = request.get("x-forwarded-prefix");
    const isTrusted = forwarded !== undefined && trusts(request.socket.remoteAddress ?? "", 0);
    // Proxies one behind another each add theirs.
    const given = isTrusted
      ? normalisePrefix(
          forwarded
            .split(",")
            .map((part) => part.trim())
            .join("/"),
        )
      : null;
    response.locals.prefix = given ?? BASE_PATH;
    // `http://host/path` is for proxies, `*` for OPTIONS.
    if (request.url.startsWith("/")) request.url = routePath(request.url, BASE_PATH);
    next();
  };
}

/** What stands before every path of this server as the client sees it: empty, or `/py`. */
export function prefixOf(response: Response): string {
  return (response.locals.prefix as string | undefined) ?? "";
}

function routePath(url: string, base: string): string {
  const end = url.search(/[?#]/);
  const path = (end < 0 ? url : url.slice(0, end)).replace(/\/{2,}/g, "/");
  const rest = end < 0 ? "" : url.slice(end);
  const isBelow = base !== "" && (path === base || path.startsWith(`${base}/`));
  return (isBelow ? path.slice(base.length) || "/" : path) + rest;
}
