import { setImmediate as nextTurn } from "node:timers/promises";
import { JsonText } from "./json-text.ts";

/** Bytes that are looked at before the event loop has its turn: about a millisecond [measured]. */
const SLICE_BYTES = 256 * 1024;
const [QUOTE, BACKSLASH, LETTER_U] = [0x22, 0x5c, 0x75];
/** `\uXXXX` */
const ESCAPE_BYTES = 6;

/** Counts work on what user code has made: after each slice of it, whatever it is a part of, the event loop has its turn. */
export class Slices {
  #left = SLICE_BYTES;

  /** Called after work on so many bytes. */
  async after(bytes: number): Promise<void> {
    this.#left -= bytes;
    if (this.#left > 0) return;
    this.#left = SLICE_BYTES;
    await nextTurn();
  }
}

/**
 * The members of an object of texts: each a {@link JsonText}, the bytes of the object as they are. Of two members of one name the last counts.
 *
 * @param object it was scanned, and has no whitespace between its tokens.
 */
export async function textMembers(object: JsonText, slices = new Slices()): Promise<ReadonlyMap<string, JsonText>> {
  const { bytes } = object;
  const members = new Map<string, JsonText>();
  for (let at = 1; at < bytes.length - 1; ) {
    const nameEnd = await endOfText(bytes, at, slices);
    const end = await endOfText(bytes, nameEnd + 1, slices);
    const name = JSON.parse(textOf(bytes, at, nameEnd)) as string;
    members.set(name, JsonText.scannedText(bytes.subarray(nameEnd + 1, end)));
    at = end + 1;
  }
  return members;
}

/** What a {@link JsonText} that is a text says, in UTF-8. */
export async function contentOf({ bytes }: JsonText, slices = new Slices()): Promise<Buffer> {
  const parts: Buffer[] = [];
  const end = bytes.length - 1;
  for (let from = 1; from < end; ) {
    const to = endOfPart(bytes, from, end);
    parts.push(Buffer.from(JSON.parse(`"${textOf(bytes, from, to)}"`) as string));
    await slices.after(to - from);
    from = to;
  }
  return Buffer.concat(parts);
}

/** @param at where a text begins. @returns where it is over. */
async function endOfText(bytes: Uint8Array, at: number, slices: Slices): Promise<number> {
  let from = at;
  let end = at + 1;
  for (;;) {
    const sliceEnd = from + SLICE_BYTES;
    while (end < sliceEnd && bytes[end] !== QUOTE) end += bytes[end] === BACKSLASH ? 2 : 1;
    await slices.after(end - from);
    if (end < sliceEnd) return end + 1;
    from = end;
  }
}

/** Where a slice of a text may end: in no character, in no escape, and not between the halves of a pair. */
function endOfPart(bytes: Uint8Array, from: number, end: number): number {
  const most = from + SLICE_BYTES;
  if (end <= most) return end;
  let at = from;
  // Past an escape it is known to be none's middle.
  while (at < most) at += bytes[at] !== BACKSLASH ? 1 : bytes[at + 1] === LETTER_U ? ESCAPE_BYTES : 2;
  while (at < end && ((bytes[at] as number) & 0xc0) === 0x80) at++;
  if (isFirstOfPair(bytes, at - ESCAPE_BYTES))
    at += bytes[at] === BACKSLASH && bytes[at + 1] === LETTER_U ? ESCAPE_BYTES : 0;
  return at;
}

/** Whether an escape stands there that is the first half of a pair, `\ud800` to `\udbff`. */
function isFirstOfPair(bytes: Uint8Array, at: number): boolean {
  return /^\\ud[89ab]/i.test(textOf(bytes, at, at + 4));
}

function textOf({ buffer, byteOffset }: Uint8Array, from: number, to: number): string {
  return Buffer.from(buffer, byteOffset + from, to - from).toString("utf8");
}
