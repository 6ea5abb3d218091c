/**
 * What the host says to a sandbox process, and the limits of what goes either way. What a sandbox says is defined in
 * `guest-messages.ts`, of which the guest has the types alone.
 */

import type { ArchiveEntry } from "./archive-format.ts";
import type { SessionState } from "./guest-messages.ts";

/**
 * One execution. The server makes this message once, and it is sent as it is. The frame's nonce is the execution's: every frame
 * about it carries that nonce, up to and including `idle`.
 */
export interface ExecuteMessage {
  readonly type: "execute";
  readonly program: Program;
  /** What `input()` and `sys.stdin` read. */
  readonly stdin: string;
  /** Send output frames while the code runs. */
  readonly stream: boolean;
  /** Files of a stateless execution; null: run without. A session's come with `load`. */
  readonly files: FileListing | null;
  /** Read-only packages of the caller's, besides the environment's. The guest reads their contents with `read-package`. */
  readonly packages: PackageListing | null;
}

/** The part of an execution that the runner in Python gets, as JSON: see `sandbox_runner/execution.py`. */
export interface Program {
  readonly code: string;
  /** JSON text of an object whose members become global variables; null: none. */
  readonly context: string | null;
  /**
   * Number of the execution in its session, from 1: it runs on the state that the session has, which is kept, and reported in a
   * `state` frame. Null: stateless, on the baseline, which is restored afterwards.
   */
  readonly execution: number | null;
  /** Draw new random seeds first. Not for a session that only woke up. */
  readonly reseed: boolean;
  /** What the client of the caller answers while the code runs; null: nothing. */
  readonly tools: ToolOffer | null;
  /** Environment variables of this execution alone; absent: none. */
  readonly env?: Readonly<Record<string, string>>;
  /** What `sys.argv` is: the code is a program that ends as one, with an exit status. Absent: a cell of a notebook. */
  readonly argv?: readonly string[];
  /** False: a traceback is in the result alone. Absent: it is printed, too, as Python does. */
  readonly printTraceback?: false;
  /** False, in a session: it has no number of its own, and its value is not kept as `Out[n]`. Absent: it has. */
  readonly isCounted?: false;
  /** What a session is to begin with, where this is its first execution; absent: nothing. */
  readonly start?: SessionStart;
  /** Absent: the value is sent as JSON only. */
  readonly display?: DisplayMode;
  /** Whose global variables the code has, in a session that has several namespaces; absent: the one that there is. */
  readonly namespace?: NamespacePlace;
  /** Answered in place of an execution; a session's state is not reported. */
  readonly question?: EditorQuestion;
}

/** What an editor asks about code, of which nothing is executed. */
export type EditorQuestion =
  /** @param cursor counts characters (code points) before it. */
  | { readonly type: "complete"; readonly code: string; readonly cursor: number }
  /** @param detail 1: with its source. */
  | { readonly type: "inspect"; readonly code: string; readonly cursor: number; readonly detail: 0 | 1 }
  /** Whether a prompt should run it, or ask for another line. */
  | { readonly type: "is_complete"; readonly code: string };

/** A namespace of a session, and which others there are. */
export interface NamespacePlace {
  readonly name: string;
  /** Of no other namespace that the session has had: one that is made again under its name has another. */
  readonly key: string;
  /** Of the default one, which is `__main__` between executions. */
  readonly defaultKey: string;
  /** Of all others. What the interpreter has besides goes. */
  readonly keys: readonly string[];
  /** Working directory that it begins in, and has for itself. */
  readonly cwd?: string;
}

/** What a session begins with. */
export interface SessionStart {
  /** Absolute path; made if it is not there. */
  readonly cwd?: string | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Images that Pillow saves to a path are displayed. */
  readonly showsSavedImages?: true;
}

/**
 * How the last expression's value is sent as a MIME bundle beside its JSON. `on`: a figure that is the value and open is in that bundle,
 * and not among what is displayed. `after-outputs`: it is displayed, as without a bundle, and the bundle has its text alone.
 */
