import type { FileChanges, FileEntry, FileQuota, MimeBundle, Verdict } from "../sandbox/protocol.ts";

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
  LENGTH: 5,
} as const;

export interface Job {
  readonly type: "job";
  readonly code: string;
  readonly context: string | null;
  readonly stdin: string;
  readonly stream: boolean;
  readonly files: readonly FileEntry[] | null;
  readonly quota: FileQuota;
}

export interface Answer {
  readonly type: "answer";
  readonly call: number;
  readonly value: unknown;
  readonly error?: string;
  readonly body: Uint8Array;
}

export type ToWorker = Job | Answer;

export type FromWorker =
  | {
      readonly type: "ready";
      readonly pythonVersion: string;
      readonly pyodideVersion: string;
      readonly heapBytes: number;
      readonly checkpoint: string | null;
    }
  | { readonly type: "image"; readonly pythonVersion: string; readonly image: Uint8Array }
  | { readonly type: "output" }
  | { readonly type: "display"; readonly bundle: MimeBundle }
  | { readonly type: "call"; readonly call: number; readonly operation: string; readonly argument: unknown }
  | {
      readonly type: "result";
      readonly executionTimeMs: number;
      /** `RunnerOutcome` as JSON. */
      readonly outcome: Uint8Array;
      readonly files: FileChanges | null;
      readonly contents: readonly Uint8Array[];
    }
  | { readonly type: "idle"; readonly verdict: Verdict; readonly heapBytes: number }
  | { readonly type: "fatal"; readonly reason: string };

/** What the main thread hands the worker once, before anything is loaded. */
export interface Boot {
  readonly shared: Shared;
  readonly port: MessagePort;
  /** `file:` URL of the folder of the `pyodide` package, with a slash at its end. */
  readonly pyodideUrl: string;
  readonly module: WebAssembly.Module;
  readonly stdlib: Uint8Array;
  /** Pyodide's lock file with no packages in it. */
  readonly lockFile: object;
  /** The memory image to start from; null: start from nothing and build one. */
  readonly image: Uint8Array | null;
  /** Our own Python modules: path below `/lib` → source. */
  readonly sources: Readonly<Record<string, string>>;
  /** Standard library modules to have imported in the image. */
  readonly preload: readonly string[];
  readonly maxHeapBytes: number;
  readonly hashCheckpoint: boolean;
}
