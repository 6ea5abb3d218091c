import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { ClientError } from "../../shared/errors.ts";

export interface SlowBodiesOptions {
  /** Least bytes a second, on average over `windowMs`. */
  readonly minBytesPerSecond: number;
  readonly windowMs: number;
  /** Replies with an error. */
  readonly refuse: (response: ServerResponse, error: ClientError) => void;
}

const TICKS_OF_WINDOW = 10;
const LINGER_MS = 2_000;

/**
 * Ends requests whose body does not get on: by its rate, so that a large one may take as long as it needs. Time in which the server
 * itself does not read counts for nothing. What is cut off is told so: 408 `body_too_slow`.
 */
export function limitSlowBodies(server: Server, { minBytesPerSecond, windowMs, refuse }: SlowBodiesOptions): void {
  const tickMs = windowMs / TICKS_OF_WINDOW;
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    if (!hasBody(request)) return;
    const { socket } = request;
    let bytesRead = socket.bytesRead;
    let atMs = performance.now();
    let waitedMs = 0;
    let cameBytes = 0;
    const watch = setInterval(() => {
      if (request.complete || socket.destroyed) return stop();
      const nowMs = performance.now();
      // After a reply the rest is read, to be thrown away.
      if (request.readableFlowing === true) {
        cameBytes += socket.bytesRead - bytesRead;
        // A server that was held up has not read either.
        waitedMs += Math.min(nowMs - atMs, 2 * tickMs);
      }
      bytesRead = socket.bytesRead;
      atMs = nowMs;
      if (waitedMs < windowMs) return;
      if (cameBytes >= (minBytesPerSecond * waitedMs) / 1000) {
        waitedMs = 0;
        cameBytes = 0;
        return;
      }
      stop();
      if (response.headersSent) request.destroy();
      else end(request, response);
    }, tickMs);
    watch.unref();
    const stop = () => clearInterval(watch);
    request.once("close", stop);
  });

  function end(request: IncomingMessage, response: ServerResponse): void {
    const seconds = windowMs / 1000;
    const message = `The body comes too slowly: less than ${minBytesPerSecond} bytes a second for ${seconds} s.`;
    response.setHeader("Connection", "close");
    const { socket } = request;
    // A socket that is closed while bytes still come is reset, and takes the reply with it.
    socket.destroySoon = () => {
      socket.end();
      // With its request, which is not told of the end of a connection once it has a reply: an upload would leave its file.
      setTimeout(() => request.destroy(), LINGER_MS).unref();
    };
    refuse(response, new ClientError("body_too_slow", message));
  }
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
}