export type DisplayMode = "on" | "after-outputs";

/** The client's tools as the runner makes functions of them: see `sandbox_runner/tool_calls.py`. */
export interface ToolOffer {
  readonly tools: readonly ToolSignature[];
  /** Whether the functions block, or are coroutine functions. */
  readonly mode: "sync" | "async";
  /** `input()` asks the client. */
  readonly interactive: boolean;
  /** Compare the code's calls with the signatures before anything runs. */
  readonly check: boolean;
}

export interface ToolSignature {
  /** Of the function: an identifier, or several with dots between them. */
  readonly name: string;
  /** What the client calls it. */
  readonly tool: string;
  readonly description: string;
  /** Those that a call needs first. */
  readonly parameters: readonly ToolParameter[];
  /** Further arguments are taken by keyword. */
  readonly takesMore: boolean;
  /** Annotation of what it returns. */
  readonly returns: string;
}

export interface ToolParameter {
  /** An identifier. */
  readonly name: string;
  /** The argument's name in JSON. */
  readonly key: string;
  readonly required: boolean;
  /** None is sent as null; otherwise it is left out. */
  readonly nullable: boolean;
  readonly annotation: string;
  readonly description: string;
  readonly default?: unknown;
}

/** Makes the sandbox a session's. Body: the session's memory; none: a new session. */
export interface LoadMessage {
  readonly type: "load";
  readonly state: SessionState | null;
  readonly files: FileListing;
  /** As in `execute`: the session may have files of them open. */
  readonly packages: PackageListing | null;
}

/** Answers a guest's `call`; the body belongs to it. */
export interface AnswerMessage {
  readonly type: "answer";
  readonly call: number;
  readonly value: unknown;
  /** Why the host refuses. */
  readonly error?: string;
  /** All of the caller's packages, where the call has changed them: mounted before the code goes on. */
  readonly packages?: PackageListing;
}

/** A message that the interpreter's thread takes. */
export type OrdinaryMessage =
  /** The first frame; its nonce is the one for frames that belong to no execution. */
  | { readonly type: "start"; readonly options: GuestOptions }
  | ExecuteMessage
  | LoadMessage
  /** Forget the session; back to the baseline. */
  | { readonly type: "rewind" }
  | AnswerMessage;

/** A message that the watcher acts on while user code runs. */
export type UrgentMessage =
  /** Ends what runs with KeyboardInterrupt. */
  | { readonly type: "interrupt" }
  /** Asks for what was printed. */
  | { readonly type: "more-output" };

export type HostMessage = OrdinaryMessage | UrgentMessage;

export const ORDINARY_MESSAGE_TYPES: readonly OrdinaryMessage["type"][] = [
  "start",
  "execute",
  "load",
  "rewind",
  "answer",
];

export const URGENT_TYPES: ReadonlySet<string> = new Set<UrgentMessage["type"]>(["interrupt", "more-output"]);

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
  readonly hashBaseline: boolean;
  /** For tests: compare the whole memory with the baseline after each rewind; a difference discards the process. */
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

/** Largest argument of a call, bytes of JSON: the largest body a request may be allowed (32 MiB) in base64, and its headers. */
export const MAX_CALL_BYTES = 48 * 1024 * 1024;

/** Largest error, bytes of JSON: a message, a traceback of 200,000 characters, each of them escaped. */
export const MAX_ERROR_BYTES = 8 * 1024 * 1024;

/** Largest value of a result, bytes of JSON: 10 MiB, each character of it escaped. */
export const MAX_VALUE_BYTES = 64 * 1024 * 1024;

/** Largest header of a guest's. What is large is in the body. */
export const MAX_GUEST_HEADER_BYTES = 2 * 1024 * 1024;

/** Largest state of a session that a header takes, characters of JSON; what has more open files than that stays where it is. */
export const MAX_STATE_CHARACTERS = 1024 * 1024;
