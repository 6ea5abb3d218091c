import type { Response } from "express";
import { jsonParts } from "./json-reply.ts";

/** A comment, which clients skip. */
const HEARTBEAT = ": \n\n";

/**
 * A `text/event-stream` that is never silent for long: proxies end connections on which nothing comes.
 *
 * It begins with the first event, or with the first heartbeat; until then the request can still be answered by a status.
 */
export class EventStream {
  readonly #response: Response;
  readonly #heartbeat: NodeJS.Timeout;
  #isOpen = false;

  /** @param heartbeatMs most ms between two writes. */
  constructor(response: Response, heartbeatMs: number) {
    this.#response = response;
    this.#heartbeat = setInterval(() => this.#beat(), heartbeatMs);
    response.once("close", () => clearInterval(this.#heartbeat));
  }

  /** Sends the head. */
  open(): void {
    const response = this.#response;
    if (this.#isOpen || response.headersSent) return;
    this.#isOpen = true;
    response.writeHead(200, {
      "Content-Type": "text/event-stream; charset=utf-8",
      "Cache-Control": "no-cache, no-transform",
      // nginx would hold events back until its buffer is full.
      "X-Accel-Buffering": "no",
    });
    response.flushHeaders();
  }

  /** @param event an object, or its JSON in parts. */
  send(event: object | readonly Uint8Array[]): void {
    const response = this.#response;
    this.open();
    if (response.destroyed || response.writableEnded) return;
    this.#heartbeat.refresh();
    // No part has a line break: the scanner takes none between tokens, and inside strings they are escaped.
    response.cork();
    response.write("data: ");
    for (const part of Array.isArray(event) ? (event as readonly Uint8Array[]) : jsonParts(event)) response.write(part);
    response.write("\n\n");
    response.uncork();
  }

  #beat(): void {
    const response = this.#response;
    // Answered by a status, or at its end.
    if ((response.headersSent && !this.#isOpen) || response.writableEnded) {
      clearInterval(this.#heartbeat);
      return;
    }
    this.open();
    // A client that does not read has enough to read.
    if (!response.writableNeedDrain) response.write(HEARTBEAT);
  }
}
