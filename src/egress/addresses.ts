import ipaddr from "ipaddr.js";

/** Ranges that a server with NETWORK_ALLOW_PRIVATE may reach. Never link-local ones: clouds give out credentials there. */
const PRIVATE_RANGES: ReadonlySet<string> = new Set(["private", "loopback", "uniqueLocal", "carrierGradeNat"]);
/** Where clouds give out credentials outside of the link-local ranges. */
const METADATA_ADDRESSES: ReadonlySet<string> = new Set(["fd00:ec2::254", "100.100.100.200", "192.0.0.192"]);

/**
 * Whether a connection may go to an address.
 *
 * Public means global unicast and nothing else: the special ranges that a list of forbidden ones forgets are refused as well,
 * and so are IPv6 addresses that stand for an IPv4 one somewhere else (6to4, Teredo, NAT64, IPv4-compatible).
 *
 * @param address IPv4 or IPv6 in any spelling `ipaddr.js` reads; what it does not read is refused.
 */
export function isAllowedAddress(address: string, { allowPrivate }: { readonly allowPrivate: boolean }): boolean {
  if (!ipaddr.isValid(address)) return false;
  // Also of an IPv4 address inside an IPv6 one.
  const parsed = ipaddr.process(address);
  if (METADATA_ADDRESSES.has(parsed.toString())) return false;
  const range = parsed.range();
  if (allowPrivate && PRIVATE_RANGES.has(range)) return true;
  if (range !== "unicast") return false;
  // Only 2000::/3 is allocated; the library calls the rest unicast because it is reserved without a name.
  return parsed instanceof ipaddr.IPv4 || ((parsed.parts[0] as number) & 0xe000) === 0x2000;
}
