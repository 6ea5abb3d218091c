import type { Readable, Transform } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { createBrotliDecompress, createGunzip, createInflate, createZstdDecompress } from "node:zlib";
import type { Dispatcher, EnvHttpProxyAgent } from "undici";
import { backoffMs } from "../shared/backoff.ts";
import { PackageError } from "./package-error.ts";

/** How patient requests to package sources are. */
export interface HttpFetcherOptions {
  /** Until the headers are there, and between two pieces of a body, ms. */
  readonly idleTimeoutMs: number;
  /** One request with its body, ms. */
  readonly totalTimeoutMs: number;
  /** Requests made at most for one answer: after 429, 5xx and broken connections it is tried again. */
  readonly attempts: number;
  /** Wait before the second attempt, ms; doubled before each one that follows. */
  readonly retryDelayMs: number;
  /** All attempts at a host that has not answered yet, counted from the first, ms. */
  readonly silentMs: number;
  readonly proxies: Proxies;
}

/** Which proxies to go through, as curl's variables of these names have it; empty: none. */
export interface Proxies {
  readonly HTTP_PROXY: string;
  readonly HTTPS_PROXY: string;
  /** Hosts that are asked directly, comma separated. */
  readonly NO_PROXY: string;
}

export const REMOTE_OPTIONS: HttpFetcherOptions = {
  idleTimeoutMs: 20_000,
  totalTimeoutMs: 600_000,
  attempts: 4,
  retryDelayMs: 500,
  silentMs: 10_000,
  proxies: { HTTP_PROXY: "", HTTPS_PROXY: "", NO_PROXY: "" },
};

const MAX_REDIRECTS = 5;
const LONGEST_PAUSE_MS = 30_000;
const NOT_FOUND = "cannot be found";
const UNREACHABLE = "cannot be reached";
const SILENT = "does not answer";
/** Failures that last: the next request does not wait for them again. */
const LASTING: ReadonlySet<string> = new Set([NOT_FOUND, UNREACHABLE, SILENT]);
const AWAY_MS = 30_000;
/** A host that answered so recently is slow, not silent. */
const ANSWERED_MS = 600_000;

/** An answer with status 2xx, or one that the caller said it can deal with. Its body must be read or dumped. */
export interface RemoteAnswer {
  readonly status: number;
  header(name: string): string | null;
  /** As the source keeps it: what was compressed on the way is not any more. */
  readonly body: Readable;
  /** After redirects; relative addresses in the body count from here. Holds no credentials. */
  readonly url: URL;
}

/** A failure that another attempt may mend. */
class TransientError extends Error {
  override readonly name = "TransientError";
}

/**
 * HTTP GET for package sources: time limits, retries, and redirects that never carry credentials to another host nor leave
 * https. Credentials may stand in an address (`https://user:token@host/…`); they are sent as a header to that origin
 * only, and no message repeats them.
 */
export class HttpFetcher {
  readonly #options: HttpFetcherOptions;
  /** Made with the first request: a server listens before it has loaded what it asks with. */
  #agent: Promise<EnvHttpProxyAgent> | null = null;
  /** Hosts that could not be asked a moment ago. */
  readonly #away = new Map<string, { readonly error: PackageError; readonly untilMs: number }>();
  /** When a host answered last, and when one that has not was first asked. By the monotonic clock. */
  readonly #answeredAtMs = new Map<string, number>();
  readonly #askedAtMs = new Map<string, number>();
  readonly #closing = new AbortController();

  constructor(options: Partial<HttpFetcherOptions> = {}) {
    this.#options = { ...REMOTE_OPTIONS, ...options };
  }

