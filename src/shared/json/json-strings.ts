import { setImmediate } from "node:timers/promises";
import { JsonFragments } from "./json-parts.ts";

/** A piece takes a millisecond, where all of it is to be escaped. A multiple of three: but for the last, base64 of a piece has no padding. */
export const SLICE_BYTES = 48 * 1024;

const QUOTE = Buffer.from('"');

/**
 * A text as a JSON string. It is made in slices, between which the event loop has its turn: escapes have up to six times the length.
 *
 * @param utf8 valid UTF-8.
 */
export async function textInSlices(utf8: Uint8Array): Promise<JsonFragments> {
  const bytes = bufferOf(utf8);
  return await inSlices(bytes.length, (at) => {
    let end = Math.min(at + SLICE_BYTES, bytes.length);
    // Not inside of a character.
    while (end < bytes.length && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
    return { end, part: Buffer.from(JSON.stringify(bytes.toString("utf8", at, end)).slice(1, -1)) };
  });
}

/** Bytes as a JSON string in base64, made as {@link textInSlices}. */
export async function base64InSlices(content: Uint8Array): Promise<JsonFragments> {
  const bytes = bufferOf(content);
  return await inSlices(bytes.length, (at) => {
    const end = Math.min(at + SLICE_BYTES, bytes.length);
    return { end, part: Buffer.from(bytes.toString("base64", at, end), "latin1") };
  });
}

async function inSlices(
  length: number,
  make: (at: number) => { readonly end: number; readonly part: Uint8Array },
): Promise<JsonFragments> {
  const parts: Uint8Array[] = [QUOTE];
  for (let at = 0; at < length; ) {
    if (at > 0) await setImmediate();
    const { end, part } = make(at);
    parts.push(part);
    at = end;
  }
  parts.push(QUOTE);
  return JsonFragments.of(parts);
}

function bufferOf({ buffer, byteOffset, length }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, length);
}
