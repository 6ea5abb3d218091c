import { MAX_OUTPUT_BYTES } from "../../wire/messages.ts";

/** Bytes of the ring through which frames go from the watcher to the interpreter. */
export const INPUT_BYTES = 256 * 1024;

/**
 * What the two threads of a sandbox process share: the main thread with the interpreter, which never returns to its event loop
 * once it is ready, and the watcher, which reads the process's input and can act while user code runs.
 */
export interface Shared {
  /** Int32: see `CONTROL`. */
  readonly control: SharedArrayBuffer;
  /** One byte, Pyodide's interrupt buffer: 2 (SIGINT) raises KeyboardInterrupt. */
  readonly interrupt: SharedArrayBuffer;
  /** Ring of the frames that are for the interpreter. */
  readonly input: SharedArrayBuffer;
  /** What the execution has printed; the watcher can send it even while the interpreter hangs. `MAX_OUTPUT_BYTES` each. */
  readonly stdout: SharedArrayBuffer;
  readonly stderr: SharedArrayBuffer;
}

export const SIGINT = 2;

/** Indices into `Shared.control`. */
export const CONTROL = {
  /** Counts up and is notified whenever the interpreter may have to look: bytes in the input, an interrupt, the end. */
  WAKE: 0,
  /** How many bytes were ever put into the input, and taken out of it, modulo 2 ** 32. */
  INBOX_WRITTEN: 1,
  INBOX_READ: 2,
  /** 1: the host has closed the process's input. */
  CLOSED: 3,
  /** 1: a thread is writing to the process's output. */
  OUTPUT_LOCK: 4,
  STDOUT_BYTES: 5,
  STDOUT_SENT: 6,
  STDERR_BYTES: 7,
  STDERR_SENT: 8,
  /** 1: stdout or stderr was cut. */
  TRUNCATED: 9,
  /** 1: the host was told that something was printed, and has not asked for it. */
  OUTPUT_ANNOUNCED: 10,
  /** 1: the host has interrupted the job. */
  INTERRUPTED: 11,
  LENGTH: 12,
} as const;

export function createShared(): Shared {
  return {
    control: new SharedArrayBuffer(CONTROL.LENGTH * 4),
    interrupt: new SharedArrayBuffer(1),
    input: new SharedArrayBuffer(INPUT_BYTES),
    stdout: new SharedArrayBuffer(MAX_OUTPUT_BYTES),
    stderr: new SharedArrayBuffer(MAX_OUTPUT_BYTES),
  };
}

/** Wakes the interpreter if it waits. */
export function wakeInterpreter(control: Int32Array<SharedArrayBuffer>): void {
  Atomics.add(control, CONTROL.WAKE, 1);
  Atomics.notify(control, CONTROL.WAKE);
}
