import type { ClientError } from "../shared/errors.ts";
import type { JsonText } from "../shared/json/json-text.ts";
import type { ErrorInfo } from "../wire/frames.ts";
import type { ExecutionNetwork, PackageArchive, Workspace } from "../wire/host-calls.ts";

/** One piece of Python to run. */
export interface ExecutionRequest {
  readonly code: string;
  /** JSON text of an object whose members become global variables; checked by the edge. */
  readonly context?: string | undefined;
  readonly timeoutMs: number;
  /** What `input()` reads; default: nothing, so `input()` raises EOFError. */
  readonly stdin?: string | undefined;
  /** Name of the package set to run in. */
  readonly environment: string;
  /** Whose share of the queue this uses. */
  readonly principal: string;
  readonly workspace?: Workspace | undefined;
  readonly packages?: PackageArchive | undefined;
  /** What `micropip.install` does; resolves with all packages that are there from then on. */
  readonly installPackages?: ((requirements: readonly string[]) => Promise<PackageArchive | null>) | undefined;
  /** Which package a module is part of that could not be imported, and how to have it; null: that is not known. */
  readonly explainModule?: ((module: string) => Promise<string | null>) | undefined;
  /** Default: none. Whoever gives it ends it. */
  readonly network?: ExecutionNetwork | undefined;
  /** Aborting it (the client went away) stops the execution. */
  readonly signal?: AbortSignal | undefined;
  /** Called when the execution waits: for a sandbox, or for others in its session. It is refused no more for lack of room. */
  readonly onWait?: (() => void) | undefined;
  /** Called when a sandbox is there and the code is about to run: from then on what happens is a result. */
  readonly onStart?: (() => void) | undefined;
  /** Called while the code runs: each stream in order, and displayed data between what was printed before and after. What went through it is in the result all the same. */
  readonly onOutput?: ((event: OutputEvent) => void) | undefined;
}

export type OutputEvent =
  | { readonly type: "stdout" | "stderr"; readonly content: string }
  | { readonly type: "output"; readonly bundle: JsonText };

/**
 * How an execution ended. Set by the server from what it knows of the sandbox, never from what user code says or raises.
 *
 * `error`: by a Python exception, or its result could not be kept. `sandbox_died`: its interpreter or its process ended under it.
 */
export type ExecutionStatus = "completed" | "error" | "timeout" | "cpu_limit" | "cancelled" | "sandbox_died";

/** What came of it. Python errors and timeouts are results, not exceptions. */
export interface ExecutionResult {
  readonly success: boolean;
  readonly status: ExecutionStatus;
  /** The last expression's value, as the sandbox sent it. */
  readonly result: JsonText;
  readonly error: string | null;
  readonly errorInfo?: ErrorInfo;
  readonly stdout: string;
  readonly stderr: string;
  /** MIME bundles: `{"image/png": base64, "text/plain": …}`. */
  readonly outputs: readonly JsonText[];
  /** ms that the code ran, without waiting in the queue. */
  readonly executionTimeMs: number;
  /** ms of processor time that it took, all threads of its sandbox together, in steps of 10; null: the system does not tell. */
  readonly processorTimeMs: number | null;
  readonly truncated: boolean;
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
}
