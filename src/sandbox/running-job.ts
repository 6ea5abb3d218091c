import type { CpuClock } from "../isolation/process-facts.ts";
import { ClientError } from "../shared/errors.ts";
import { JsonText } from "../shared/json/json-text.ts";
import type { DisplayMessage, GuestMessage, ResultMessage, SessionState } from "../wire/guest-messages.ts";
import { type HostCalls, isHostCall } from "../wire/host-calls.ts";
import { type ExecuteMessage, MAX_CALL_BYTES, MAX_OUTPUT_BYTES } from "../wire/messages.ts";
import { ProtocolError } from "../wire/protocol-error.ts";
import { CollectedOutput } from "./collected-output.ts";
import { type Connection, reasonOf } from "./connection.ts";
import { type DisplayedOutput, Displays } from "./displays.ts";
import { answerCall } from "./host-call.ts";
import { KillGrace } from "./kill-grace.ts";
import { newNonce } from "./nonce.ts";
import {
  type Ending,
  type Execution,
  type Report,
  readReport,
  resultOf,
  type StopReason,
  serverError,
} from "./outcome.ts";
import { StreamedOutput } from "./streamed-output.ts";

/** Bytes that may wait for a process that does not read them. */
const MAX_UNSENT_BYTES = 64 * 1024;
/** Pause between looks at the CPU time of an execution near its limit, ms. The system counts in steps of 10. */
const CPU_TIME_STEP_MS = 10;
const CALL_LIMITS = { maxDepth: 32, maxNodes: 10_000 };

/** How long a sandbox may take to be ready again after a result, to load a session, or to forget it, ms. */
export const SETTLE_TIMEOUT_MS = 30_000;

/** One execution for a sandbox: the message that is sent, and the host's part in it. */
export interface Job {
  readonly message: ExecuteMessage;
  readonly timeoutMs: number;
  /** Aborting it stops the execution. */
  readonly signal?: AbortSignal | undefined;
  /** Called while the code runs, where the message asks for a stream. */
  readonly onOutput?: ((event: OutputEvent) => void) | undefined;
  /** What the code may ask of the host. Called when the code makes its first call. */
  readonly calls: () => HostCalls;
}

export type OutputEvent =
  | { readonly type: "stdout" | "stderr"; readonly content: string }
  | DisplayedOutput
  /** What was printed and displayed so far is to be taken back; `wait`: when something else comes. */
  | { readonly type: "clear_output"; readonly wait: boolean };

/** A session as it was after an execution: what `load` takes. Or why it cannot leave its process. */
export type Capture =
  | { readonly state: SessionState; readonly memory: Uint8Array }
  | { readonly state: null; readonly reason: string };

/** A job of the server's own: no workspace, no packages, no host calls, no listeners. */
export function internalJob(code: string, timeoutMs: number): Job {
  const program = { code, context: null, execution: null, reseed: true, tools: null };
  return {
    message: { type: "execute", program, stdin: "", stream: false, files: null, packages: null },
    timeoutMs,
    calls: () => ({}),
  };
}

/** What a job's frames go through, and what its process may do. */
export interface JobProcess {
  readonly connection: Connection;
  /** Of the sandbox's own process, inside its wrappers; null: that is not known. */
  readonly cpuClock: CpuClock | null;
  /** Most CPU time, ms; 0: no limit of its own. */
  readonly maxCpuTimeMs: number;
  /** Most files and folders that the execution may have. */
  readonly maxFiles: number;
}

/**
 * One execution on a sandbox, from its message to its result. It owns the execution's timers, its output and its limits: nothing that
 * the process sends for it is kept beyond them.
 */
