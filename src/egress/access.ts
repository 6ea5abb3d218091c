import { ClientError } from "../shared/errors.ts";
import type { AllowList } from "./allow-list.ts";
import { NetworkFailure } from "./failure.ts";
import { type HeaderRule, type NetworkRules, NetworkRulesError } from "./network-rules.ts";
import type { NetworkTarget } from "./target.ts";

/** Whose rule it is: that decides which secrets it may name. */
export type RuleAuthor = "operator" | "caller";

/** What one place says: of a key its operator, of a session and an execution their caller. */
export interface AccessLevel {
  readonly author: RuleAuthor;
  readonly rules: NetworkRules;
}

/**
 * Finds a secret's value.
 *
 * @throws {ClientError} if there is none, or the rule's author may not send it to this origin.
 */
export type Reveal = (name: string, author: RuleAuthor, origin: string) => Promise<string>;

/** A header whose secrets are filled in. */
export interface RevealedHeader {
  readonly name: string;
  readonly value: string;
  /** Name and value of each secret in it. */
  readonly secrets: readonly (readonly [name: string, value: string])[];
}

/** A header that rules set. */
interface SetHeader {
  readonly rule: HeaderRule;
  readonly author: RuleAuthor;
}

/**
 * What one execution may reach: of what the server allows that which every level allows. A level adds headers, and never a host.
 */
export class NetworkAccess {
  readonly #levels: readonly AccessLevel[];
  readonly #headers = new Map<string, Map<string, SetHeader>>();
  /** Those that have rules for https. */
  readonly #secure = new Set<string>();

  /**
   * @param allowed of the server.
   * @param levels from the widest to the narrowest.
   * @throws {NetworkRulesError} if a level has rules for a host that it, or one before it, does not allow, or sets a header that the
   *   operator sets.
   */
  constructor(allowed: AllowList, levels: readonly AccessLevel[]) {
    this.#levels = levels;
    for (const [index, { author, rules }] of levels.entries()) {
      const lists = [allowed, ...levels.slice(0, index + 1).map((level) => level.rules.allowOut)];
      for (const [origin, { target, headers }] of rules.hosts) {
        if (!lists.every((list) => list?.allows(target.host, target.port) ?? true)) {
          throw new NetworkRulesError(`network.rules: ${origin} may not be reached, so it can have no rules.`);
        }
        const known = this.#headers.get(origin) ?? new Map<string, SetHeader>();
        if (target.protocol === "https:") this.#secure.add(target.host);
        this.#headers.set(origin, known);
        for (const rule of headers) {
          const name = rule.name.toLowerCase();
          if (author === "caller" && known.get(name)?.author === "operator") {
            throw new NetworkRulesError(
              `network.rules of ${origin}: the server's operator sets the header ${rule.name}.`,
            );
          }
          known.set(name, { rule, author });
        }
      }
    }
  }

  /** @throws {NetworkFailure} `refused`, if a level does not allow it. The server's own list is looked at elsewhere. */
  check({ protocol, host, port, origin }: NetworkTarget): void {
    if (!this.#levels.every(({ rules }) => rules.allowOut?.allows(host, port) ?? true)) {
      throw new NetworkFailure("refused", `host ${host} is not in this execution's network.allowOut`);
    }
    // Without what the rules add it would fail in a way that says less.
    if (protocol === "http:" && this.#secure.has(host) && !this.#headers.has(origin)) {
      throw new NetworkFailure("refused", `host ${host}: this execution's network.rules for it hold for https only`);
    }
  }

  /** Whether rules tell any host a secret. */
  get tellsSecrets(): boolean {
    return this.#headers
      .values()
      .some((headers) => headers.values().some(({ rule }) => rule.parts.some((part) => "secret" in part)));
  }

  /** Names of the secrets that an author's rules need, each with where it would be sent. */
  secretsOf(author: RuleAuthor): { readonly name: string; readonly origin: string }[] {
    return Array.from(this.#headers, ([origin, headers]) =>
      Array.from(headers.values(), (header) =>
        header.author === author
          ? header.rule.parts.flatMap((part) => ("secret" in part ? [{ name: part.secret, origin }] : []))
          : [],
      ).flat(),
    ).flat();
  }

  /**
   * The headers that a host is told besides what the code says. To be asked for once its address is checked.
   *
   * @throws {NetworkFailure} `refused`, if a secret is not there.
   */
  async headersFor({ origin }: NetworkTarget, reveal: Reveal): Promise<readonly RevealedHeader[]> {
    const headers = this.#headers.get(origin)?.values() ?? [];
    return await Promise.all(
      Array.from(headers, async ({ rule, author }) => {
        const secrets: [string, string][] = [];
        const texts: string[] = [];
        for (const part of rule.parts) {
          const text = "text" in part ? part.text : await revealed(reveal, part.secret, author, origin);
          texts.push(text);
          if ("secret" in part) secrets.push([part.secret, text]);
        }
        return { name: rule.name, value: texts.join(""), secrets };
      }),
    );
  }
}

async function revealed(reveal: Reveal, name: string, author: RuleAuthor, origin: string): Promise<string> {
  try {
    return await reveal(name, author, origin);
  } catch (error) {
    if (error instanceof ClientError) throw new NetworkFailure("refused", error.message, error);
    throw error;
  }
}
