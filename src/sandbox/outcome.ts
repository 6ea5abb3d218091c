/** The one place where an execution's result and its status are made: from what the host knows, and what the sandbox reports. */
import { setImmediate } from "node:timers/promises";
import type { ClientError } from "../shared/errors.ts";
import { JsonText } from "../shared/json/json-text.ts";
import {
  checked,
  type ErrorInfo,
  errorInfo,
  type FileChanges,
  fileChanges,
  type ResultMessage,
} from "../wire/guest-messages.ts";
import { MAX_ERROR_BYTES, MAX_OUTPUT_BYTES, MAX_VALUE_BYTES } from "../wire/messages.ts";
import { ProtocolError } from "../wire/protocol-error.ts";
import { LARGE_FRAME_BYTES } from "./connection.ts";

/** Conversion goes 100 levels deep, and an array of numpy's has 64 of its own. The server passes values on: their names may have any length. */
const VALUE_LIMITS = {
  maxDepth: 200,
  maxNodes: 12_000_000,
  maxNameBytes: Number.POSITIVE_INFINITY,
  compact: true,
};
const ERROR_LIMITS = { maxDepth: 8, maxNodes: 1000 };
/** For each file or folder that a workspace may have: it is written, or deleted, or both; each with its four facts. */
const NODES_OF_A_CHANGE = 6;
/** For the path and facts of each. */
const BYTES_OF_A_CHANGE = 4096 + 200;

/** Why the server stopped an execution. */
export type StopReason = "timeout" | "cpu_limit" | "cancelled" | "tool_wait_expired";

/**
 * How an execution ended. The server sets it from what it knows of the sandbox, never from what user code says or raises.
 *
 * `error`: by a Python exception, or its result could not be kept. `sandbox_died`: its interpreter or its process ended under it.
 */
export type ExecutionStatus = "completed" | "error" | "sandbox_died" | StopReason;

/** Result of an execution. Python errors, timeouts and dead sandboxes are results, not exceptions. */
export interface ExecutionResult {
  readonly success: boolean;
  readonly status: ExecutionStatus;
  /** The last expression's value, as the sandbox sent it. */
  readonly result: JsonText;
  /** That value as a MIME bundle, and what is said about its data; null: there is none. Absent where it was not asked for. */
  readonly display?: JsonText | null;
  readonly displayMetadata?: JsonText;
  readonly error: string | null;
  readonly errorInfo?: ErrorInfo;
  readonly stdout: string;
  readonly stderr: string;
  /** MIME bundles: `{"image/png": base64, "text/plain": …}`. What was updated is as it was last; what was cleared is none of them. */
  readonly outputs: readonly JsonText[];
  /** ms that the code ran, without waiting in the queue. */
  readonly executionTimeMs: number;
  /** ms of CPU time that it took, all threads of its sandbox together, in steps of 10; null: the system does not tell. */
  readonly cpuTimeMs: number | null;
  readonly truncated: boolean;
  /** Its number in its session, as `In` and `Out` have it; null: it ran without one. */
  readonly executionCount: number | null;
  /** Where it ran in a session. */
  readonly session?: SessionNote;
  /** Why its files or its session's state could not be stored. */
  readonly notKept?: ClientError;
}

/** What became of a session. */
export interface SessionNote {
  readonly id: string;
  /** The session is not as the execution, or the one before it, left it; `reason` says as what and why. */
  readonly restored?: boolean;
  readonly reason?: string;
  /** Why it cannot be stored as it is. */
  readonly pinned?: string;
  /** Paths of files of the workspace that it had open when the execution began, and others had changed or deleted: using them raises OSError. */
  readonly staleFiles?: readonly string[];
}

/** An execution that has ended: the result for its caller, and its changes of files for the workspace. */
export interface Execution {
  readonly result: ExecutionResult;
  /** Contents in the order of `changes.written`. Null: the execution had no files, or its sandbox ended under it. */
  readonly files: WrittenFiles | null;
}

export interface WrittenFiles {
  readonly changes: FileChanges;
  readonly contents: readonly Uint8Array[];
}

/** What a `result` frame says, checked. */
export interface Report {
  readonly errorInfo: ErrorInfo | null;
  readonly value: JsonText;
  /** What was printed since the last output frame. */
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  readonly files: WrittenFiles | null;
}

/**
 * Takes a result apart, in turns where it is large.
 *
 * @param maxFiles most files and folders that the execution may have.
 * @throws {ProtocolError} if anything in it breaks the protocol.
 */
