/**
 * What the host and a sandbox process say to each other. With the two file formats beside it, all that both sides import; what
 * the sandbox says is defined in `guest-messages.ts`, of which the guest has the types alone.
 *
 * A frame on the pipe:
 *
 *     u32 le  length of all that follows
 *     u8      protocol version
 *     u8      1: urgent, to be acted on while user code runs (host to sandbox only); else 0
 *     u16 le  length of the nonce, bytes (32)
 *     u32 le  length of the JSON header, bytes
 *     nonce   hex text; chosen by the host, and never in memory that user code has
 *     header  JSON, a `HostMessage` or a `GuestMessage`
 *     body    bytes whose meaning the header gives; may be empty
 *
 * User code is in WebAssembly's memory and the nonce is not, so bytes it manages to put on the pipe are not a frame: the
 * host sees a wrong nonce and ends the process. A frame that breaks any rule here is a {@link ProtocolError}, and the
 * reader must give the connection up, since there is no way to find the next frame's beginning.
 */

import type { ArchiveEntry } from "./archive-format.ts";
import type { GuestMessage, SessionState } from "./guest-messages.ts";
import { ProtocolError, type ReadHeader } from "./protocol-error.ts";

/** An open file of a session, or of an image. */
export type OpenFile = SessionState["streams"][number];
export type MappedFile = SessionState["mappings"][number];
export type UnnamedFile = SessionState["unnamed"][number];
export type { ErrorInfo, FileChanges, GuestMessage, RunnerOutcome, SessionState, Verdict } from "./guest-messages.ts";

export const PROTOCOL_VERSION = 4;

export const PREFIX_BYTES = 12;
/** Offset of the byte that says whether a frame is urgent. */
export const URGENT_OFFSET = 5;
export const NONCE_BYTES = 32;

/** Largest frame either side accepts: a workspace's worth of files, plus room for the header. */
export const MAX_FRAME_BYTES = 512 * 1024 * 1024;

/** A file or folder of a workspace, as the sandbox sees it before it opens it. */
export interface FileEntry {
  /** Absolute, normalised path inside the sandbox: `/home/pyodide/data.csv`. */
  readonly path: string;
  /** Bytes; 0 for a folder. */
  readonly size: number;
  /** Last change, ms since 1970. */
  readonly mtimeMs: number;
  readonly kind: "file" | "folder";
}

/** A MIME bundle: `{"image/png": base64, "text/plain": …}`. */
export type MimeBundle = Readonly<Record<string, string>>;

export type HostMessage =
  /** The first frame; its nonce is the one for frames that belong to no job. */
  | { readonly type: "start"; readonly options: GuestOptions }
  /** The frame's nonce is the job's: every frame about it carries it, up to and including `idle`. */
  | {
      readonly type: "execute";
      readonly code: string;
      /** JSON text of an object whose members become global variables; null: none. */
      readonly context: string | null;
      /** What `input()` and `sys.stdin` read. */
      readonly stdin: string;
      /** Send output frames while the code runs. */
      readonly stream: boolean;
      /**
       * `stateless`: on the checkpoint, which is restored afterwards. `session`: on what the session left, which is kept,
       * and reported in a `state` frame.
       */
      readonly mode: "stateless" | "session";
      /** Number of the execution in its session, from 1, which its source is named for; null: stateless. */
      readonly execution: number | null;
      /** Draw new random seeds first. Not for a session that only woke up. */
      readonly reseed: boolean;
      /** Files of a stateless execution; null: run without. A session's come with `load`. */
      readonly files: FileListing | null;
      /** Read-only packages of the caller's, besides the environment's. Contents are asked for with `read-package`. */
      readonly packages: PackageListing | null;
    }
  /** Make the sandbox a session's. Body: the session's memory; none: a new session. */
  | {
      readonly type: "load";
      readonly state: SessionState | null;
      readonly files: FileListing;
      /** As in `execute`: the session may have files of them open. */
      readonly packages: PackageListing | null;
    }
  /** Forget the session; back to the checkpoint. */
  | { readonly type: "rewind" }
  /** Urgent. Ends what runs with KeyboardInterrupt. */
  | { readonly type: "interrupt" }
  /** Urgent. Asks for what was printed. */
  | { readonly type: "more-output" }
  /** Answers a guest's `call`; the body belongs to it. */
  | { readonly type: "answer"; readonly call: number; readonly value: unknown; readonly error?: string };

/** What the folders user code can write to hold, and the most that they may. */
export interface FileListing {
  /** Parents before children. */
  readonly entries: readonly FileEntry[];
  readonly maxBytes: number;
  readonly maxFiles: number;
}

/** Most that one `read-package` asks for, bytes: larger parts are read piece by piece, so that none holds the host for long. */
export const MAX_PACKAGE_READ_BYTES = 1024 * 1024;

