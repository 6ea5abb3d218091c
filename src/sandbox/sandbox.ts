import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { innermostProcess, processorTimeMs } from "../isolation/process-facts.ts";
import { ClientError, SandboxDiedError } from "../shared/errors.ts";
import { JsonText } from "../shared/json/json-text.ts";
import {
  BUNDLE_OVERHEAD_BYTES,
  encodeFrame,
  type FileChanges,
  type FileListing,
  type Frame,
  FrameReader,
  type GuestMessage,
  type HostMessage,
  MAX_BUNDLE_MEMBERS,
  MAX_CALL_BYTES,
  MAX_DISPLAY_BYTES,
  MAX_DISPLAYS,
  MAX_FRAME_BYTES,
  MAX_GUEST_HEADER_BYTES,
  MAX_OUTCOME_BYTES,
  MAX_OUTPUT_BYTES,
  MAX_VALUE_BYTES,
  NONCE_BYTES,
  type PackageListing,
  type RunnerOutcome,
  type SessionState,
  type Verdict,
} from "../wire/frames.ts";
import { checked, fileChanges, readGuestMessage, runnerOutcome } from "../wire/guest-messages.ts";
import { ProtocolError } from "../wire/protocol-error.ts";
import { CollectedOutput } from "./collected-output.ts";
import { type LaunchOptions, launch } from "./launch.ts";
import { type FrameTrace, traced } from "./trace.ts";

/** How long an interrupted execution may take to end before its process is killed, ms. */
export const KILL_GRACE_MS = 250;
/** The most that may wait for a process that goes on talking, bytes. */
const MAX_UNSENT_BYTES = 64 * 1024;
/** A frame with more than this keeps others from being read while it is checked. */
const MAX_WAITING_BYTES = 256 * 1024;
/** How much of what a process prints on stderr is kept for the log, bytes. */
const MAX_DIAGNOSTICS_BYTES = 16 * 1024;

/** How often the processor time of an execution near its limit is looked at, ms. The system counts in steps of 10. */
const PROCESSOR_TIME_STEP_MS = 10;

/** Conversion goes 100 levels deep, and an array of numpy's has 64 of its own. */
const VALUE_LIMITS = { maxDepth: 200, maxNodes: 12_000_000, compact: true };
const OUTCOME_LIMITS = { maxDepth: 8, maxNodes: 1000 };
const BUNDLE_LIMITS = { maxDepth: 1, maxNodes: 1 + MAX_BUNDLE_MEMBERS, compact: true };
const CALL_LIMITS = { maxDepth: 32, maxNodes: 10_000 };
/** For each file or folder that a workspace may have: it is written, or deleted, or both; each with its four facts. */
const NODES_OF_A_CHANGE = 6;
/** For the path and facts of each. */
const BYTES_OF_A_CHANGE = 4096 + 200;

export interface SandboxOptions extends LaunchOptions {
  readonly startTimeoutMs: number;
  /** Most processor time of one execution, ms, where the system tells how much that is; 0: no limit of its own. */
  readonly maxProcessorTimeMs: number;
  /** Ends the process, also while it starts. */
  readonly signal?: AbortSignal | undefined;
  /** Told of each frame, for `cli run --trace`; default: nothing is. */
  readonly onFrame?: FrameTrace | undefined;
}

/** One execution, as a sandbox sees it. */
export interface Job {
  readonly code: string;
  /** JSON text of an object whose members become global variables. */
  readonly context: string | null;
  readonly stdin: string;
  readonly timeoutMs: number;
  /** `session`: on the session that was loaded, which stays. */
  readonly mode: "stateless" | "session";
  /** Number of the execution in its session, from 1; null: stateless. */
  readonly execution: number | null;
  readonly reseed: boolean;
  /** Files of a stateless execution; a session's come with `load`. */
  readonly files: FileListing | null;
  readonly packages: PackageListing | null;
  readonly signal: AbortSignal | undefined;
  readonly onOutput: ((stream: "stdout" | "stderr", bytes: Uint8Array) => void) | undefined;
  /** @param bundle a MIME bundle: an object of strings. */
  readonly onDisplay: ((bundle: JsonText) => void) | undefined;
  /**
   * Answers what user code asks of the host. A ClientError's message is shown to user code. Code that waits for an answer
   * cannot be interrupted, so that one is due at once when `signal` is aborted.
   */
  readonly onCall: (
    operation: string,
    argument: JsonText,
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
  execution: null,
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
  /** The last expression's value; null where there is none. */
  readonly value: JsonText;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  /** MIME bundles. */
  readonly displayed: readonly JsonText[];
  readonly executionTimeMs: number;
  /** Of the whole process, in steps of 10 ms; null: not known on this system. */
  readonly processorTimeMs: number | null;
  readonly truncated: boolean;
  /** Contents in the order of `changes.written`. Null: the process was killed, or ran without a workspace. */
  readonly files: { readonly changes: FileChanges; readonly contents: readonly Uint8Array[] } | null;
  readonly end: JobEnd;
  /** The process had to be killed, or ended by itself; there is no outcome of Python's. */
  readonly killed: boolean;
  /** The interpreter ended under the code; there is no outcome of Python's either. */
  readonly crashed: boolean;
}

interface Running {
  readonly job: Job;
  readonly nonce: string;
  readonly startedAt: number;
  readonly stdout: CollectedOutput;
  readonly stderr: CollectedOutput;
  readonly displayed: JsonText[];
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
  /** Its `result` has come. */
  answered: boolean;
  /** Its result was passed on. */
  settled: boolean;
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
  /** Most files and folders that what runs may have. */
  #maxFiles = 0;
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
    this.bootMs = performance.now() - startedAt;
    connection.onFrame = (frame) => this.#receive(frame);
    void this.ended.then((reason) => this.#lost(reason));
  }

