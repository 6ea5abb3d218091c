/**
 * What the host and a sandbox process say to each other. With the two file formats beside it, all that both sides import.
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

export const PROTOCOL_VERSION = 3;

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

/** What an execution did to the workspace. Contents of `written` files stand in the frame's body, one after another. */
export interface FileChanges {
  readonly written: readonly FileEntry[];
  readonly deleted: readonly string[];
}

export interface ErrorInfo {
  /** Class name of the exception: `ZeroDivisionError`; `Timeout` and `SandboxDied` are ours. */
  readonly type: string;
  readonly message: string;
  /** Frames of user code only. */
  readonly traceback: string;
  /** 1-based position in the code sent; null where there is none. */
  readonly line: number | null;
  readonly column: number | null;
}

/** A MIME bundle: `{"image/png": base64, "text/plain": …}`. */
export type MimeBundle = Readonly<Record<string, string>>;

/** What the runner in Python answers. */
export interface RunnerOutcome {
  readonly success: boolean;
  readonly result: unknown;
  readonly error: string | null;
  readonly errorInfo?: ErrorInfo;
  readonly outputs: readonly MimeBundle[];
  readonly truncated?: boolean;
}

/** Whether a sandbox may go on after an execution. */
export type Verdict =
  | { readonly state: "pristine"; readonly restoredPages: number }
  /** It holds a session. */
  | { readonly state: "resident" }
  | { readonly state: "discard"; readonly reason: string };

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
      /** Draw new random seeds first. Not for a session that only woke up. */
      readonly reseed: boolean;
      /** Files of a stateless execution; null: run without. A session's come with `load`. */
      readonly files: FileListing | null;
      /** Read-only packages of the caller's, besides the environment's. Contents are asked for with `read-package`. */
      readonly packages: PackageListing | null;
    }
  /** Make the sandbox a session's. Body: the session's memory; none: a new session. */
  | { readonly type: "load"; readonly state: SessionState | null; readonly files: FileListing }
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

/** A package archive without its data (`archive-format.ts`). */
export interface PackageListing {
  readonly sha256: string;
  readonly entries: readonly ArchiveEntry[];
}

/**
 * What a session is besides its files: JSON here, and in the frame's body the memory that differs from the checkpoint as
 * `blockCount` block numbers (u32 le, ascending) followed by as many blocks of 256 bytes, each combined with the checkpoint's
 * by exclusive or.
 */
export interface SessionState {
  readonly heapBytes: number;
  readonly blockCount: number;
  readonly currentPath: string;
  readonly nextInode: number;
  /** What the monotonic clock showed, ms. */
  readonly clockMs: number;
  readonly streams: readonly OpenFile[];
  readonly links: readonly { readonly path: string; readonly target: string }[];
}

/** An open file. Descriptors that were made by `dup` share a position. */
export interface OpenFile {
  readonly fd: number;
  readonly path: string;
  readonly flags: number;
  readonly position: number;
  /** Equal for descriptors that share one. */
  readonly group: number;
}

/** How a process is to boot. */
export interface GuestOptions {
  /** The interpreter's memory image with the standard library imported; null: build it and end. */
  readonly baseImagePath: string | null;
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

export type GuestMessage =
  | {
      readonly type: "ready";
      readonly pythonVersion: string;
      readonly pyodideVersion: string;
      readonly heapBytes: number;
      /** Why a rewind looks at every page of the memory; null: it looks at those that were written to. */
      readonly everyPage: string | null;
      /** SHA-256 of the checkpoint where it was asked for; equal in every process that boots the same image. */
      readonly checkpoint: string | null;
    }
  /** An image was built; it is the body. */
  | {
      readonly type: "image";
      /** Modules that could not be imported: name → why. */
      readonly failedImports: Readonly<Record<string, string>>;
      /**
       * What has no place in an image: modules and libraries by name, and why. If there are any, nothing was built, and a
       * build without them is to be tried.
       */
      readonly unfit: Readonly<Record<string, string>>;
      /** Functions that shared libraries import and that end the sandbox when they are called: path → names. */
      readonly refusedCalls: Readonly<Record<string, readonly string[]>>;
    }
  /** Of a streaming execution: something was printed, and waits for `more-output`. Until then there is no other of these. */
  | { readonly type: "printed" }
  /** What was printed since the last such frame; the body is the bytes, at least one. */
  | { readonly type: "output"; readonly stream: "stdout" | "stderr" }
  | { readonly type: "display"; readonly bundle: MimeBundle }
  /** User code waits for the host: a file's content, a package, a network request. */
  | { readonly type: "call"; readonly call: number; readonly operation: string; readonly argument: unknown }
  | {
      readonly type: "result";
      /** ms that the code ran. */
      readonly executionTimeMs: number;
      /** Body: the outcome (`RunnerOutcome` as JSON), stdout, stderr, then the contents of the written files. */
      readonly outcomeBytes: number;
      readonly stdoutBytes: number;
      readonly stderrBytes: number;
      /** stdout or stderr was cut at its limit. */
      readonly truncated: boolean;
      readonly files: FileChanges | null;
    }
  /** After a session's `result`: what it is now, body as in `load`; or why it cannot be captured. */
  | { readonly type: "state"; readonly state: SessionState }
  | { readonly type: "state"; readonly state: null; readonly reason: string }
  /** The sandbox is ready for the next message, or must not be used again. */
  | { readonly type: "idle"; readonly verdict: Verdict; readonly heapBytes: number }
  /** The process cannot go on. */
  | { readonly type: "fatal"; readonly reason: string };

/** stdout and stderr are each cut at this many bytes. */
export const MAX_OUTPUT_BYTES = 1024 * 1024;

/**
 * Most that the bundles one execution displays may come to, bytes of JSON, and what each counts on top of its data. Looser than
 * the runner's own limit of 10 MiB of data, which user code can evade.
 */
export const MAX_DISPLAY_BYTES = 64 * 1024 * 1024;
export const BUNDLE_OVERHEAD_BYTES = 1024;

/** Largest outcome, bytes of JSON: 10 MiB of result, each character of it escaped, and some error. */
export const MAX_OUTCOME_BYTES = 80 * 1024 * 1024;

/** The other side broke the protocol; nothing that follows on this connection can be believed. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
}

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

/**
 * Cuts a byte stream into frames. Feed it chunks as they arrive; it returns the frames they complete.
 *
 * @throws {ProtocolError} from `push` at the first byte that cannot be part of a frame.
 */
export class FrameReader<M extends { type: string }> {
  #chunks: Uint8Array[] = [];
  #buffered = 0;
  readonly #types: ReadonlySet<string>;
  readonly #maxBytes: number;

