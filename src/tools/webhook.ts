import { createHmac } from "node:crypto";
import { Egress } from "../egress/egress.ts";
import { parseTarget } from "../egress/target.ts";
import { ClientError, StartupError } from "../shared/errors.ts";
import { jsonParts } from "../shared/json/json-parts.ts";
import { MAX_TOOL_VALUE_BYTES } from "../wire/host-calls.ts";
import { readAnswer } from "./answers.ts";
import type { ToolAnswer, ToolClient, ToolEvent } from "./events.ts";
import { type PendingCalls, TOO_MUCH_ANSWERED } from "./pending-calls.ts";

/** Calls of one execution that are with its endpoint at a time; others wait. */
const MAX_PARALLEL = 16;
/** A value, and what stands around it. */
const MAX_BODY_BYTES = MAX_TOOL_VALUE_BYTES + 64 * 1024;

export interface ToolEndpointsOptions {
  /** As the setting TOOL_ENDPOINTS has them. */
  readonly urls: readonly string[];
  /** Signs what is posted: `whsec_` and base64, or any text. */
  readonly secret: string;
  /** They may have private addresses, too. */
  readonly allowPrivate: boolean;
}

/** The URLs that answer calls of tools instead of the caller's client: those that the operator has named, and no other. */
export class ToolEndpoints {
  readonly #urls: ReadonlySet<string>;
  readonly #key: Buffer;
  readonly #egress: Egress;

