import type { Request as HttpRequest, Response } from "express";
import { callerOf } from "../../http/caller.ts";
import { principalOf } from "../../http/middleware/authentication.ts";
import type { RouteServices } from "../../http/routes.ts";
import { CLOSE } from "../../http/websocket/connection.ts";
import { subprotocolsOf, upgradeOf } from "../../http/websocket/upgrade.ts";
import type { SessionView } from "../../sessions/views.ts";
import { ClientError } from "../../shared/errors.ts";
import { Tally } from "../../shared/tally.ts";
import { Connection } from "./connection.ts";
import { HeldMessages } from "./held-messages.ts";
import { type DocumentNote, findKernel, kernelNameOf, noteOf, withNote } from "./kernel-models.ts";
import { type Handlers, LiveKernel } from "./live-kernel.ts";
import { V1, type WireFormat } from "./wire-format.ts";

export interface KernelsOptions {
  readonly services: RouteServices;
  readonly shell: Handlers;
  readonly control: Handlers;
  /** Told of what no client is told. */
  readonly onError: (error: unknown) => void;
  /** Counts one message of a principal as a request of its. @throws {ClientError} 429 `rate_limited`. */
  readonly count: (principal: string, ip: string | null) => Promise<void>;
}

/** A kernel as Jupyter's clients see it. */
export interface KernelModel {
  readonly id: string;
  readonly name: string;
  readonly last_activity: string;
  readonly execution_state: "starting" | "idle" | "busy";
  readonly connections: number;
}

/** The kernels of this server that have connections, and what is done with any of them. */
export class Kernels {
  readonly #options: KernelsOptions;
  /** By {@link keyOf}. */
  readonly #live = new Map<string, LiveKernel>();
  /** For clients that are away. */
  readonly #messages = new HeldMessages();
  /** WebSockets by principal. */
  readonly #open = new Tally<string>();
  /** What documents have kernels, where that is not stored yet: a session is changed when what runs in it has ended. */
  readonly #notes = new Map<string, DocumentNote | null>();
  #isClosing = false;

  constructor(options: KernelsOptions) {
    this.#options = options;
  }

  model(principal: string, view: SessionView, state?: "starting"): KernelModel {
    const live = this.#live.get(keyOf(principal, view.id));
    const isBusy = view.state === "running" || (live?.isBusy ?? false);
    return {
      id: view.id,
      name: kernelNameOf(view),
      last_activity: new Date(Math.max(view.lastUsedAtMs, live?.lastActivityMs ?? 0)).toISOString(),
      execution_state: state ?? (isBusy ? "busy" : "idle"),
      connections: live?.connections ?? 0,
    };
  }

  noteOf(principal: string, view: SessionView): DocumentNote | null {
    const key = keyOf(principal, view.id);
    return this.#notes.has(key) ? (this.#notes.get(key) ?? null) : noteOf(view);
  }

  /** Says which document has a kernel: known here at once, and stored when the kernel has nothing else to do. */
  note(principal: string, { id, metadata }: SessionView, note: DocumentNote | null): void {
    const { services, onError } = this.#options;
    const key = keyOf(principal, id);
    const noted = withNote(metadata, note);
    this.#notes.set(key, note);
    services.sessions
      .annotate(principal, id, noted)
      .catch((error) => {
        // Deleted meanwhile, or the server ends.
        if (!(error instanceof ClientError)) onError(error);
      })
      .finally(() => {
        if (this.#notes.get(key) === note) this.#notes.delete(key);
      });
  }

  async interrupt(principal: string, id: string): Promise<void> {
    await findKernel(this.#options.services, principal, id);
    this.#live.get(keyOf(principal, id))?.interrupt();
    // What others run in it, here or on another server.
    await this.#options.services.sessions.interrupt(principal, id);
  }

  /** Stops what runs, and forgets all of its variables. */
  async restart(principal: string, id: string, signal: AbortSignal): Promise<SessionView> {
    const { services } = this.#options;
    await this.#stop(principal, id);
    return await services.sessions.reset(principal, id, signal);
  }

  async delete(principal: string, id: string, signal: AbortSignal): Promise<void> {
    const { services } = this.#options;
    await this.#stop(principal, id);
    await services.sessions.delete(principal, id, signal);
    const key = keyOf(principal, id);
    this.#live.get(key)?.close(CLOSE.normal, new ClientError("session_not_found"));
    this.#notes.delete(key);
  }

  /** As {@link delete}, for a client that was told so already. */
  deleteInBackground({ owner, id }: LiveKernel): void {
    this.delete(owner, id, new AbortController().signal).catch((error) => {
      // Another was faster, or the server ends.
      if (!(error instanceof ClientError)) this.#options.onError(error);
    });
  }

  /** Makes a request a WebSocket. @throws {ClientError} 404, 426 `upgrade_required`, 429 `too_many_connections`. */
  async accept(request: HttpRequest, response: Response, id: string, session: string): Promise<void> {
    const { services, count } = this.#options;
    const principal = principalOf(response);
    const caller = callerOf(request, response);
    const upgrade = upgradeOf(request, response);
    await findKernel(services, principal.id, id);
    if (this.#open.of(principal.id) >= services.config.WEBSOCKETS_PER_PRINCIPAL)
      throw new ClientError("too_many_connections");
    if (this.#isClosing) throw new ClientError("server_stopping");
    this.#open.add(principal.id);
    const closed = () => this.#open.remove(principal.id);
    const isV1 = subprotocolsOf(request).includes(V1);
    const format: WireFormat = isV1 ? "v1" : "json";
    const counted = async () => await count(principal.id, caller.ip);
    upgrade(
      (socket) => {
        const kernel = this.#liveKernel(principal.id, id);
        const client = kernel.client(session);
        const connection = new Connection({
          socket,
          format,
          caller,
          heartbeatMs: services.config.STREAM_HEARTBEAT_S * 1000,
          count: counted,
          onRequest: (asked) => kernel.take({ client, principal, caller, count: counted }, asked),
          onRefused: (asked, error) => kernel.refuse(client, asked, error),
          onClose: () => {
            closed();
            if (client.detach(connection)) kernel.left(client);
          },
        });
        client.attach(connection);
        if (this.#isClosing) connection.close(CLOSE.goingAway, new ClientError("server_stopping").message);
      },
      closed,
      isV1 ? V1 : null,
    );
  }

  /** Connections end when what runs for them has ended. */
  close(): void {
    this.#isClosing = true;
    for (const kernel of this.#live.values()) kernel.close(CLOSE.goingAway, new ClientError("server_stopping"));
  }

  /** @throws {ClientError} 404 */
  async #stop(principal: string, id: string): Promise<void> {
    const { services } = this.#options;
    await findKernel(services, principal, id);
    await this.#live.get(keyOf(principal, id))?.stop();
    await services.sessions.interruptAll(principal, id);
  }

  #liveKernel(owner: string, id: string): LiveKernel {
    const key = keyOf(owner, id);
    const known = this.#live.get(key);
    if (known) return known;
    const { services, shell, control, onError } = this.#options;
    const kernel = new LiveKernel({
      id,
      owner,
      services,
      messages: this.#messages,
      shell,
      control,
      onError,
      keepMs: services.config.WEBSOCKET_RESUME_S * 1000,
      onUnused: (unused) => {
        if (this.#live.get(key) === unused) this.#live.delete(key);
      },
    });
    this.#live.set(key, kernel);
    return kernel;
  }
}

/** An id that is free again may be another's. */
function keyOf(principal: string, id: string): string {
  return `${id} ${principal}`;
}
