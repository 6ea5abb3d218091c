import type { Response } from "express";

const PIECE_BYTES = 256 * 1024;
/** Up to here one write of a copy is cheaper than several. */
const MAX_COPIED_BYTES = 64 * 1024;

/**
 * Replies with bytes that are there in parts; the headers but for the length are set. There is no ETag: to make one is to read all of it once
 * more, and no part is copied.
 */
export function sendParts(response: Response, parts: readonly Uint8Array[]): void {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  response.setHeader("Content-Length", length);
  if (length < MAX_COPIED_BYTES) {
    response.end(Buffer.concat(parts, length));
    return;
  }
  for (const part of parts) {
    // In pieces: what waits to be taken shows as it shrinks, and a client that takes nothing is told from a slow one.
    for (let at = 0; at < part.length; at += PIECE_BYTES) response.write(part.subarray(at, at + PIECE_BYTES));
  }
  response.end();
}
