import { randomUUID } from "node:crypto";
import cors from "cors";
import express, { type Express, type RequestHandler } from "express";
import helmet from "helmet";
import type { Logger } from "pino";
import type { Config } from "../config.ts";
import type { Engine } from "../engine/engine.ts";
import { errorHandler, notFoundHandler } from "./error-handler.ts";
import { executeRoutes } from "./execute.ts";
import { statusRoutes } from "./status.ts";

const MAX_JSON_BYTES = 30 * 1024 * 1024;

export interface AppOptions {
  readonly config: Config;
  readonly engine: Engine;
  readonly logger: Logger;
  /** Pyodide's version. */
  readonly version: string;
  readonly facts: () => Record<string, unknown>;
}

/** The whole HTTP interface as an Express application. */
export function createApp({ config, engine, logger, version, facts }: AppOptions): Express {
  const app = express();
  app.disable("x-powered-by");
  app.use(requestId);
  app.use(
    helmet({
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
      // Over plain HTTP on a laptop these would only lock the page out; a TLS proxy adds its own.
      strictTransportSecurity: false,
    }),
  );
  app.use(cors({ origin: corsOrigin(config.CORS_ORIGIN), exposedHeaders: ["X-Request-Id"] }));
  app.use(express.json({ limit: MAX_JSON_BYTES }));
  app.use(express.urlencoded({ limit: MAX_JSON_BYTES, extended: true }));
  app.use(executeRoutes({ engine, defaultTimeoutMs: config.EXECUTION_TIMEOUT_MS }));
  app.use(
    statusRoutes({
      engine,
      version,
      executionTimeoutMs: config.EXECUTION_TIMEOUT_MS,
      facts,
      logging: {
        level: config.LOG_LEVEL,
        logFile: null,
        securityLogFile: null,
        isFileLoggingEnabled: false,
        logDirectory: null,
      },
    }),
  );
  app.use(notFoundHandler);
  app.use(errorHandler(logger));
  return app;
}

/** `*` must be a text: in a list the middleware would compare it with the origin. */
function corsOrigin(setting: string): string | string[] {
  const origins = setting.split(",").map((origin) => origin.trim());
  return setting.trim() === "" || origins.includes("*") ? "*" : origins;
}

/** A request's name in replies and logs: the caller's own, if it is a plain one. */
const requestId: RequestHandler = (request, response, next) => {
  const given = request.get("x-request-id");
  const id = given !== undefined && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : randomUUID();
  response.locals.requestId = id;
  response.setHeader("X-Request-Id", id);
  next();
};
