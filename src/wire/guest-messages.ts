/**
 * What a sandbox says, as schemas: the one definition of these messages. The guest has the types of it, the host checks with it.
 *
 * Whatever came out of a sandbox may be an attacker's, whatever type its sender is meant to have. All numbers here are finite
 * and in a range, all texts and lists have a largest length, and a field that is not named is refused.
 */
import { z } from "zod";
import { scanJson } from "../shared/json/json-scanner.ts";
import { MAX_DISPLAY_ID_CHARACTERS, MAX_METADATA_BYTES } from "./display-limits.ts";
import { ProtocolError, type ReadHeader } from "./protocol-error.ts";

const MAX_REASON_CHARACTERS = 64 * 1024;
/** Parts of an error, characters, as `sandbox_runner/tracebacks.py` cuts them, and says what is left out. */
const MAX_ERROR_PARTS = { type: 1_100, message: 100_100, traceback: 200_100 };
const MAX_HEAP_BYTES = 2 ** 32;
const MAX_LISTING_CHARACTERS = 1024 * 1024;
/** Longer than any execution. */
const MAX_TIME_MS = 2 ** 40;

const count = z.int().nonnegative();
const reason = z.string().max(MAX_REASON_CHARACTERS);
const sandboxPath = z.string().max(4096);
const heapBytes = count.max(MAX_HEAP_BYTES);
const timeMs = z.number().nonnegative().max(MAX_TIME_MS);
const bodyBytes = count.max(2 ** 31);
const reasons = z.record(z.string().max(4096), reason);

/**
 * What a session is besides its files: JSON here, and in the frame's body the memory that differs from the baseline as
 * `blockCount` block numbers (u32 le, ascending) followed by as many blocks of 256 bytes, each combined with the baseline's
 * by exclusive or. The contents of the `unnamed` files follow, one after another.
 */
export const sessionState = z.strictObject({
  heapBytes,
  blockCount: count.max(MAX_HEAP_BYTES / 256),
  currentPath: sandboxPath,
  nextInode: count,
  /** What the monotonic clock showed, ms. */
  clockMs: z.number().nonnegative(),
  /** Open files. Descriptors that were made by `dup` share a position. */
  streams: z
    .array(
      z.strictObject({
        fd: count.max(65_535),
        /** Where it is, or was when it was opened. */
        path: sandboxPath,
        flags: z.int(),
        position: count,
        /** Equal for descriptors that share one. */
        group: count,
        /** No path leads to it: its place in `unnamed`. */
        unnamed: count.max(65_535).exactOptional(),
        /** Of a workspace that others have changed: it is another file by now, or none, and every use of it is an error. */
        stale: z.literal(true).exactOptional(),
        /** Size of a file of the caller's packages, which may become others while it is open. */
        bytes: count.exactOptional(),
        /** Of a folder that is being listed: all its names, in the order in which they are given, with a slash between. */
        listing: z.string().max(MAX_LISTING_CHARACTERS).exactOptional(),
      }),
    )
    .max(65_536)
    .readonly(),
  /** Parts of the memory that are parts of files. */
  mappings: z
    .array(
      z.strictObject({
        address: heapBytes,
        length: heapBytes,
        /** Where in the file it begins. */
        offset: count,
        writable: z.boolean(),
        path: sandboxPath,
        unnamed: count.max(65_535).exactOptional(),
        /** As in `streams`: what is written to it stays in the memory. */
        stale: z.literal(true).exactOptional(),
      }),
    )
    .max(65_536)
    .readonly(),
  /** What is open and has no path: deleted files and folders, and pipes. */
  unnamed: z
    .array(
      z.strictObject({
        kind: z.enum(["file", "folder", "pipe"]),
        /** Length of its content: of a pipe, what was not read yet. */
        bytes: count.max(MAX_HEAP_BYTES),
        mode: count.max(0o177777),
        mtimeMs: z.number(),
      }),
    )
    .max(65_536)
    .readonly(),
  links: z.array(z.strictObject({ path: sandboxPath, target: sandboxPath })).max(100_000),
});

/** What an execution did to the workspace. Contents of `written` files stand in the frame's body, one after another. */
export const fileChanges = z.strictObject({
  written: z
    .array(z.strictObject({ path: sandboxPath, size: count, mtimeMs: z.number(), kind: z.enum(["file", "folder"]) }))
    .readonly(),
  deleted: z.array(sandboxPath).readonly(),
});

export const errorInfo = z.strictObject({
  /** Class name of the exception: `ZeroDivisionError`. User code chose it. */
  type: z.string().max(MAX_ERROR_PARTS.type),
  message: z.string().max(MAX_ERROR_PARTS.message),
  /** Frames of user code only. */
  traceback: z.string().max(MAX_ERROR_PARTS.traceback),
  /** 1-based position in the code sent; null where there is none. */
  line: count.nullable(),
  column: count.nullable(),
});

/** Whether a sandbox may go on after an execution. */
const verdict = z.discriminatedUnion("state", [
  z.strictObject({ state: z.literal("pristine"), restoredPages: count }),
  /** It holds a session. */
  z.strictObject({ state: z.literal("resident") }),
  z.strictObject({ state: z.literal("discard"), reason }),
]);

