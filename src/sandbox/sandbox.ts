import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { ClientError, SandboxDiedError } from "../errors.ts";
import { type LaunchOptions, launch } from "./launch.ts";
import { innermostProcess, processorTimeMs } from "./process-facts.ts";
import {
  BUNDLE_OVERHEAD_BYTES,
  type ErrorInfo,
  encodeFrame,
  type FileChanges,
  type FileListing,
  type Frame,
  FrameReader,
  GUEST_MESSAGE_TYPES,
  type GuestMessage,
  type HostMessage,
  MAX_DISPLAY_BYTES,
  MAX_OUTCOME_BYTES,
  MAX_OUTPUT_BYTES,
  type MimeBundle,
  NONCE_BYTES,
  type PackageListing,
  ProtocolError,
  type RunnerOutcome,
  type SessionState,
  type Verdict,
} from "./protocol.ts";

/** How long an interrupted execution may take to end before its process is killed, ms. */
export const KILL_GRACE_MS = 250;
/** The most that may wait for a process that goes on talking, bytes. */
const MAX_UNSENT_BYTES = 64 * 1024;
/** How much of what a process prints on stderr is kept for the log, bytes. */
const MAX_DIAGNOSTICS_BYTES = 16 * 1024;

/** How often the processor time of an execution near its limit is looked at, ms. The system counts in steps of 10. */
const PROCESSOR_TIME_STEP_MS = 10;

export interface SandboxOptions extends LaunchOptions {
  readonly startTimeoutMs: number;
  /** Most processor time of one execution, ms, where the system tells how much that is; 0: no limit of its own. */
  readonly maxProcessorTimeMs: number;
}

/** One execution, as a sandbox sees it. */
export interface Job {
  readonly code: string;
  readonly context: Readonly<Record<string, unknown>> | null;
  readonly stdin: string;
  readonly timeoutMs: number;
  /** `session`: on the session that was loaded, which stays. */
  readonly mode: "stateless" | "session";
  readonly reseed: boolean;
  /** Files of a stateless execution; a session's come with `load`. */
  readonly files: FileListing | null;
  readonly packages: PackageListing | null;
  readonly signal: AbortSignal | undefined;
  readonly onOutput: ((stream: "stdout" | "stderr", bytes: Uint8Array) => void) | undefined;
  readonly onDisplay: ((bundle: MimeBundle) => void) | undefined;
  /**
   * Answers what user code asks of the host. A ClientError's message is shown to user code. Code that waits for an answer
   * cannot be interrupted, so that one is due at once when `signal` is aborted.
   */
  readonly onCall: (
    operation: string,
    argument: unknown,
    signal: AbortSignal,
  ) => Promise<{ readonly value: unknown; readonly body?: Uint8Array }>;
}

/** Code that is run for nobody: with no files and no packages, offered nothing, and listened to by no one. */
export const jobOfNobody = (code: string, timeoutMs: number): Job => ({
  code,
  context: null,
  stdin: "",
  timeoutMs,
  mode: "stateless",
  reseed: true,
  files: null,
  packages: null,
  signal: undefined,
  onOutput: undefined,
  onDisplay: undefined,
  onCall: () => Promise.reject(new Error("nothing is offered here")),
});

/** A session as it was after an execution: what `load` takes. Or why it cannot leave its process. */
export type Capture =
  | { readonly state: SessionState; readonly memory: Uint8Array }
  | { readonly state: null; readonly reason: string };

/** `processor-time`: it used more than the limit. */
export type JobEnd = "finished" | "timeout" | "processor-time" | "cancelled";

export interface JobResult {
  readonly outcome: RunnerOutcome;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  readonly displayed: readonly MimeBundle[];
  readonly executionTimeMs: number;
  /** Of the whole process, in steps of 10 ms; null: not known on this system. */
  readonly processorTimeMs: number | null;
  readonly truncated: boolean;
  /** Contents in the order of `changes.written`. Null: the process was killed, or ran without a workspace. */
  readonly files: { readonly changes: FileChanges; readonly contents: readonly Uint8Array[] } | null;
  readonly end: JobEnd;
  /** The process had to be killed, or ended by itself; there is no outcome of Python's. */
  readonly killed: boolean;
}

