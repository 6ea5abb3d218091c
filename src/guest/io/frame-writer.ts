import { concatenate, encodeFrame } from "../../wire/frames.ts";
import type { FileChanges, GuestMessage, ResultMessage } from "../../wire/guest-messages.ts";
import { MAX_OUTPUT_BYTES } from "../../wire/messages.ts";
import { CONTROL, type Shared } from "./shared-state.ts";

// Deno's own object is gone from the realm when it is needed here.
const { stdout: pipe } = Deno;

type StreamName = "stdout" | "stderr";

const COUNTERS = {
  stdout: { printed: CONTROL.STDOUT_BYTES, sent: CONTROL.STDOUT_SENT },
  stderr: { printed: CONTROL.STDERR_BYTES, sent: CONTROL.STDERR_SENT },
} as const;

/** Parts of a result that come from the runner in Python. */
export interface RunnerReply {
  /** `ErrorInfo` as JSON; `null`: none. */
  readonly error: Uint8Array;
  /** The last expression's value as JSON. */
  readonly value: Uint8Array;
  /** The value was cut. */
  readonly truncated: boolean;
}

const encoder = new TextEncoder();
/** So often an execution's output goes on in the other stream in its exact place; after that what is near it may change places with it. */
const MAX_TURNS = 2000;

/**
 * The process's output: frames from both threads, one at a time, and what user code prints, which waits in shared memory until it
 * is sent. So it is not lost when the interpreter hangs and has to be killed: the watcher sends it.
 */
export class FrameWriter {
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #printed: Readonly<Record<StreamName, Uint8Array>>;
  #turns = 0;

  constructor({ control, stdout, stderr }: Shared) {
    this.#control = new Int32Array(control);
    this.#printed = { stdout: new Uint8Array(stdout), stderr: new Uint8Array(stderr) };
  }

  /** Keeps what was printed, up to the limit. Only the interpreter prints. @returns whether there is something new to send. */
  print(stream: StreamName, bytes: Uint8Array): boolean {
    const { printed } = COUNTERS[stream];
    const used = this.#control[printed] as number;
    const fits = bytes.subarray(0, MAX_OUTPUT_BYTES - used);
    this.#printed[stream].set(fits, used);
    Atomics.store(this.#control, printed, used + fits.length);
    if (fits.length < bytes.length) Atomics.store(this.#control, CONTROL.TRUNCATED, 1);
    return fits.length > 0;
  }

  /** Sends what waits of the other stream, before something is printed to this one: so the host has both in the order in which they were printed. */
  keepOrder(stream: StreamName, nonce: string): void {
    const { printed, sent } = COUNTERS[stream === "stdout" ? "stderr" : "stdout"];
    if (Atomics.load(this.#control, printed) === Atomics.load(this.#control, sent)) return;
    if (this.#turns++ < MAX_TURNS) this.#locked(() => this.#sendPrinted(nonce));
  }

  send(nonce: string, message: GuestMessage, ...body: Uint8Array[]): void {
    this.#locked(() => this.#write(nonce, message, ...body));
  }

  /**
   * Tells the host that something was printed, unless it knows and has not asked yet. By the time it asks there is more: Python writes a line
   * and its end by themselves, and a flood becomes few frames.
   */
  announceOutput(nonce: string): void {
    this.#locked(() => {
      if (this.#control[CONTROL.OUTPUT_ANNOUNCED] === 1) return;
      this.#control[CONTROL.OUTPUT_ANNOUNCED] = 1;
      this.#write(nonce, { type: "printed" });
    });
  }

  /** Sends what was printed. */
  sendOutput(nonce: string): void {
    this.#locked(() => {
      this.#control[CONTROL.OUTPUT_ANNOUNCED] = 0;
      this.#sendPrinted(nonce);
    });
  }

  /** Sends what was printed, then the message. */
  sendInOrder(nonce: string, message: GuestMessage, ...body: Uint8Array[]): void {
    this.#locked(() => {
      this.#sendPrinted(nonce);
      this.#write(nonce, message, ...body);
    });
  }

  /**
   * Sends a result with the rest of what was printed, and is then as it was before the execution.
   *
   * @param changes null: the execution had no files.
   */
  sendResult(
    nonce: string,
    facts: Pick<ResultMessage, "executionTimeMs" | "crashed">,
    { error, value, truncated }: RunnerReply,
    changes: FileChanges | null,
    contents: readonly Uint8Array[],
  ): void {
    const files = changes === null ? new Uint8Array(0) : encoder.encode(JSON.stringify(changes));
    this.#locked(() => {
      const stdout = this.#takePrinted("stdout");
      const stderr = this.#takePrinted("stderr");
      const header: ResultMessage = {
        type: "result",
        ...facts,
        errorBytes: error.length,
        valueBytes: value.length,
        stdoutBytes: stdout.length,
        stderrBytes: stderr.length,
        changesBytes: files.length,
        truncated: truncated || this.#control[CONTROL.TRUNCATED] === 1,
      };
      this.#write(nonce, header, error, value, stdout, stderr, files, ...contents);
      this.#clear();
    });
  }

  #clear(): void {
    for (const stream of ["stdout", "stderr"] as const) {
      const { printed, sent } = COUNTERS[stream];
      this.#printed[stream].fill(0, 0, this.#control[printed]);
      this.#control[printed] = this.#control[sent] = 0;
    }
    this.#turns = 0;
    this.#control[CONTROL.TRUNCATED] = this.#control[CONTROL.OUTPUT_ANNOUNCED] = 0;
  }

  #sendPrinted(nonce: string): void {
    for (const stream of ["stdout", "stderr"] as const) {
      const bytes = this.#takePrinted(stream);
      if (bytes.length > 0) this.#write(nonce, { type: "output", stream }, bytes);
    }
  }

  /** What was printed and not sent yet. */
  #takePrinted(stream: StreamName): Uint8Array {
    const { printed, sent } = COUNTERS[stream];
    const end = Atomics.load(this.#control, printed);
    const bytes = this.#printed[stream].slice(this.#control[sent], end);
    Atomics.store(this.#control, sent, end);
    return bytes;
  }

  #write(nonce: string, message: GuestMessage, ...body: Uint8Array[]): void {
    const chunks = encodeFrame(nonce, message, ...body);
    const bytes = chunks.length === 1 ? (chunks[0] as Uint8Array) : concatenate(chunks);
    for (let written = 0; written < bytes.length; ) written += pipe.writeSync(bytes.subarray(written));
  }

  #locked(act: () => void): void {
    const { OUTPUT_LOCK } = CONTROL;
    while (Atomics.compareExchange(this.#control, OUTPUT_LOCK, 0, 1) !== 0) Atomics.wait(this.#control, OUTPUT_LOCK, 1);
    try {
      act();
    } finally {
      Atomics.store(this.#control, OUTPUT_LOCK, 0);
      Atomics.notify(this.#control, OUTPUT_LOCK, 1);
    }
  }
}
