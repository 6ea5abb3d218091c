import type { FileChanges, GuestMessage, GuestOptions, HostMessage } from "../sandbox/protocol.ts";

/**
 * What the process's main thread and the interpreter's worker share.
 *
 * The worker never returns to its event loop once it is ready: it sleeps on `control` and takes messages from a port
 * synchronously. So no promise, timer or finaliser of JavaScript ever runs between two executions, or inside one.
 */
export interface Shared {
  /** Int32: see `CONTROL`. */
  readonly control: SharedArrayBuffer;
  /** One byte, Pyodide's interrupt buffer: 2 (SIGINT) raises KeyboardInterrupt. */
  readonly interrupt: SharedArrayBuffer;
  /** What was printed; the main thread can read it even while the worker hangs. `MAX_OUTPUT_BYTES` each. */
  readonly stdout: SharedArrayBuffer;
  readonly stderr: SharedArrayBuffer;
}

/** Indices into `Shared.control`. */
export const CONTROL = {
  /** Counts up and is notified whenever there is a message for the worker, or an interrupt. */
  WAKE: 0,
  STDOUT_BYTES: 1,
  STDERR_BYTES: 2,
  /** 1: stdout or stderr was cut. */
  TRUNCATED: 3,
  /** 1: the main thread was told that there is new output and has not looked yet. */
  OUTPUT_ANNOUNCED: 4,
  /** How many `display` messages were sent. */
  DISPLAYS: 5,
  LENGTH: 6,
} as const;

/** How many bytes each stream had when something happened: what was printed before it. */
export interface Printed {
  readonly stdout: number;
  readonly stderr: number;
}

/** What the worker is asked to do, one at a time; each ends with `idle`. */
export type Task =
  | Extract<HostMessage, { type: "execute" | "rewind" }>
  | (Extract<HostMessage, { type: "load" }> & { readonly body: ArrayBuffer });

/**
 * Bodies cross as bare buffers: in a typed array Deno's `receiveMessageOnPort` looks at each element for a port that may have
 * been sent along, which took half a second for a megabyte.
 */
export type Answer = Extract<HostMessage, { type: "answer" }> & { readonly body: ArrayBuffer };

export type ToWorker = Task | Answer;

/**
 * How a message to the worker travels. Deno looks for ports in every property of a message that is taken synchronously, and
 * each byte of a Uint8Array is a property: 100 ms for a megabyte. A text and a buffer have none.
 */
export interface Envelope {
  /** JSON of a `ToWorker` without its body. */
  readonly message: string;
  readonly body: ArrayBuffer;
}

export type FromWorker =
  | Extract<GuestMessage, { type: "ready" | "call" }>
  | (Extract<GuestMessage, { type: "display" }> & Printed)
  | (Extract<GuestMessage, { type: "image" }> & { readonly image: Uint8Array })
  | { readonly type: "output" }
  | {
      readonly type: "result";
      readonly executionTimeMs: number;
      /** `RunnerOutcome` as JSON. */
      readonly outcome: Uint8Array;
      readonly files: FileChanges | null;
      readonly contents: readonly Uint8Array[];
    }
  | (Extract<GuestMessage, { type: "state" }> & { readonly blocks: Uint32Array; readonly data: Uint8Array })
  | Extract<GuestMessage, { type: "idle" | "fatal" }>;

/** What the main thread hands the worker once, before anything is loaded. */
export interface Boot {
  readonly shared: Shared;
  readonly port: MessagePort;
  /** `file:` URL of the folder of the `pyodide` package, with a slash at its end. */
  readonly pyodideUrl: string;
  readonly module: WebAssembly.Module;
  readonly stdlib: Uint8Array;
  /** The base image to start from; null: build it. */
  readonly base: Uint8Array | null;
  /** The environment's memory image; null: there is none, or it is to be built. */
  readonly image: Uint8Array | null;
  /** Our own Python modules: path below `/lib` → source. */
  readonly sources: Readonly<Record<string, string>>;
  readonly options: GuestOptions;
}
