/** Passes messages of the Model Context Protocol on between a host's pipes and a server's `/mcp`: as they are written, so that numbers keep their digits. */
import type { Readable } from "node:stream";
import { isObject } from "../shared/json/json-object.ts";

/** A message is never longer: the server takes no more in one body. */
const MAX_LINE_BYTES = 30 * 1024 * 1024;
const SESSION = "mcp-session-id";
const VERSION = "mcp-protocol-version";
const LINE_END = 0x0a;
/** JSON-RPC's, and the first of those that it leaves to servers. */
const PARSE_ERROR = -32700;
const SERVER_ERROR = -32000;

export interface StdioBridgeOptions {
  /** `https://…/mcp` */
  readonly url: string;
  /** Null: the server has none. */
  readonly key: string | null;
  readonly input: Readable;
  readonly write: (line: string) => void;
  /** Resolves when code can run: calls of tools wait for it. */
  readonly ready?: Promise<unknown>;
}

/** One client's connection, by stdio. */
export class StdioBridge {
  readonly #options: StdioBridgeOptions;
  readonly #ended = new AbortController();
  readonly #headers: Record<string, string>;

  constructor(options: StdioBridgeOptions) {
    this.#options = options;
    this.#headers = {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      ...(options.key !== null && { authorization: `Bearer ${options.key}` }),
    };
  }

  /** @returns when the input has ended; what was under way by then is given up. */
  async run(): Promise<void> {
    try {
      for await (const line of linesOf(this.#options.input)) if (line.trim() !== "") void this.#pass(line);
    } catch (error) {
      if (!(error instanceof LongLineError)) throw error;
      this.#fail(null, PARSE_ERROR, error.message);
    } finally {
      this.#ended.abort();
      // What runs belongs to the session, where the host has not said of each that it is cancelled.
      await this.#endSession();
    }
  }

  /** Never rejects: what goes wrong is an answer. */
  async #pass(line: string): Promise<void> {
    const { ready } = this.#options;
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch {
      return this.#fail(null, PARSE_ERROR, "Parse error: each line is to be a message of JSON.");
    }
    const { id = null, method } = isObject(message) ? message : {};
    try {
      if (method === "tools/call") await ready;
      const response = await this.#ask("POST", line);
      if (!response.ok) return this.#fail(id, ...(await refusalOf(response)));
      if (method === "initialize") {
        const text = await response.text();
        this.#remember(response, text);
        this.#say(text);
      } else if (response.headers.get("content-type")?.startsWith("text/event-stream")) await this.#follow(response);
      else this.#say(await response.text());
    } catch (error) {
      if (this.#ended.signal.aborted) return;
      const { cause, message } = error as Error;
      this.#fail(id, SERVER_ERROR, `The server cannot be reached: ${(cause as Error | undefined)?.message ?? message}`);
    }
  }

  async #ask(method: string, body?: string): Promise<Response> {
    const { url } = this.#options;
    return await fetch(url, {
      method,
      headers: this.#headers,
      ...(body !== undefined && { body }),
      signal: this.#ended.signal,
    });
  }

  /** What further requests have to name. */
  #remember(response: Response, text: string): void {
    const session = response.headers.get(SESSION);
    if (session !== null) this.#headers[SESSION] = session;
    const { result } = JSON.parse(text) as { result?: { protocolVersion?: string } };
    if (result?.protocolVersion !== undefined) this.#headers[VERSION] = result.protocolVersion;
  }

  /** Each event of the server's has one line of data, which is a message. */
  async #follow({ body }: Response): Promise<void> {
    if (body === null) return;
    for await (const line of linesOf(body as unknown as AsyncIterable<Uint8Array>))
      if (line.startsWith("data:")) this.#say(line.slice("data:".length));
  }

  async #endSession(): Promise<void> {
    const { [SESSION]: session } = this.#headers;
    if (session === undefined) return;
    const signal = AbortSignal.timeout(1000);
    await fetch(this.#options.url, { method: "DELETE", headers: this.#headers, signal }).catch(() => {});
  }

  #say(message: string): void {
    const line = message.trim();
    if (line !== "" && !this.#ended.signal.aborted) this.#options.write(`${line}\n`);
  }

  #fail(id: unknown, code: number, message: string, data?: unknown): void {
    this.#say(JSON.stringify({ jsonrpc: "2.0", id, error: { code, message, ...(data !== undefined && { data }) } }));
  }
}

/** What a server has refused in its own words: of a request that it has not read it does not know the id. */
async function refusalOf(response: Response): Promise<[code: number, message: string, data?: unknown]> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as { error: { code: number; message: string; data?: unknown } };
    if (typeof error.message === "string") return [error.code, error.message, error.data];
  } catch {
    // It is no server of MCP, or one that is behind another.
  }
  return [SERVER_ERROR, `The server answers with status ${response.status}.`];
}

class LongLineError extends Error {
  override readonly name = "LongLineError";
}

/** Not Node's `readline`: for that, characters end a line that JSON may have in a text. */
async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  let held: Uint8Array[] = [];
  let heldBytes = 0;
  for await (const chunk of chunks) {
    let begin = 0;
    for (let end = chunk.indexOf(LINE_END); end !== -1; end = chunk.indexOf(LINE_END, begin)) {
      yield Buffer.concat([...held, chunk.subarray(begin, end)]).toString("utf8");
      held = [];
      heldBytes = 0;
      begin = end + 1;
    }
    held.push(chunk.subarray(begin));
    heldBytes += chunk.length - begin;
    if (heldBytes > MAX_LINE_BYTES) throw new LongLineError(`A message has more than ${MAX_LINE_BYTES} bytes.`);
  }
  if (heldBytes > 0) yield Buffer.concat(held).toString("utf8");
}
