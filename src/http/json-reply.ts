import type { Response } from "express";
import type { DisplayedOutput } from "../sandbox/displays.ts";
import { jsonParts } from "../shared/json/json-parts.ts";
import { sendParts } from "./byte-reply.ts";

/** Replies with an object, see {@link jsonParts}. */
export function sendJson(response: Response, value: object): void {
  sendJsonParts(response, jsonParts(value));
}

/** Replies with JSON that is there in parts. */
export function sendJsonParts(response: Response, parts: readonly Uint8Array[]): void {
  response.setHeader("Content-Type", "application/json; charset=utf-8");
  sendParts(response, parts);
}

/** Displayed data as an event: the bundle as `data`. What is absent is left out. */
export function displayedFields({ bundle, displayId, isUpdate, metadata }: DisplayedOutput) {
  return { data: bundle, displayId, update: isUpdate, metadata };
}

/**
 * Displayed data as an event of a stream: the bundle's members, and itself as `data`. The type and what else is ours come last: a bundle's keys are
 * user code's, and of two members of one name the last counts.
 */
export function outputEvent(output: DisplayedOutput): readonly Uint8Array[] {
  const { buffer, byteOffset, length } = output.bundle.bytes;
  const members = Buffer.from(buffer, byteOffset + 1, length - 2);
  const fields = displayedFields(output);
  const taken = Object.keys(fields).filter((name) => members.includes(`"${name}":`));
  const nothing = Object.fromEntries(taken.map((name) => [name, null]));
  const [head = Buffer.from(""), ...rest] = jsonParts({ ...nothing, ...present(fields), type: "output" });
  if (members.length === 0) return [head, ...rest];
  return [Buffer.from("{"), members, Buffer.from(","), head.subarray(1), ...rest];
}

function present(fields: object): object {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
