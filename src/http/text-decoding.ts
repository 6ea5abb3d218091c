import { ClientError } from "../shared/errors.ts";

/** An encoding of the Encoding Standard (https://encoding.spec.whatwg.org), or one of {@link OWN}. */
export type Charset = string;

/** Names that clients use, and the Encoding Standard does not know, or takes for Windows's encoding. */
const OWN: Readonly<Record<string, Charset>> = {
  "utf-8-sig": "utf-8",
  utf16: "utf-16",
  "utf-16": "utf-16",
  ascii: "us-ascii",
  "us-ascii": "us-ascii",
  latin1: "iso-8859-1",
  "latin-1": "iso-8859-1",
  l1: "iso-8859-1",
  "iso-8859-1": "iso-8859-1",
  "iso8859-1": "iso-8859-1",
  iso88591: "iso-8859-1",
};
const TAKEN = "UTF-8, UTF-16, US-ASCII, ISO-8859-1 and what else https://encoding.spec.whatwg.org names";

/** Bytes are not text in the encoding that was declared, or in UTF-8 where none was. */
export class InvalidEncodingError extends Error {
  override readonly name = "InvalidEncodingError";
}

/**
 * The encoding that a `Content-Type` declares, under whatever alias; UTF-8 where it declares none.
 *
 * @throws {ClientError} 415 for an encoding that is not known; it names those that are.
 */
export function charsetOf(contentType: string | undefined): Charset {
  const given = /;\s{0,9}charset\s{0,9}=\s{0,9}["']?([^\s;"']{0,50})/i.exec(contentType ?? "")?.[1] ?? "";
  if (given === "") return "utf-8";
  const label = given.toLowerCase().replaceAll("_", "-");
  const known = Object.hasOwn(OWN, label) ? OWN[label] : undefined;
  if (known !== undefined) return known;
  for (const name of [label, given]) {
    try {
      return new TextDecoder(name).encoding;
    } catch {
      // Another spelling may be known.
    }
  }
  throw unsupportedCharset(given, TAKEN);
}

export function unsupportedCharset(given: string, taken: string): ClientError {
  const what = `Unsupported content encoding or charset: ${JSON.stringify(given.slice(0, 40))}.`;
  return new ClientError("unsupported_encoding", `${what} Send UTF-8; taken are ${taken}.`);
}

/**
 * The text that bytes stand for, without a byte order mark. Nothing is replaced by U+FFFD: it would run, or be stored, as if the
 * client had sent it.
 *
 * @throws {InvalidEncodingError}
 */
export function decodeText(bytes: Uint8Array, charset: Charset): string {
  if (charset === "iso-8859-1") return viewOf(bytes).toString("latin1");
  if (charset === "us-ascii") {
    if (bytes.some((byte) => byte > 0x7f)) throw invalid(bytes, charset);
    return viewOf(bytes).toString("latin1");
  }
  try {
    return new TextDecoder(charset === "utf-16" ? byteOrder(bytes) : charset, { fatal: true }).decode(bytes);
  } catch {
    throw invalid(bytes, charset);
  }
}

/** As {@link decodeText}. @throws {ClientError} 400 `invalid_encoding`. */
export function decodeBody(bytes: Uint8Array, charset: Charset): string {
  try {
    return decodeText(bytes, charset);
  } catch (error) {
    throw error instanceof InvalidEncodingError ? invalidEncoding(error.message) : error;
  }
}

/** Without the byte order mark of UTF-8. */
export function withoutMark(bytes: Uint8Array): Uint8Array {
  return bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;
}

export function invalidEncoding(message: string): ClientError {
  return new ClientError("invalid_encoding", message);
}

/** As RFC 2781 has it, but for text without a mark: that is from Windows. */
function byteOrder(bytes: Uint8Array): Charset {
  return bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : "utf-16le";
}

function invalid(bytes: Uint8Array, charset: Charset): InvalidEncodingError {
  const start = viewOf(bytes.subarray(0, 2)).toString("hex");
  const isUtf16 = charset === "utf-8" && (start === "fffe" || start === "feff");
  const advice = isUtf16
    ? "It begins with the byte order mark of UTF-16: declare charset=utf-16."
    : "Send UTF-8, or declare what it is in the Content-Type, as in charset=iso-8859-1.";
  return new InvalidEncodingError(`The body is not valid ${charset.toUpperCase()}. ${advice}`);
}

function viewOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
