import type { Server, ServerResponse } from "node:http";

/** For replies that are ready when all work has ended, ms. */
const FLUSH_MS = 2_000;

/**
 * Lets an HTTP server end without cutting replies off: from `begin` on no connection is taken, and each reply closes its own,
 * so that a balancer does not send the next request into a server that goes away.
 */
export class Draining {
  readonly #http: Server;
  readonly #open = new Set<ServerResponse>();
  #hasBegun = false;
  #closed: Promise<void> = Promise.resolve();

  constructor(http: Server) {
    this.#http = http;
    // Before the application sees the request.
    http.prependListener("request", (_request, response) => {
      if (this.#hasBegun) response.setHeader("Connection", "close");
      this.#open.add(response);
      response.once("close", () => this.#open.delete(response));
    });
  }

  begin(): void {
    this.#hasBegun = true;
    this.#closed = new Promise<void>((resolve) => this.#http.close(() => resolve()));
    this.#http.closeIdleConnections();
    for (const response of this.#open) if (!response.headersSent) response.setHeader("Connection", "close");
  }

  /** Once nothing works any more: waits for what is still being sent, for a while, and closes the rest. */
  async end(): Promise<void> {
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, this.#open.size === 0 ? 0 : FLUSH_MS);
    await Promise.race([this.#closed, late]);
    clearTimeout(timer);
    this.#http.closeAllConnections();
    await this.#closed;
  }
}
