import { randomInt } from "node:crypto";
import type { NetworkInput } from "../../egress/network-rules.ts";
import { HttpError } from "../../http/http-error.ts";
import type { Services } from "../../service/execution-service.ts";
import type { SessionRecord } from "../../sessions/store.ts";
import { ClientError } from "../../shared/errors.ts";
import { steadyNowMs } from "../../shared/steady-clock.ts";
import type { SessionStart } from "../../wire/messages.ts";
import { E2B_HOME } from "./paths.ts";
import {
  isPaused,
  KEPT_MS,
  kept,
  keptSnapshot,
  running,
  type SandboxState,
  type SnapshotState,
  sandboxOf,
  snapshotOf,
} from "./state.ts";

/** Templates that E2B's clients name where their user names none. */
const DEFAULT_TEMPLATES: ReadonlySet<string> = new Set(["base", "code-interpreter-v1", "code-interpreter"]);
const DEBUG_ID = "debug_sandbox_id";
const LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789";
/** Of so many letters, names of hosts too: 129 bits. */
const ID_LETTERS = 25;

export interface Sandbox {
  readonly record: SessionRecord;
  readonly state: SandboxState;
}

/** What its creator is told of: it may have ended by then. */
export interface MadeSandbox {
  readonly id: string;
  readonly state: SandboxState;
}

export interface Snapshot {
  readonly id: string;
  readonly state: SnapshotState;
}

/** What a sandbox is made with. */
export interface NewSandbox
  extends Pick<
    SandboxState,
    "template" | "timeoutS" | "onTimeout" | "autoResume" | "envVars" | "network" | "allowInternetAccess"
  > {
  readonly metadata: Readonly<Record<string, string>>;
  /** What its creator said of the network, as our rules have it. */
  readonly rules: NetworkInput | undefined;
}

/** E2B's sandboxes: sessions, with what E2B's clients know of them kept in their records. */
export class Sandboxes {
  readonly #services: Services;

  constructor(services: Services) {
    this.#services = services;
  }

