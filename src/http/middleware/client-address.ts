import { isIP } from "node:net";
import type { RequestHandler } from "express";

/**
 * An address as every part of the server has it: limits, logs and statistics.
 *
 * @param text as proxies write it: with a port (`192.0.2.1:4711`, Azure's), with brackets (`[2001:db8::1]:443`), quotes or a zone.
 * @returns IPv4 also where it was written within IPv6; null: this is no address.
 */
export function normaliseAddress(text: string): string | null {
  if (known.has(text)) return known.get(text) as string | null;
  const address = parseAddress(text);
  // A client may write any text, so the map is small, and what is long is not kept.
  if (known.size >= MAX_KNOWN) known.clear();
  if (text.length <= MAX_KNOWN_CHARACTERS) known.set(text, address);
  return address;
}

/** Each request comes from one of a few addresses. */
const known = new Map<string, string | null>();
const MAX_KNOWN = 1000;
const MAX_KNOWN_CHARACTERS = 64;

function parseAddress(text: string): string | null {
  const bare = text.trim().replace(/^"(.*)"$/, "$1");
  const inner = /^\[([^\]]*)\](?::\d{1,5})?$/.exec(bare)?.[1] ?? /^([\d.]+):\d{1,5}$/.exec(bare)?.[1] ?? bare;
  const address = (inner.split("%", 1)[0] ?? "").toLowerCase();
  const mapped = /^::ffff:([\d.]+)$/.exec(address)?.[1] ?? address;
  return isIP(mapped) === 0 ? null : mapped;
}

/**
 * Makes `request.ip` the client's address, normalised: the one place that reads `X-Forwarded-For`. Which of its addresses is believed
 * says Express's `trust proxy`. What is no address ends the list: a proxy that does not know its client cannot say what was before it.
 */
export const clientAddress: RequestHandler = (request, _response, next) => {
  const forwarded = request.headers["x-forwarded-for"];
  if (forwarded !== undefined) {
    const addresses = String(forwarded).split(",").map(normaliseAddress);
    const known = addresses.slice(addresses.lastIndexOf(null) + 1);
    if (known.length > 0) request.headers["x-forwarded-for"] = known.join(", ");
    else delete request.headers["x-forwarded-for"];
  }
  const { ip } = request;
  Object.defineProperty(request, "ip", { value: ip === undefined ? ip : (normaliseAddress(ip) ?? ip) });
  next();
};