interface Running {
  readonly job: Job;
  readonly nonce: string;
  readonly startedAt: number;
  readonly stdout: Uint8Array[];
  readonly stderr: Uint8Array[];
  readonly displayed: MimeBundle[];
  readonly resolve: (result: JobResult) => void;
  end: JobEnd;
  announcements: number;
  outputBytes: number;
  displayBytes: number;
  /** A `call` was not answered yet; the interpreter waits for the answer and can make no other. */
  calling: boolean;
  timer: NodeJS.Timeout | undefined;
  /** Processor time of the process when the execution began, and the last that was seen; null: not known. */
  readonly processorTimeBefore: number | null;
  processorTimeMs: number | null;
  processorTimer: NodeJS.Timeout | undefined;
  /** Aborted when the execution is to end, or has. */
  readonly stopped: AbortController;
  stopListening: () => void;
  answered: boolean;
  readonly resolveCapture: (capture: Capture) => void;
}

/** How long a sandbox may take to load a session, to forget it, or to be ready again after a result, ms. */
const LOAD_TIMEOUT_MS = 30_000;

/**
 * The host's end of one sandbox process.
 *
 * It runs one job at a time. After a job's result the process rewinds itself; `idle` tells when that is done and whether
 * the sandbox may be used again. A process that breaks the protocol in any way is killed: nothing it says after that could
 * be believed.
 */
export class Sandbox {
  readonly pid: number;
  readonly pythonVersion: string;
  readonly pyodideVersion: string;
  readonly checkpoint: string | null;
  /** Why a rewind looks at every page of the memory; null: it looks at those that were written to. */
  readonly everyPage: string | null;
  readonly startedAt: number;
  /** Start of the process to `ready`, ms. */
  readonly bootMs: number;
  /** Resolves, with what is known of why, when the process has ended. Never rejects. */
  readonly ended: Promise<string>;
  heapBytes: number;
  /** Resolves once the sandbox may take another job (`pristine`, or `resident` with a session) or must not (`discard`). */
  idle: Promise<Verdict> = Promise.resolve({ state: "pristine", restoredPages: 0 });
  /** After an execution in a session has its result: what the session is now. */
  captured: Promise<Capture> = Promise.resolve({ state: null, reason: "nothing ran" });
  readonly #connection: Connection;
  /** The sandbox's own process, inside whatever wraps it; null: not known. */
  readonly #innermost: number | null;
  readonly #maxProcessorTimeMs: number;
  #running: Running | null = null;
  /** Nonce of a `load` or `rewind` that is under way. */
  #changing: string | null = null;
  #settleIdle: (verdict: Verdict) => void = () => {};