export const guestMessage = z.discriminatedUnion("type", [
  z.strictObject({
    type: z.literal("ready"),
    pythonVersion: z.string().max(100),
    pyodideVersion: z.string().max(100),
    heapBytes,
    /** Why a rewind looks at every page of the memory; null: it looks at those that were written to. */
    everyPage: reason.nullable(),
    /** SHA-256 of the baseline where it was asked for; equal in every process that boots the same image. */
    baseline: z.string().max(64).nullable(),
  }),
  /** An image was built; it is the body. */
  z.strictObject({
    type: z.literal("image"),
    /** Modules that could not be imported: name → why. */
    failedImports: reasons,
    /**
     * What has no place in an image: modules and libraries by name, and why. If there are any, nothing was built, and a
     * build without them is to be tried.
     */
    unfit: reasons,
  }),
  /** Of a streaming execution: something was printed, and waits for `more-output`. Until then there is no other of these. */
  z.strictObject({ type: z.literal("printed") }),
  /** What was printed since the last such frame; the body is the bytes, at least one. */
  z.strictObject({ type: z.literal("output"), stream: z.enum(["stdout", "stderr"]) }),
  /** Body: a MIME bundle as JSON, `{"image/png": base64, "text/plain": …}`, then what is said about its data, an object as JSON too. */
  z
    .strictObject({
      type: z.literal("display"),
      /** `update`: it takes the place of what was displayed as `displayId`. `value`: it is the last expression's. Absent: it is displayed. */
      kind: z.enum(["update", "value"]).exactOptional(),
      displayId: z.string().max(MAX_DISPLAY_ID_CHARACTERS).exactOptional(),
      /** Absent: nothing is said. */
      metadataBytes: count.min(1).max(MAX_METADATA_BYTES).exactOptional(),
    })
    .refine(({ kind, displayId }) => kind !== "update" || displayId !== undefined, "an update says of what")
    .refine(({ kind, displayId }) => kind !== "value" || displayId === undefined, "a value has no id"),
  /** What was displayed is taken back: at once, or when something else comes. */
  z.strictObject({ type: z.literal("clear_output"), wait: z.boolean() }),
  /** User code waits for the host: a file's content, a package, a network request. Body: the argument as JSON. */
  z.strictObject({ type: z.literal("call"), call: count, operation: z.string().max(64) }),
  z.strictObject({
    type: z.literal("result"),
    /** ms that the code ran. */
    executionTimeMs: timeMs,
    /**
     * Body: the error (`ErrorInfo` as JSON; `null`: none), the result's value as JSON, stdout, stderr, the changes of files
     * (`FileChanges` as JSON; empty: it ran without files), then the contents of the written files. Error and value come from the
     * runner in Python: user code can make them anything.
     */
    errorBytes: bodyBytes,
    valueBytes: bodyBytes,
    stdoutBytes: bodyBytes,
    stderrBytes: bodyBytes,
    changesBytes: bodyBytes,
    /** The value, stdout or stderr was cut at its limit. */
    truncated: z.boolean(),
    /** The interpreter ended under the code, by a trap or a stack that overflowed: error and value are not Python's. */
    crashed: z.boolean(),
  }),
  /** After a session's `result`: what it is now, body as in `load`; or null, and why it cannot be captured. */
  z
    .strictObject({ type: z.literal("state"), state: sessionState.nullable(), reason: reason.optional() })
    .refine(({ state, reason }) => (state === null) === (reason !== undefined), "a state, or why there is none"),
  /** The sandbox is ready for the next message, or must not be used again. */
  z.strictObject({ type: z.literal("idle"), verdict, heapBytes }),
  /** The process cannot go on. */
  z.strictObject({ type: z.literal("fatal"), reason }),
]);

export type GuestMessage = z.output<typeof guestMessage>;
export type Verdict = z.output<typeof verdict>;
export type SessionState = z.output<typeof sessionState>;
export type FileChanges = z.output<typeof fileChanges>;
export type ErrorInfo = z.output<typeof errorInfo>;
export type DisplayMessage = Extract<GuestMessage, { type: "display" }>;
export type ResultMessage = Extract<GuestMessage, { type: "result" }>;
/** An open file of a session, or of an image. */
export type OpenFile = SessionState["streams"][number];
export type MappedFile = SessionState["mappings"][number];
export type UnnamedFile = SessionState["unnamed"][number];

/** A state has some ten thousand values at the most, and no other header has as many. */
const HEADER_LIMITS = { maxDepth: 8, maxNodes: 100_000 };

/** @throws if the bytes are not a message. */
export const readGuestMessage: ReadHeader<GuestMessage> = (header) => {
  scanJson(header, HEADER_LIMITS);
  const text = Buffer.from(header.buffer, header.byteOffset, header.length).toString("utf8");
  return checked(guestMessage, JSON.parse(text));
};

/** @throws {ProtocolError} with the first thing that is wrong. */
export function checked<T extends z.ZodType>(schema: T, value: unknown): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  throw new ProtocolError(`it is not as it has to be: ${issue?.path.join(".")}: ${issue?.message}`.slice(0, 300));
}
