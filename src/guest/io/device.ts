import {
  BUNDLE_OVERHEAD_BYTES,
  MAX_BUNDLE_MEMBERS,
  MAX_DISPLAY_BYTES,
  MAX_DISPLAY_ID_CHARACTERS,
  MAX_DISPLAYS,
  MAX_METADATA_BYTES,
  MAX_METADATA_DEPTH,
} from "../../wire/display-limits.ts";
import { concatenate } from "../../wire/frames.ts";
import type { DisplayMessage } from "../../wire/guest-messages.ts";
import type { DisplayedBundle, GuestOperations } from "../../wire/host-calls.ts";
import { MAX_CALL_BYTES } from "../../wire/messages.ts";
import { ERRNO, type FileSystem, type StreamOperations } from "../interpreter/emscripten.ts";

/** `sandbox_runner/device.py` knows this number too. */
const DEVICE_FD = 4000;
const DEVICE_MAJOR = 200;
/** As the host takes it. */
const MAX_OPERATION_CHARACTERS = 64;
const TTY_MAJOR = 5;
const TTY1_MAJOR = 6;

/** What the host answers to a call. */
export interface Answer {
  readonly value: unknown;
  /** Why the host refuses. */
  readonly error?: string;
  readonly body: Uint8Array;
}

/** The host's side of what Python can ask for. */
export interface Host {
  /** Returns early on an interrupt. */
  sleep(durationMs: number): void;
  /** Has an interrupt that the host sent, and that Python could not raise where it hit, come again. */
  repeatInterrupt(): void;
  /** @param body a MIME bundle as JSON, and its metadata, if it has some. */
  display(message: DisplayMessage, ...body: Uint8Array[]): void;
  clearOutput(wait: boolean): void;
  /** Blocks until the host answers. Never throws for a refusal: that is in `error`. */
  call(operation: string, argument: unknown): Answer;
  /** Keeps what was printed for the result, as far as the limit allows; where the caller is `streaming`, sends it soon. */
  print(stream: "stdout" | "stderr", bytes: Uint8Array, streaming: boolean): void;
}

/**
 * Python's standard streams, and the one device through which our own Python modules talk to the host.
 *
 * User code may open the device as well; it then gets exactly what it could get through those modules.
 */