  /** @throws {SandboxDiedError} if the process is not ready in time; its message has what the process said. */
  static async start(options: SandboxOptions): Promise<Sandbox> {
    const startedAt = performance.now();
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
      stdout: new CollectedOutput(),
      stderr: new CollectedOutput(),
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
      settled: false,
      resolveCapture: capture.resolve,
    };
    this.#running = running;
    if (this.#connection.endReason !== null) {
      this.#lost(this.#connection.endReason);
      return promise;
    }
    if (job.files) this.#maxFiles = job.files.maxFiles;
    this.#connection.send(nonce, {
      type: "execute",
      code: job.code,
      context: job.context,
      stdin: job.stdin,
      stream: job.onOutput !== undefined,
      mode: job.mode,
      execution: job.execution,
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
   * @param packages the caller's own, for the files of them that are open.
   * @returns `resident`, or `discard` if it does not fit.
   */
  load(
    capture: { state: SessionState; memory: Uint8Array } | null,
    files: FileListing,
    packages: PackageListing | null,
  ): Promise<Verdict> {
    this.#maxFiles = files.maxFiles;
    return this.#change({ type: "load", state: capture?.state ?? null, files, packages }, capture?.memory);
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
      void this.idle.then(() => clearTimeout(timer));
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

  /** @returns what has to be done before the next frame; nothing: it is done. */
  #receive({ nonce, message, body }: Frame<GuestMessage>): Promise<void> | undefined {
    const running = this.#running;
    if (message.type === "fatal") {
      this.kill(message.reason);
      return undefined;
    }
    if (message.type === "idle" && this.#changing !== null && nonce === this.#changing) {
      this.heapBytes = message.heapBytes;
      this.#changing = null;
      this.#settleIdle(message.verdict);
      return undefined;
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
        return this.#display(running, body);
      case "call":
        if (running.calling) throw new ProtocolError("a call before the last one's answer");
        running.calling = true;
        return this.#answer(running, message, body);
      case "result":
        return this.#finish(running, message, body);
      case "state":
        if (!running.answered || running.job.mode !== "session") throw new ProtocolError('"state" at a wrong time');
        running.resolveCapture(
          message.state === null
            ? { state: null, reason: message.reason ?? "" }
            : { state: message.state, memory: body },
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
    return undefined;
  }

  async #display(running: Running, body: Uint8Array): Promise<void> {
    running.displayBytes += body.length + BUNDLE_OVERHEAD_BYTES;
    if (running.displayBytes > MAX_DISPLAY_BYTES || running.displayed.length >= MAX_DISPLAYS)
      throw new ProtocolError("more displayed than there can be");
    const bundle = await JsonText.checkInSlices(body, BUNDLE_LIMITS);
    if (bundle.facts.kind !== "object" || bundle.facts.texts !== bundle.facts.nodes - 1)
      throw new ProtocolError("a bundle that is none");
    if (this.#running !== running) return;
    running.displayed.push(bundle);
    running.job.onDisplay?.(bundle);
  }

  async #answer(
    running: Running,
    { call, operation }: Extract<GuestMessage, { type: "call" }>,
    body: Uint8Array,
  ): Promise<void> {
    if (body.length > MAX_CALL_BYTES) throw new ProtocolError("an argument over its limit");
    const argument = await JsonText.checkInSlices(body, CALL_LIMITS);
    if (this.#running !== running) return;
    // Not awaited: an answer may take long, and what the code prints meanwhile does not wait for it.
    void this.#ask(running, operation, argument)
      .then((answer) => {
        running.calling = false;
        if (this.#running !== running) return;
        this.#connection.send(
          running.nonce,
          { type: "answer", call, ...answer.message },
          ...(answer.body ? [answer.body] : []),
        );
      })
      .catch((error: unknown) => this.kill(`it cannot be answered: ${reasonOf(error)}`));
  }

  async #ask(
    { job, stopped }: Running,
    operation: string,
    argument: JsonText,
  ): Promise<{ readonly message: { value: unknown; error?: string }; readonly body?: Uint8Array | undefined }> {
    try {
      const { value, body } = await job.onCall(operation, argument, stopped.signal);
      return { message: { value }, body };
    } catch (error) {
      // User code reads it: only what is meant for clients may be said.
      const reason = error instanceof ClientError ? error.message : "the host could not do that";
      return { message: { value: null, error: reason } };
    }
  }

  /** Takes a result apart. Nothing is passed on before all of it is checked: what breaks the protocol has not been answered. */
  async #finish(running: Running, message: Extract<GuestMessage, { type: "result" }>, body: Uint8Array): Promise<void> {
    running.answered = true;
    clearTimeout(running.timer);
    clearTimeout(running.processorTimer);
    running.stopListening();
    running.timer = setTimeout(() => this.kill("it did not settle after a result"), LOAD_TIMEOUT_MS);
    this.#readProcessorTime(running);
    let position = 0;
    const take = (bytes: number, maxBytes: number) => {
      if (bytes > maxBytes) throw new ProtocolError("a part of a result is over its limit");
      if (position + bytes > body.length) throw new ProtocolError("a result's parts do not fit its body");
      position += bytes;
      return body.subarray(position - bytes, position);
    };
    const outcome = checked(
      runnerOutcome,
      parsed(await JsonText.checkInSlices(take(message.outcomeBytes, MAX_OUTCOME_BYTES), OUTCOME_LIMITS)),
    );
    const valueBytes = take(message.valueBytes, MAX_VALUE_BYTES);
    const rest = {
      stdout: take(message.stdoutBytes, MAX_OUTPUT_BYTES),
      stderr: take(message.stderrBytes, MAX_OUTPUT_BYTES),
    };
    const changeBytes = take(message.changesBytes, BYTES_OF_A_CHANGE * (this.#maxFiles + 100) * 2);
    const limits = { maxDepth: 3, maxNodes: NODES_OF_A_CHANGE * (this.#maxFiles + 100) };
    const changesJson = changeBytes.length === 0 ? null : await JsonText.checkInSlices(changeBytes, limits);
    const changesValue = changesJson && parsed(changesJson);
    // Where there are many files, each step takes a turn of its own.
    if (changeBytes.length > MAX_WAITING_BYTES) await setImmediate();
    const changes = changesJson === null ? null : checked(fileChanges, changesValue);
    if (changeBytes.length > MAX_WAITING_BYTES) await setImmediate();
    const contents = changes?.written.map(({ kind, size }) => take(kind === "file" ? size : 0, body.length)) ?? [];
    if (position !== body.length) throw new ProtocolError("a result's body is longer than its parts");
    const value = outcome.success ? await JsonText.checkInSlices(valueBytes, VALUE_LIMITS) : JsonText.null;
    // It has ended meanwhile.
    if (this.#running !== running) return;
    for (const stream of ["stdout", "stderr"] as const) {
      if (rest[stream].length === 0) continue;
      running[stream].push(rest[stream]);
      running.job.onOutput?.(stream, rest[stream]);
    }
    running.settled = true;
    running.resolve({
      outcome,
      value,
      stdout: running.stdout.toBuffer(),
      stderr: running.stderr.toBuffer(),
      displayed: running.displayed,
      executionTimeMs: message.executionTimeMs,
      processorTimeMs: running.processorTimeMs,
      truncated: message.truncated,
      files: changes && { changes, contents },
      end: running.end,
      killed: false,
      crashed: message.crashed,
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
    if (running.settled) return;
    const message = "The sandbox process ended before the execution did.";
    running.resolve({
      outcome: {
        success: false,
        error: message,
        errorInfo: { type: "SandboxDied", message, traceback: "", line: null, column: null },
      },
      value: JsonText.null,
      stdout: running.stdout.toBuffer(),
      stderr: running.stderr.toBuffer(),
      displayed: running.displayed,
      executionTimeMs: performance.now() - running.startedAt,
      processorTimeMs: running.processorTimeMs,
      truncated: false,
      files: null,
      end: running.end,
      killed: true,
      crashed: false,
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
  /** Does what a frame asks for. What it returns is waited for before the next frame. */
  onFrame: (frame: Frame<GuestMessage>) => Promise<void> | undefined = () => undefined;
  readonly #process: ChildProcess;
  readonly #trace: FrameTrace | undefined;
  readonly #reader = new FrameReader<GuestMessage>(readGuestMessage, MAX_FRAME_BYTES, MAX_GUEST_HEADER_BYTES);
  readonly #frames: Frame<GuestMessage>[] = [];
  /** Settled when no frame waits for the one before it. Never rejects. */
  #working: Promise<void> | null = null;
  #diagnostics = "";

  constructor(process: ChildProcess, trace: FrameTrace | undefined) {
    this.#trace = trace;
    this.#process = process;
    this.pid = process.pid ?? -1;
    process.stdout?.on("data", (chunk: Buffer) => this.#receive(chunk));
    process.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#diagnostics = (this.#diagnostics + text).slice(-MAX_DIAGNOSTICS_BYTES);
    });
    // A process that was killed closes its pipes under our hands; its end is reported by "close".
    for (const pipe of [process.stdin, process.stdout, process.stderr]) pipe?.on("error", () => {});
    this.ended = new Promise((resolve) => {
      const end = async (reason: string) => {
        // What it said before it ended by itself still counts.
        await this.#working;
        this.endReason ??= reason;
        // Its pipes are empty now: also what it printed before it was killed has come.
        const said = this.#diagnostics.trim();
        resolve(this.endReason + (said && `: ${said}`));
      };
      process.on("error", (error) => void end(`it could not be started: ${error.message}`));
      process.on("close", (code, signal) => void end(`it ended with ${signal ?? `status ${code}`}`));
    });
  }

  send(nonce: string, message: HostMessage, ...body: Uint8Array[]): void {
    const { stdin } = this.#process;
    if (!stdin?.writable) return;
    this.#trace?.(
      traced(
        this.pid,
        "sent",
        message,
        body.reduce((sum, { length }) => sum + length, 0),
      ),
    );
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
      const frames = this.#reader.push(chunk);
      if (this.#trace)
        for (const { message, body } of frames) this.#trace(traced(this.pid, "received", message, body.length));
      this.#frames.push(...frames);
      this.#work();
    } catch (error) {
      this.#refuse(error);
    }
  }

  /** Has frames done in order, up to one that takes time: then no more is read until it is done. */
  #work(): void {
    while (this.#working === null && this.endReason === null) {
      const frame = this.#frames.shift();
      if (!frame) return;
      const done = this.onFrame(frame);
      if (!done) continue;
      if (frame.body.length > MAX_WAITING_BYTES) this.#process.stdout?.pause();
      this.#working = done
        .catch((error: unknown) => this.#refuse(error))
        .then(() => {
          this.#working = null;
          this.#process.stdout?.resume();
          try {
            this.#work();
          } catch (error) {
            this.#refuse(error);
          }
        });
    }
  }

  /** A sandbox may die of what it sends, the server may not. */
  #refuse(error: unknown): void {
    this.#frames.length = 0;
    this.kill(`it broke the protocol: ${reasonOf(error)}`);
  }
}

/** Starts a process and waits for the first thing it says. */
async function connect(options: SandboxOptions): Promise<{ connection: Connection; frame: Frame<GuestMessage> }> {
  const { signal } = options;
  if (signal?.aborted) throw new SandboxDiedError("The sandbox process was not started: the server is stopping.");
  const connection = new Connection(launch(options), options.onFrame);
  const onAbort = () => connection.kill("the server is stopping");
  signal?.addEventListener("abort", onAbort, { once: true });
  void connection.ended.then(() => signal?.removeEventListener("abort", onAbort));
  const nonce = newNonce();
  const first = Promise.withResolvers<Frame<GuestMessage>>();
  let isFirst = true;
  connection.onFrame = (frame) => {
    if (!isFirst) throw new ProtocolError(`"${frame.message.type}" before it was asked for anything`);
    isFirst = false;
    if (frame.nonce !== nonce) throw new ProtocolError("its first frame has a wrong nonce");
    first.resolve(frame);
    return undefined;
  };
  const timer = setTimeout(
    () => connection.kill(`it was not ready within ${options.startTimeoutMs} ms`),
    options.startTimeoutMs,
  );
  void connection.ended.then((reason) =>
    first.reject(new SandboxDiedError(`The sandbox process failed to start: ${reason}`)),
  );
  connection.send(nonce, { type: "start", options: options.guest });
  try {
    const frame = await first.promise;
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

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What was scanned within limits of ours. */
function parsed(text: JsonText): unknown {
  return text.parse({ maxBytes: Number.POSITIVE_INFINITY, maxNodes: Number.POSITIVE_INFINITY });
}