  /**
   * Makes a request and hands its answer to `consume`; both are done again when either fails in a way that may pass.
   *
   * @param accepted statuses other than 2xx that `consume` deals with.
   * @param headers asked for before each attempt, so that a resumed download can say where it stands.
   * @throws {PackageError} `package_source_unavailable` with the last failure in words; what `consume` throws, unless it is
   * the connection's failure.
   */
  async get<T>(
    address: string | URL,
    {
      headers = () => ({}),
      accepted = [],
    }: {
      headers?: () => Readonly<Record<string, string>> | Promise<Readonly<Record<string, string>>>;
      accepted?: readonly number[];
    },
    consume: (answer: RemoteAnswer) => Promise<T>,
  ): Promise<T> {
    const url = new URL(address);
    const { attempts, retryDelayMs, totalTimeoutMs } = this.#options;
    const away = this.#away.get(url.host);
    if (away !== undefined && performance.now() < away.untilMs) throw away.error;
    for (let attempt = 1; ; attempt++) {
      if (this.#closing.signal.aborted) throw closed();
      const deadline = AbortSignal.timeout(totalTimeoutMs);
      const silence = new AbortController();
      const patience = setTimeout(() => silence.abort(new TransientError(SILENT)), this.#patienceMs(url.host)).unref();
      try {
        const signal = AbortSignal.any([deadline, silence.signal, this.#closing.signal]);
        const answer = await this.#follow(url, await headers(), accepted, signal).finally(() => clearTimeout(patience));
        try {
          return await consume(answer);
        } finally {
          answer.body.on("error", () => {});
          answer.body.destroy();
        }
      } catch (cause) {
        if (cause instanceof PackageError) throw cause;
        if (this.#closing.signal.aborted) throw closed();
        const problem = deadline.aborted ? "did not finish in time" : connectionProblem(cause);
        if (problem === null) throw cause;
        // A laptop that is offline should not wait for each package.
        const isLost = problem === NOT_FOUND || problem === SILENT;
        if (attempt >= attempts || isLost) {
          const error = new PackageError("package_source_unavailable", `${url.host} ${problem}.`, { cause });
          if (LASTING.has(problem) && !this.#hasAnswered(url.host))
            this.#away.set(url.host, { error, untilMs: performance.now() + AWAY_MS });
          throw error;
        }
        const pauseMs = backoffMs(attempt - 1, { firstMs: retryDelayMs, longestMs: LONGEST_PAUSE_MS });
        await delay(pauseMs, undefined, { signal: this.#closing.signal }).catch(() => {});
      }
    }
  }

  /**
   * A whole body in memory; null for 404.
   *
   * @throws {PackageError} also if the body is longer than `maxBytes`.
   */
  async bytes(
    address: string | URL,
    { accept, maxBytes }: { accept: string; maxBytes: number },
  ): Promise<{ bytes: Buffer; contentType: string; url: URL } | null> {
    return await this.get(address, { headers: () => ({ accept }), accepted: [404] }, async (answer) => {
      if (answer.status === 404) return null;
      const chunks: Buffer[] = [];
      let length = 0;
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        length += chunk.length;
        if (length > maxBytes)
          throw new PackageError("package_too_large", `${answer.url.host} sent more than ${maxBytes} bytes.`);
        chunks.push(chunk);
      }
      const contentType = (answer.header("content-type") ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
      return { bytes: Buffer.concat(chunks), contentType, url: answer.url };
    });
  }

  /** How long a host may still go without any answer, ms. */
  #patienceMs(host: string): number {
    if (this.#hasAnswered(host)) return this.#options.totalTimeoutMs;
    const nowMs = performance.now();
    const askedAtMs = this.#askedAtMs.get(host);
    const { silentMs } = this.#options;
    // Asked together, given up together; asked again later, waited for again.
    if (askedAtMs === undefined || nowMs - askedAtMs >= silentMs) {
      this.#askedAtMs.set(host, nowMs);
      return silentMs;
    }
    return Math.max(1, silentMs - (nowMs - askedAtMs));
  }

  #answered(host: string): void {
    this.#answeredAtMs.set(host, performance.now());
    this.#askedAtMs.delete(host);
    this.#away.delete(host);
  }

  #hasAnswered(host: string): boolean {
    const answeredAtMs = this.#answeredAtMs.get(host);
    return answeredAtMs !== undefined && performance.now() - answeredAtMs < ANSWERED_MS;
  }

  /** Gives up what is under way, and closes the connections that are kept open. */
  async close(): Promise<void> {
    this.#closing.abort();
    await (await this.#agent)?.destroy();
  }

  async #openAgent(): Promise<EnvHttpProxyAgent> {
    const { EnvHttpProxyAgent } = await import("undici");
    const { idleTimeoutMs, proxies } = this.#options;
    const connect = { timeout: idleTimeoutMs };
    return new EnvHttpProxyAgent({
      connect,
      proxyTls: connect,
      requestTls: connect,
      headersTimeout: idleTimeoutMs,
      bodyTimeout: idleTimeoutMs,
      // Many a proxy lets CONNECT through for https only.
      proxyTunnel: false,
      httpProxy: proxies.HTTP_PROXY,
      httpsProxy: proxies.HTTPS_PROXY,
      noProxy: proxies.NO_PROXY,
    });
  }

  async #follow(
    start: URL,
    headers: Readonly<Record<string, string>>,
    accepted: readonly number[],
    signal: AbortSignal,
  ): Promise<RemoteAnswer> {
    const { request } = await import("undici");
    this.#agent ??= this.#openAgent();
    const dispatcher = await this.#agent;
    signal.throwIfAborted();
    let url = start;
    for (let hops = 0; ; hops++) {
      const { origin, clean, authorization } = takeCredentials(url, start);
      const response = await request(clean, {
        dispatcher,
        signal,
        headers: { "user-agent": "pyodide-express", ...headers, ...(authorization === null ? {} : { authorization }) },
      });
      const { statusCode: status, body } = response;
      const header = (name: string) => {
        const value = response.headers[name];
        return (Array.isArray(value) ? value[0] : value) ?? null;
      };
      this.#answered(clean.host);
      if ((status >= 200 && status < 300) || accepted.includes(status)) {
        return { status, url: clean, ...uncompressed(body, header, clean.host) };
      }
      await body.dump({ limit: 64 * 1024 }).catch(() => {});
      if (status >= 500 || status === 429) throw new TransientError(`answered ${status}`);
      const location = [301, 302, 303, 307, 308].includes(status) ? header("location") : null;
      if (location === null) throw new PackageError("package_source_unavailable", `${clean.host} answered ${status}.`);
      if (hops >= MAX_REDIRECTS)
        throw new PackageError("package_source_unavailable", `${start.host} redirects too often.`);
      const next = URL.canParse(location, clean) ? new URL(location, clean) : null;
      if (next === null || !mayFollow(origin, next))
        throw new PackageError(
          "package_source_unavailable",
          `${clean.host} redirects to an address that is not allowed.`,
        );
      url = next;
    }
  }
}

const closed = () => new PackageError("package_source_unavailable", "The server is stopping.");

/** From https only to https; from http to either. */
function mayFollow(from: string, to: URL): boolean {
  return to.protocol === "https:" || (to.protocol === "http:" && from.startsWith("http:"));
}

/** Undoes what a server compressed although it was not asked to. Lengths then say nothing of what will arrive. */
function uncompressed(
  body: Dispatcher.ResponseData["body"],
  header: (name: string) => string | null,
  host: string,
): Pick<RemoteAnswer, "body" | "header"> {
  const encoding = (header("content-encoding") ?? "identity").trim().toLowerCase();
  if (encoding === "identity" || encoding === "") return { body, header };
  const decoder = DECODERS[encoding]?.();
  if (decoder === undefined) {
    throw new PackageError("package_source_unavailable", `${host} sent data in the encoding ${encoding.slice(0, 30)}.`);
  }
  body.on("error", (error) => decoder.destroy(error));
  decoder.on("close", () => body.destroy());
  return {
    body: body.pipe(decoder),
    header: (name) => (name === "content-length" || name === "content-encoding" ? null : header(name)),
  };
}

const DECODERS: Readonly<Record<string, () => Transform>> = {
  gzip: createGunzip,
  "x-gzip": createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress,
  zstd: createZstdDecompress,
};

function takeCredentials(url: URL, start: URL): { origin: string; clean: URL; authorization: string | null } {
  if (url.protocol !== "https:" && url.protocol !== "http:")
    throw new PackageError("package_source_unavailable", `An address of ${url.protocol} cannot be used.`);
  const clean = new URL(url);
  clean.username = "";
  clean.password = "";
  const has = ({ username, password }: URL) => username !== "" || password !== "";
  const owner = has(url) ? url : url.origin === start.origin && has(start) ? start : null;
  const login = owner && `${decoded(owner.username)}:${decoded(owner.password)}`;
  const authorization = login && `Basic ${Buffer.from(login).toString("base64")}`;
  return { origin: url.origin, clean, authorization };
}

/** As it was typed where it is no percent-encoding: `50%off`. */
function decoded(text: string): string {
  return text.replace(/(?:%[0-9a-f]{2})+/gi, (sequence) => {
    try {
      return decodeURIComponent(sequence);
    } catch {
      return sequence;
    }
  });
}

/** @returns what went wrong with the connection, in words that name no address; null: it was something else. */
function connectionProblem(cause: unknown): string | null {
  if (cause instanceof TransientError) return cause.message;
  const proxyStatus = /^Proxy response \((\d{3})\)/.exec((cause as Error).message ?? "")?.[1];
  if (proxyStatus !== undefined) return `cannot be reached: the proxy answered ${proxyStatus}`;
  const { code, cause: inner } = cause as { code?: unknown; cause?: unknown };
  switch (code) {
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return NOT_FOUND;
    case "ECONNREFUSED":
    case "EHOSTUNREACH":
    case "ENETUNREACH":
    case "UND_ERR_CONNECT_TIMEOUT":
      return UNREACHABLE;
    case "UND_ERR_HEADERS_TIMEOUT":
    case "UND_ERR_BODY_TIMEOUT":
    case "ETIMEDOUT":
      return "is too slow to answer";
    case "ECONNRESET":
    case "EPIPE":
    case "UND_ERR_SOCKET":
    case "UND_ERR_RES_CONTENT_LENGTH_MISMATCH":
    case "UND_ERR_ABORTED":
    case "UND_ERR_DESTROYED":
      return "broke the connection";
  }
  if (typeof code === "string" && /^Z_|^ERR__?(BROTLI|ZSTD)|^ZSTD_/.test(code))
    return "sent data that cannot be unpacked";
  if (typeof code === "string" && /^(CERT_|ERR_TLS|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|HPE_)/.test(code))
    return code.startsWith("HPE_")
      ? "answered with something that is not HTTP"
      : "has a certificate that cannot be trusted";
  return inner === undefined || inner === cause ? null : connectionProblem(inner);
}