export class RunningJob {
  readonly nonce = newNonce();
  /** Never rejects: a process that ends under the execution is a result. */
  readonly done: Promise<Execution>;
  /** What the session is after the execution. Never rejects. */
  readonly captured: Promise<Capture>;
  readonly #job: Job;
  readonly #process: JobProcess;
  readonly #resolve: (execution: Execution) => void;
  readonly #resolveCapture: (capture: Capture) => void;
  readonly #startedAt = performance.now();
  /** When the execution's time is over, and how much of what has gone by does not count: it was the client's. */
  #deadline = 0;
  #waitedMs = 0;
  readonly #cpuTimeBefore: number | null;
  /** As last seen; null: not known. */
  #cpuTimeMs: number | null = null;
  readonly #printed = { stdout: new CollectedOutput(), stderr: new CollectedOutput() };
  /** Made for a listener alone: to make one costs more than a short output. */
  #streamed: StreamedOutput | null = null;
  readonly #displays = new Displays();
  #announcements = 0;
  #outputBytes = 0;
  /** A call was not answered yet; the interpreter waits for the answer and can make no other. */
  #isCalling = false;
  #calls: HostCalls | null = null;
  #stopReason: StopReason | null = null;
  /** How long it had to react to an interrupt before it was killed, ms. */
  #graceMs = 0;
  /** Aborted when the execution is to end, or has. */
  readonly #stopped = new AbortController();
  /** Until the result: the execution's time. After it: the time to get ready again. */
  #timer: NodeJS.Timeout | undefined;
  #cpuTimer: NodeJS.Timeout | undefined;
  /** The result frame has come; it may still be in the middle of being checked. */
  #isAnswered = false;
  /** The result was passed on. */
  #isSettled = false;
  /** The process has ended, or is ready for another job. */
  #isOver = false;
  readonly #onAbort = () => this.#stop(abortReason(this.#job.signal));

  constructor(job: Job, process: JobProcess) {
    this.#job = job;
    this.#process = process;
    this.#cpuTimeBefore = process.cpuClock?.readMs() ?? null;
    const done = Promise.withResolvers<Execution>();
    const captured = Promise.withResolvers<Capture>();
    this.done = done.promise;
    this.captured = captured.promise;
    this.#resolve = done.resolve;
    this.#resolveCapture = captured.resolve;
  }

  start(): void {
    const { message, timeoutMs, signal } = this.#job;
    this.#process.connection.send(this.nonce, message);
    this.#deadline = performance.now() + timeoutMs;
    this.#timer = setTimeout(() => this.#stop("timeout"), timeoutMs);
    this.#watchCpuTime();
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (signal?.aborted) this.#onAbort();
  }

  /**
   * Acts on a frame of this job.
   *
   * @returns what has to be done before the next frame; undefined: it is done.
   * @throws {ProtocolError}
   */
  receive(message: GuestMessage, body: Uint8Array): Promise<void> | undefined {
    if (this.#isAnswered && message.type !== "idle" && message.type !== "state")
      throw new ProtocolError(`"${message.type}" after the result`);
    switch (message.type) {
      case "printed":
        this.#askForOutput();
        return undefined;
      case "output":
        this.#takeOutput(message.stream, body);
        return undefined;
      case "display":
        return this.#display(message, body);
      case "clear_output":
        this.#displays.clear(message.wait);
        this.#tell(message);
        return undefined;
      case "call":
        return this.#answer(message, body);
      case "result":
        return this.#finish(message, body);
      case "state":
        if (!this.#isAnswered || this.#job.message.program.execution === null)
          throw new ProtocolError('"state" at a wrong time');
        this.#resolveCapture(
          message.state === null
            ? { state: null, reason: message.reason ?? "" }
            : { state: message.state, memory: body },
        );
        return undefined;
      case "idle":
        if (!this.#isAnswered) throw new ProtocolError('"idle" before the result');
        this.#end("it was not reported");
        return undefined;
      default:
        throw new ProtocolError(`"${message.type}" at a wrong time`);
    }
  }

  /** The process has ended: the execution ends too, with the output that has come. */
  lose(reason: string): void {
    this.#end(reason);
    this.#stopped.abort();
    if (this.#isSettled) return;
    this.#settle({
      died: true,
      processEnded: true,
      errorInfo: serverError("SandboxDied", "The sandbox process ended before the execution did."),
      value: JsonText.null,
      executionTimeMs: performance.now() - this.#startedAt - this.#waitedMs,
      truncated: false,
    });
  }

  #end(reason: string): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#cpuTimer);
    this.#job.signal?.removeEventListener("abort", this.#onAbort);
    this.#resolveCapture({ state: null, reason });
  }