export class Devices {
  readonly #fs: FileSystem;
  readonly #host: Host;
  readonly #decoder = new TextDecoder();
  readonly #encoder = new TextEncoder();
  #stdin: Uint8Array = new Uint8Array(0);
  #stdinPosition = 0;
  #streaming = false;
  #displayBytes = 0;
  #displays = 0;
  #answer: Uint8Array = new Uint8Array(0);
  #answerPosition = 0;
  /** What is done here. Each takes what user code gives, and returns an error number for what it cannot use. */
  readonly #operations: Readonly<Record<keyof GuestOperations, (argument: unknown) => number | undefined>> = {
    sleep: (argument) => {
      if (typeof argument !== "number" || !(argument >= 0)) return ERRNO.EINVAL;
      this.#host.sleep(argument);
      return undefined;
    },
    "repeat-interrupt": () => {
      this.#host.repeatInterrupt();
      return undefined;
    },
    display: (argument) => this.#display(argument),
    "clear-output": (argument) => this.#clearOutput(argument),
  };

  constructor(fs: FileSystem, host: Host) {
    this.#fs = fs;
    this.#host = host;
  }

  /** Puts the devices behind file descriptors 0, 1, 2 and 4000, and behind `/dev/tty` and `/dev/tty1`. */
  install(): void {
    const fs = this.#fs;
    const out: StreamOperations = {
      read: (_stream, buffer, offset, length) => this.#readStdin(buffer, offset, length),
      write: (_stream, buffer, offset, length) => this.#print("stdout", buffer.subarray(offset, offset + length)),
    };
    const err: StreamOperations = {
      write: (_stream, buffer, offset, length) => this.#print("stderr", buffer.subarray(offset, offset + length)),
    };
    const device: StreamOperations = {
      read: (_stream, buffer, offset, length) => this.#readAnswer(buffer, offset, length),
      write: (_stream, buffer, offset, length) => this.#receive(buffer.slice(offset, offset + length)),
    };
    const tty = fs.makedev(TTY_MAJOR, 0);
    const tty1 = fs.makedev(TTY1_MAJOR, 0);
    const own = fs.makedev(DEVICE_MAJOR, 0);
    fs.registerDevice(tty, out);
    fs.registerDevice(tty1, err);
    fs.registerDevice(own, device);
    fs.mkdev("/dev/sandbox", 0o600, own);
    const open = (path: string, flags: number, fd: number) => {
      const { node } = fs.lookupPath(path, { follow: true });
      const operations = fd === 2 ? err : fd === DEVICE_FD ? device : out;
      fs.streams[fd] = null;
      fs.createStream({ node, path, flags, seekable: false, position: 0, stream_ops: operations }, fd);
    };
    open("/dev/tty", 0, 0);
    open("/dev/tty", 1, 1);
    open("/dev/tty1", 1, 2);
    open("/dev/sandbox", 2, DEVICE_FD);
  }

  begin(stdin: string, streaming: boolean): void {
    this.#stdin = this.#encoder.encode(stdin);
    this.#streaming = streaming;
  }

  reset(): void {
    this.#stdin = new Uint8Array(0);
    this.#stdinPosition = 0;
    this.#answer = new Uint8Array(0);
    this.#answerPosition = 0;
    this.#displayBytes = 0;
    this.#displays = 0;
    this.#streaming = false;
  }

  #print(stream: "stdout" | "stderr", bytes: Uint8Array): number {
    this.#host.print(stream, bytes, this.#streaming);
    return bytes.length;
  }

  #readStdin(buffer: Uint8Array, offset: number, length: number): number {
    const chunk = this.#stdin.subarray(this.#stdinPosition, this.#stdinPosition + length);
    buffer.set(chunk, offset);
    this.#stdinPosition += chunk.length;
    return chunk.length;
  }

  #readAnswer(buffer: Uint8Array, offset: number, length: number): number {
    const chunk = this.#answer.subarray(this.#answerPosition, this.#answerPosition + length);
    buffer.set(chunk, offset);
    this.#answerPosition += chunk.length;
    return chunk.length;
  }

  /** One write is one message: `[operation, argument]` in JSON. */
  #receive(bytes: Uint8Array): number {
    if (bytes.length > MAX_DISPLAY_BYTES) throw new this.#fs.ErrnoError(ERRNO.EINVAL);
    let operation: unknown;
    let argument: unknown;
    try {
      [operation, argument] = JSON.parse(this.#decoder.decode(bytes));
    } catch {
      throw new this.#fs.ErrnoError(ERRNO.EINVAL);
    }
    if (this.#isOwn(operation)) {
      const error = this.#operations[operation](argument);
      if (error !== undefined) throw new this.#fs.ErrnoError(error);
    } else if (isOperation(operation) && bytes.length <= MAX_CALL_BYTES) {
      const { value, error, body } = this.#host.call(operation, argument);
      // JSON has no newline of its own, so the first one is where the bytes begin.
      this.#answer = concatenate([this.#encoder.encode(`${JSON.stringify({ value, error })}\n`), body]);
      this.#answerPosition = 0;
    } else {
      throw new this.#fs.ErrnoError(ERRNO.EINVAL);
    }
    return bytes.length;
  }

  #isOwn(operation: unknown): operation is keyof GuestOperations {
    return typeof operation === "string" && Object.hasOwn(this.#operations, operation);
  }

  #display(argument: unknown): number | undefined {
    if (!isDisplayed(argument)) return ERRNO.EINVAL;
    const { bundle, kind, id, metadata } = argument;
    // Written anew: what the host counts and passes on has no whitespace, and no name twice.
    const data = this.#encoder.encode(JSON.stringify(bundle));
    const about = metadata === undefined ? null : this.#encoder.encode(JSON.stringify(metadata));
    const metadataBytes = about?.length ?? 0;
    if (metadataBytes > MAX_METADATA_BYTES) return ERRNO.EINVAL;
    if (!this.#hasRoomFor(data.length + metadataBytes)) return ERRNO.ENOSPC;
    const message: DisplayMessage = {
      type: "display",
      ...(kind !== undefined && { kind }),
      ...(id !== undefined && { displayId: id }),
      ...(about && { metadataBytes }),
    };
    this.#host.display(message, data, ...(about ? [about] : []));
    return undefined;
  }

  #clearOutput(wait: unknown): number | undefined {
    if (typeof wait !== "boolean") return ERRNO.EINVAL;
    if (!this.#hasRoomFor(0)) return ERRNO.ENOSPC;
    this.#host.clearOutput(wait);
    return undefined;
  }

  /** The module in Python counts too, and then says nothing; here is where it cannot be evaded. */
  #hasRoomFor(bytes: number): boolean {
    this.#displayBytes += bytes + BUNDLE_OVERHEAD_BYTES;
    return this.#displayBytes <= MAX_DISPLAY_BYTES && ++this.#displays <= MAX_DISPLAYS;
  }
}

function isDisplayed(value: unknown): value is DisplayedBundle {
  if (!isObject(value)) return false;
  const { bundle, kind, id, metadata } = value;
  const hasId = typeof id === "string" && id.length <= MAX_DISPLAY_ID_CHARACTERS && id.isWellFormed();
  return (
    isMimeBundle(bundle) &&
    (kind === undefined || (kind === "update" && hasId) || (kind === "value" && id === undefined)) &&
    (id === undefined || hasId) &&
    (metadata === undefined || (isObject(metadata) && isWithin(metadata, MAX_METADATA_DEPTH)))
  );
}

function isMimeBundle(value: unknown): boolean {
  if (!isObject(value)) return false;
  const members = Object.values(value);
  return members.length <= MAX_BUNDLE_MEMBERS && members.every((data) => typeof data === "string");
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Whether a value has no more levels than that. */
function isWithin(value: unknown, levels: number): boolean {
  if (typeof value !== "object" || value === null) return true;
  return levels > 0 && Object.values(value).every((member) => isWithin(member, levels - 1));
}

function isOperation(value: unknown): value is string {
  return typeof value === "string" && value.length <= MAX_OPERATION_CHARACTERS;
}
