import type { RuleAuthor } from "../egress/access.ts";
import { SECRET_NAME } from "../egress/network-rules.ts";
import { parseRuleHost, RULE_HOST_FORM } from "../egress/rule-host.ts";
import { ClientError } from "../shared/errors.ts";
import type { OperatorSecret } from "./operator-secrets.ts";
import type { Seal } from "./seal.ts";
import type { SecretRecords } from "./secret-records.ts";
import { problemOfValue } from "./secret-value.ts";

const MAX_SECRETS = 100;
const MAX_HOSTS = 100;

/** What its owner is told of a secret: never its value. */
export interface SecretView {
  readonly name: string;
  /** Origins that it may be sent to; null: wherever its owner's rules say. */
  readonly hosts: readonly string[] | null;
}

export interface SecretsOptions {
  readonly operator: ReadonlyMap<string, OperatorSecret>;
  readonly records: SecretRecords;
  readonly seal: Seal;
}

/** Secrets that go to hosts, and to nothing else: the operator's, and those of principals, which are stored sealed. */
export class Secrets {
  readonly #operator: ReadonlyMap<string, OperatorSecret>;
  readonly #records: SecretRecords;
  readonly #seal: Seal;

  constructor({ operator, records, seal }: SecretsOptions) {
    this.#operator = operator;
    this.#records = records;
    this.#seal = seal;
  }

  /**
   * Stores a principal's secret, or replaces it.
   *
   * @param hosts as `parseRuleHost` reads them; null: wherever its owner's rules say.
   * @throws {ClientError} 400 `invalid_secret`, 409 `secret_limit`, 501 `secrets_off`; what the records throw.
   */
  async put(principal: string, name: string, value: string, hosts: readonly string[] | null): Promise<SecretView> {
    if (!this.#seal.isUsable) throw new ClientError("secrets_off");
    checkName(name);
    const wrong = problemOfValue(value);
    if (wrong !== null) throw new ClientError("invalid_secret", `The secret's value ${wrong}.`);
    if (hosts && hosts.length > MAX_HOSTS) {
      throw new ClientError("invalid_secret", `A secret has at most ${MAX_HOSTS} hosts.`);
    }
    const origins = hosts?.map((host) => {
      const target = parseRuleHost(host);
      if (target !== null) return target.origin;
      throw new ClientError("invalid_secret", `${JSON.stringify(host)} is not a host. ${RULE_HOST_FORM}.`);
    });
    const view: SecretView = { name, hosts: origins ?? null };
    const record = { sealed: this.#seal.seal(value, bindingOf(principal, view)), hosts: view.hosts };
    if (!(await this.#records.put(principal, name, record, MAX_SECRETS))) {
      throw new ClientError("secret_limit", `A caller has at most ${MAX_SECRETS} secrets. Delete one first.`);
    }
    return view;
  }

  /** A principal's own. */
  async list(principal: string): Promise<readonly SecretView[]> {
    const all = await this.#records.list(principal);
    return Array.from(all, ([name, { hosts }]) => ({ name, hosts })).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** @throws {ClientError} 404 `secret_not_found`. */
  async get(principal: string, name: string): Promise<SecretView> {
    const record = await this.#records.get(principal, name);
    if (record === null) throw new ClientError("secret_not_found");
    return { name, hosts: record.hosts };
  }

  /** @throws {ClientError} 404 `secret_not_found`. */
  async delete(principal: string, name: string): Promise<void> {
    if (!(await this.#records.delete(principal, name))) throw new ClientError("secret_not_found");
  }

  /** All of the operator's: what must not come back. */
  get operatorValues(): readonly string[] {
    return Array.from(this.#operator.values(), ({ value }) => value);
  }

  /** The operator's, for what the operator has configured. @returns null: there is none. */
  operatorValue(name: string): string | null {
    return this.#operator.get(name)?.value ?? null;
  }

  /**
   * The value of a secret that a rule names.
   *
   * The operator's rules may name the operator's secrets, and else the principal's own. A principal's rules may name its own, and else
   * what the operator lets it send to this origin.
   *
   * @throws {ClientError} 400 `unknown_secret`, which says the same of a secret that is not there as of one that is not theirs; 400
   *   `secret_host`; 409 `secret_unreadable`.
   */
  async reveal(principal: string, name: string, author: RuleAuthor, origin: string): Promise<string> {
    const given = this.#operator.get(name);
    if (author === "operator" && given) return given.value;
    const record = await this.#records.get(principal, name);
    if (record !== null) {
      const { hosts, sealed } = record;
      if (hosts !== null && !hosts.includes(origin)) {
        throw new ClientError("secret_host", `The secret ${name} may not be sent to ${origin}.`);
      }
      const value = this.#seal.open(sealed, bindingOf(principal, { name, hosts }));
      if (value === null) throw new ClientError("secret_unreadable");
      return value;
    }
    const isTheirs = given?.hosts.has(origin) && (given.principals?.has(principal) ?? true);
    if (given && isTheirs) return given.value;
    throw new ClientError("unknown_secret", `There is no secret ${name} that may be sent to ${origin}.`);
  }
}

/** A record that is moved to another owner or name, or gets other hosts, does not open. */
function bindingOf(principal: string, { name, hosts }: SecretView): string {
  return JSON.stringify([principal, name, hosts]);
}

function checkName(name: string): void {
  if (SECRET_NAME.test(name)) return;
  throw new ClientError(
    "invalid_secret",
    "Invalid secret name. Use 1 to 64 letters, digits, dots, hyphens and underscores, a letter first.",
  );
}
