import { isIP } from "node:net";
import { Tally } from "../shared/tally.ts";
import { isAllowedAddress } from "./addresses.ts";
import { AllowList } from "./allow-list.ts";
import { NetworkFailure } from "./failure.ts";
import { Names, type ResolvedAddress } from "./names.ts";
import type { NetworkTarget } from "./target.ts";

export interface EgressOptions {
  /** As the setting NETWORK_ALLOW has it. */
  readonly allow: readonly string[];
  /** Hosts of the list may have private addresses, too. */
  readonly allowPrivate: boolean;
  /** Until a connection is there, then until a response begins, then between two pieces of it, ms. */
  readonly timeoutMs: number;
  readonly maxRequestBytes: number;
  readonly maxResponseBytes: number;
  /** Most requests of one principal that are under way, or whose responses have not been read to the end. */
  readonly maxOpen: number;
}

/** What happened, for the security log. */
export type NetworkEvent =
  | {
      readonly event: "network_request";
      readonly method: string;
      readonly host: string;
      readonly port: number;
      /** Null: there was no response. */
      readonly status: number | null;
      readonly error: string | null;
      /** Names of the secrets that the host was told, comma separated. */
      readonly secrets?: string;
    }
  | {
      readonly event: "network_refused";
      readonly method: string;
      readonly host: string | null;
      readonly port: number | null;
      readonly reason: string;
    };

/** What user code may reach, and how much of it at a time. */
export class EgressPolicy {
  readonly options: EgressOptions;
  readonly allowed: AllowList;
  readonly #open = new Tally<string>();
  readonly #names: Names;

  /** @throws {StartupError} if the list of hosts has an entry that is none. */
  constructor(options: EgressOptions, names = new Names()) {
    this.options = options;
    this.#names = names;
    this.allowed = new AllowList(options.allow);
  }

  /**
   * The addresses that a connection to `host` may go to.
   *
   * @param signal aborting it ends the look-up of its name.
   * @throws {NetworkFailure} `refused`, if the host may not be reached; `name`, if there is no such host; `timeout`, if it was stopped.
   */
  async resolve({ host, port }: NetworkTarget, signal: AbortSignal): Promise<readonly ResolvedAddress[]> {
    if (this.allowed.isEmpty) {
      throw new NetworkFailure(
        "refused",
        `host ${host}: this server gives no network access (its NETWORK_ALLOW is empty)`,
      );
    }
    if (!this.allowed.allows(host, port)) {
      const usual = port === 80 || port === 443;
      throw new NetworkFailure(
        "refused",
        `host ${host}${usual ? "" : `:${port}`} is not in the server's NETWORK_ALLOW`,
      );
    }
    const family = isIP(host);
    const addresses: readonly ResolvedAddress[] =
      family === 0 ? await this.#names.find(host, this.allowed.lists(host), signal) : [{ address: host, family }];
    // All addresses must be allowed: the socket may use any of them, and mixed answers indicate DNS rebinding.
    if (addresses.length === 0 || !addresses.every(({ address }) => isAllowedAddress(address, this.options))) {
      const what =
        family === 0 ? `host ${host} resolves to an address that is not public` : `${host} is not a public address`;
      throw new NetworkFailure("refused", what);
    }
    return addresses;
  }

  /**
   * Takes one of a principal's places.
   *
   * @returns gives it back; once is enough, more does no harm.
   * @throws {NetworkFailure} `refused`, if all are taken. Waiting for one could be waiting for oneself.
   */
  enter(principal: string): () => void {
    if (this.#open.of(principal) >= this.options.maxOpen) {
      throw new NetworkFailure(
        "refused",
        `more than ${this.options.maxOpen} requests at a time; read responses to the end or close them`,
      );
    }
    this.#open.add(principal);
    let left = false;
    return () => {
      if (left) return;
      left = true;
      this.#open.remove(principal);
    };
  }
}
