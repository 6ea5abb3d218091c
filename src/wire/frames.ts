/**
 * Messages as bytes on the pipes between the host and a sandbox process. `messages.ts` and `guest-messages.ts` define the messages.
 *
 * A frame on the pipe:
 *
 *     u32 le  length of all that follows
 *     u8      protocol version
 *     u8      1: urgent, to be acted on while user code runs (host to sandbox only); else 0
 *     u16 le  length of the nonce, bytes (32)
 *     u32 le  length of the JSON header, bytes
 *     nonce   hex text; chosen by the host, and never in memory that user code has
 *     header  JSON, a `HostMessage` or a `GuestMessage`
 *     body    bytes whose meaning the header gives; may be empty
 *
 * User code is in WebAssembly's memory and the nonce is not, so bytes it manages to put on the pipe are not a frame: the
 * host sees a wrong nonce and ends the process. A frame that breaks any rule here is a {@link ProtocolError}, and the
 * reader must give the connection up, since there is no way to find the next frame's beginning.
 */

import type { GuestMessage } from "./guest-messages.ts";
import { type HostMessage, URGENT_TYPES } from "./messages.ts";
import { ProtocolError, type ReadHeader } from "./protocol-error.ts";

export const PROTOCOL_VERSION = 6;

export const PREFIX_BYTES = 12;
/** Offset of the byte that says whether a frame is urgent. */
export const URGENT_OFFSET = 5;
export const NONCE_BYTES = 32;

/** Largest frame either side accepts: a workspace's worth of files, plus room for the header. */
export const MAX_FRAME_BYTES = 512 * 1024 * 1024;

