import type { Request, Response } from "express";
import { jsonParts } from "../shared/json/json-parts.ts";

/** What stands around an event, and what is sent where there is none, which clients skip. */
export interface StreamFormat {
  readonly type: string;
  readonly before: string;
  readonly after: string;
  readonly heartbeat: string;
}

/** The server's own; a heartbeat is a comment, or an empty line. */
const FORMATS = {
  sse: { type: "text/event-stream; charset=utf-8", before: "data: ", after: "\n\n", heartbeat: ": \n\n" },
  ndjson: { type: "application/x-ndjson; charset=utf-8", before: "", after: "\n", heartbeat: "\n" },
} as const satisfies Record<string, StreamFormat>;

/** Which of the two a request asks for. */
export function streamFormat(request: Request): keyof typeof FORMATS {
  const type = request.accepts(["text/event-stream", "application/x-ndjson", "application/jsonl"]);
  return type === false || type === "text/event-stream" ? "sse" : "ndjson";
}

/**
 * A `text/event-stream`, or a line of JSON for each event, that is never silent for long: proxies end connections on which nothing comes.
 *
 * It begins with the first event, or with the first heartbeat; until then the request can still be answered by a status.
 */
export class EventStream {
  readonly #response: Response;
  readonly #heartbeat: NodeJS.Timeout;
  readonly #format: StreamFormat;
  #isOpen = false;

  /** @param heartbeatMs most ms between two writes. */
  constructor(response: Response, heartbeatMs: number, format: keyof typeof FORMATS | StreamFormat = "sse") {
    this.#response = response;
    this.#format = typeof format === "string" ? FORMATS[format] : format;
    this.#heartbeat = setInterval(() => this.#beat(), heartbeatMs);
    response.once("close", () => clearInterval(this.#heartbeat));
  }

  /** Sends the head. */
  open(): void {
    const response = this.#response;
    if (this.#isOpen || response.headersSent) return;
    this.#isOpen = true;
    response.writeHead(200, {
      "Content-Type": this.#format.type,
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
    response.cork();
    response.write(this.#format.before);
    for (const part of Array.isArray(event) ? (event as readonly Uint8Array[]) : jsonParts(event))
      response.write(onOneLine(part));
    response.write(this.#format.after);
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
    if (!response.writableNeedDrain) response.write(this.#format.heartbeat);
  }
}

/** Without line breaks: in JSON they stand only between tokens, where a space means the same. So no writer of a part ends an event. */
function onOneLine(part: Uint8Array): Uint8Array {
  if (!part.includes(0x0a) && !part.includes(0x0d)) return part;
  const line = new Uint8Array(part);
  // A call for each byte takes ten times as long, of megabytes that code displays.
  for (let at = 0; at < line.length; at++) if (line[at] === 0x0a || line[at] === 0x0d) line[at] = 0x20;
  return line;
}
