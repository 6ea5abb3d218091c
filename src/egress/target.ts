import { isIP } from "node:net";
import { NetworkFailure } from "./failure.ts";

const MAX_URL_CHARACTERS = 16_384;

/** Where a request goes, however its URL was spelt. */
export interface NetworkTarget {
  readonly protocol: "http:" | "https:";
  /** A name in lower case and ASCII without a dot at its end, or an address in its usual form; IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
  /** `https://example.com:8443`, without the port where it is the scheme's own. */
  readonly origin: string;
  /** Path and query. */
  readonly path: string;
}

/**
 * Reads a URL as browsers do (WHATWG), so that what is checked is what is meant: `0x7f.1`, `2130706433`, `①②⑦.0.0.1`,
 * `EXAMPLE.com.`, `bücher.de` and `user@host` all come out as the host that a connection would go to.
 *
 * @throws {NetworkFailure} `refused`, if it is not an http or https URL with a host.
 */
export function parseTarget(url: string): NetworkTarget {
  if (url.length > MAX_URL_CHARACTERS) {
    throw new NetworkFailure("refused", `the URL is longer than ${MAX_URL_CHARACTERS} characters`);
  }
  const parsed = URL.parse(url);
  if (parsed === null) throw new NetworkFailure("refused", "the URL is malformed");
  const { protocol } = parsed;
  if (protocol !== "http:" && protocol !== "https:") {
    throw new NetworkFailure(
      "refused",
      `only http and https are possible, not ${JSON.stringify(protocol.slice(0, -1))}`,
    );
  }
  const host = hostOf(parsed);
  if (host === null) throw new NetworkFailure("refused", "the URL has no usable host");
  const authority = host.includes(":") ? `[${host}]` : host;
  return {
    protocol,
    host,
    port: parsed.port === "" ? (protocol === "http:" ? 80 : 443) : Number(parsed.port),
    // Without user and password: HTTP libraries send those as a header, or not at all.
    origin: `${protocol}//${authority}${parsed.port && `:${parsed.port}`}`,
    path: parsed.pathname + parsed.search,
  };
}

/** @returns a host as `parseTarget` gives it; null if it is none. */
export function normaliseHost(host: string): string | null {
  const parsed = URL.parse(`http://${host}/`);
  return parsed === null || parsed.port !== "" || parsed.username !== "" ? null : hostOf(parsed);
}

function hostOf({ hostname }: URL): string | null {
  const host = hostname.replace(/^\[(.*)\]$/, "$1").replace(/\.$/, "");
  if (isIP(host) !== 0) return host;
  const isName = /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})?(\.[a-z0-9_]([a-z0-9_-]{0,62})?)*$/.test(host);
  return isName ? host : null;
}