/** A package archive without its data (`archive-format.ts`). */
export interface PackageListing {
  readonly sha256: string;
  readonly entries: readonly ArchiveEntry[];
}

/** How a process is to boot. */
export interface GuestOptions {
  /** The interpreter's memory image with the standard library imported; null: build it and end. */
  readonly baseImagePath: string | null;
  /** The archive that holds the standard library with its bytecode; null: Pyodide's own zip, which has none. */
  readonly stdlibPath: string | null;
  /** The environment's packages; null: the standard library alone. */
  readonly environment: GuestEnvironment | null;
  /** Standard library modules to have in a base image; the same where an image is built on top of it. */
  readonly preload: readonly string[];
  /** Discard instead of rewind above this. */
  readonly maxHeapBytes: number;
  /** Map the images instead of reading them, and rewind only what was written to, where the system lets it. */
  readonly mapMemory: boolean;
  readonly hashCheckpoint: boolean;
  /** For tests: compare the whole memory with the checkpoint after each rewind; a difference discards the process. */
  readonly verifyRewind?: boolean;
}

export interface GuestEnvironment {
  readonly archivePath: string;
  /** Shared libraries in the order in which they are loaded, paths inside the archive. */
  readonly libraries: readonly string[];
  /** Modules to import. One that fails is reported, and left out. */
  readonly imports: readonly string[];
  /** Global variables: name → module. */
  readonly aliases: Readonly<Record<string, string>>;
  /** The environment's memory image; null: build it and end. */
  readonly imagePath: string | null;
}

/** stdout and stderr are each cut at this many bytes. */
export const MAX_OUTPUT_BYTES = 1024 * 1024;

/**
 * Most that the bundles one execution displays may come to, bytes of JSON, and what each counts on top of its data. Looser than
 * the runner's own limit of 10 MiB of data, which user code can evade.
 */
export const MAX_DISPLAY_BYTES = 64 * 1024 * 1024;
export const BUNDLE_OVERHEAD_BYTES = 1024;
/** Bundles of one execution; each has its place in the reply. */
export const MAX_DISPLAYS = 12_000;
/** Representations in one bundle. */
export const MAX_BUNDLE_MEMBERS = 100;

/** Largest argument of a call, bytes of JSON: the largest body a request may be allowed (32 MiB) in base64, and its headers. */
export const MAX_CALL_BYTES = 48 * 1024 * 1024;

/** Largest outcome, bytes of JSON: a message, a traceback of 200,000 characters, each of them escaped. */
export const MAX_OUTCOME_BYTES = 8 * 1024 * 1024;

/** Largest value of a result, bytes of JSON: 10 MiB, each character of it escaped. */
export const MAX_VALUE_BYTES = 64 * 1024 * 1024;

/** Largest header of a guest's. What is large is in the body. */
export const MAX_GUEST_HEADER_BYTES = 2 * 1024 * 1024;

/** Largest state of a session that a header takes, characters of JSON; what has more open files than that stays where it is. */
export const MAX_STATE_CHARACTERS = 1024 * 1024;

