import type { Request, RequestHandler, Response } from "express";
import { ClientError } from "../../shared/errors.ts";
import { principalOf } from "./authentication.ts";

export interface HeldMemoryOptions {
  /** What a body may have that does not say how long it is, or is compressed, bytes. */
  readonly maxBodyBytes: number;
  /** Most of one principal, bytes; default 512 MiB. */
  readonly maxBytes?: number;
  /** A reply of which nothing has been taken for so long is given up, ms; default 60,000. */
  readonly stuckMs?: number;
}

interface Held {
  readonly response: Response;
  bodyBytes: number;
  /** Of the reply, when it was looked at last. */
  waitingBytes: number;
}

const MAX_BYTES = 512 * 1024 * 1024;
const STUCK_MS = 60_000;

/**
 * Bounds what one principal has the server hold: bodies that come, or whose requests wait for a sandbox, and replies that
 * the client does not read. Each has a limit of its own; their number has not.
 *
 * Runs behind `authenticate`, before bodies are read.
 *
 * @returns middleware that fails with {@link ClientError} 429 `too_much_held`, and ends connections whose client takes nothing
 *   of its reply.
 */
export function limitHeldMemory({
  maxBodyBytes,
  maxBytes = MAX_BYTES,
  stuckMs = STUCK_MS,
}: HeldMemoryOptions): RequestHandler {
  const open = new Map<string, Set<Held>>();
  endStuck(open, stuckMs);
  return (request, response, next) => {
    const { id } = principalOf(response);
    const others = open.get(id) ?? new Set<Held>();
    const bodyBytes = announcedBytes(request, maxBodyBytes);
    let heldBytes = bodyBytes;
    for (const other of others) heldBytes += other.bodyBytes + other.response.writableLength;
    // One alone is never refused: what it may have is the route's affair.
    if (heldBytes > maxBytes && others.size > 0) {
      throw new ClientError("too_much_held");
    }
    const held: Held = { response, bodyBytes, waitingBytes: 0 };
    others.add(held);
    open.set(id, others);
    if (bodyBytes > 0 && request.get("content-encoding") === undefined) {
      const before = request.socket.bytesRead;
      // What did not say how long it is turns out to be short, mostly.
      request.once("end", () => {
        held.bodyBytes = Math.min(bodyBytes, request.socket.bytesRead - before);
      });
    }
    response.once("close", () => {
      others.delete(held);
      if (others.size === 0) open.delete(id);
    });
    next();
  };
}

function announcedBytes(request: Request, maxBodyBytes: number): number {
  const length = request.get("content-length");
  const isChunked = request.get("transfer-encoding") !== undefined;
  if (length === undefined && !isChunked) return 0;
  if (isChunked || request.get("content-encoding") !== undefined) return maxBodyBytes;
  return Math.min(Number(length) || 0, maxBodyBytes);
}

/** Ends replies of which nothing was taken between two looks: one timer for all, since each request would have one else. */
function endStuck(open: ReadonlyMap<string, ReadonlySet<Held>>, stuckMs: number): void {
  setInterval(() => {
    for (const held of [...open.values()].flatMap((ofPrincipal) => [...ofPrincipal])) {
      const { writableLength } = held.response;
      // It changes when something is taken, and when something is written to a client that still takes.
      if (writableLength > 0 && writableLength === held.waitingBytes) held.response.destroy();
      held.waitingBytes = writableLength;
    }
  }, stuckMs).unref();
}
