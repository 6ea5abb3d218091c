/**
 * What an execution may ask of the host while it runs: one table, which the host checks with and which gives both ends their types.
 * Python names these operations in `device.ask` (`sandbox_runner/device.py`); `host-calls.test.ts` holds its sources to the table.
 *
 * The guest has the types alone: whatever it sends may be an attacker's.
 */
import { z } from "zod";
import type { FileChanges } from "./guest-messages.ts";
import { type FileEntry, MAX_PACKAGE_READ_BYTES, type MimeBundle, type PackageListing } from "./messages.ts";

/** Most requests that a call can name; an execution cannot make more. */
export const MAX_HTTP_REQUESTS = 1000;
/** Most calls of tools that can be waited for at a time, and so the most that an execution may be allowed. */
export const MAX_TOOL_CALLS = 5000;
/** One value that goes to a tool, or comes from it, bytes of JSON. */
export const MAX_TOOL_VALUE_BYTES = 10 * 1024 * 1024;

const path = z.string().max(4096);
/** How long the code waits at the most; null: as long as the server lets it. */
const waitMs = z.number().positive().nullable();
/** Each once: what is done for one is not done a thousand times. */
const unique = (ids: readonly number[]) => [...new Set(ids)];
const requestIds = z.array(z.number()).max(MAX_HTTP_REQUESTS).transform(unique);

/** Each call with what its argument has to be. */
export const HOST_CALLS = {
  /** Content of a file of the workspace, in the answer's body. */
  "read-file": path,
  /** A part of a package archive, counted from the beginning of its data, in the answer's body. */
  "read-package": z.strictObject({
    sha256: z.string().max(64),
    offset: z.int().nonnegative(),
    length: z.int().nonnegative().max(MAX_PACKAGE_READ_BYTES),
  }),
  /** What `micropip.install` does. The packages come with the answer. */
  "install-packages": z.array(z.string().max(1000)).max(100),
  /** Which package a module is part of that could not be imported, and how to install it. */
  "explain-module": path,
  /** Whether a connection to the URL's host may be made. */
  "http-check": z.strictObject({ url: z.string() }),
  /** Sends a request, without waiting for its response. */
  "http-start": z.strictObject({
    method: z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}$/),
    url: z.string(),
    headers: z.array(z.tuple([z.string(), z.string()])).max(1000),
    /** Base64. */
    body: z.string(),
    timeoutMs: waitMs,
  }),
  /** Waits for the first of these whose response has begun. */
  "http-wait": z.strictObject({ ids: requestIds, timeoutMs: z.number().min(0).nullable() }),
  /** The next piece of a response's content, in the answer's body; empty: there is no more. */
  "http-read": z.strictObject({ id: z.number(), timeoutMs: waitMs }),
  /** Ends requests. */
  "http-close": z.strictObject({ ids: requestIds }),
  /** Has the caller's client asked: to call a tool of its own, or to have its user write a line. Its answer is not waited for. */
  "tool-start": z.union([
    /** `input`: the arguments as the JSON text of an object, which goes to the client as it is. */
    z.strictObject({ tool: z.string().max(200), input: z.string() }),
    z.strictObject({ prompt: z.string().max(100_000), password: z.boolean() }),
  ]),
  /** Waits for the first answer to one of these, or for the first of these requests whose response has begun. Answers are in the body, one after another. */
  "tool-wait": z.strictObject({
    ids: z.array(z.number()).max(MAX_TOOL_CALLS).transform(unique),
    requests: requestIds,
    timeoutMs: z.number().min(0).nullable(),
  }),
} satisfies Readonly<Record<keyof HostCallValues, z.ZodType>>;

/** Each call with the value of its answer. */
export interface HostCallValues {
  "read-file": null;
  "read-package": null;
  "install-packages": null;
  "explain-module": string | null;
  "http-check": { readonly failure: HttpFailure } | null;
  /** Names the request in the calls that follow. */
  "http-start": number;
  "http-wait": readonly HttpProgress[];
  "http-read": { readonly failure: HttpFailure } | null;
  "http-close": null;
  /** Names the call in those that follow. */
  "tool-start": number | ToolRefusal;
  "tool-wait": { readonly calls: readonly ToolAnswerHead[]; readonly requests: readonly HttpProgress[] };
}