  private constructor(
    connection: Connection,
    ready: Extract<GuestMessage, { type: "ready" }>,
    startedAt: number,
    processor: { readonly innermost: number | null; readonly maxMs: number },
  ) {
    this.#connection = connection;
    this.#innermost = processor.innermost;
    this.#maxProcessorTimeMs = processor.maxMs;
    this.pid = connection.pid;
    this.ended = connection.ended;
    this.pythonVersion = ready.pythonVersion;
    this.pyodideVersion = ready.pyodideVersion;
    this.heapBytes = ready.heapBytes;
    this.everyPage = ready.everyPage;
    this.checkpoint = ready.checkpoint;
    this.startedAt = startedAt;
    this.bootMs = Date.now() - startedAt;
    connection.onFrame = (frame) => this.#receive(frame);
    this.ended.then((reason) => this.#lost(reason));
  }

  /** @throws {SandboxDiedError} if the process is not ready in time; its message has what the process said. */
  static async start(options: SandboxOptions): Promise<Sandbox> {
    const startedAt = Date.now();
    const { connection, frame } = await connect(options);
    if (frame.message.type !== "ready") {
      connection.kill(`expected "ready", got "${frame.message.type}"`);
      throw new SandboxDiedError(`The sandbox process did not get ready but said "${frame.message.type}".`);
    }
    const innermost = await innermostProcess(connection.pid).catch(() => null);
    return new Sandbox(connection, frame.message, startedAt, { innermost, maxMs: options.maxProcessorTimeMs });
  }

  /** Runs a job. Python errors, timeouts, and a process that dies under it are results; this never rejects. */
  execute(job: Job): Promise<JobResult> {
    const { promise, resolve } = Promise.withResolvers<JobResult>();
    const capture = Promise.withResolvers<Capture>();
    this.captured = capture.promise;
    const nonce = this.#begin();
    const running: Running = {
      job,
      nonce,
      startedAt: performance.now(),
      stdout: [],
      stderr: [],
      displayed: [],
      resolve,
      end: "finished",
      announcements: 0,
      outputBytes: 0,
      displayBytes: 0,
      calling: false,
      timer: undefined,
      processorTimeBefore: this.#innermost && processorTimeMs(this.#innermost),
      processorTimeMs: null,
      processorTimer: undefined,
      stopped: new AbortController(),
      stopListening: () => {},
      answered: false,
      resolveCapture: capture.resolve,
    };
    this.#running = running;
    if (this.#connection.endReason !== null) {
      this.#lost(this.#connection.endReason);
      return promise;
    }
    this.#connection.send(nonce, {
      type: "execute",
      code: job.code,
      context: job.context && JSON.stringify(job.context),
      stdin: job.stdin,
      stream: job.onOutput !== undefined,
      mode: job.mode,
      reseed: job.reseed,
      files: job.files,
      packages: job.packages,
    });
    running.timer = setTimeout(() => this.#stop(running, "timeout"), job.timeoutMs);
    this.#watchProcessorTime(running);
    const onAbort = () => this.#stop(running, "cancelled");
    job.signal?.addEventListener("abort", onAbort, { once: true });
    running.stopListening = () => job.signal?.removeEventListener("abort", onAbort);
    if (job.signal?.aborted) onAbort();
    return promise;
  }

  /**
   * Makes a pristine sandbox a session's.
   *
   * @param capture the session as it was captured; null: a new one.
   * @returns `resident`, or `discard` if it does not fit.
   */
  load(capture: { state: SessionState; memory: Uint8Array } | null, files: FileListing): Promise<Verdict> {
    return this.#change({ type: "load", state: capture?.state ?? null, files }, capture?.memory);
  }

  /** Forgets the session. @returns `pristine`, or `discard` where the way back is not certain. */
  rewind(): Promise<Verdict> {
    return this.#change({ type: "rewind" });
  }

