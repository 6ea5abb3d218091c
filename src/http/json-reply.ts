import type { Response } from "express";
import { jsonParts } from "../shared/json/json-parts.ts";
import type { JsonText } from "../shared/json/json-text.ts";

/** Replies with an object, see {@link jsonParts}. There is no ETag: to make one is to read all of it once more. */
export function sendJson(response: Response, value: object): void {
  sendJsonParts(response, jsonParts(value));
}

/** Replies with JSON that is there in parts. */
export function sendJsonParts(response: Response, parts: readonly Uint8Array[]): void {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  response.setHeader("Content-Type", "application/json; charset=utf-8");
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

const PIECE_BYTES = 256 * 1024;

/** Up to here one write of a copy is cheaper than several. */
const MAX_COPIED_BYTES = 64 * 1024;

/** A displayed bundle as an event of a stream: its members, and itself as `data`. The type last: a bundle's keys are user code's. */
export function outputEvent(bundle: JsonText): readonly Uint8Array[] {
  const members = bundle.bytes.subarray(1, -1);
  const before = members.length === 0 ? "{" : ",";
  return [
    ...(members.length === 0 ? [] : [Buffer.from("{"), members]),
    Buffer.from(`${before}"data":`),
    bundle.bytes,
    Buffer.from(',"type":"output"}'),
  ];
}
