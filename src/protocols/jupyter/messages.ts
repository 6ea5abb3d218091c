/** Messages of Jupyter's protocol, version 5. https://jupyter-client.readthedocs.io/en/latest/messaging.html */
import { randomUUID } from "node:crypto";
import { z } from "zod";
import { readJson } from "../../http/body.ts";
import { ClientError } from "../../shared/errors.ts";
import { isObject } from "../../shared/json/json-object.ts";
import { jsonParts } from "../../shared/json/json-parts.ts";
import { type Frame, type WireFormat, writeFrame } from "./wire-format.ts";

export const PROTOCOL_VERSION = "5.3";
const CHANNELS = ["shell", "control", "stdin", "iopub"] as const;
export type Channel = (typeof CHANNELS)[number];
/** It comes back in each message that is about the request. */
const MAX_HEADER_CHARACTERS = 16 * 1024;
/** Clients have ten or so. */
const MAX_HEADER_MEMBERS = 1000;

const header = z.looseObject({
  msg_id: z.string("The header of a message has a msg_id.").min(1, "The header of a message has a msg_id."),
  msg_type: z.string("The header of a message has a msg_type.").min(1, "The header of a message has a msg_type."),
  version: z.string().nullish(),
});
export type Header = z.output<typeof header>;

/** A message of a client. */
export interface Request {
  readonly channel: Channel;
  readonly type: string;
  readonly header: Header;
  /** Of {@link header}: as it is sent back. */
  readonly headerJson: Uint8Array;
  /** Not checked. */
  readonly content: Readonly<Record<string, unknown>>;
  /** Of the frame. */
  readonly bytes: number;
}

/** What is wrong with a message whose header can be read, so that it can be answered. */
export class RefusedRequestError extends Error {
  override readonly name = "RefusedRequestError";
  readonly request: Request;

  constructor(request: Request, message: string) {
    super(message);
    this.request = request;
  }
}

/**
 * Reads what clients send, leniently: `buffers` of any kind, no `date`, no `channel`, no `metadata`.
 *
 * @throws {ClientError} 400: it is no message. @throws {RefusedRequestError}: it is one of another version, or for no channel there is.
 */
export async function readRequest(frame: Frame, principal: string): Promise<Request> {
  const bytes = frame.json.length;
  const value = await readJson(frame.json, principal);
  if (!isObject(value)) throw new ClientError("bad_request", "A message is a JSON object.");
  // Before anything looks at each of them.
  if (isObject(value.header) && hasMoreMembers(value.header, MAX_HEADER_MEMBERS)) throw headerTooLong();
  const parsed = header.safeParse(value.header);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const isMissing = issue === undefined || issue.path.length === 0;
    throw new ClientError("bad_request", isMissing ? "A message has a header." : issue.message);
  }
  const headerJson = Buffer.from(JSON.stringify(parsed.data));
  if (headerJson.length > MAX_HEADER_CHARACTERS) throw headerTooLong();
  const type = parsed.data.msg_type;
  const given = frame.channel ?? value.channel ?? channelOf(type);
  const known = CHANNELS.find((name) => name === given);
  const content = isObject(value.content) ? value.content : {};
  const request: Request = { channel: known ?? "shell", type, header: parsed.data, headerJson, content, bytes };
  const { version } = parsed.data;
  if (version != null && !/^5(?:\.|$)/.test(version)) {
    throw new RefusedRequestError(
      request,
      `Messages of version ${version.slice(0, 20)} are not understood: this kernel speaks ${PROTOCOL_VERSION}.`,
    );
  }
  if (known === undefined || known === "iopub")
    throw new RefusedRequestError(request, "Messages are for the channels shell, control and stdin.");
  return request;
}

function hasMoreMembers(object: object, max: number): boolean {
  let count = 0;
  for (const _ in object) if (++count > max) return true;
  return false;
}

function headerTooLong(): ClientError {
  return new ClientError("bad_request", "The header of a message is too long.");
}

/** Where a message belongs that does not say it. */
function channelOf(type: string): Channel {
  return type === "input_reply" ? "stdin" : "shell";
}

export interface MessageOptions {
  readonly channel: Channel;
  readonly type: string;
  /** Of the kernel. */
  readonly session: string;
  /** What it is about; null: nothing that a client has asked. */
  readonly parent: Request | null;
  /** Members may be JSON texts. */
  readonly content: object;
  /** It may be left out where a client does not read. */
  readonly isOutput?: boolean;
}

/** A message to clients. */
export class Message {
  readonly isOutput: boolean;
  readonly #channel: Channel;
  readonly #type: string;
  /** All that is kept of what it is about: messages that wait for their client do not hold requests of others. */
  readonly #parentHeader: Uint8Array;
  readonly #content: Uint8Array;
  readonly #id = randomUUID();
  readonly #header: Uint8Array;

  constructor(options: MessageOptions) {
    const { channel, type, session, parent, content, isOutput = false } = options;
    this.#channel = channel;
    this.#type = type;
    this.#parentHeader = parent?.headerJson ?? EMPTY;
    this.isOutput = isOutput;
    this.#content = Buffer.concat(jsonParts(content));
    this.#header = Buffer.from(
      JSON.stringify({
        msg_id: this.#id,
        msg_type: type,
        username: "kernel",
        session,
        date: new Date().toISOString(),
        version: PROTOCOL_VERSION,
      }),
    );
  }

  /** About as many as its frame has. */
  get bytes(): number {
    return this.#content.length + this.#parentHeader.length + 1024;
  }

  toFrame(format: WireFormat): Buffer {
    return writeFrame(
      {
        channel: this.#channel,
        type: this.#type,
        id: this.#id,
        header: this.#header,
        parentHeader: this.#parentHeader,
        metadata: EMPTY,
        content: this.#content,
      },
      format,
    );
  }
}

/** A message on its way to all its clients: written once for each format. For clients that are away the message is held, and no frame of it. */
export class Delivery {
  readonly message: Message;
  readonly #frames: { [F in WireFormat]?: Buffer } = {};

  constructor(message: Message) {
    this.message = message;
  }

  frame(format: WireFormat): Buffer {
    this.#frames[format] ??= this.message.toFrame(format);
    return this.#frames[format];
  }
}

const EMPTY = Buffer.from("{}");

/** `execute_reply` of an `execute_request`. */
export function replyTypeOf(type: string): string {
  return type.endsWith("_request") ? `${type.slice(0, -"_request".length)}_reply` : `${type}_reply`;
}

/** Content of a reply that refuses. */
export function refusal(ename: string, evalue: string): object {
  return { status: "error", ename, evalue, traceback: [] };
}
