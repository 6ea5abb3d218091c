import type { Response } from "express";
import { JsonText } from "../shared/json/json-text.ts";

/**
 * An object as JSON, in parts that are written one after another: members that are a {@link JsonText}, or lists of them, are
 * these bytes as they are.
 */
export function jsonParts(value: object): readonly Uint8Array[] {
  if (value instanceof JsonText) return [value.bytes];
  const parts: Uint8Array[] = [];
  let text = "";
  const add = (json: JsonText) => {
    parts.push(Buffer.from(text), json.bytes);
    text = "";
  };
  let separator = "{";
  for (const [name, member] of Object.entries(value)) {
    if (member === undefined) continue;
    text += `${separator}${JSON.stringify(name)}:`;
    separator = ",";
    if (member instanceof JsonText) add(member);
    else if (isList(member)) {
      text += "[";
      for (const [index, element] of member.entries()) {
        if (index > 0) text += ",";
        add(element);
      }
      text += "]";
    } else text += JSON.stringify(member);
  }
  parts.push(Buffer.from(separator === "{" ? "{}" : `${text}}`));
  return parts;
}

function isList(value: unknown): value is readonly JsonText[] {
  return Array.isArray(value) && value.length > 0 && value.every((element) => element instanceof JsonText);
}

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
