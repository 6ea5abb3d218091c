import type { Request, RequestHandler, Response } from "express";
import { ClientError } from "../../shared/errors.ts";
import { principalOf } from "./authentication.ts";

export interface HeldRequestsOptions {
  /** Most requests of one principal at a time. */
  readonly maxRequests: number;
  /** What a body may have that does not say how long it is, or is compressed, bytes. */
  readonly maxBodyBytes: number;
  /** Most of one principal, bytes; default 512 MiB. */
  readonly maxBytes?: number;
  /** A reply of which nothing has been taken for so long is given up, ms; default 60,000. */
  readonly stuckMs?: number;
}

/** A request from its headers until its connection is closed and no work for it goes on. */
interface Held {
  readonly response: Response;
  /** All of its principal's, this one included. */
  readonly among: Set<Held>;
  /** Most of all of them, bytes. */
  readonly maxBytes: number;
  bodyBytes: number;
  /** Of the reply, before it is written. */
  replyBytes: number;
  /** Of the reply, when it was looked at last: what its client had taken; null: nothing waited. */
  takenBytes: number | null;
  /** What goes on for it, though its client may have gone. */
  works: number;
  isClosed: boolean;
}

const MAX_BYTES = 512 * 1024 * 1024;
const STUCK_MS = 60_000;

const heldBy = new WeakMap<Response, Held>();

/**
 * Bounds what one principal has the server hold: requests that are open, wherever they wait; bodies that come, or whose requests wait;
 * replies that the client does not read. Each has a limit of its own; their number has not.
 *
 * Runs behind `authenticate`, before bodies are read. What works for a request says so with {@link keepHeld}: a client that goes away
 * does not make what it has sent count less.
 *
 * @returns middleware that fails with {@link ClientError} 429 `too_many_open_requests` or `too_much_held`, and ends connections whose
 *   client takes nothing of its reply.
 */
export function limitHeldRequests({
  maxRequests,
  maxBodyBytes,
  maxBytes = MAX_BYTES,
  stuckMs = STUCK_MS,
}: HeldRequestsOptions): RequestHandler {
  const open = new Map<string, Set<Held>>();
  endStuck(open, stuckMs);
  return (request, response, next) => {
    const { id } = principalOf(response);
    const others = setOf(open, id);
    if (others.size >= maxRequests) {
      // Else the connection would stay, idle, and be one of all.
      response.set("Connection", "close");
      throw new ClientError("too_many_open_requests");
    }
    const bodyBytes = announcedBytes(request, maxBodyBytes);
    const held: Held = {
      response,
      among: others,
      maxBytes,
      bodyBytes,
      replyBytes: 0,
      takenBytes: null,
      works: 0,
      isClosed: false,
    };
    requireRoom(held, 0);
    others.add(held);
    heldBy.set(response, held);
    if (bodyBytes > 0 && request.get("content-encoding") === undefined) {
      const before = request.socket.bytesRead;
      // What did not say how long it is turns out to be short, mostly.
      request.once("end", () => {
        held.bodyBytes = Math.min(held.bodyBytes, request.socket.bytesRead - before);
      });
    }
    response.once("close", () => {
      held.isClosed = true;
      if (held.works === 0) others.delete(held);
    });
    next();
  };
}

/**
 * Counts what a large reply will have, before it is read into memory: of many that are asked for at once, none is written yet.
 *
 * @throws {ClientError} 429 `too_much_held`.
 */
export function holdReply(response: Response, bytes: number): void {
  const held = heldBy.get(response);
  if (held === undefined) return;
  requireRoom(held, bytes);
  held.replyBytes = bytes;
}

/**
 * Counts what has come of a body whose route takes more than others do.
 *
 * @throws {ClientError} 429 `too_much_held`.
 */
export function holdBody(response: Response, bytes: number): void {
  const held = heldBy.get(response);
  if (held === undefined || bytes <= held.bodyBytes) return;
  requireRoom(held, bytes - held.bodyBytes);
  held.bodyBytes = bytes;
}

/** @param bytes more for this one. @throws {ClientError} 429 `too_much_held`. */
function requireRoom(held: Held, bytes: number): void {
  let heldBytes = held.bodyBytes + bytes;
  let others = 0;
  for (const other of held.among) {
    if (other === held) continue;
    others++;
    // A stream has sent its headers long before the reply is read that it ends with.
    const { writableEnded, writableLength } = other.response;
    heldBytes += other.bodyBytes + (writableEnded ? writableLength : Math.max(writableLength, other.replyBytes));
  }
  // One alone is never refused: what it may have is the route's affair.
  if (heldBytes > held.maxBytes && others > 0) throw new ClientError("too_much_held");
}

/**
 * Has a request count as long as work for it goes on, also when its client has gone: until then its body is in memory.
 *
 * @returns to be called when the work has ended.
 */
export function keepHeld(response: Response): () => void {
  const held = heldBy.get(response);
  if (held === undefined) return () => {};
  held.works++;
  // Between two works it may have been let go.
  held.among.add(held);
  return () => {
    held.works--;
    if (held.works === 0 && held.isClosed) held.among.delete(held);
  };
}

/** Principals have keys, so there are no more sets than keys. */
function setOf(open: Map<string, Set<Held>>, principal: string): Set<Held> {
  let own = open.get(principal);
  if (own === undefined) {
    own = new Set();
    open.set(principal, own);
  }
  return own;
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
      const { writableLength, socket } = held.response;
      // Not what waits: that changes too where more and more is written to a client that takes nothing.
      const takenBytes = socket === null ? -writableLength : socket.bytesWritten - socket.writableLength;
      if (writableLength > 0 && takenBytes === held.takenBytes) held.response.destroy();
      held.takenBytes = writableLength > 0 ? takenBytes : null;
    }
  }, stuckMs).unref();
}
