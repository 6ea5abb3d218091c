import { randomInt } from "node:crypto";
import type { LookupFunction } from "node:net";
import type { Dispatcher } from "undici";
import { ClientError } from "../shared/errors.ts";
import {
  type HostCallAnswer,
  type HostCallArgument,
  type HostCalls,
  type HttpCallName,
  type HttpFailure,
  type HttpHead,
  type HttpProgress,
  MAX_HTTP_REQUESTS,
} from "../wire/host-calls.ts";
import type { NetworkAccess, Reveal, RevealedHeader } from "./access.ts";
import { NetworkFailure, toFailure } from "./failure.ts";
import { type HeaderList, requestHeaders, responseHeaders } from "./headers.ts";
import type { ResolvedAddress } from "./names.ts";
import type { EgressOptions, EgressPolicy, NetworkEvent } from "./policy.ts";
import { ReadAhead } from "./read-ahead.ts";
import { StrikeOut } from "./strike-out.ts";
import { type NetworkTarget, parseTarget } from "./target.ts";
import { within } from "./within.ts";

const MAX_HEADER_BYTES = 65_536;
/** A trip into the sandbox costs nearly the same, whatever it carries. */
const READ_AHEAD_BYTES = 1024 * 1024;
/** What a request has besides its body, and that again as escapes. */
const MAX_ARGUMENT_OVERHEAD_BYTES = 1024 * 1024;
/** TRACE echoes headers, CONNECT opens a tunnel past every check. */
const FORBIDDEN_METHODS = new Set(["CONNECT", "TRACE", "TRACK"]);

/** A request and its response, from `http-start` until it is read to the end, closed, or the execution is over. */
interface Exchange {
  host: string;
  readonly controller: AbortController;
  head: HttpHead | null;
  failure: NetworkFailure | null;
  body: ReadAhead | null;
  receivedBytes: number;
  /** Names of those that the host was told. */
  readonly secrets: Set<string>;
}

const GONE = new NetworkFailure("protocol", "this response was closed, or its execution is over");

/** For whom an execution's network is, and what it may reach. */
export interface NetworkOwner {
  readonly principal: string;
  readonly access: NetworkAccess;
  readonly reveal: Reveal;
}

/** The requests of one execution. What it is asked comes from user code. */
export class ExecutionNetwork implements Disposable {
  readonly #policy: EgressPolicy;
  readonly #principal: string;
  readonly #access: NetworkAccess;
  readonly #reveal: Reveal;
  /** Every secret that a host was told, for all that comes back after it: from that host, or from another that it told. */
  readonly #struck = new StrikeOut();
  /** Whether what comes back is looked through, from the first request on: a response may go on when another has told its host a secret. */
  readonly #isRead: boolean;
  readonly #onEvent: (event: NetworkEvent) => void;
  readonly #exchanges = new Map<number, Exchange>();
  /** Of hosts that were checked for a request which is about to come. */
  readonly #checked = new Map<string, readonly ResolvedAddress[]>();
  #asked = 0;
  /**
   * Of calls that wait for a response to begin, each until it is answered. Not a promise of each exchange: what is attached to one of those
   * stays until it is settled, however often code has stopped to wait.
   */
  readonly #waiting = new Set<() => void>();

  constructor(
    policy: EgressPolicy,
    { principal, access, reveal }: NetworkOwner,
    onEvent: (event: NetworkEvent) => void,
  ) {
    this.#policy = policy;
    this.#principal = principal;
    this.#access = access;
    this.#isRead = access.tellsSecrets;
    this.#reveal = reveal;
    this.#onEvent = onEvent;
  }

