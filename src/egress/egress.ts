import type { Config } from "../shared/settings.ts";
import { type AccessLevel, NetworkAccess } from "./access.ts";
import { ExecutionNetwork, type NetworkOwner } from "./exchange.ts";
import type { Names } from "./names.ts";
import { type EgressOptions, EgressPolicy, type NetworkEvent } from "./policy.ts";

/** @throws {StartupError} if NETWORK_ALLOW has an entry that is no host. */
export function openNetwork(config: Config): Egress {
  return new Egress({
    allow: config.NETWORK_ALLOW,
    allowPrivate: config.NETWORK_ALLOW_PRIVATE,
    timeoutMs: config.NETWORK_TIMEOUT_MS,
    maxRequestBytes: config.NETWORK_MAX_REQUEST_MB * 1024 * 1024,
    maxResponseBytes: config.NETWORK_MAX_RESPONSE_MB * 1024 * 1024,
    maxOpen: config.NETWORK_MAX_OPEN,
  });
}

/** HTTP on behalf of user code, to the hosts that the policy allows. */
export class Egress {
  readonly #policy: EgressPolicy;

  /** @throws {StartupError} if the list of hosts has an entry that is none. */
  constructor(options: EgressOptions, names?: Names) {
    this.#policy = new EgressPolicy(options, names);
  }

  /**
   * What an execution may reach. @param levels from the widest to the narrowest; none widens what the server allows.
   *
   * @throws {NetworkRulesError} if a level's rules cannot be used.
   */
  access(levels: readonly AccessLevel[]): NetworkAccess {
    return new NetworkAccess(this.#policy.allowed, levels);
  }

  /** The network of one execution. Disposing of it ends every request that it began. */
  open(owner: NetworkOwner, onEvent: (event: NetworkEvent) => void = () => {}): ExecutionNetwork {
    return new ExecutionNetwork(this.#policy, owner, onEvent);
  }
}
