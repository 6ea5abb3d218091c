import { randomUUID } from "node:crypto";
import type { RouteServices } from "../../http/routes.ts";
import type { Caller } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import { JsonText } from "../../shared/json/json-text.ts";
import type { Principal } from "../../shared/principal.ts";
import type { ToolExecution } from "../../tools/tool-executions.ts";
import { Client } from "./client.ts";
import type { HeldMessages } from "./held-messages.ts";
import { type Channel, Delivery, Message, type Request, refusal, replyTypeOf } from "./messages.ts";

/** Requests of one kernel that wait: a notebook of which all cells are run at once has fewer. */
const MAX_QUEUED = 2000;
const MAX_QUEUED_BYTES = 64 * 1024 * 1024;

/** Who sends requests by one connection. Two keys of one principal may have different scopes: each request is done with those of its own. */
export interface Sender {
  readonly client: Client;
  readonly principal: Principal;
  readonly caller: Caller;
  /** Counts one more execution as a request. @throws {ClientError} 429 `rate_limited`. */
  readonly count: () => Promise<void>;
}

/** A request, and who has sent it. */
export interface Asked extends Sender {
  readonly kernel: LiveKernel;
  readonly request: Request;
  /** Aborted by an interrupt. */
  readonly signal: AbortSignal;
  /** What is to be done when the reply has left. */
  readonly afterReply: (() => void)[];
}

/** By the type of a request: the content of its reply. */
export type Handlers = Readonly<Record<string, (asked: Asked) => object | Promise<object>>>;

export interface LiveKernelOptions {
  readonly id: string;
  /** Id of the principal whose session it is. */
  readonly owner: string;
  readonly services: RouteServices;
  /** What is held for clients that are away, of all kernels. */
  readonly messages: HeldMessages;
  /** Of requests that wait for their turn. */
  readonly shell: Handlers;
  /** Of those that are done at once. */
  readonly control: Handlers;
  /** Of a message that has failed by a fault of the server's. */
  readonly onError: (error: unknown) => void;
  /** A client that is away is held in mind for so long, ms. */
  readonly keepMs: number;
  /** Nothing is connected, or under way, any more. */
  readonly onUnused: (kernel: LiveKernel) => void;
}

interface Queued extends Sender {
  readonly request: Request;
}

/**
 * What this server has of a kernel that clients are connected to: who they are, and their requests, one after another. What the kernel
 * remembers is its session's.
 */
export class LiveKernel {
  readonly id: string;
  /** Id of the principal whose session it is. */
  readonly owner: string;
  readonly services: RouteServices;
  /** When something last came or went, ms since 1970; by the clock that is shown. */
  lastActivityMs = Date.now();
  readonly #options: LiveKernelOptions;
  /** Names the kernel in its messages. */
  readonly #session = randomUUID();
  readonly #clients = new Map<string, { readonly client: Client; expiry?: NodeJS.Timeout | undefined }>();
  readonly #queue: Queued[] = [];
  #queuedBytes = 0;
  #running: AbortController | null = null;
  /** Resolves when nothing runs or waits. */
  #working: Promise<void> = Promise.resolve();
  /** What the running code asks its client. */
  #tools: { readonly client: Client; readonly execution: ToolExecution; readonly open: string[] } | null = null;
  /** Why nothing is taken any more. */
  #closed: ClientError | null = null;
  #onIdle: (() => void) | null = null;

  constructor(options: LiveKernelOptions) {
    this.#options = options;
    this.id = options.id;
    this.owner = options.owner;
    this.services = options.services;
  }

  get isBusy(): boolean {
    return this.#running !== null || this.#queue.length > 0;
  }

  get connections(): number {
    return this.#clients
      .values()
      .filter(({ client }) => client.isConnected)
      .toArray().length;
  }

  /** @param session as its URL names it; empty: it will not come back. */
  client(session: string): Client {
    const id = session === "" ? randomUUID() : session;
    const known = this.#clients.get(id);
    if (known) {
      clearTimeout(known.expiry);
      return known.client;
    }
    const { owner, messages } = this.#options;
    const client = new Client({ id, owner, messages });
    this.#clients.set(id, { client });
    return client;
  }

