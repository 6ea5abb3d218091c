import { CpuClock, innermostProcess } from "../isolation/process-facts.ts";
import { SandboxDiedError } from "../shared/errors.ts";
import type { Frame } from "../wire/frames.ts";
import type { GuestMessage, SessionState, Verdict } from "../wire/guest-messages.ts";
import type { FileListing, HostMessage, PackageListing } from "../wire/messages.ts";
import { ProtocolError } from "../wire/protocol-error.ts";
import { type Connection, type ConnectOptions, connect } from "./connection.ts";
import { isExpected, newNonce } from "./nonce.ts";
import type { Execution } from "./outcome.ts";
import { type Capture, type Job, RunningJob, SETTLE_TIMEOUT_MS } from "./running-job.ts";

export interface SandboxOptions extends ConnectOptions {
  /** Most CPU time of one execution, ms, where the system tells how much that is; 0: no limit of its own. */
  readonly maxCpuTimeMs: number;
}

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
  readonly baseline: string | null;
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
  /** Of the sandbox's own process, inside its wrappers; null: that is not known. */
  readonly #cpuClock: CpuClock | null;
  readonly #maxCpuTimeMs: number;
  #running: RunningJob | null = null;
  /** Most files and folders that the session may have. */
  #maxFiles = 0;
  /** Nonce of a `load` or `rewind` that is under way. */
  #changing: string | null = null;
  #settleIdle: (verdict: Verdict) => void = () => {};

  private constructor(
    connection: Connection,
    ready: Extract<GuestMessage, { type: "ready" }>,
    startedAt: number,
    { innermost, maxCpuTimeMs }: { readonly innermost: number | null; readonly maxCpuTimeMs: number },
  ) {
    this.#connection = connection;
    this.#cpuClock = innermost === null ? null : new CpuClock(innermost);
    this.#maxCpuTimeMs = maxCpuTimeMs;
    this.pid = connection.pid;
    this.ended = connection.ended;
    this.pythonVersion = ready.pythonVersion;
    this.pyodideVersion = ready.pyodideVersion;
    this.heapBytes = ready.heapBytes;
    this.everyPage = ready.everyPage;
    this.baseline = ready.baseline;
    this.startedAt = startedAt;
    this.bootMs = performance.now() - startedAt;
    connection.onFrame = (frame) => this.#receive(frame);
    void this.ended.then((reason) => {
      this.#lost(reason);
      this.#cpuClock?.[Symbol.dispose]();
    });
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
    return new Sandbox(connection, frame.message, startedAt, { innermost, maxCpuTimeMs: options.maxCpuTimeMs });
  }

  /** Runs a job. Python errors, timeouts, and a process that dies under it are results; this never rejects. */
  execute(job: Job): Promise<Execution> {
    this.#begin();
    const running = new RunningJob(job, {
      connection: this.#connection,
      cpuClock: this.#cpuClock,
      maxCpuTimeMs: this.#maxCpuTimeMs,
      maxFiles: job.message.files?.maxFiles ?? this.#maxFiles,
    });
    this.#running = running;
    this.captured = running.captured;
    if (this.#connection.endReason === null) running.start();
    else this.#lost(this.#connection.endReason);
    return running.done;
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
    this.#begin();
    this.#changing = newNonce();
    if (this.#connection.endReason !== null) {
      this.#lost(this.#connection.endReason);
    } else {
      this.#connection.send(this.#changing, message, ...(body ? [body] : []));
      const timer = setTimeout(() => this.kill(`"${message.type}" took too long`), SETTLE_TIMEOUT_MS);
      void this.idle.then(() => clearTimeout(timer));
    }
    return this.idle;
  }

  #begin(): void {
    if (this.#running || this.#changing !== null) throw new Error("a sandbox does one thing at a time");
    const { promise, resolve } = Promise.withResolvers<Verdict>();
    this.idle = promise;
    this.#settleIdle = resolve;
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

  /** @returns what has to be done before the next frame; undefined: it is done. */
  #receive({ nonce, message, body }: Frame<GuestMessage>): Promise<void> | undefined {
    const running = this.#running;
    if (message.type === "fatal") {
      this.kill(message.reason);
      return undefined;
    }
    if (message.type === "idle" && isExpected(nonce, this.#changing)) {
      this.#changing = null;
      this.#becomeIdle(message);
      return undefined;
    }
    if (!running || !isExpected(nonce, running.nonce)) throw new ProtocolError(`"${message.type}" with a wrong nonce`);
    const done = running.receive(message, body);
    if (message.type === "idle") {
      this.#running = null;
      this.#becomeIdle(message);
    }
    return done;
  }

  #becomeIdle({ heapBytes, verdict }: Extract<GuestMessage, { type: "idle" }>): void {
    this.heapBytes = heapBytes;
    this.#settleIdle(verdict);
  }

  /** The process has ended, and with it what it was doing. */
  #lost(reason: string): void {
    const running = this.#running;
    this.#running = null;
    this.#changing = null;
    this.#settleIdle({ state: "discard", reason });
    running?.lose(reason);
  }
}
