import { randomBytes } from "node:crypto";
import { ClientError } from "../shared/errors.ts";
import { steadyNowMs } from "../shared/steady-clock.ts";
import type { NamespacePlace } from "../wire/messages.ts";
import type { Counts, NamespaceRecord, Namespaces, SessionRecord } from "./store.ts";
import type { SessionTurns } from "./turns.ts";
import { checkedName, type NamespaceView, viewOfNamespace } from "./views.ts";

/** The one that code has which names none. */
export const DEFAULT_NAMESPACE = "__main__";
const MAX_NAMESPACES = 32;

/** What a namespace is to be. */
export interface NewNamespace {
  readonly name?: string | undefined;
  /** Checked by the caller. */
  readonly cwd?: string | undefined;
}

/** Several sets of global variables in one session: made, listed, begun anew, deleted. What they hold is in the interpreter's memory. */
export class SessionNamespaces {
  readonly #turns: SessionTurns;

  constructor(turns: SessionTurns) {
    this.#turns = turns;
  }

  /** @throws {ClientError} 400 `invalid_namespace_name`, 409 `namespace_exists`, 409 `namespace_limit`. */
  async create(principal: string, id: string, signal: AbortSignal, wanted: NewNamespace = {}): Promise<NamespaceView> {
    return await this.#turns.runChange(principal, id, signal, async (live, lease) => {
      const { record } = lease;
      const free = (n: number): string => (hasNamespace(record, `namespace-${n}`) ? free(n + 1) : `namespace-${n}`);
      const { name = free((record.namespaces?.others.length ?? 0) + 1), cwd } = wanted;
      if (hasNamespace(record, name)) throw new ClientError("namespace_exists", `Namespace "${name}" already exists`);
      const made = newNamespace(name, cwd);
      await this.#turns.change(live, lease, { namespaces: withOne(record, made) });
      return viewOfNamespace(made);
    });
  }

  /** The default one first. */
  async list(principal: string, id: string): Promise<readonly NamespaceView[]> {
    const record = await this.#turns.record(principal, id);
    const { default: byDefault, others } = namespacesOf(record);
    const first = { name: DEFAULT_NAMESPACE, executions: byDefault.executions, createdAtMs: record.createdAtMs };
    return [first, ...others.map(viewOfNamespace)];
  }

  /** Forgets its variables, at the latest when the session's next execution begins; the session goes on without it. */
  async delete(principal: string, id: string, signal: AbortSignal, name: string): Promise<void> {
    if (name === DEFAULT_NAMESPACE)
      throw new ClientError("invalid_request", "The default namespace cannot be deleted. Reset it instead.");
    await this.#replace(principal, id, signal, name, () => []);
  }

  /** Forgets its variables, as {@link delete}, and begins anew under its name: with execution 1, in its first folder. */
  async reset(principal: string, id: string, signal: AbortSignal, name: string): Promise<void> {
    await this.#replace(principal, id, signal, name, (other) => [{ ...other, key: newKey(), executions: 0 }]);
  }

  async #replace(
    principal: string,
    id: string,
    signal: AbortSignal,
    name: string,
    replace: (namespace: NamespaceRecord) => NamespaceRecord[],
  ): Promise<void> {
    await this.#turns.runChange(principal, id, signal, async (live, lease) => {
      const namespaces = namespacesOf(lease.record);
      const others = namespaces.others.flatMap((other) => (other.name === name ? replace(other) : [other]));
      if (!hasNamespace(lease.record, name)) throw new ClientError("not_found", "Namespace not found");
      const isDefault = name === DEFAULT_NAMESPACE;
      const byDefault = isDefault ? { key: newKey(), executions: 0 } : namespaces.default;
      await this.#turns.change(live, lease, { namespaces: { default: byDefault, others } });
    });
  }
}

export function hasNamespace(record: SessionRecord, name: string): boolean {
  return name === DEFAULT_NAMESPACE || namespacesOf(record).others.some((other) => other.name === name);
}