  /** Its connection is lost. What comes for it meanwhile is held for a while. */
  left(client: Client): void {
    const held = this.#clients.get(client.id);
    if (held === undefined) return;
    const { keepMs } = this.#options;
    if (this.isBusy && this.#closed === null && keepMs > 0) {
      held.expiry = setTimeout(() => this.#forget(client), keepMs).unref();
    } else this.#forget(client);
  }

  /** Takes a request of a client's: does it when its turn comes, or at once where it is for the channel `control`. */
  take(sender: Sender, request: Request): void {
    const { client } = sender;
    this.lastActivityMs = Date.now();
    const { control } = this.#options;
    if (request.type === "input_reply") this.#takeInput(client, request);
    else if (this.#closed !== null) this.refuse(client, request, this.#closed);
    else if (request.channel === "control" || Object.hasOwn(control, request.type))
      void this.#serve({ ...sender, request }, new AbortController().signal, control);
    else if (this.#queue.length >= MAX_QUEUED || this.#queuedBytes + request.bytes > MAX_QUEUED_BYTES)
      this.refuse(client, request, new ClientError("too_many_executions"));
    else {
      this.#queue.push({ ...sender, request });
      this.#queuedBytes += request.bytes;
      if (this.#running === null) this.#working = this.#work();
    }
  }

  /** Answers a request with why it is not done. */
  refuse(client: Client, request: Request, error: Error): void {
    this.#publish(request, "status", { execution_state: "busy" });
    const ename = error instanceof ClientError ? error.code : error.name;
    this.#reply(client, request, refusal(ename, error.message));
    // Where it is another's that runs, it goes on.
    this.#publish(request, "status", { execution_state: "idle" });
  }

  /** To all clients. @param parent the request that it is about. */
  publish(parent: Request, type: string, content: object): void {
    this.#publish(parent, type, content, true);
  }

  /** Stops what runs. @returns whether anything did. */
  interrupt(): boolean {
    this.#running?.abort(new ClientError("interrupted"));
    return this.#running !== null;
  }

  /** Stops what runs, lets go of what waits, and waits for that. */
  async stop(): Promise<void> {
    for (const { client, request } of this.#drain(() => true)) this.#abort(client, request);
    this.interrupt();
    await this.#working;
  }

  /** Nothing more is taken; connections close when what runs has ended. */
  close(code: number, reason: ClientError): void {
    this.#closed = reason;
    for (const { client, request } of this.#drain(() => true)) this.#abort(client, request);
    const end = () => {
      for (const { client } of this.#clients.values()) {
        client.close(code, reason.message);
        // What is closed is not resumed.
        if (!client.isConnected) this.#forget(client);
      }
    };
    if (this.#running === null) end();
    else this.#onIdle = end;
  }

  /** Has questions of the running code go to a client. @param open ids of the questions, oldest first. */
  ask(client: Client, execution: ToolExecution, open: string[]): Disposable {
    this.#tools = { client, execution, open };
    return {
      [Symbol.dispose]: () => {
        this.#tools = null;
      },
    };
  }

  /** To one client. */
  send(client: Client, channel: Channel, type: string, parent: Request, content: object): void {
    this.#deliver(client, new Delivery(new Message({ channel, type, session: this.#session, parent, content })));
  }

  #deliver(client: Client, delivery: Delivery): void {
    if (!client.send(delivery)) this.#forget(client);
  }

  #takeInput(client: Client, { content }: Request): void {
    // An answer to nothing, or of a client that was not asked, is none.
    if (this.#tools?.client !== client) return;
    const { execution, open } = this.#tools;
    const id = open.shift();
    if (id === undefined) return;
    const result = JsonText.of(typeof content.value === "string" ? content.value : "");
    this.services.tools.answer(this.owner, execution.id, [{ id, result }]).catch((error) => {
      // Its time was over.
      if (!(error instanceof ClientError)) this.#options.onError(error);
    });
  }

  async #work(): Promise<void> {
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      this.#queuedBytes -= next.request.bytes;
      this.#running = new AbortController();
      const reply = await this.#serve(next, this.#running.signal, this.#options.shell);
      if (reply.status === "error" && next.request.type === "execute_request") this.#abortOthers(next.request);
    }
    this.#running = null;
    this.#onIdle?.();
    this.#forgetUnused();
  }

  /** After an error the cells behind it are not run, if the client says so, which is the default. */
  #abortOthers({ content }: Request): void {
    if (content.stop_on_error === false || content.silent === true) return;
    const isExecution = ({ request }: Queued) => request.type === "execute_request";
    for (const { client, request } of this.#drain(isExecution)) this.#abort(client, request);
  }

  #drain(isMeant: (queued: Queued) => boolean): readonly Queued[] {
    const drained = this.#queue.filter(isMeant);
    const left = this.#queue.filter((queued) => !isMeant(queued));
    this.#queue.splice(0, this.#queue.length, ...left);
    this.#queuedBytes = left.reduce((sum, { request }) => sum + request.bytes, 0);
    return drained;
  }

  #abort(client: Client, request: Request): void {
    this.#publish(request, "status", { execution_state: "busy" });
    this.#reply(client, request, { status: "aborted" });
    this.#publish(request, "status", { execution_state: "idle" });
  }

  /** Never rejects. */
  async #serve(queued: Queued, signal: AbortSignal, handlers: Handlers): Promise<Reply> {
    const { client, request } = queued;
    this.#publish(request, "status", { execution_state: "busy" });
    const asked: Asked = { ...queued, kernel: this, signal, afterReply: [] };
    const reply = await this.#answer(asked, handlers);
    if (reply !== NO_REPLY) this.#reply(client, request, reply);
    this.#publish(request, "status", { execution_state: "idle" });
    for (const action of asked.afterReply) action();
    return reply;
  }

  async #answer(asked: Asked, handlers: Handlers): Promise<Reply> {
    const { type } = asked.request;
    const handler = Object.hasOwn(handlers, type) ? handlers[type] : undefined;
    if (handler === undefined) {
      // What belongs to widgets has no reply, and of what they open nothing is there.
      if (type === "comm_open")
        this.publish(asked.request, "comm_close", { comm_id: commIdOf(asked.request), data: {} });
      if (type.startsWith("comm_")) return NO_REPLY;
      return refusal(
        "UnknownMessage",
        `This kernel does not know messages of the type ${type.slice(0, 100)}.`,
      ) as Reply;
    }
    try {
      return (await handler(asked)) as Reply;
    } catch (error) {
      if (!(error instanceof ClientError)) this.#options.onError(error);
      const { code, message } = error instanceof ClientError ? error : new ClientError("internal");
      return refusal(code, message) as Reply;
    }
  }

  #reply(client: Client, request: Request, content: object): void {
    const channel = request.channel === "control" ? "control" : "shell";
    this.send(client, channel, replyTypeOf(request.type), request, content);
  }

  #publish(parent: Request, type: string, content: object, isOutput = false): void {
    const message = new Message({ channel: "iopub", type, session: this.#session, parent, content, isOutput });
    const delivery = new Delivery(message);
    for (const { client } of this.#clients.values()) this.#deliver(client, delivery);
  }

  #forget(client: Client): void {
    clearTimeout(this.#clients.get(client.id)?.expiry);
    this.#clients.delete(client.id);
    client.forget();
    this.#forgetUnused();
  }

  #forgetUnused(): void {
    if (this.#clients.size === 0 && !this.isBusy) this.#options.onUnused(this);
  }
}

function commIdOf({ content: { comm_id: id } }: Request): string {
  return typeof id === "string" ? id.slice(0, 200) : "";
}

type Reply = { readonly status?: string };
const NO_REPLY: Reply = {};
