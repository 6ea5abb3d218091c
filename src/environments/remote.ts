import { setTimeout as delay } from "node:timers/promises";
import { Agent, type Dispatcher, request } from "undici";
import { PackageError } from "./package-error.ts";

/** How patient requests to package sources are. */
export interface RemoteOptions {
  /** Until the headers are there, and between two pieces of a body, ms. */
  readonly idleTimeoutMs: number;
  /** One request with its body, ms. */
  readonly totalTimeoutMs: number;
  /** Requests made at most for one answer: after 429, 5xx and broken connections it is tried again. */
  readonly attempts: number;
  /** Wait before the second attempt, ms; doubled before each one that follows. */
  readonly retryDelayMs: number;
}

export const REMOTE_OPTIONS: RemoteOptions = {
  idleTimeoutMs: 20_000,
  totalTimeoutMs: 600_000,
  attempts: 4,
  retryDelayMs: 500,
};

const MAX_REDIRECTS = 5;
const NOT_FOUND = "cannot be found";
const AWAY_MS = 30_000;

/** An answer with status 2xx, or one that the caller said it can deal with. Its body must be read or dumped. */
export interface RemoteAnswer {
  readonly status: number;
  header(name: string): string | null;
  readonly body: Dispatcher.ResponseData["body"];
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
export class Remote {
  readonly #options: RemoteOptions;
  readonly #agent: Agent;
  /** Hosts whose name could not be found a moment ago. */
  readonly #away = new Map<string, { readonly error: PackageError; readonly untilMs: number }>();

  constructor(options: Partial<RemoteOptions> = {}) {
    this.#options = { ...REMOTE_OPTIONS, ...options };
    const { idleTimeoutMs } = this.#options;
    this.#agent = new Agent({
      connect: { timeout: idleTimeoutMs },
      headersTimeout: idleTimeoutMs,
      bodyTimeout: idleTimeoutMs,
    });
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
    if (away !== undefined && Date.now() < away.untilMs) throw away.error;
    for (let attempt = 1; ; attempt++) {
      const deadline = AbortSignal.timeout(totalTimeoutMs);
      try {
        const answer = await this.#follow(url, await headers(), accepted, deadline);
        try {
          return await consume(answer);
        } finally {
          answer.body.on("error", () => {});
          answer.body.destroy();
        }
      } catch (cause) {
        if (cause instanceof PackageError) throw cause;
        const problem = deadline.aborted ? "did not finish in time" : connectionProblem(cause);
        if (problem === null) throw cause;
        // A name that does not exist will not for a while: a laptop that is offline should not wait for each package.
        const isAway = problem === NOT_FOUND;
        if (attempt >= attempts || isAway) {
          const error = new PackageError("package_source_unavailable", `${url.host} ${problem}.`, { cause });
          if (isAway) this.#away.set(url.host, { error, untilMs: Date.now() + AWAY_MS });
          throw error;
        }
        await delay(retryDelayMs * 2 ** (attempt - 1));
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

  /** Closes the connections that are kept open. */
  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #follow(
    start: URL,
    headers: Readonly<Record<string, string>>,
    accepted: readonly number[],
    signal: AbortSignal,
  ): Promise<RemoteAnswer> {
    let url = start;
    for (let hops = 0; ; hops++) {
      const { origin, clean, authorization } = takeCredentials(url, start);
      const response = await request(clean, {
        dispatcher: this.#agent,
        signal,
        headers: { "user-agent": "pyodide-express", ...headers, ...(authorization === null ? {} : { authorization }) },
      });
      const { statusCode: status, body } = response;
      const header = (name: string) => {
        const value = response.headers[name];
        return (Array.isArray(value) ? value[0] : value) ?? null;
      };
      if ((status >= 200 && status < 300) || accepted.includes(status)) return { status, header, body, url: clean };
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

/** From https only to https; from http to either. */
function mayFollow(from: string, to: URL): boolean {
  return to.protocol === "https:" || (to.protocol === "http:" && from.startsWith("http:"));
}

function takeCredentials(url: URL, start: URL): { origin: string; clean: URL; authorization: string | null } {
  if (url.protocol !== "https:" && url.protocol !== "http:")
    throw new PackageError("package_source_unavailable", `An address of ${url.protocol} cannot be used.`);
  const clean = new URL(url);
  clean.username = "";
  clean.password = "";
  const owner = url.username !== "" ? url : url.origin === start.origin ? start : null;
  const authorization =
    owner === null || owner.username === ""
      ? null
      : `Basic ${Buffer.from(`${decodeURIComponent(owner.username)}:${decodeURIComponent(owner.password)}`).toString("base64")}`;
  return { origin: url.origin, clean, authorization };
}

/** @returns what went wrong with the connection, in words that name no address; null: it was something else. */
function connectionProblem(cause: unknown): string | null {
  if (cause instanceof TransientError) return cause.message;
  const { code, cause: inner } = cause as { code?: unknown; cause?: unknown };
  switch (code) {
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return NOT_FOUND;
    case "ECONNREFUSED":
    case "EHOSTUNREACH":
    case "ENETUNREACH":
    case "UND_ERR_CONNECT_TIMEOUT":
      return "cannot be reached";
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
  if (typeof code === "string" && /^(CERT_|ERR_TLS|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|HPE_)/.test(code))
    return code.startsWith("HPE_")
      ? "answered with something that is not HTTP"
      : "has a certificate that cannot be trusted";
  return inner === undefined || inner === cause ? null : connectionProblem(inner);
}
