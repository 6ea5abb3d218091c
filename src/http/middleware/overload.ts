import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Request, RequestHandler, Response } from "express";
import type { ClientError } from "../../shared/errors.ts";
import { protocolOf } from "../recognised-protocol.ts";
import { principalOf } from "./authentication.ts";

/** Where the executions are asked for that wait for a sandbox. */
const PATHS = ["/api/execute", "/api/execute-raw", "/api/execute-stream"];
/** Longest time for which a connection is held back, ms. */
const MAX_HELD_BACK_MS = 2_000;

export interface OverloadOptions {
  /** Counters of the executor: who would be refused, and how long who is not would wait. */
  readonly admission: () => {
    refusal(patienceMs?: number): ClientError | null;
    refusalOf(principal: string, patienceMs?: number): ClientError | null;
  };
  /** Puts a refusal on record. */
  readonly onRefused: (request: Request, response: Response) => void;
}

/** Until when a connection was told to wait; ms of `performance.now`. */
const toldToWait = new WeakMap<Socket, number>();

/**
 * Refuses executions for which there is no room, from counters, before anything of them is looked up, read or parsed: under
 * overload refusals are most of what a server does, and what they take the sandboxes lack.
 *
 * @returns two middlewares that fail with {@link ClientError} 429: `ofAll` knows nothing but the queue; `ofPrincipal`, behind
 *   `authenticate`, knows whose share is used up. A client that says how long it waits (`Prefer: wait=5`, RFC 7240, s) is refused
 *   at once if it would wait in vain.
 */
export function refuseOverload({ admission, onRefused }: OverloadOptions): {
  readonly ofAll: RequestHandler;
  readonly ofPrincipal: RequestHandler;
} {
  const middleware =
    (refusalOf: (patienceMs: number, response: Response) => ClientError | null): RequestHandler =>
    (request, response, next) => {
      if (!executes(request, response)) return next();
      const refusal = refusalOf(patienceMs(request), response);
      if (refusal === null) return next();
      const pauseMs = Math.min(MAX_HELD_BACK_MS, (refusal.retryAfterS ?? 0) * 1000);
      toldToWait.set(request.socket, performance.now() + pauseMs);
      onRefused(request, response);
      next(refusal);
    };
  return {
    ofAll: middleware((patienceMs) => admission().refusal(patienceMs)),
    ofPrincipal: middleware((patienceMs, response) => admission().refusalOf(principalOf(response).id, patienceMs)),
  };
}

/**
 * Slows down connections that ignore `Retry-After`: an execution that they send before its time is looked at when the time has come. Until
 * then a request costs its headers, and its body stays with the client. A reverse proxy sends requests of many clients over one connection:
 * it is not held back.
 *
 * @param isProxy whether an address is a reverse proxy's: Express's `trust proxy fn`.
 */
export function holdBackEarly(
  listener: RequestListener,
  isProxy: (address: string, index: number) => boolean,
): RequestListener {
  return (request: IncomingMessage, response: ServerResponse) => {
    const untilMs = toldToWait.get(request.socket);
    // What else comes over the same connection takes no sandbox, or is refused elsewhere.
    if (untilMs === undefined || !asksForExecution(request)) return listener(request, response);
    toldToWait.delete(request.socket);
    const waitMs = untilMs - performance.now();
    if (waitMs <= 0 || isProxy(request.socket.remoteAddress ?? "", 0)) return listener(request, response);
    setTimeout(() => {
      if (!response.destroyed) listener(request, response);
    }, waitMs);
  };
}

function executes(request: Request, response: Response): boolean {
  const protocol = protocolOf(response);
  if (protocol !== undefined) return protocol.executes?.(request) ?? false;
  return request.method === "POST" && PATHS.includes(normalised(request.path));
}

/** As Express compares paths. */
function normalised(path: string): string {
  return (path.endsWith("/") ? path.slice(0, -1) : path).toLowerCase();
}

/** Before anything of its URL is read: BASE_PATH, or a host, may stand before the path. */
function asksForExecution({ method, url = "" }: IncomingMessage): boolean {
  if (method !== "POST") return false;
  const path = normalised((url.split(/[?#]/, 1)[0] ?? "").replace(/\/{2,}/g, "/"));
  return PATHS.some((end) => path.endsWith(end));
}

/** How long the client says it waits, ms. */
function patienceMs({ headers }: Request): number {
  const { prefer } = headers;
  if (prefer === undefined) return Number.POSITIVE_INFINITY;
  const seconds = /(?:^|[,;\s])wait\s?=\s?"?(\d{1,9})\b/i.exec(String(prefer))?.[1];
  return seconds === undefined ? Number.POSITIVE_INFINITY : Number(seconds) * 1000;
}
