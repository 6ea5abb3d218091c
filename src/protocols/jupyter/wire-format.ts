/** How messages stand in the frames of a WebSocket. https://jupyter-server.readthedocs.io/en/latest/developers/websocket-protocols.html */
import { ClientError } from "../../shared/errors.ts";

/** The subprotocol whose frames are all binary. Without it messages are JSON, and binary only where they have buffers. */
export const V1 = "v1.kernel.websocket.jupyter.org";
export type WireFormat = "json" | "v1";

/** Channel, header, parent header, metadata and content; then buffers. */
const FIRST_BUFFER = 5;
/** A message of widgets has a buffer for each array. */
const MAX_PARTS = 1024;

/** A message as it came: JSON that is not parsed yet, and its channel where that does not stand in it. */
export interface Frame {
  readonly json: Uint8Array;
  readonly channel?: string;
}

/** @throws {ClientError} 400 `bad_request`: the bytes are no message. Buffers are left out: nothing here reads any. */
export function readFrame(bytes: Buffer, isBinary: boolean, format: WireFormat): Frame {
  if (!isBinary) return { json: bytes };
  return format === "v1" ? readV1(bytes) : { json: readWithBuffers(bytes) };
}

/** A message's parts, each of which is JSON. */
export interface MessageParts {
  readonly channel: string;
  readonly type: string;
  readonly id: string;
  readonly header: Uint8Array;
  readonly parentHeader: Uint8Array;
  readonly metadata: Uint8Array;
  readonly content: Uint8Array;
}

export function writeFrame(parts: MessageParts, format: WireFormat): Buffer {
  const { header, parentHeader, metadata, content } = parts;
  if (format === "v1") return writeV1(parts.channel, [header, parentHeader, metadata, content]);
  const { channel, type, id } = parts;
  // Clients read the type, and the id, here or there.
  const last = JSON.stringify({ channel, msg_id: id, msg_type: type, buffers: [] }).slice(1);
  return envelope(parts, `,${last}`);
}

/** A message as one JSON object. @param end what follows its parts. */
function envelope(
  { header, parentHeader, metadata, content }: Pick<MessageParts, "header" | "parentHeader" | "metadata" | "content">,
  end: string,
): Buffer {
  return Buffer.concat([
    Buffer.from('{"header":'),
    header,
    Buffer.from(',"parent_header":'),
    parentHeader,
    Buffer.from(',"metadata":'),
    metadata,
    Buffer.from(',"content":'),
    content,
    Buffer.from(end),
  ]);
}

function writeV1(channel: string, parts: readonly Uint8Array[]): Buffer {
  const all = [Buffer.from(channel), ...parts];
  const head = Buffer.alloc(8 * (all.length + 2));
  head.writeBigUInt64LE(BigInt(all.length + 1), 0);
  let offset = head.length;
  for (const [index, part] of [...all, Buffer.alloc(0)].entries()) {
    head.writeBigUInt64LE(BigInt(offset), 8 * (index + 1));
    offset += part.length;
  }
  return Buffer.concat([head, ...all]);
}

function readV1(bytes: Buffer): Frame {
  if (bytes.length < 8) throw notAMessage("it is too short");
  const count = Number(bytes.readBigUInt64LE(0));
  if (count < FIRST_BUFFER + 1 || count > MAX_PARTS || bytes.length < 8 * (count + 1))
    throw notAMessage(`the number of its parts cannot be right`);
  const offsets = Array.from({ length: count }, (_, index) => Number(bytes.readBigUInt64LE(8 * (index + 1))));
  const parts = slices(bytes, 8 * (count + 1), offsets);
  const [channel, header, parentHeader, metadata, content] = parts as [Buffer, Buffer, Buffer, Buffer, Buffer];
  return { json: envelope({ header, parentHeader, metadata, content }, "}"), channel: channel.toString("latin1") };
}

/** JSON and buffers behind it, the way before {@link V1}. */
function readWithBuffers(bytes: Buffer): Buffer {
  if (bytes.length < 8) throw notAMessage("it is too short");
  const count = bytes.readUInt32BE(0);
  if (count < 1 || count > MAX_PARTS || bytes.length < 4 * (count + 1))
    throw notAMessage("the number of its parts cannot be right");
  const offsets = Array.from({ length: count }, (_, index) => bytes.readUInt32BE(4 * (index + 1)));
  return slices(bytes, 4 * (count + 1), [...offsets, bytes.length])[0] as Buffer;
}

/** @param first where the first part may begin. */
function slices(bytes: Buffer, first: number, offsets: readonly number[]): readonly Buffer[] {
  let before = first;
  for (const offset of offsets) {
    if (offset < before || offset > bytes.length) throw notAMessage("its parts are not where it says");
    before = offset;
  }
  return offsets.slice(1).map((end, index) => bytes.subarray(offsets[index], end));
}

function notAMessage(why: string): ClientError {
  return new ClientError("bad_request", `This is no message of a Jupyter client: ${why}.`);
}