  #change(message: HostMessage, body?: Uint8Array): Promise<Verdict> {
    this.#changing = this.#begin();
    if (this.#connection.endReason !== null) {
      this.#lost(this.#connection.endReason);
    } else {
      this.#connection.send(this.#changing, message, ...(body ? [body] : []));
      const timer = setTimeout(() => this.kill(`"${message.type}" took too long`), LOAD_TIMEOUT_MS);
      this.idle.then(() => clearTimeout(timer));
    }
    return this.idle;
  }

  #begin(): string {
    if (this.#running || this.#changing !== null) throw new Error("a sandbox does one thing at a time");
    const { promise, resolve } = Promise.withResolvers<Verdict>();
    this.idle = promise;
    this.#settleIdle = resolve;
    return newNonce();
  }

  /** Why the process has ended or is about to; null while it is well. */
  get endReason(): string | null {
    return this.#connection.endReason;
  }

  /** Lets an idle process end by itself. */
  async end(): Promise<void> {
    this.#connection.closeInput();
    await this.ended;
  }

  /** Ends the process now. A job on it ends as killed. */
  kill(reason: string): void {
    this.#connection.kill(reason);
  }

  /** Stops an execution that has used its processor time. Looked at from outside, so nothing inside can evade it. */
  #watchProcessorTime(running: Running): void {
    const maxMs = this.#maxProcessorTimeMs;
    if (maxMs === 0) return;
    this.#readProcessorTime(running);
    if (running.processorTimeMs === null) return;
    const leftMs = maxMs - running.processorTimeMs;
    if (leftMs <= 0) {
      this.#stop(running, "processor-time");
      return;
    }
    // Python has one thread, and the watcher can be kept as busy with its output: two use it up at twice the speed.
    const pauseMs = Math.max(PROCESSOR_TIME_STEP_MS, leftMs / 2);
    running.processorTimer = setTimeout(() => this.#watchProcessorTime(running), pauseMs);
  }

  /** Keeps what was last seen of a process that is gone. */
  #readProcessorTime(running: Running): void {
    const nowMs = this.#innermost && processorTimeMs(this.#innermost);
    if (nowMs === null || running.processorTimeBefore === null) return;
    running.processorTimeMs = nowMs - running.processorTimeBefore;
  }

  #stop(running: Running, end: JobEnd): void {
    if (this.#running !== running || running.answered || running.end !== "finished") return;
    running.end = end;
    clearTimeout(running.timer);
    clearTimeout(running.processorTimer);
    this.#connection.send(running.nonce, { type: "interrupt" });
    // After it, so that an answer it hastens finds the interrupt set.
    running.stopped.abort();
    running.timer = setTimeout(() => {
      this.#readProcessorTime(running);
      this.kill(end);
    }, KILL_GRACE_MS);
  }

  #receive({ nonce, message, body }: Frame<GuestMessage>): void {
    const running = this.#running;
    if (message.type === "fatal") {
      this.kill(message.reason);
      return;
    }
    if (message.type === "idle" && this.#changing !== null && nonce === this.#changing) {
      this.heapBytes = message.heapBytes;
      this.#changing = null;
      this.#settleIdle(message.verdict);
      return;
    }
    if (!running || nonce !== running.nonce) throw new ProtocolError(`"${message.type}" with a wrong nonce`);
    if (running.answered && message.type !== "idle" && message.type !== "state")
      throw new ProtocolError(`"${message.type}" after the result`);
    switch (message.type) {
      case "printed":
        // A sandbox that asks without reading the answers would fill the server's memory.
        if (this.#connection.unsentBytes > MAX_UNSENT_BYTES)
          throw new ProtocolError("it does not read what it asks for");
        if (++running.announcements > 2 * MAX_OUTPUT_BYTES) throw new ProtocolError("more announced than there can be");
        this.#connection.send(nonce, { type: "more-output" });
        break;
      case "output":
        if (body.length === 0) throw new ProtocolError("an output of nothing");
        running.outputBytes += body.length;
        if (running.outputBytes > 2 * MAX_OUTPUT_BYTES) throw new ProtocolError("more output than there can be");
        running[message.stream].push(body);
        running.job.onOutput?.(message.stream, body);
        break;
      case "display":
        running.displayBytes += bundleBytes(message.bundle);
        if (running.displayBytes > MAX_DISPLAY_BYTES) throw new ProtocolError("more displayed than there can be");
        running.displayed.push(message.bundle);
        running.job.onDisplay?.(message.bundle);
        break;
      case "call":
        if (running.calling) throw new ProtocolError("a call before the last one's answer");
        running.calling = true;
        this.#answer(running, message.call, message.operation, message.argument);
        break;
      case "result":
        this.#finish(running, message, body);
        break;
      case "state":
        if (!running.answered || running.job.mode !== "session") throw new ProtocolError('"state" at a wrong time');
        running.resolveCapture(
          message.state === null ? { state: null, reason: message.reason } : { state: message.state, memory: body },
        );
        break;
      case "idle":
        if (!running.answered) throw new ProtocolError('"idle" before the result');
        clearTimeout(running.timer);
        this.heapBytes = message.heapBytes;
        this.#running = null;
        running.resolveCapture({ state: null, reason: "it was not reported" });
        this.#settleIdle(message.verdict);
        break;
      default:
        throw new ProtocolError(`"${message.type}" at a wrong time`);
    }
  }

  #answer(running: Running, call: number, operation: string, argument: unknown): void {
    running.job.onCall(operation, argument, running.stopped.signal).then(
      ({ value, body }) => {
        running.calling = false;
        if (this.#running === running) {
          this.#connection.send(running.nonce, { type: "answer", call, value }, ...(body ? [body] : []));
        }
      },
      (error: unknown) => {
        running.calling = false;
        // User code reads it: only what is meant for clients may be said.
        const reason = error instanceof ClientError ? error.message : "the host could not do that";
        if (this.#running === running) {
          this.#connection.send(running.nonce, { type: "answer", call, value: null, error: reason });
        }
      },
    );
  }

  #finish(running: Running, message: Extract<GuestMessage, { type: "result" }>, body: Uint8Array): void {
    let position = 0;
    const take = (bytes: number) => {
      if (!Number.isSafeInteger(bytes) || bytes < 0 || position + bytes > body.length) {
        throw new ProtocolError("a result's parts do not fit its body");
      }
      position += bytes;
      return body.subarray(position - bytes, position);
    };
    const outcome = parseOutcome(take(message.outcomeBytes));
    for (const stream of ["stdout", "stderr"] as const) {
      const rest = take(message[`${stream}Bytes`]);
      if (rest.length === 0) continue;
      running[stream].push(rest);
      running.job.onOutput?.(stream, rest);
    }
    const { files } = message;
    const contents = files?.written.map((entry) => take(entry.kind === "file" ? entry.size : 0)) ?? [];
    if (position !== body.length) throw new ProtocolError("a result's body is longer than its parts");
    // Not before here: an execution whose result breaks the protocol has not been answered, and its process dies.
    clearTimeout(running.timer);
    clearTimeout(running.processorTimer);
    running.stopListening();
    running.answered = true;
    running.timer = setTimeout(() => this.kill("it did not settle after a result"), LOAD_TIMEOUT_MS);
    this.#readProcessorTime(running);
    running.resolve({
      outcome,
      stdout: Buffer.concat(running.stdout),
      stderr: Buffer.concat(running.stderr),
      displayed: running.displayed,
      executionTimeMs: message.executionTimeMs,
      processorTimeMs: running.processorTimeMs,
      truncated: message.truncated,
      files: files && { changes: files, contents },
      end: running.end,
      killed: false,
    });
  }

  /** The process has ended; whatever was on it ends too. */
  #lost(reason: string): void {
    const running = this.#running;
    this.#running = null;
    this.#changing = null;
    this.#settleIdle({ state: "discard", reason });
    if (!running) return;
    clearTimeout(running.timer);
    clearTimeout(running.processorTimer);
    running.stopped.abort();
    running.stopListening();
    running.resolveCapture({ state: null, reason });
    if (running.answered) return;
    const message = "The sandbox process ended before the execution did.";
    running.resolve({
      outcome: {
        success: false,
        result: null,
        error: message,
        errorInfo: { type: "SandboxDied", message, traceback: "", line: null, column: null },
        outputs: [],
      },
      stdout: Buffer.concat(running.stdout),
      stderr: Buffer.concat(running.stderr),
      displayed: running.displayed,
      executionTimeMs: performance.now() - running.startedAt,
      processorTimeMs: running.processorTimeMs,
      truncated: false,
      files: null,
      end: running.end,
      killed: true,
    });
  }
}