/** Why a call does not reach the client: its arguments do not fit the schema (`type`), there is no such tool, no time or no place left. */
export interface ToolRefusal {
  readonly kind: "type" | "error" | "timeout";
  readonly message: string;
}

export interface ToolAnswerHead {
  readonly id: number;
  /** `result`: the value; otherwise an object with `message`, and `data` where the client has sent it. */
  readonly kind: "result" | "error" | "timeout";
  /** Of JSON, in the body. */
  readonly bytes: number;
}

export type HostCallName = keyof HostCallValues;
export type HttpCallName = Extract<HostCallName, `http-${string}`>;
export type ToolCallName = Extract<HostCallName, `tool-${string}`>;
export type HostCallArgument<N extends HostCallName> = z.output<(typeof HOST_CALLS)[N]>;

export interface HttpFailure {
  readonly kind: string;
  readonly message: string;
}

export type HttpProgress =
  | { readonly id: number; readonly head: HttpHead }
  | { readonly id: number; readonly failure: HttpFailure };

export interface HttpHead {
  readonly status: number;
  readonly reason: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
}

export interface HostCallAnswer<N extends HostCallName> {
  readonly value: HostCallValues[N];
  readonly body?: Uint8Array;
  /** All of the caller's packages, where the call has changed them. */
  readonly packages?: PackageArchive;
}

/** How the host answers one kind of call. */
export interface HostCall<N extends HostCallName> {
  /** Largest argument, bytes of JSON; default: 64 KiB. */
  readonly maxArgumentBytes?: number;
  /** While an answer is waited for, the execution's time does not go on: the call has limits of its own. */
  readonly stopsClock?: boolean;
  /**
   * A ClientError's message is shown to user code. `signal` is aborted when the code is stopped: it gets an answer at once then, whatever
   * this one comes to, and what goes on for it ends.
   */
  readonly answer: (
    argument: HostCallArgument<N>,
    signal: AbortSignal,
  ) => HostCallAnswer<N> | Promise<HostCallAnswer<N>>;
}

/** The calls that the host answers for an execution; it refuses all others. */
export type HostCalls = { readonly [N in HostCallName]?: HostCall<N> };

/** What Python asks for at the device that the guest does by itself: each operation with its argument. */
export interface GuestOperations {
  /** Milliseconds. */
  sleep: number;
  /** Raise the interrupt again, which Python could not raise where it hit. */
  "repeat-interrupt": null;
  display: DisplayedBundle;
  /** Whether to wait for something else to show. */
  "clear-output": boolean;
}

/** What Python displays. What is absent is as in the `display` message. */
export interface DisplayedBundle {
  readonly bundle: MimeBundle;
  readonly kind?: "update" | "value";
  readonly id?: string;
  /** About the data, by MIME type. */
  readonly metadata?: Readonly<Record<string, unknown>>;
}

export function isHostCall(operation: string): operation is HostCallName {
  return Object.hasOwn(HOST_CALLS, operation);
}

/** Files that outlive an execution; `workspaces/workspaces.ts` keeps them on disk. */
export interface Workspace {
  /** All files and folders, parents before children. */
  list(): Promise<readonly FileEntry[]>;
  /** The most that the sandbox may let user code fill. */
  quota(): Promise<{ readonly bytes: number; readonly files: number }>;
  /** @throws {ClientError} 404 if there is no such file. */
  read(path: string): Promise<Uint8Array>;
  /** Takes over what an execution did, all or nothing. `contents[i]` belongs to `changes.written[i]`. */
  apply(changes: FileChanges, contents: readonly Uint8Array[]): Promise<void>;
}

/** Packages of a caller, besides those of the environment. */
export interface PackageArchive {
  readonly listing: PackageListing;
  /** @param offset counted from the beginning of the archive's data. */
  read(offset: number, length: number): Uint8Array;
}