/** @returns the session's namespaces with one of this name; null: there is one. @throws {ClientError} as `create`. */
export function withNamespace(record: SessionRecord, name: string): Namespaces | null {
  return hasNamespace(record, name) ? null : withOne(record, newNamespace(name));
}

/** Where code of a namespace runs; undefined: there is only the default one. @param name of one that there is. */
export function placeOf(record: SessionRecord, name: string): NamespacePlace | undefined {
  if (record.namespaces === undefined) return undefined;
  const { default: byDefault, others } = record.namespaces;
  const own = others.find((other) => other.name === name);
  const keys = others.map(({ key }) => key);
  const place = { name, key: own?.key ?? byDefault.key, defaultKey: byDefault.key, keys };
  return own?.cwd === undefined ? place : { ...place, cwd: own.cwd };
}

/** @param held of a sandbox's copy, which may have had executions that could not be stored. */
export function countsOf(record: SessionRecord, held: Counts | undefined): Counts {
  const executions = Math.max(record.executions, held?.executions ?? 0);
  if (record.namespaces === undefined) return { executions };
  const known = new Map<string, number>();
  if (held) for (const { key, executions } of all(namespacesOf(held))) known.set(key, executions);
  const grown = <T extends { key: string; executions: number }>(namespace: T): T => ({
    ...namespace,
    executions: Math.max(namespace.executions, known.get(namespace.key) ?? 0),
  });
  const { default: byDefault, others } = record.namespaces;
  return { executions, namespaces: { default: grown(byDefault), others: others.map(grown) } };
}

/** Counts with one execution more. @param key of the namespace that has it; undefined: there is only the default one. */
export function countsWithOne(counts: Counts, key: string | undefined): Counts {
  const executions = counts.executions + 1;
  if (counts.namespaces === undefined) return { executions };
  const more = <T extends { key: string; executions: number }>(namespace: T): T =>
    namespace.key === key ? { ...namespace, executions: namespace.executions + 1 } : namespace;
  const { default: byDefault, others } = counts.namespaces;
  return { executions, namespaces: { default: more(byDefault), others: others.map(more) } };
}

/** How many executions a namespace has had. @param key as in {@link countsWithOne}. */
export function numberOf(counts: Counts, key: string | undefined): number {
  return all(namespacesOf(counts)).find((namespace) => namespace.key === (key ?? ""))?.executions ?? 0;
}

/**
 * The namespaces of a session that goes back to a stored state: those of that time. Numbers of executions go on.
 *
 * @param then as the stored state has them.
 */
export function namespacesAsOf(record: SessionRecord, then: Namespaces | undefined): Namespaces | undefined {
  if (record.namespaces === undefined && then === undefined) return undefined;
  const now = namespacesOf(record);
  const { default: byDefault, others } = then ?? { default: { key: "", executions: 0 }, others: [] };
  const default_ = { ...byDefault, executions: Math.max(byDefault.executions, now.default.executions) };
  return countsOf({ ...record, namespaces: { default: default_, others } }, { executions: 0, namespaces: now })
    .namespaces;
}

function namespacesOf({ executions, namespaces }: Counts): Namespaces {
  return namespaces ?? { default: { key: "", executions }, others: [] };
}

function all({ default: byDefault, others }: Namespaces): readonly { key: string; executions: number }[] {
  return [byDefault, ...others];
}

function withOne(record: SessionRecord, made: NamespaceRecord): Namespaces {
  const { default: byDefault, others } = namespacesOf(record);
  if (others.length >= MAX_NAMESPACES) {
    throw new ClientError(
      "namespace_limit",
      `A session may have at most ${MAX_NAMESPACES} namespaces besides its own.`,
    );
  }
  return { default: byDefault, others: [...others, made] };
}

function newNamespace(name: string, cwd?: string): NamespaceRecord {
  const own = { name: checkedName(name, "namespace name"), key: newKey(), executions: 0, createdAtMs: steadyNowMs() };
  return cwd === undefined ? own : { ...own, cwd };
}

function newKey(): string {
  return randomBytes(9).toString("base64url");
}