/** Length of a whole frame, by its prefix. */
export function frameBytes(prefix: Uint8Array): number {
  return 4 + new DataView(prefix.buffer, prefix.byteOffset, PREFIX_BYTES).getUint32(0, true);
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** @returns the frame as chunks to be written one after another, so that large bodies are not copied. */
export function encodeFrame(
  nonce: string,
  message: HostMessage | GuestMessage,
  ...body: readonly Uint8Array[]
): Uint8Array[] {
  const header = encoder.encode(JSON.stringify(message));
  const head = new Uint8Array(PREFIX_BYTES + NONCE_BYTES + header.length);
  const view = new DataView(head.buffer);
  const bodyBytes = body.reduce((sum, part) => sum + part.length, 0);
  const length = head.length - 4 + bodyBytes;
  if (length > MAX_FRAME_BYTES) throw new ProtocolError(`a frame of ${length} bytes is over the limit`);
  view.setUint32(0, length, true);
  view.setUint8(4, PROTOCOL_VERSION);
  view.setUint8(URGENT_OFFSET, URGENT_TYPES.has(message.type) ? 1 : 0);
  view.setUint16(6, NONCE_BYTES, true);
  view.setUint32(8, header.length, true);
  encoder.encodeInto(nonce, head.subarray(PREFIX_BYTES, PREFIX_BYTES + NONCE_BYTES));
  head.set(header, PREFIX_BYTES + NONCE_BYTES);
  return bodyBytes === 0 ? [head] : [head, ...body.filter((part) => part.length > 0)];
}

export interface Frame<M> {
  readonly nonce: string;
  readonly message: M;
  readonly body: Uint8Array;
}

/** @returns a reader for messages whose sender is trusted: only the type is looked at. */
export function readHeaderOf<M extends { type: string }>(types: readonly M["type"][]): ReadHeader<M> {
  return (header) => {
    const message = JSON.parse(decoder.decode(header));
    if (!types.includes(message?.type)) throw new ProtocolError("unknown message type");
    return message;
  };
}

/**
 * Cuts a byte stream into frames. Feed it chunks as they arrive; it returns the frames they complete.
 *
 * @throws {ProtocolError} from `push` at the first byte that cannot be part of a frame.
 */
export class FrameReader<M> {
  readonly #readHeader: ReadHeader<M>;
  readonly #maxBytes: number;
  readonly #maxHeaderBytes: number;
  readonly #prefix = new Uint8Array(PREFIX_BYTES);
  #prefixFilled = 0;
  /** A frame that did not come in one chunk, as far as it is here. */
  #frame: Uint8Array | null = null;
  #filled = 0;

  constructor(readHeader: ReadHeader<M>, maxBytes = MAX_FRAME_BYTES, maxHeaderBytes = maxBytes) {
    this.#readHeader = readHeader;
    this.#maxBytes = maxBytes;
    this.#maxHeaderBytes = maxHeaderBytes;
  }

  push(chunk: Uint8Array): Frame<M>[] {
    const frames: Frame<M>[] = [];
    for (let rest = chunk; rest.length > 0; ) {
      if (this.#frame === null && this.#prefixFilled === 0 && rest.length >= PREFIX_BYTES) {
        const bytes = this.#check(rest);
        if (rest.length >= bytes) {
          frames.push(this.#decode(rest.subarray(0, bytes)));
          rest = rest.subarray(bytes);
          continue;
        }
        this.#frame = new Uint8Array(bytes);
      }
      if (this.#frame === null) {
        const part = rest.subarray(0, PREFIX_BYTES - this.#prefixFilled);
        this.#prefix.set(part, this.#prefixFilled);
        this.#prefixFilled += part.length;
        rest = rest.subarray(part.length);
        if (this.#prefixFilled < PREFIX_BYTES) break;
        this.#frame = new Uint8Array(this.#check(this.#prefix));
        this.#frame.set(this.#prefix);
        this.#filled = PREFIX_BYTES;
      }
      const part = rest.subarray(0, this.#frame.length - this.#filled);
      this.#frame.set(part, this.#filled);
      this.#filled += part.length;
      rest = rest.subarray(part.length);
      if (this.#filled < this.#frame.length) break;
      frames.push(this.#decode(this.#frame));
      this.#frame = null;
      this.#filled = this.#prefixFilled = 0;
    }
    return frames;
  }

  /** @returns the length of the frame that begins here. */
  #check(prefix: Uint8Array): number {
    const view = new DataView(prefix.buffer, prefix.byteOffset, PREFIX_BYTES);
    const bytes = frameBytes(prefix);
    const length = bytes - 4;
    const headerLength = view.getUint32(8, true);
    if (prefix[4] !== PROTOCOL_VERSION)
      throw new ProtocolError(`protocol version ${prefix[4]}, not ${PROTOCOL_VERSION}`);
    if (prefix[URGENT_OFFSET] !== 0) throw new ProtocolError("an urgent frame where there can be none");
    if (view.getUint16(6, true) !== NONCE_BYTES) throw new ProtocolError("nonce of a wrong length");
    if (length > this.#maxBytes) throw new ProtocolError(`a frame of ${length} bytes is over the limit`);
    if (headerLength > this.#maxHeaderBytes)
      throw new ProtocolError(`a header of ${headerLength} bytes is over the limit`);
    if (length < PREFIX_BYTES - 4 + NONCE_BYTES + headerLength) throw new ProtocolError("header longer than its frame");
    return bytes;
  }

  #decode(bytes: Uint8Array): Frame<M> {
    const headerStart = PREFIX_BYTES + NONCE_BYTES;
    const bodyStart = headerStart + new DataView(bytes.buffer, bytes.byteOffset).getUint32(8, true);
    try {
      const nonce = decoder.decode(bytes.subarray(PREFIX_BYTES, headerStart));
      const message = this.#readHeader(bytes.subarray(headerStart, bodyStart));
      return { nonce, message, body: bytes.subarray(bodyStart) };
    } catch (cause) {
      if (cause instanceof ProtocolError) throw cause;
      throw new ProtocolError("header is not JSON in UTF-8", { cause });
    }
  }
}

export function concatenate(parts: readonly Uint8Array[], totalBytes?: number): Uint8Array {
  const all = new Uint8Array(totalBytes ?? parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}