/**
 * Has a process build a memory image instead of serving, and ends it.
 *
 * @throws {SandboxDiedError} with what the process said, if it fails.
 */
export async function buildImage(
  options: SandboxOptions,
): Promise<{ image: Uint8Array } & Omit<Extract<GuestMessage, { type: "image" }>, "type">> {
  const { connection, frame } = await connect(options);
  connection.kill("the image is built");
  if (frame.message.type !== "image") throw new SandboxDiedError(`Building the image failed: "${frame.message.type}".`);
  const { type: _, ...facts } = frame.message;
  return { image: frame.body, ...facts };
}

/** The pipes of one process: frames in, frames out. */
class Connection {
  readonly pid: number;
  /** Why it ended, and what the process printed on stderr. */
  readonly ended: Promise<string>;
  endReason: string | null = null;
  onFrame: (frame: Frame<GuestMessage>) => void = () => {};
  readonly #process: ChildProcess;
  readonly #reader = new FrameReader<GuestMessage>(GUEST_MESSAGE_TYPES);
  #diagnostics = "";

  constructor(process: ChildProcess) {
    this.#process = process;
    this.pid = process.pid ?? -1;
    process.stdout?.on("data", (chunk: Buffer) => this.#receive(chunk));
    process.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#diagnostics = (this.#diagnostics + text).slice(-MAX_DIAGNOSTICS_BYTES);
    });
    // A process that was killed closes its pipes under our hands; its end is reported by "close".
    for (const pipe of [process.stdin, process.stdout, process.stderr]) pipe?.on("error", () => {});
    this.ended = new Promise((resolve) => {
      const end = (reason: string) => {
        this.endReason ??= reason;
        // Its pipes are empty now: also what it printed before it was killed has come.
        const said = this.#diagnostics.trim();
        resolve(this.endReason + (said && `: ${said}`));
      };
      process.on("error", (error) => end(`it could not be started: ${error.message}`));
      process.on("close", (code, signal) => end(`it ended with ${signal ?? `status ${code}`}`));
    });
  }

  send(nonce: string, message: HostMessage, ...body: Uint8Array[]): void {
    const { stdin } = this.#process;
    if (!stdin?.writable) return;
    for (const chunk of encodeFrame(nonce, message, ...body)) stdin.write(chunk);
  }

  /** What the process has not read yet, beyond what its pipe holds. */
  get unsentBytes(): number {
    return this.#process.stdin?.writableLength ?? 0;
  }

  closeInput(): void {
    this.#process.stdin?.end();
  }

  kill(reason: string): void {
    this.endReason ??= reason;
    this.#process.kill("SIGKILL");
  }

  #receive(chunk: Buffer): void {
    if (this.endReason !== null) return;
    try {
      for (const frame of this.#reader.push(chunk)) this.onFrame(frame);
    } catch (error) {
      // A frame of a shape that nothing foresaw, too: a sandbox may die of what it sends, the server may not.
      this.kill(`it broke the protocol: ${error instanceof Error ? error.message : error}`);
    }
  }
}

