import { isIP } from "node:net";
import ipaddr from "ipaddr.js";
import { StartupError } from "../../shared/errors.ts";
import type { Config } from "../../shared/settings.ts";

/** Names that Express knows: `127.0.0.0/8` and `::1`, `169.254.0.0/16` and `fe80::/10`, the private networks. */
const NAMED_RANGES = ["loopback", "linklocal", "uniquelocal"];

// More reverse proxies in a row than anybody has; a port number in the wrong variable is not.
const MAX_HOPS = 32;

/**
 * Reads `TRUST_PROXY`: a count of reverse proxies, or their addresses, CIDR ranges, or Express's names for ranges.
 *
 * There is no way to trust everybody: `X-Forwarded-For` would then be whatever a client writes, and with it rate limits
 * and the addresses in the security log.
 *
 * @returns for `app.set("trust proxy", …)`; `false` if it is empty, so that `req.ip` is the connection's address.
 * @throws {StartupError} for anything else.
 */
export function trustProxy(config: Pick<Config, "TRUST_PROXY">): false | number | string[] {
  const text = config.TRUST_PROXY.trim();
  if (text === "" || text === "false") return false;
  if (/^\d+$/.test(text)) {
    const hops = Number(text);
    if (hops > MAX_HOPS) throw problem(text, `a count of proxies over ${MAX_HOPS}`);
    return hops === 0 ? false : hops;
  }
  const ranges = text.split(",").map((range) => range.trim());
  for (const range of ranges) if (!NAMED_RANGES.includes(range)) checkRange(range);
  return ranges;
}

function checkRange(range: string): void {
  if (isIP(range) !== 0) return;
  // The address must be spelt in full, as `ipaddr.js` alone would read `10/8` as 0.0.0.10/8.
  const isRange = isIP(range.split("/")[0] ?? "") !== 0 && ipaddr.isValidCIDR(range);
  if (!isRange) throw problem(range, "not an address, CIDR range or count");
  if (ipaddr.parseCIDR(range)[1] === 0) throw problem(range, "everybody");
}

function problem(value: string, what: string): StartupError {
  return new StartupError(
    `TRUST_PROXY: ${JSON.stringify(value)} is ${what}. ` +
      `Give the number of reverse proxies, or their addresses or CIDR ranges, comma separated (also ${NAMED_RANGES.join(", ")}).`,
  );
}
