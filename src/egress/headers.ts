import { NetworkFailure } from "./failure.ts";

/** Name and value, in the order in which they are sent; a name may come more than once. */
export type HeaderList = readonly (readonly [name: string, value: string])[];

const MAX_HEADER_BYTES = 65_536;

/** Between two neighbours on the way, not between the ends (RFC 9110, 7.6.1), and what frames a message. */
const HOP_BY_HOP = new Set(
  "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split(
    " ",
  ),
);

/**
 * A request's own: `host` decides what a front end behind an allowed address serves, so it is the URL's; the rest claims to
 * come from a proxy that a server behind us may believe, since the request comes from our address.
 */
const NOT_SENT =
  /^(host|content-length|expect|forwarded|via|x-forwarded-.*|x-real-ip|x-client-ip|x-original-.*|x-rewrite-url|true-client-ip|cf-connecting-ip|x-http-method-override)$/;

const NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const BAD_VALUE = /[\0\r\n]|[^\0-\xff]/;

/** Whether a text has no character but those that a header of our own, or a part of it, may have. */
export function isHeaderText(text: string): boolean {
  return !/[^\x20-\x7e\xa0-\xff]/.test(text);
}

/** Whether a header of this name can be set by a rule: it is one, reaches the host, and does not say where the request goes. */
export function isSentHeader(name: string): boolean {
  const lower = name.toLowerCase();
  return NAME.test(name) && !HOP_BY_HOP.has(lower) && !NOT_SENT.test(lower) && lower !== "accept-encoding";
}

/**
 * What of a request's headers is sent.
 *
 * @throws {NetworkFailure} `refused`, if one is no header or they are too many.
 */
export function requestHeaders(headers: HeaderList): [string, string][] {
  let bytes = 0;
  for (const [name, value] of headers) {
    bytes += name.length + value.length + 4;
    if (!NAME.test(name)) throw new NetworkFailure("refused", `${JSON.stringify(name)} is not the name of a header`);
    if (BAD_VALUE.test(value)) throw new NetworkFailure("refused", `the header ${name} has characters it may not have`);
  }
  if (bytes > MAX_HEADER_BYTES) throw new NetworkFailure("refused", `more than ${MAX_HEADER_BYTES} bytes of headers`);
  return endToEnd(headers).filter(([name]) => !NOT_SENT.test(name.toLowerCase()));
}

/** What of a response's headers user code is told. */
export function responseHeaders(headers: HeaderList): [string, string][] {
  return endToEnd(headers);
}

function endToEnd(headers: HeaderList): [string, string][] {
  const named = headers
    .filter(([name]) => name.toLowerCase() === "connection")
    .flatMap(([, value]) => value.split(",").map((option) => option.trim().toLowerCase()));
  const dropped = new Set([...HOP_BY_HOP, ...named]);
  return headers.filter(([name]) => !dropped.has(name.toLowerCase())).map(([name, value]) => [name, value]);
}