  /** @throws {StartupError} for what is no URL, and where there is no secret. */
  constructor({ urls, secret, allowPrivate }: ToolEndpointsOptions) {
    const hosts = urls.map((url) => {
      try {
        const { host, port } = parseTarget(url);
        return `${host.includes(":") ? `[${host}]` : host}:${port}`;
      } catch (error) {
        throw new StartupError(`TOOL_ENDPOINTS: ${url} cannot be used: ${(error as Error).message}.`);
      }
    });
    if (urls.length > 0 && secret.length < 16)
      throw new StartupError(
        "TOOL_ENDPOINTS needs a TOOL_ENDPOINT_SECRET of 16 characters or more, which signs what is posted.",
      );
    this.#urls = new Set(urls);
    this.#key = secret.startsWith("whsec_") ? Buffer.from(secret.slice(6), "base64") : Buffer.from(secret);
    this.#egress = new Egress({
      allow: hosts,
      allowPrivate,
      // The limit of a call is the caller's.
      timeoutMs: 3_600_000,
      maxRequestBytes: MAX_BODY_BYTES,
      maxResponseBytes: MAX_BODY_BYTES,
      maxOpen: Number.POSITIVE_INFINITY,
    });
  }

  /** @throws {ClientError} 400 `unknown_tool_endpoint` */
  client(url: string, principal: string): WebhookClient {
    if (!this.#urls.has(url)) throw new ClientError("unknown_tool_endpoint");
    return new WebhookClient(this.#egress, { url, principal, key: this.#key });
  }
}

interface Endpoint {
  readonly url: string;
  readonly principal: string;
  readonly key: Buffer;
}

/**
 * Posts each call to a URL, and takes what it responds for the answer. Requests are signed as https://www.standardwebhooks.com says: an id, a
 * timestamp, and the HMAC-SHA-256 of both and the body. Redirects are not followed: what they lead to has not been named.
 */
export class WebhookClient implements ToolClient, Disposable {
  readonly #endpoint: Endpoint;
  readonly #network: ReturnType<Egress["open"]>;
  readonly #waiting = new Map<string, ToolEvent>();
  /** Those that are with the endpoint. */
  readonly #posted = new Map<string, AbortController>();
  #calls: PendingCalls | null = null;

  constructor(egress: Egress, endpoint: Endpoint) {
    const { principal } = endpoint;
    this.#endpoint = endpoint;
    const reveal = async () => await Promise.reject(new Error("no header has a secret"));
    this.#network = egress.open({ principal, access: egress.access([]), reveal });
  }

  /** Whose calls these are. */
  attach(calls: PendingCalls): void {
    this.#calls = calls;
  }

  send(event: ToolEvent): void {
    this.#waiting.set(event.id, event);
    this.#postNext();
  }

  /** What the endpoint still does for it has no one to go to, and would hold memory that is not counted. */
  ended(id: string): void {
    this.#waiting.delete(id);
    this.#posted.get(id)?.abort();
  }

  [Symbol.dispose](): void {
    this.#waiting.clear();
    for (const stop of this.#posted.values()) stop.abort();
    this.#network[Symbol.dispose]();
  }

  #postNext(): void {
    if (this.#posted.size >= MAX_PARALLEL) return;
    const [event] = this.#waiting.values();
    if (!event) return;
    const { id } = event;
    const stop = new AbortController();
    this.#waiting.delete(id);
    this.#posted.set(id, stop);
    void this.#answerOf(event, stop.signal)
      .then((answer) => this.#calls?.answer([answer]))
      // Its time was over, or the execution is: then this changes nothing. The endpoint is not asked twice.
      .catch((error: unknown) => this.#calls?.fail(id, reasonOf(error)))
      .finally(() => {
        this.#posted.delete(id);
        this.#postNext();
      });
  }

  async #answerOf(event: ToolEvent, signal: AbortSignal): Promise<ToolAnswer> {
    try {
      const { status, body } = await this.#post(event, signal);
      if (status !== 200)
        throw new EndpointError(status >= 300 && status < 400 ? `redirects (${status})` : `answers ${status}`);
      return await readAnswer(body, event.id, this.#endpoint.principal);
    } catch (error) {
      const reason =
        error instanceof EndpointError || error instanceof ClientError ? error.message : "answers what cannot be read";
      return { id: event.id, error: { message: `the tool's endpoint ${reason}` } };
    }
  }

  async #post(event: ToolEvent, signal: AbortSignal): Promise<{ status: number; body: Uint8Array }> {
    const { url, principal, key } = this.#endpoint;
    const { calls } = this.#network;
    const body = bodyOf(event, principal);
    const timestamp = String(Math.floor(Date.now() / 1000));
    const signature = createHmac("sha256", key).update(`${event.id}.${timestamp}.`).update(body).digest("base64");
    const { value: id } = await calls["http-start"].answer(
      {
        method: "POST",
        url,
        headers: [
          ["content-type", "application/json"],
          ["accept", "application/json"],
          ["accept-encoding", "identity"],
          ["webhook-id", event.id],
          ["webhook-timestamp", timestamp],
          ["webhook-signature", `v1,${signature}`],
        ],
        body: body.toString("base64"),
        timeoutMs: null,
      },
      signal,
    );
    try {
      return await this.#receive(id, signal);
    } finally {
      // Also what was not read to its end.
      await calls["http-close"].answer({ ids: [id] }, signal);
    }
  }

  async #receive(id: number, signal: AbortSignal): Promise<{ status: number; body: Uint8Array }> {
    const { calls } = this.#network;
    const { value: progress } = await calls["http-wait"].answer({ ids: [id], timeoutMs: null }, signal);
    const [begun] = progress;
    if (begun === undefined) throw new EndpointError("was not waited for");
    if ("failure" in begun) throw new EndpointError(`cannot be reached: ${begun.failure.message}`);
    const { status, headers } = begun.head;
    const type = headers.find(([name]) => name.toLowerCase() === "content-type")?.[1] ?? "";
    if (status === 200 && !/^application\/(?:[\w.+-]+\+)?json\b/i.test(type))
      throw new EndpointError(`answers ${JSON.stringify(type.slice(0, 100))}, not JSON`);
    const pieces: Uint8Array[] = [];
    for (;;) {
      const { value, body: piece } = await calls["http-read"].answer({ id, timeoutMs: null }, signal);
      if (value !== null) throw new EndpointError(`breaks off: ${value.failure.message}`);
      if (piece === undefined || piece.length === 0) return { status, body: Buffer.concat(pieces) };
      pieces.push(piece);
    }
  }
}

/** Why an answer is not taken: no room for it, or too large, or of the wrong kind. */
function reasonOf(error: unknown): string {
  if (!(error instanceof ClientError)) return "the tool's endpoint could not be asked";
  return error.code === "too_much_held" ? TOO_MUCH_ANSWERED : error.message;
}

/** What is wrong with the endpoint, in words that follow its name. */
class EndpointError extends Error {
  override readonly name = "EndpointError";
}

function bodyOf({ type, id, ...asked }: ToolEvent, principal: string): Buffer {
  return Buffer.concat(jsonParts({ type, id, principal, ...asked }));
}
