import type { OutputEvent } from "../sandbox/running-job.ts";
import type { HostCalls, PackageArchive, Workspace } from "../wire/host-calls.ts";
import type { DisplayMode, EditorQuestion, ToolOffer } from "../wire/messages.ts";

/** One piece of Python to run: for which principal, in which environment, with which access to the host. */
export interface ExecutionRequest {
  readonly code: string;
  /** JSON text of an object whose members become global variables; checked by the edge. */
  readonly context?: string | undefined;
  readonly timeoutMs: number;
  /** What `input()` reads; default: nothing, so `input()` raises EOFError. */
  readonly stdin?: string | undefined;
  /** Environment variables of this execution alone. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** What `sys.argv` is: the code is a program that ends as one, with an exit status. Default: it is a cell of a notebook. */
  readonly argv?: readonly string[] | undefined;
  /** The last value as a MIME bundle, too; absent: as JSON only. */
  readonly display?: DisplayMode | undefined;
  /** Answered in place of the code: the value is the answer. */
  readonly question?: EditorQuestion | undefined;
  /** Which of the session's namespaces has its global variables; default: `__main__`. */
  readonly namespace?: string | undefined;
  /** Whether a traceback goes to stderr as well as into the result; default: it does. */
  readonly printTraceback?: boolean | undefined;
  /** Whether it has a number in its session, and its value is kept as `Out[n]`; default: it has. */
  readonly isCounted?: boolean | undefined;
  /** Name of the package set to run in. */
  readonly environment: string;
  /** Whose share of the queue this uses. */
  readonly principal: string;
  readonly workspace?: Workspace | undefined;
  readonly packages?: PackageArchive | undefined;
  /** What the code may ask of the host, besides files of the workspace and of the packages; default: nothing. Called when the code makes its first call. */
  readonly calls?: (() => HostCalls) | undefined;
  /** What the caller's client answers while the code runs: functions of the code. Their calls are among `calls`. */
  readonly tools?: ToolOffer | undefined;
  /** Whether the code waits for the client at the moment. */
  readonly isWaiting?: (() => boolean) | undefined;
  /** Aborting it (the client went away) stops the execution. */
  readonly signal?: AbortSignal | undefined;
  /** Called when the execution waits: for a sandbox, or for others in its session. It is refused no more for lack of room. */
  readonly onWait?: (() => void) | undefined;
  /** Called when a sandbox is there and the code is about to run: from then on what happens is a result. */
  readonly onStart?: (() => void) | undefined;
  /** Called while the code runs: each stream in order, and displayed data between what was printed before and after. What went through it is in the result all the same. */
  readonly onOutput?: ((event: OutputEvent) => void) | undefined;
}
