import type { AccessLevel, NetworkAccess } from "../egress/access.ts";
import type { Egress } from "../egress/egress.ts";
import type { ExecutionNetwork } from "../egress/exchange.ts";
import { type NetworkInput, NetworkRules, NetworkRulesError } from "../egress/network-rules.ts";
import type { NetworkEvent } from "../egress/policy.ts";
import type { Secrets } from "../secrets/secrets.ts";
import { ClientError } from "../shared/errors.ts";

export interface CallerNetworkOptions {
  readonly egress: Egress;
  readonly secrets: Secrets;
  /** What the operator says for the keys of a principal. */
  readonly rulesOf: (principal: string) => NetworkRules | null;
}

/** What a caller's code may reach, and which secrets hosts are told with it. */
export class CallerNetwork {
  readonly #options: CallerNetworkOptions;

  constructor(options: CallerNetworkOptions) {
    this.#options = options;
  }

  /**
   * What an execution may reach, as its key, its session and its request have it.
   *
   * @param inputs from the widest to the narrowest; none may widen what is before it.
   * @throws {ClientError} 400 `invalid_network`.
   */
  accessFor(principal: string, inputs: readonly (NetworkInput | undefined)[]): NetworkAccess {
    const { egress, rulesOf } = this.#options;
    const own = rulesOf(principal);
    const levels: AccessLevel[] = own === null ? [] : [{ author: "operator", rules: own }];
    try {
      for (const input of inputs) if (input) levels.push({ author: "caller", rules: new NetworkRules(input) });
      return egress.access(levels);
    } catch (error) {
      throw error instanceof NetworkRulesError ? new ClientError("invalid_network", error.message) : error;
    }
  }

  /**
   * Checks that the secrets are there that a request names. Those of its session and its key may be gone: the code need not ask for
   * their hosts.
   *
   * @throws {ClientError} 400 `invalid_network`, `unknown_secret`, `secret_host`; 409 `secret_unreadable`; 503 `store_unavailable`.
   */
  async checkSecrets(principal: string, input: NetworkInput | undefined): Promise<void> {
    if (input?.rules === undefined) return;
    const { secrets } = this.#options;
    const needed = this.accessFor(principal, [input]).secretsOf("caller");
    await Promise.all(needed.map(({ name, origin }) => secrets.reveal(principal, name, "caller", origin)));
  }

  /**
   * Checks what a session is to have, and its executions then: the rules, and that their secrets are there.
   *
   * @throws {ClientError} as {@link accessFor} and {@link checkSecrets}.
   */
  async check(principal: string, input: NetworkInput | undefined): Promise<void> {
    this.accessFor(principal, [input]);
    await this.checkSecrets(principal, input);
  }

  open(principal: string, access: NetworkAccess, onEvent?: (event: NetworkEvent) => void): ExecutionNetwork {
    const { egress, secrets } = this.#options;
    const reveal = secrets.reveal.bind(secrets, principal);
    return egress.open({ principal, access, reveal }, onEvent);
  }
}
