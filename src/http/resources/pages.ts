import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import express, { type RequestHandler, Router } from "express";
import { z } from "zod";
import { prefixOf } from "../middleware/base-path.ts";
import { type Route, route, sentByHandler } from "../routes.ts";

const WEB_DIR = fileURLToPath(new URL("../../../web/", import.meta.url));
/** The one build of Chart.js that imports nothing: import maps would need an inline script. */
const CHART_JS = path.join(path.dirname(createRequire(import.meta.url).resolve("chart.js")), "chart.umd.min.js");
const PAGE_SCRIPTS_AND_STYLES = /\.(?:js|css|svg)$/;

/** Every load asks whether the file is still the same (ETag), so that after an update no page mixes old and new modules. */
const REVALIDATE = "public, no-cache";

/** What HTML that code displays may be made of. Its frames, which run no scripts, inherit their page's policy, and narrow it (`web/rich-output.js`). */
const HTML_OUTPUTS = ["style-src 'self' 'unsafe-inline'", "media-src 'self' data:"];

/** `/`, `/docs` and `/api/dashboard/stats/dashboard`. They hold no data and need no key: what they show they ask the API for. */
export const pageRoutes: readonly Route[] = [
  page("/", "playground", "Write and run Python in the browser", HTML_OUTPUTS),
  page("/docs", "docs", "This document, to be read"),
  page("/api/dashboard/stats/dashboard", "dashboard", "Live statistics"),
];

/** A page; its links begin with what stands before this server's paths. @param policy besides the policy of all replies. */
function page(address: string, name: string, summary: string, policy: readonly string[] = []): Route {
  return route({
    method: "get",
    path: address,
    scope: "no key",
    tag: "Pages",
    operation: name,
    summary,
    reply: sentByHandler("The page.", z.string(), { type: "text/html" }),
    errors: [],
    handler: async ({ response }) => {
      const html = await readFile(path.join(WEB_DIR, `${name}.html`), "utf8");
      const linked = html.replaceAll(/ (href|src)="\//g, ` $1="${prefixOf(response)}/`);
      const policies = [response.get("Content-Security-Policy"), ...policy];
      response.set("Content-Security-Policy", policies.join(";"));
      response.set("Cache-Control", REVALIDATE).type("html").send(linked);
    },
  });
}

/** What the pages load: `/assets/*`. */
export function assetRoutes(): Router {
  const router = Router();
  router.get("/assets/chart.js", (_request, response) => {
    response.sendFile(CHART_JS, { headers: { "Cache-Control": REVALIDATE } });
  });
  router.use("/assets", onlyAssets, express.static(WEB_DIR, { index: false, redirect: false, setHeaders: revalidate }));
  return router;
}

/** Pages have one address each, and notes for developers none. */
const onlyAssets: RequestHandler = (request, _response, next) => {
  next(PAGE_SCRIPTS_AND_STYLES.test(request.path) ? undefined : "router");
};

function revalidate(response: express.Response, file: string): void {
  response.setHeader("Cache-Control", REVALIDATE);
  // The frame that HTML output is shown in has no origin, so nothing here is of its own.
  if (path.basename(file) === "frame.css") response.setHeader("Cross-Origin-Resource-Policy", "cross-origin");
}