/** Length of a whole frame, by its prefix. */
export function frameBytes(prefix: Uint8Array): number {
  return 4 + new DataView(prefix.buffer, prefix.byteOffset, PREFIX_BYTES).getUint32(0, true);
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** @returns the frame as chunks to be written one after another, so that large bodies are not copied. */
export function encodeFrame(
  nonce: string,
  message: HostMessage | GuestMessage,
  ...body: readonly Uint8Array[]
): Uint8Array[] {
  const header = encoder.encode(JSON.stringify(message));
  const head = new Uint8Array(PREFIX_BYTES + NONCE_BYTES + header.length);
  const view = new DataView(head.buffer);
  const bodyBytes = body.reduce((sum, part) => sum + part.length, 0);
  const length = head.length - 4 + bodyBytes;
  if (length > MAX_FRAME_BYTES) throw new ProtocolError(`a frame of ${length} bytes is over the limit`);
  view.setUint32(0, length, true);
  view.setUint8(4, PROTOCOL_VERSION);
  view.setUint8(URGENT_OFFSET, URGENT_TYPES.has(message.type) ? 1 : 0);
  view.setUint16(6, NONCE_BYTES, true);
  view.setUint32(8, header.length, true);
  encoder.encodeInto(nonce, head.subarray(PREFIX_BYTES, PREFIX_BYTES + NONCE_BYTES));
  head.set(header, PREFIX_BYTES + NONCE_BYTES);
  return bodyBytes === 0 ? [head] : [head, ...body.filter((part) => part.length > 0)];
}

export interface Frame<M> {
  readonly nonce: string;
  readonly message: M;
  readonly body: Uint8Array;
}

/** @returns a reader for messages whose sender is trusted: only the type is looked at. */
export function readHeaderOf<M extends { type: string }>(types: readonly M["type"][]): ReadHeader<M> {
  return (header) => {
    const message = JSON.parse(decoder.decode(header));
    if (!types.includes(message?.type)) throw new ProtocolError("unknown message type");
    return message;
  };
}

/**
 * Cuts a byte stream into frames. Feed it chunks as they arrive; it returns the frames they complete.
 *
 * @throws {ProtocolError} from `push` at the first byte that cannot be part of a frame.
 */
export class FrameReader<M> {
  readonly #readHeader: ReadHeader<M>;
  readonly #maxBytes: number;
  readonly #maxHeaderBytes: number;
  readonly #prefix = new Uint8Array(PREFIX_BYTES);
  #prefixFilled = 0;
  /** A frame that did not come in one chunk, as far as it is here. */
  #frame: Uint8Array | null = null;
  #filled = 0;

  constructor(readHeader: ReadHeader<M>, maxBytes = MAX_FRAME_BYTES, maxHeaderBytes = maxBytes) {
    this.#readHeader = readHeader;
    this.#maxBytes = maxBytes;
    this.#maxHeaderBytes = maxHeaderBytes;
  }

  push(chunk: Uint8Array): Frame<M>[] {
    const frames: Frame<M>[] = [];
    for (let rest = chunk; rest.length > 0; ) {
      if (this.#frame === null && this.#prefixFilled === 0 && rest.length >= PREFIX_BYTES) {
        const bytes = this.#check(rest);
        if (rest.length >= bytes) {
          frames.push(this.#decode(rest.subarray(0, bytes)));
          rest = rest.subarray(bytes);
          continue;
        }
        this.#frame = new Uint8Array(bytes);
      }
      if (this.#frame === null) {
        const part = rest.subarray(0, PREFIX_BYTES - this.#prefixFilled);
        this.#prefix.set(part, this.#prefixFilled);
        this.#prefixFilled += part.length;
        rest = rest.subarray(part.length);
        if (this.#prefixFilled < PREFIX_BYTES) break;
        this.#frame = new Uint8Array(this.#check(this.#prefix));
        this.#frame.set(this.#prefix);
        this.#filled = PREFIX_BYTES;
      }
      const part = rest.subarray(0, this.#frame.length - this.#filled);
      this.#frame.set(part, this.#filled);
      this.#filled += part.length;
      rest = rest.subarray(part.length);
      if (this.#filled < this.#frame.length) break;
      frames.push(this.#decode(this.#frame));
      this.#frame = null;
      this.#filled = this.#prefixFilled = 0;
    }
    return frames;
  }

  /** @returns the length of the frame that begins here. */
  #check(prefix: Uint8Array): number {
    const view = new DataView(prefix.buffer, prefix.byteOffset, PREFIX_BYTES);
    const bytes = frameBytes(prefix);
    const length = bytes - 4;
    const headerLength = view.getUint32(8, true);
    if (prefix[4] !== PROTOCOL_VERSION)
      throw new ProtocolError(`protocol version ${prefix[4]}, not ${PROTOCOL_VERSION}`);
    if (prefix[URGENT_OFFSET] !== 0) throw new ProtocolError("an urgent frame where there can be none");
    if (view.getUint16(6, true) !== NONCE_BYTES) throw new ProtocolError("nonce of a wrong length");
    if (length > this.#maxBytes) throw new ProtocolError(`a frame of ${length} bytes is over the limit`);
    if (headerLength > this.#maxHeaderBytes)
      throw new ProtocolError(`a header of ${headerLength} bytes is over the limit`);
    if (length < PREFIX_BYTES - 4 + NONCE_BYTES + headerLength) throw new ProtocolError("header longer than its frame");
    return bytes;
  }

  #decode(bytes: Uint8Array): Frame<M> {
    const headerStart = PREFIX_BYTES + NONCE_BYTES;
    const bodyStart = headerStart + new DataView(bytes.buffer, bytes.byteOffset).getUint32(8, true);
    try {
      const nonce = decoder.decode(bytes.subarray(PREFIX_BYTES, headerStart));
      const message = this.#readHeader(bytes.subarray(headerStart, bodyStart));
      return { nonce, message, body: bytes.subarray(bodyStart) };
    } catch (cause) {
      if (cause instanceof ProtocolError) throw cause;
      throw new ProtocolError("header is not JSON in UTF-8", { cause });
    }
  }
}

/** What the interpreter's thread is told; what is urgent another takes. */
export type OrdinaryMessage = Exclude<HostMessage, { type: "interrupt" | "more-output" }>;

export const ORDINARY_MESSAGE_TYPES: readonly OrdinaryMessage["type"][] = [
  "start",
  "execute",
  "load",
  "rewind",
  "answer",
];

const URGENT_TYPES: ReadonlySet<string> = new Set(["interrupt", "more-output"]);

export function concatenate(parts: readonly Uint8Array[], totalBytes?: number): Uint8Array {
  const all = new Uint8Array(totalBytes ?? parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}