  /** Stops an execution that has used its CPU time. Looked at from outside, so nothing inside can evade it. */
  #watchCpuTime(): void {
    const { maxCpuTimeMs } = this.#process;
    if (maxCpuTimeMs === 0) return;
    this.#readCpuTime();
    if (this.#cpuTimeMs === null) return;
    const leftMs = maxCpuTimeMs - this.#cpuTimeMs;
    if (leftMs <= 0) {
      this.#stop("cpu_limit");
      return;
    }
    // Python has one thread, and the watcher can be kept as busy with its output: two use it up at twice the speed.
    this.#cpuTimer = setTimeout(() => this.#watchCpuTime(), Math.max(CPU_TIME_STEP_MS, leftMs / 2));
  }

  /** Keeps what was last seen of a process that is gone. */
  #readCpuTime(): void {
    const nowMs = this.#process.cpuClock?.readMs() ?? null;
    if (nowMs === null || this.#cpuTimeBefore === null) return;
    this.#cpuTimeMs = nowMs - this.#cpuTimeBefore;
  }

  #stop(reason: StopReason): void {
    if (this.#isOver || this.#isAnswered || this.#stopReason !== null) return;
    const { connection } = this.#process;
    this.#stopReason = reason;
    clearTimeout(this.#timer);
    clearTimeout(this.#cpuTimer);
    connection.send(this.nonce, { type: "interrupt" });
    // Interrupt first: a host call that returns early must see the flag.
    this.#stopped.abort();
    this.#killAfter(new KillGrace(this.#process.cpuClock), reason);
  }

  #killAfter(grace: KillGrace, reason: StopReason): void {
    const { leftMs } = grace;
    if (leftMs > 0) {
      this.#timer = setTimeout(() => this.#killAfter(grace, reason), leftMs);
      return;
    }
    this.#graceMs = Math.round(grace.elapsedMs);
    this.#readCpuTime();
    this.#process.connection.kill(reason);
  }

  #askForOutput(): void {
    const { connection } = this.#process;
    // A sandbox that asks without reading the answers would fill the server's memory.
    if (connection.unsentBytes > MAX_UNSENT_BYTES) throw new ProtocolError("it does not read what it asks for");
    if (++this.#announcements > 2 * MAX_OUTPUT_BYTES) throw new ProtocolError("more announced than there can be");
    connection.send(this.nonce, { type: "more-output" });
  }

  #takeOutput(stream: "stdout" | "stderr", bytes: Uint8Array): void {
    if (bytes.length === 0) throw new ProtocolError("an output of nothing");
    this.#outputBytes += bytes.length;
    if (this.#outputBytes > 2 * MAX_OUTPUT_BYTES) throw new ProtocolError("more output than there can be");
    this.#keepOutput(stream, bytes);
  }

  #keepOutput(stream: "stdout" | "stderr", bytes: Uint8Array): void {
    this.#printed[stream].push(bytes);
    this.#displays.somethingCame();
    if (!this.#job.onOutput) return;
    this.#streamed ??= new StreamedOutput((type, content) => this.#pass({ type, content }));
    this.#streamed.push(stream, bytes);
  }

  #tell(event: OutputEvent): void {
    this.#streamed?.flush();
    this.#pass(event);
  }