  /** @throws {ClientError} 404 if the caller has no sandbox of this id. */
  async get(principal: string, id: string): Promise<Sandbox> {
    const record = await this.#services.sessions.record(principal, id).catch((error: unknown) => {
      throw error instanceof ClientError && error.code === "session_not_found" ? sandboxNotFound(id) : error;
    });
    const state = sandboxOf(record);
    if (state === null) throw sandboxNotFound(id);
    return { record, state };
  }

  /** One whose code may run; a paused one that is to be resumed by traffic is resumed. @throws {ClientError} 502 if it does not run. */
  async running(principal: string, id: string): Promise<Sandbox> {
    if (id === DEBUG_ID && this.#services.config.E2B_DEBUG_PORTS.length > 0) await this.#makeForDebugging(principal);
    const found = await this.get(principal, id).catch((error: unknown) => {
      throw error instanceof ClientError && error.status === 404 ? gone(id) : error;
    });
    if (!isPaused(found.state)) return found;
    if (!found.state.autoResume) throw gone(id);
    return await this.#change(principal, id, (state) => running(state, state.timeoutS));
  }

  /** Newest first. */
  async list(principal: string): Promise<readonly Sandbox[]> {
    const records = await this.#services.sessions.records(principal);
    return records
      .map((record) => ({ record, state: sandboxOf(record) }))
      .filter((entry): entry is Sandbox => entry.state !== null)
      .sort((a, b) => b.state.startedAtMs - a.state.startedAtMs || (a.record.id < b.record.id ? -1 : 1));
  }

  /** @throws {ClientError} 404 for a template that is not there; what sessions throw. */
  async create(principal: string, made: NewSandbox, signal: AbortSignal): Promise<MadeSandbox> {
    const { sessions, packages } = this.#services;
    const { metadata, rules, ...told } = made;
    const id = newId();
    const now = steadyNowMs();
    const fresh = { kind: "sandbox", isPaused: false, startedAtMs: now, ...told } as const;
    const ends = { endAtMs: now + made.timeoutS * 1000 };
    const base = this.#environmentOf(made.template);
    if (base === null) {
      const snapshot = await this.#snapshotOf(principal, made.template);
      const { envVars, env } = snapshot.state.from;
      const state = {
        ...fresh,
        ...ends,
        envVars: { ...envVars, ...made.envVars },
        env: { ...env, ...made.envVars },
      };
      // What it had when the snapshot was taken is in its memory; what its creator says now is given to each execution.
      await sessions.fork(principal, snapshot.id, signal, { id, metadata, network: rules, ...kept(state) });
      return { id, state };
    }
    const { environment } = await packages.environmentFor(principal, base);
    const state = { ...fresh, ...ends, env: null };
    await sessions.create(principal, {
      id,
      environment,
      metadata,
      network: rules,
      start: startOf(made.envVars),
      ...kept(state),
    });
    return { id, state };
  }

  /** Stops what runs in it, and deletes it. @throws {ClientError} 404 */
  async kill(principal: string, id: string, signal: AbortSignal): Promise<void> {
    await this.get(principal, id);
    await this.#services.sessions.delete(principal, id, signal);
  }

  /** @throws {ClientError} 409 if it is paused. */
  async setTimeout(principal: string, id: string, timeoutS: number, how: "set" | "extend"): Promise<void> {
    await this.#change(principal, id, (state) => {
      if (isPaused(state)) throw conflict(`Sandbox "${id}" is paused: connect to it first`);
      const until = steadyNowMs() + timeoutS * 1000;
      return { ...state, timeoutS, endAtMs: how === "set" ? until : Math.max(until, state.endAtMs) };
    });
  }

  /** @throws {ClientError} 409 if it is paused already. */
  async pause(principal: string, id: string, signal: AbortSignal): Promise<void> {
    const { sessions } = this.#services;
    const before = await this.get(principal, id);
    if (isPaused(before.state)) throw conflict(`Sandbox "${id}" is already paused`);
    // What runs cannot be stored in the middle: it is interrupted, and what it has done stays. What waits does not run.
    await sessions.updateInstead(principal, id, signal, (record) => {
      const state = stateOf(record);
      if (isPaused(state)) throw conflict(`Sandbox "${id}" is already paused`);
      return kept({ ...state, isPaused: true });
    });
    // Now nothing begins any more.
    await sessions.interruptAll(principal, id);
    await sessions.settled(principal, id, signal);
  }

  /**
   * Has a sandbox run for so long at least.
   *
   * @returns the sandbox, and whether it was paused.
   * @throws {ClientError} 409 with `onlyPaused` if it was not.
   */
  async resume(
    principal: string,
    id: string,
    timeoutS: number,
    onlyPaused: boolean,
  ): Promise<MadeSandbox & { readonly wasPaused: boolean }> {
    let wasPaused = false;
    const { state } = await this.#change(principal, id, (state) => {
      wasPaused = isPaused(state);
      if (wasPaused) return running(state, timeoutS);
      if (onlyPaused) throw conflict(`Sandbox "${id}" is already running`);
      return { ...state, endAtMs: Math.max(state.endAtMs, steadyNowMs() + timeoutS * 1000) };
    });
    return { id, state, wasPaused };
  }

  async setNetwork(
    principal: string,
    id: string,
    { network, rules, allowInternetAccess }: Pick<NewSandbox, "network" | "rules" | "allowInternetAccess">,
  ): Promise<void> {
    await this.#change(principal, id, (state) => ({ ...state, network, allowInternetAccess }), { network: rules });
  }

  /** @returns a sandbox that goes on from where this one is. */
  async fork(principal: string, id: string, timeoutS: number, signal: AbortSignal): Promise<MadeSandbox> {
    const { state } = await this.get(principal, id);
    const forkId = newId();
    const startedAtMs = steadyNowMs();
    const forked = { ...running(state, timeoutS), startedAtMs };
    await this.#services.sessions.fork(principal, id, signal, { id: forkId, ...kept(forked) });
    return { id: forkId, state: forked };
  }

  async createSnapshot(principal: string, id: string, name: string | null, signal: AbortSignal): Promise<Snapshot> {
    const { state: from } = await this.get(principal, id);
    const state: SnapshotState = { kind: "snapshot", sandbox: id, name, createdAtMs: steadyNowMs(), from };
    const made = await this.#services.sessions.fork(principal, id, signal, { id: newId(), ...keptSnapshot(state) });
    return { id: made.id, state };
  }

  /** Newest first. */
  async snapshots(principal: string): Promise<readonly Snapshot[]> {
    return (await this.#services.sessions.records(principal))
      .map((record) => ({ id: record.id, state: snapshotOf(record) }))
      .filter((entry): entry is Snapshot => entry.state !== null)
      .sort((a, b) => b.state.createdAtMs - a.state.createdAtMs || (a.id < b.id ? -1 : 1));
  }

  /** @throws {ClientError} 404 */
  async deleteSnapshot(principal: string, template: string, signal: AbortSignal): Promise<void> {
    const { id } = await this.#snapshotOf(principal, template);
    await this.#services.sessions.delete(principal, id, signal);
  }

  /** The one that SDKs take for made where they debug: without a control plane. */
  async #makeForDebugging(principal: string): Promise<void> {
    const { sessions, packages } = this.#services;
    try {
      await this.get(principal, DEBUG_ID);
    } catch (error) {
      if (!(error instanceof ClientError) || error.status !== 404) throw error;
      const now = steadyNowMs();
      const times = { startedAtMs: now, endAtMs: now + KEPT_MS, timeoutS: KEPT_MS / 1000 };
      const { environment } = await packages.environmentFor(principal, packages.defaultEnvironment);
      const state: SandboxState = {
        kind: "sandbox",
        template: packages.defaultEnvironment,
        ...times,
        onTimeout: "kill",
        autoResume: false,
        isPaused: false,
        env: null,
        envVars: {},
        network: null,
        allowInternetAccess: null,
      };
      await sessions
        .create(principal, { id: DEBUG_ID, environment, start: startOf({}), ...kept(state) })
        .catch((cause: unknown) => {
          // Another request was first.
          if (!(cause instanceof ClientError) || cause.code !== "session_exists") throw cause;
        });
    }
  }

  async #change(
    principal: string,
    id: string,
    changed: (state: SandboxState) => SandboxState,
    more: { readonly network?: NetworkInput | undefined } = {},
  ): Promise<Sandbox> {
    await this.get(principal, id);
    const record = await this.#services.sessions.update(principal, id, (before) => ({
      ...more,
      ...kept(changed(stateOf(before))),
    }));
    return { record, state: sandboxOf(record) as SandboxState };
  }

  /** Null: no environment has the name. */
  #environmentOf(template: string): string | null {
    const { packages } = this.#services;
    const name = withoutTag(template);
    if (packages.environments.names.includes(name)) return name;
    return DEFAULT_TEMPLATES.has(name) ? packages.defaultEnvironment : null;
  }

  /** By its id or its name, of which the newest has it. */
  async #snapshotOf(principal: string, template: string): Promise<Snapshot> {
    const name = withoutTag(template);
    const found = (await this.snapshots(principal)).find(({ id, state }) => id === name || state.name === name);
    if (found) return found;
    const hint = `there are ${this.#services.packages.environments.names.join(", ")}, and snapshots of sandboxes`;
    throw new ClientError("not_found", `template '${template.slice(0, 100)}' not found: ${hint}`);
  }
}

/** @throws {ClientError} 404 if the session is no sandbox. */
function stateOf(record: SessionRecord): SandboxState {
  const state = sandboxOf(record);
  if (state === null) throw sandboxNotFound(record.id);
  return state;
}

/** To envd and the interpreter, where a sandbox that does not run cannot be reached. */
export function gone(id: string): ClientError {
  return new HttpError(502, "not_found", `The sandbox was not found: ${id.slice(0, 100)} has ended, or is paused`);
}

/** As code written for E2B's sandboxes finds them. */
function startOf(envVars: SandboxState["envVars"]): SessionStart {
  return { cwd: E2B_HOME, env: { HOME: E2B_HOME, ...envVars }, showsSavedImages: true };
}

function sandboxNotFound(id: string): ClientError {
  return new ClientError("not_found", `Sandbox "${id.slice(0, 100)}" doesn't exist or you don't have access to it`);
}

function conflict(message: string): ClientError {
  return new HttpError(409, "bad_request", message);
}

function withoutTag(template: string): string {
  return template.replace(/:(default|latest)$/, "");
}

function newId(): string {
  return Array.from({ length: ID_LETTERS }, () => LETTERS[randomInt(LETTERS.length)]).join("");
}