export async function readReport(message: ResultMessage, body: Uint8Array, maxFiles: number): Promise<Report> {
  let position = 0;
  const take = (bytes: number, maxBytes: number) => {
    if (bytes > maxBytes) throw new ProtocolError("a part of a result is over its limit");
    if (position + bytes > body.length) throw new ProtocolError("a result's parts do not fit its body");
    position += bytes;
    return body.subarray(position - bytes, position);
  };
  const error = parsed(await JsonText.checkInSlices(take(message.errorBytes, MAX_ERROR_BYTES), ERROR_LIMITS));
  const info = error === null ? null : checked(errorInfo, error);
  const valueBytes = take(message.valueBytes, MAX_VALUE_BYTES);
  const stdout = take(message.stdoutBytes, MAX_OUTPUT_BYTES);
  const stderr = take(message.stderrBytes, MAX_OUTPUT_BYTES);
  const changesBytes = take(message.changesBytes, BYTES_OF_A_CHANGE * (maxFiles + 100) * 2);
  const limits = { maxDepth: 3, maxNodes: NODES_OF_A_CHANGE * (maxFiles + 100) };
  const changesJson = changesBytes.length === 0 ? null : await JsonText.checkInSlices(changesBytes, limits);
  const changesValue = changesJson && parsed(changesJson);
  // Where there are many files, each step takes a turn of its own.
  if (changesBytes.length > LARGE_FRAME_BYTES) await setImmediate();
  const changes = changesJson === null ? null : checked(fileChanges, changesValue);
  if (changesBytes.length > LARGE_FRAME_BYTES) await setImmediate();
  const contents = changes?.written.map(({ kind, size }) => take(kind === "file" ? size : 0, body.length)) ?? [];
  if (position !== body.length) throw new ProtocolError("a result's body is longer than its parts");
  const value = info === null ? await JsonText.checkInSlices(valueBytes, VALUE_LIMITS) : JsonText.null;
  return { errorInfo: info, value, stdout, stderr, files: changes && { changes, contents } };
}

/** What the host knows of an execution when it is over. */
export interface Ending
  extends Pick<ExecutionResult, "stdout" | "stderr" | "outputs" | "executionTimeMs" | "cpuTimeMs" | "truncated"> {
  readonly stopped: StopReason | null;
  /** How long it had to react to an interrupt before it was killed, ms; of no meaning where it was not. */
  readonly graceMs: number;
  /** The interpreter or the process ended under the code: an error is not Python's. */
  readonly died: boolean;
  /** The process had to be killed, or ended by itself. */
  readonly processEnded: boolean;
  readonly timeoutMs: number;
  readonly value: JsonText;
  /** The value as a bundle, with its metadata; null: there is none. Absent where it was not asked for. */
  readonly display?: DisplayedValue | null;
  readonly errorInfo: ErrorInfo | null;
}

export interface DisplayedValue {
  readonly bundle: JsonText;
  readonly metadata?: JsonText;
}

export function resultOf(ending: Ending): ExecutionResult {
  const { display, stdout, stderr, outputs, executionTimeMs, cpuTimeMs, truncated } = ending;
  const info = ending.stopped === null ? ending.errorInfo : stopError(ending.stopped, ending);
  return {
    success: info === null,
    status: ending.stopped ?? (ending.died ? "sandbox_died" : info === null ? "completed" : "error"),
    result: info === null ? ending.value : JsonText.null,
    ...(display !== undefined && displayed(info === null ? display : null)),
    // What was killed says how in `errorInfo` alone: this text is part of the HTTP contract.
    // An exception without a message says by its class what it is: an empty text looks like no error.
    error:
      ending.stopped === null ? info && (info.message || info.type) : stopMessage(ending.stopped, ending.timeoutMs),
    ...(info && { errorInfo: info }),
    stdout,
    stderr,
    outputs,
    executionTimeMs,
    cpuTimeMs,
    truncated,
    executionCount: null,
  };
}

/** Errors that are the server's, not Python's, are made here. */
export function serverError(
  type: string,
  message: string,
  { traceback = "", line = null, column = null }: Partial<ErrorInfo> = {},
): ErrorInfo {
  return { type, message, traceback, line, column };
}

function displayed(value: DisplayedValue | null): Pick<ExecutionResult, "display" | "displayMetadata"> {
  if (value === null) return { display: null };
  return { display: value.bundle, ...(value.metadata && { displayMetadata: value.metadata }) };
}

/**
 * A result of which something could not be kept. The code has run: what came of it stays in the reply.
 *
 * @param type names the failure where the code itself has met with none.
 */
export function notKept(result: ExecutionResult, type: string, message: string, cause?: ClientError): ExecutionResult {
  const noted = { ...result, ...(cause && { notKept: cause }) };
  const { errorInfo } = result;
  if (errorInfo) return { ...noted, errorInfo: { ...errorInfo, message: `${errorInfo.message} ${message}` } };
  return { ...noted, success: false, status: "error", error: message, errorInfo: serverError(type, message) };
}

/** Result of an execution that the server stopped; the code's own error is ignored, but for where it was. */
function stopError(reason: StopReason, { timeoutMs, graceMs, processEnded, errorInfo }: Ending): ErrorInfo {
  const message = stopMessage(reason, timeoutMs);
  const how = `. It did not react to an interrupt and was killed ${graceMs} ms later.`;
  const type = reason === "cancelled" ? "Cancelled" : reason === "tool_wait_expired" ? "ToolWaitExpired" : "Timeout";
  return serverError(type, processEnded ? message + how : message, errorInfo ?? {});
}

function stopMessage(reason: StopReason, timeoutMs: number): string {
  switch (reason) {
    case "timeout":
      return `Execution timed out after ${timeoutMs}ms`;
    case "cpu_limit":
      return "Execution timed out: it used all the CPU time it may have";
    case "cancelled":
      return "Execution was cancelled";
    case "tool_wait_expired":
      return "Execution ended: the client has left a call of it without an answer for too long";
  }
}

/** Scanned within limits of ours before. */
function parsed(text: JsonText): unknown {
  return text.parseAll(Number.POSITIVE_INFINITY);
}