  constructor(types: readonly M["type"][], maxBytes = MAX_FRAME_BYTES) {
    this.#types = new Set(types);
    this.#maxBytes = maxBytes;
  }

  push(chunk: Uint8Array): Frame<M>[] {
    if (chunk.length > 0) this.#chunks.push(chunk);
    this.#buffered += chunk.length;
    const frames: Frame<M>[] = [];
    while (this.#buffered >= PREFIX_BYTES) {
      const prefix = this.#peek(PREFIX_BYTES);
      const view = new DataView(prefix.buffer, prefix.byteOffset, PREFIX_BYTES);
      const bytes = frameBytes(prefix);
      const length = bytes - 4;
      const headerLength = view.getUint32(8, true);
      if (prefix[4] !== PROTOCOL_VERSION)
        throw new ProtocolError(`protocol version ${prefix[4]}, not ${PROTOCOL_VERSION}`);
      if (prefix[URGENT_OFFSET] !== 0) throw new ProtocolError("an urgent frame where there can be none");
      if (view.getUint16(6, true) !== NONCE_BYTES) throw new ProtocolError("nonce of a wrong length");
      if (length > this.#maxBytes) throw new ProtocolError(`a frame of ${length} bytes is over the limit`);
      if (length < PREFIX_BYTES - 4 + NONCE_BYTES + headerLength)
        throw new ProtocolError("header longer than its frame");
      if (this.#buffered < bytes) break;
      frames.push(this.#decode(this.#take(bytes), headerLength));
    }
    return frames;
  }

  #decode(bytes: Uint8Array, headerLength: number): Frame<M> {
    const headerStart = PREFIX_BYTES + NONCE_BYTES;
    let message: unknown;
    let nonce: string;
    try {
      nonce = decoder.decode(bytes.subarray(PREFIX_BYTES, headerStart));
      message = JSON.parse(decoder.decode(bytes.subarray(headerStart, headerStart + headerLength)));
    } catch (cause) {
      throw new ProtocolError("header is not JSON in UTF-8", { cause });
    }
    const type = (message as { type?: unknown } | null)?.type;
    if (typeof type !== "string" || !this.#types.has(type)) throw new ProtocolError("unknown message type");
    return { nonce, message: message as M, body: bytes.subarray(headerStart + headerLength) };
  }

  /** The first `count` buffered bytes, left in place. */
  #peek(count: number): Uint8Array {
    const first = this.#chunks[0] as Uint8Array;
    if (first.length >= count) return first.subarray(0, count);
    this.#chunks = [concatenate(this.#chunks, this.#buffered)];
    return (this.#chunks[0] as Uint8Array).subarray(0, count);
  }

  #take(count: number): Uint8Array {
    const all = this.#chunks.length === 1 ? (this.#chunks[0] as Uint8Array) : concatenate(this.#chunks, this.#buffered);
    this.#buffered -= count;
    this.#chunks = this.#buffered > 0 ? [all.subarray(count)] : [];
    return all.subarray(0, count);
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

export const GUEST_MESSAGE_TYPES: readonly GuestMessage["type"][] = [
  "ready",
  "image",
  "printed",
  "output",
  "display",
  "call",
  "result",
  "state",
  "idle",
  "fatal",
];

export function concatenate(parts: readonly Uint8Array[], totalBytes?: number): Uint8Array {
  const all = new Uint8Array(totalBytes ?? parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}
