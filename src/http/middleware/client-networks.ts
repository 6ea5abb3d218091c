import ipaddr from "ipaddr.js";
import { Tally } from "../../shared/tally.ts";

export interface ClientNetworksOptions {
  /** Networks of one owner that have names of their own at a time. */
  readonly maxOfOwner: number;
  /** How long a name is kept after it was last given, ms. */
  readonly keepMs: number;
  /** ms, monotonic; default `performance.now`. */
  readonly now?: () => number;
}

/** All networks that there is no room for. */
export const OTHER_NETWORKS = "others";
/** Networks of one site (an IPv6 /48, which providers give to one customer) that have names of their own; then the site has one. */
const MAX_OF_SITE = 32;
const SITE_HEX_CHARACTERS = 12;

interface Seen {
  /** Name → when it was last given, ms; the one not given for longest first. */
  readonly names: Map<string, number>;
  /** Site → how many of its networks have names. */
  readonly sites: Tally<string>;
}

/**
 * Names of the networks that clients come from, for whatever is counted by address. A client with very many addresses (one
 * with a /48 has 65,536 networks) must neither have as many counts nor take the room of all others' names.
 */
export class ClientNetworks {
  readonly #options: Required<ClientNetworksOptions>;
  readonly #seen = new Map<string, Seen>();

  constructor(options: ClientNetworksOptions) {
    this.#options = { now: () => performance.now(), ...options };
  }

  /** @param owner whose networks count together: a principal; default: all that are not authenticated. */
  nameOf(ip: string | undefined, owner = ""): string {
    const { maxOfOwner, now } = this.#options;
    let seen = this.#seen.get(owner);
    if (seen === undefined) {
      seen = { names: new Map(), sites: new Tally() };
      this.#seen.set(owner, seen);
    }
    const name = this.#nameIn(seen, clientNetwork(ip));
    if (!seen.names.has(name) && seen.names.size >= maxOfOwner) {
      this.#forgetOld(seen);
      if (seen.names.size >= maxOfOwner) return OTHER_NETWORKS;
    }
    const site = siteOf(name);
    if (!seen.names.delete(name) && site !== null) seen.sites.add(site);
    seen.names.set(name, now());
    return name;
  }

  /** The name it has, if it has one. */
  knownNameOf(ip: string | undefined, owner = ""): string | undefined {
    const seen = this.#seen.get(owner);
    const name = seen && this.#nameIn(seen, clientNetwork(ip));
    return name !== undefined && seen?.names.has(name) ? name : undefined;
  }

  #nameIn({ names, sites }: Seen, network: string): string {
    const site = siteOf(network);
    if (site === null || names.has(network) || sites.of(site) < MAX_OF_SITE) return network;
    return site;
  }

  #forgetOld({ names, sites }: Seen): void {
    const { keepMs, now } = this.#options;
    const nowMs = now();
    for (const [name, atMs] of names) {
      if (nowMs - atMs <= keepMs) return;
      names.delete(name);
      const site = siteOf(name);
      if (site !== null) sites.remove(site);
    }
  }
}

/** What one customer of a provider has: an IPv4 address, or the first 64 bits of an IPv6 address. */
export function clientNetwork(ip: string | undefined): string {
  // Undefined once the connection is gone: no reply can be read, so all such requests share one count.
  if (ip === undefined || !ipaddr.isValid(ip)) return "unknown";
  const address = ipaddr.process(ip);
  if (address.kind() === "ipv4") return address.toString();
  return Buffer.from(address.toByteArray()).toString("hex", 0, 8);
}

/** The site of an IPv6 network; null for another name. */
function siteOf(network: string): string | null {
  return /^[0-9a-f]{16}$/.test(network) ? network.slice(0, SITE_HEX_CHARACTERS) : null;
}