  /** A listener that fails ends the execution, and nothing else. */
  #pass(event: OutputEvent): void {
    try {
      this.#job.onOutput?.(event);
    } catch (error) {
      this.#process.connection.kill(`its output cannot be passed on: ${reasonOf(error)}`);
    }
  }

  async #display(message: DisplayMessage, body: Uint8Array): Promise<void> {
    const output = await this.#displays.take(message, body);
    if (output !== null && !this.#isOver) this.#tell(output);
  }

  async #answer({ call, operation }: Extract<GuestMessage, { type: "call" }>, body: Uint8Array): Promise<void> {
    if (this.#isCalling) throw new ProtocolError("a call before the last one's answer");
    this.#isCalling = true;
    // What comes of the call is told after what was printed before it.
    this.#streamed?.flush();
    if (body.length > MAX_CALL_BYTES) throw new ProtocolError("an argument over its limit");
    const argument = await JsonText.checkInSlices(body, CALL_LIMITS);
    if (this.#isOver) return;
    const { connection } = this.#process;
    this.#calls ??= this.#job.calls();
    const startClock = isHostCall(operation) && this.#calls[operation]?.stopsClock ? this.#stopClock() : () => {};
    // Not awaited: an answer may take long, and what the code prints meanwhile does not wait for it.
    void answerCall(this.#calls, operation, argument, this.#stopped.signal)
      .then(({ answer, body: content }) => {
        this.#isCalling = false;
        startClock();
        if (this.#isOver || this.#isAnswered) return;
        connection.send(this.nonce, { type: "answer", call, ...answer }, ...(content ? [content] : []));
      })
      .catch((error: unknown) => connection.kill(`it cannot be answered: ${reasonOf(error)}`));
  }

  /** @returns has the execution's time go on from where it was. */
  #stopClock(): () => void {
    if (this.#stopReason !== null) return () => {};
    clearTimeout(this.#timer);
    const stoppedAt = performance.now();
    return () => {
      const waitedMs = performance.now() - stoppedAt;
      this.#waitedMs += waitedMs;
      this.#deadline += waitedMs;
      // An execution that was stopped meanwhile has its end's timer by now.
      if (this.#stopReason !== null || this.#isOver || this.#isAnswered) return;
      const leftMs = Math.max(0, this.#deadline - performance.now());
      this.#timer = setTimeout(() => this.#stop("timeout"), leftMs);
    };
  }

  /** Nothing of a result is passed on before all of it is checked: what breaks the protocol has not been answered. */
  async #finish(message: ResultMessage, body: Uint8Array): Promise<void> {
    const { connection, maxFiles } = this.#process;
    this.#isAnswered = true;
    // A call that is not answered yet is none that the code waits for.
    if (this.#isCalling) this.#stopped.abort();
    clearTimeout(this.#timer);
    clearTimeout(this.#cpuTimer);
    this.#job.signal?.removeEventListener("abort", this.#onAbort);
    this.#timer = setTimeout(() => connection.kill("it did not settle after a result"), SETTLE_TIMEOUT_MS);
    this.#readCpuTime();
    const report = await readReport(message, body, maxFiles);
    // It has ended meanwhile.
    if (this.#isOver) return;
    for (const stream of ["stdout", "stderr"] as const) {
      if (report[stream].length > 0) this.#keepOutput(stream, report[stream]);
    }
    const { truncated, crashed } = message;
    const executionTimeMs = Math.max(0, message.executionTimeMs - this.#waitedMs);
    this.#settle({ ...report, died: crashed, processEnded: false, executionTimeMs, truncated });
  }

  #settle(
    known: Pick<Ending, "died" | "processEnded" | "errorInfo" | "value" | "executionTimeMs" | "truncated"> &
      Partial<Pick<Report, "files">>,
  ): void {
    this.#isSettled = true;
    this.#streamed?.end();
    const { files = null, ...ending } = known;
    const result = resultOf({
      ...ending,
      stopped: this.#stopReason,
      graceMs: this.#graceMs,
      timeoutMs: this.#job.timeoutMs,
      stdout: this.#printed.stdout.toBuffer().toString("utf8"),
      stderr: this.#printed.stderr.toBuffer().toString("utf8"),
      outputs: this.#displays.bundles,
      ...(this.#job.message.program.display !== undefined && { display: this.#displays.value }),
      cpuTimeMs: this.#cpuTimeMs,
    });
    this.#resolve({ result, files });
  }
}

/** Why an execution is stopped from outside: its signal says it. */
function abortReason(signal: AbortSignal | undefined): StopReason {
  const { reason } = signal ?? {};
  return reason instanceof ClientError && reason.code === "tool_wait_expired" ? "tool_wait_expired" : "cancelled";
}