  /** What user code may ask of it. */
  get calls(): Required<Pick<HostCalls, HttpCallName>> {
    return {
      "http-check": { answer: async (argument, signal) => ({ value: await this.#check(argument, signal) }) },
      "http-start": {
        // The largest body in base64, and the rest of a request.
        maxArgumentBytes: Math.ceil((this.#policy.options.maxRequestBytes * 4) / 3) + MAX_ARGUMENT_OVERHEAD_BYTES,
        answer: (argument) => ({ value: this.#start(argument) }),
      },
      "http-wait": { answer: async (argument, signal) => ({ value: await this.#wait(argument, signal) }) },
      "http-read": { answer: (argument, signal) => this.#read(argument, signal) },
      "http-close": {
        answer: ({ ids }) => {
          for (const id of ids) this.#end(id);
          return { value: null };
        },
      },
    };
  }

  [Symbol.dispose](): void {
    for (const id of this.#exchanges.keys()) this.#end(id);
  }

  /** What a library would learn on connecting, before it has written its request. */
  async #check(
    { url }: HostCallArgument<"http-check">,
    signal: AbortSignal,
  ): Promise<{ readonly failure: HttpFailure } | null> {
    this.#count();
    let target: NetworkTarget | null = null;
    const ended = new AbortController();
    try {
      target = parseTarget(url);
      const { timeoutMs } = this.#policy.options;
      const late = new NetworkFailure(
        "connect-timeout",
        `host ${target.host}: its name was not found within ${timeoutMs} ms`,
      );
      const resolved = this.#resolve(target, ended.signal);
      this.#checked.set(target.origin, await within(resolved, signal, timeoutMs, late));
      return null;
    } catch (error) {
      const failure = toFailure(error, target?.host ?? "");
      this.#report("CONNECT", target, null, failure);
      return { failure: inWords(failure) };
    } finally {
      ended.abort();
    }
  }

  async #resolve(target: NetworkTarget, signal: AbortSignal): Promise<readonly ResolvedAddress[]> {
    this.#access.check(target);
    return await this.#policy.resolve(target, signal);
  }

  #count(): void {
    // Refused ones included: each is a line of the security log. Each may be checked first.
    if (++this.#asked > 2 * MAX_HTTP_REQUESTS) {
      throw new ClientError("too_many_requests", `more than ${MAX_HTTP_REQUESTS} requests in one execution`);
    }
  }

  #start(request: HostCallArgument<"http-start">): number {
    this.#count();
    // Not counted: a session's memory may hold ids of an execution that is over.
    let id = randomInt(2 ** 47);
    while (this.#exchanges.has(id)) id = randomInt(2 ** 47);
    const exchange: Exchange = {
      host: "",
      controller: new AbortController(),
      head: null,
      failure: null,
      body: null,
      receivedBytes: 0,
      secrets: new Set(),
    };
    this.#exchanges.set(id, exchange);
    void this.#perform(exchange, request).finally(() => this.#wakeUp());
    return id;
  }

  async #perform(exchange: Exchange, request: HostCallArgument<"http-start">): Promise<void> {
    const { method } = request;
    const { signal } = exchange.controller;
    const { options } = this.#policy;
    let target: NetworkTarget | null = null;
    try {
      target = parseTarget(request.url);
      exchange.host = target.host;
      if (FORBIDDEN_METHODS.has(method.toUpperCase())) {
        throw new NetworkFailure("refused", `the method ${method} is not possible`);
      }
      const headers = requestHeaders(request.headers);
      if (Buffer.byteLength(request.body, "base64") > options.maxRequestBytes) {
        throw new NetworkFailure("refused", `the request's body is over ${options.maxRequestBytes} bytes`);
      }
      const leave = this.#policy.enter(this.#principal);
      const timeoutMs = Math.min(request.timeoutMs ?? Number.POSITIVE_INFINITY, options.timeoutMs);
      const late = new NetworkFailure("timeout", `host ${target.host}: no response within ${timeoutMs} ms`);
      const checked = this.#checked.get(target.origin);
      this.#checked.delete(target.origin);
      const resolved = checked ? Promise.resolve(checked) : this.#resolve(target, signal);
      // The place is free when nothing is done for it any more: what was begun may take longer than the one who asked waits.
      const free = () => void resolved.then(leave, leave);
      signal.addEventListener("abort", free, { once: true });
      if (signal.aborted) free();
      const outgoing: Outgoing = { method, headers, body: request.body, signal, options };
      const answered = this.#send(exchange, target, resolved, outgoing);
      const { head, body: received } = await within(answered, signal, timeoutMs, late);
      exchange.head = head;
      exchange.body = received;
      this.#report(method, target, head.status, null, exchange.secrets);
    } catch (error) {
      exchange.failure = toFailure(error, exchange.host);
      exchange.controller.abort();
      this.#report(method, target, null, exchange.failure, exchange.secrets);
    }
  }

  /** Fills in what rules add once the address is known to be one that may be told, and strikes it out of what comes back. */
  async #send(
    exchange: Exchange,
    target: NetworkTarget,
    resolved: Promise<readonly ResolvedAddress[]>,
    request: Outgoing,
  ): Promise<{ head: HttpHead; body: ReadAhead }> {
    const addresses = await resolved;
    const added = await this.#access.headersFor(target, this.#reveal);
    for (const [name, value] of added.flatMap(({ secrets }) => secrets)) {
      this.#struck.add(value);
      exchange.secrets.add(name);
    }
    const { head, body } = await send(target, addresses, {
      ...request,
      headers: withAdded(request.headers, added, this.#isRead),
    });
    if (!this.#isRead) return { head, body: new ReadAhead(body, READ_AHEAD_BYTES) };
    const struck = { ...head, reason: this.#struck.text(head.reason), headers: this.#struck.headers(head.headers) };
    return { head: struck, body: new ReadAhead(this.#struck.stream(body), READ_AHEAD_BYTES) };
  }

  #report(
    method: string,
    target: NetworkTarget | null,
    status: number | null,
    failure: NetworkFailure | null,
    told: ReadonlySet<string> = new Set(),
  ): void {
    if (target === null || failure?.kind === "refused") {
      const { host = null, port = null } = target ?? {};
      this.#onEvent({ event: "network_refused", method, host, port, reason: failure?.message ?? "" });
    } else {
      const { host, port } = target;
      const secrets = told.size > 0 ? { secrets: [...told].join(",") } : {};
      this.#onEvent({ event: "network_request", method, host, port, status, error: failure?.kind ?? null, ...secrets });
    }
  }

  async #wait({ ids, timeoutMs }: HostCallArgument<"http-wait">, signal: AbortSignal): Promise<HttpProgress[]> {
    const isReady = () =>
      ids.some((id) => {
        const exchange = this.#exchanges.get(id);
        return exchange === undefined || exchange.head !== null || exchange.failure !== null;
      });
    if (ids.length > 0 && !isReady()) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const wake = () => {
        if (isReady()) resolve();
      };
      this.#waiting.add(wake);
      try {
        await within(promise, signal, timeoutMs, GONE).catch(() => {});
      } finally {
        this.#waiting.delete(wake);
      }
    }
    return ids.flatMap((id): HttpProgress[] => {
      const exchange = this.#exchanges.get(id);
      if (!exchange) return [{ id, failure: inWords(GONE) }];
      if (exchange.head) return [{ id, head: exchange.head }];
      if (!exchange.failure) return [];
      this.#end(id);
      return [{ id, failure: inWords(exchange.failure) }];
    });
  }

  async #read(
    { id, timeoutMs }: HostCallArgument<"http-read">,
    signal: AbortSignal,
  ): Promise<HostCallAnswer<"http-read">> {
    const exchange = this.#exchanges.get(id);
    if (!exchange?.body) return { value: { failure: inWords(GONE) } };
    try {
      const limitMs = timeoutMs ?? this.#policy.options.timeoutMs;
      const late = new NetworkFailure("timeout", `host ${exchange.host}: nothing more came within ${limitMs} ms`);
      const body = await within(exchange.body.next(), signal, limitMs, late);
      if (body === null) {
        this.#end(id);
        return { value: null };
      }
      exchange.receivedBytes += body.length;
      const { maxResponseBytes } = this.#policy.options;
      if (exchange.receivedBytes > maxResponseBytes) {
        const what = `the response of host ${exchange.host} is over ${maxResponseBytes} bytes`;
        throw new NetworkFailure("refused", what);
      }
      return { value: null, body };
    } catch (error) {
      this.#end(id);
      return { value: { failure: inWords(toFailure(error, exchange.host)) } };
    }
  }

  #wakeUp(): void {
    for (const wake of this.#waiting) wake();
  }

  #end(id: number): void {
    this.#exchanges.get(id)?.controller.abort();
    this.#exchanges.delete(id);
  }
}

/** A request that was checked. */
interface Outgoing {
  readonly method: string;
  readonly headers: HeaderList;
  /** Base64: decoded once it is known where it goes. */
  readonly body: string;
  readonly signal: AbortSignal;
  readonly options: EgressOptions;
}

/** What code may not ask of a response that is looked through: to be compressed, or cut into parts of which none has a whole secret. */
const NOT_WHEN_READ = ["accept-encoding", "range", "if-range"];

/** What rules add replaces what the code has set. @param isRead what comes back is looked through. */
function withAdded(headers: HeaderList, added: readonly RevealedHeader[], isRead: boolean): HeaderList {
  const replaced = new Set(added.map(({ name }) => name.toLowerCase()));
  if (isRead) for (const name of NOT_WHEN_READ) replaced.add(name);
  return [
    ...headers.filter(([name]) => !replaced.has(name.toLowerCase())),
    ...(isRead ? [["accept-encoding", "identity"] as const] : []),
    ...added.map(({ name, value }) => [name, value] as const),
  ];
}

/** Sends a request over a connection of its own, to one of the addresses that were checked and to no other. */
async function send(
  { origin, path }: NetworkTarget,
  addresses: readonly ResolvedAddress[],
  { method, headers, body, signal, options: { timeoutMs } }: Outgoing,
): Promise<{ head: HttpHead; body: AsyncIterable<Buffer> }> {
  const lookup: LookupFunction = (_host, { all }, callback) => {
    const [first] = addresses;
    if (all) callback(null, [...addresses]);
    else callback(null, first?.address ?? "", first?.family);
  };
  const content = Buffer.from(body, "base64");
  // With the first request: most servers' code makes none.
  const { Client } = await import("undici");
  signal.throwIfAborted();
  const client = new Client(origin, {
    connect: { lookup, timeout: timeoutMs, maxCachedSessions: 0 },
    pipelining: 0,
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
    maxHeaderSize: MAX_HEADER_BYTES,
  });
  signal.addEventListener("abort", () => client.destroy().catch(() => {}));
  const response = await client.request({
    method: method as Dispatcher.HttpMethod,
    path,
    headers: headers.flat(),
    body: content.length > 0 ? content : null,
    signal,
    responseHeaders: "raw",
  });
  client.close().catch(() => {});
  // What `raw` gives is a flat list.
  const flat = response.headers as unknown as readonly string[];
  const pairs = flat.flatMap((name, index) => (index % 2 === 0 ? [[name, flat[index + 1] ?? ""] as const] : []));
  return {
    head: { status: response.statusCode, reason: response.statusText, headers: responseHeaders(pairs) },
    body: response.body,
  };
}

function inWords({ kind, message }: NetworkFailure): HttpFailure {
  return { kind, message };
}
