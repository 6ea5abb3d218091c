import type { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import type { JSONRPCMessage, JSONRPCRequest, RequestId } from "@modelcontextprotocol/sdk/types.js";
import type { Request, Response } from "express";

export interface ExchangeOptions {
  readonly request: Request;
  readonly response: Response;
  /** Its body. */
  readonly message: JSONRPCRequest;
  readonly isStream: boolean;
  /** A stream on which nothing happens sends a comment so often, ms. */
  readonly keepAliveMs: number;
}

/** One request of a client, from its arrival to its response: a server of its own, so that nothing has to be kept between requests. */
export class Exchange {
  readonly #options: ExchangeOptions;
  readonly #transport: StreamableHTTPServerTransport;
  readonly #cancelled = new AbortController();
  readonly #work: Promise<unknown>[] = [];

  constructor(options: ExchangeOptions) {
    this.#options = options;
    const { isStream, keepAliveMs } = options;
    this.#transport = new StreamableHTTPServerTransport({ enableJsonResponse: !isStream, keepAliveMs });
  }

  /** Aborted when the client has said that it does not want the response. */
  get cancelled(): AbortSignal {
    return this.#cancelled.signal;
  }

  /** Has the exchange last until this work has ended, also when the client is gone. */
  track<T>(work: Promise<T>): Promise<T> {
    this.#work.push(work);
    return work;
  }

  /** @returns when the response is there, or the client is not, and no work goes on. */
  async run(server: Server): Promise<void> {
    const { request, response, message } = this.#options;
    const closed = new Promise<void>((resolve) => {
      if (response.closed) resolve();
      else response.once("close", resolve);
    });
    await server.connect(this.#transport as never);
    try {
      // A response that is not awaited: that of a request which was cancelled never comes.
      this.#transport.handleRequest(request, response, message).catch(() => response.destroy());
      await closed;
      await Promise.allSettled(this.#work);
    } finally {
      await server.close();
    }
  }

  get id(): RequestId {
    return this.#options.message.id;
  }

  /** Takes what the client answers, where the server asks. */
  receive(answer: JSONRPCMessage): void {
    this.#transport.onmessage?.(answer);
  }

  /** Ends it without a response, as the specification has it. */
  async cancel(): Promise<void> {
    const { response } = this.#options;
    this.#cancelled.abort();
    // Ends a stream.
    await this.#transport.close();
    if (!response.headersSent) response.status(202).end();
  }
}