/** Starts a process and waits for the first thing it says. */
async function connect(options: SandboxOptions): Promise<{ connection: Connection; frame: Frame<GuestMessage> }> {
  const connection = new Connection(launch(options));
  const nonce = newNonce();
  const first = Promise.withResolvers<Frame<GuestMessage>>();
  connection.onFrame = first.resolve;
  const timer = setTimeout(
    () => connection.kill(`it was not ready within ${options.startTimeoutMs} ms`),
    options.startTimeoutMs,
  );
  connection.ended.then((reason) =>
    first.reject(new SandboxDiedError(`The sandbox process failed to start: ${reason}`)),
  );
  connection.send(nonce, { type: "start", options: options.guest });
  try {
    const frame = await first.promise;
    if (frame.nonce !== nonce) connection.kill("its first frame has a wrong nonce");
    if (frame.message.type === "fatal") {
      connection.kill(frame.message.reason);
      throw new SandboxDiedError(`The sandbox process failed to start: ${frame.message.reason}`);
    }
    return { connection, frame };
  } finally {
    clearTimeout(timer);
  }
}

function newNonce(): string {
  return randomBytes(NONCE_BYTES / 2).toString("hex");
}

function bundleBytes(bundle: MimeBundle): number {
  let bytes = BUNDLE_OVERHEAD_BYTES;
  for (const [mime, data] of Object.entries(bundle)) {
    if (typeof data !== "string") throw new ProtocolError("a bundle that is none");
    bytes += mime.length + data.length;
  }
  return bytes;
}

function parseOutcome(bytes: Uint8Array): RunnerOutcome {
  if (bytes.length > MAX_OUTCOME_BYTES) throw new ProtocolError("an outcome over its limit");
  let outcome: unknown;
  try {
    outcome = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8"));
  } catch (cause) {
    throw new ProtocolError("an outcome is not JSON", { cause });
  }
  if (!isOutcome(outcome)) throw new ProtocolError("an outcome is not an outcome");
  return outcome;
}

/** User code can make the runner answer anything; what is relied on from here on is checked. */
function isOutcome(value: unknown): value is RunnerOutcome {
  if (typeof value !== "object" || value === null) return false;
  const { success, result, error, errorInfo, truncated } = value as Record<string, unknown>;
  return (
    typeof success === "boolean" &&
    result !== undefined &&
    (success ? error === null && errorInfo === undefined : typeof error === "string" && isErrorInfo(errorInfo)) &&
    (truncated === undefined || typeof truncated === "boolean")
  );
}

function isErrorInfo(value: unknown): value is ErrorInfo {
  if (typeof value !== "object" || value === null) return false;
  const { type, message, traceback, line, column } = value as Record<string, unknown>;
  const isPosition = (number: unknown) => number === null || (Number.isSafeInteger(number) && (number as number) >= 0);
  return [type, message, traceback].every((text) => typeof text === "string") && isPosition(line) && isPosition(column);
}
