import type { ChildProcess } from "node:child_process";
import { SandboxDiedError } from "../shared/errors.ts";
import { encodeFrame, type Frame, FrameReader, MAX_FRAME_BYTES } from "../wire/frames.ts";
import { type GuestMessage, readGuestMessage } from "../wire/guest-messages.ts";
import { type HostMessage, MAX_GUEST_HEADER_BYTES } from "../wire/messages.ts";
import { ProtocolError } from "../wire/protocol-error.ts";
import { type LaunchOptions, launch } from "./launch.ts";
import { newNonce } from "./nonce.ts";
import { type FrameTrace, traced } from "./trace.ts";

/** While the host checks a frame larger than this, it reads no further ones. */
export const LARGE_FRAME_BYTES = 256 * 1024;
/** How much of what a process prints on stderr is kept for the log, bytes. */
const MAX_DIAGNOSTICS_BYTES = 16 * 1024;

export interface ConnectOptions extends LaunchOptions {
  readonly startTimeoutMs: number;
  /** Ends the process, also while it starts. */
  readonly signal?: AbortSignal | undefined;
  /** Told of each frame, for `cli run --trace`; default: nothing is. */
  readonly onFrame?: FrameTrace | undefined;
}

/** The pipes of one process: frames in, frames out. */
export class Connection {
  readonly pid: number;
  /** Why it ended, and what the process printed on stderr. Never rejects. */
  readonly ended: Promise<string>;
  /** Why the process has ended or is about to; null while it is well. */
  endReason: string | null = null;
  /** Acts on a frame. The next frame waits for the promise that it returns. */
  onFrame: (frame: Frame<GuestMessage>) => Promise<void> | undefined = () => undefined;
  readonly #process: ChildProcess;
  readonly #trace: FrameTrace | undefined;
  readonly #reader = new FrameReader<GuestMessage>(readGuestMessage, MAX_FRAME_BYTES, MAX_GUEST_HEADER_BYTES);
  readonly #frames: Frame<GuestMessage>[] = [];
  /** Settled when no frame waits for the one before it. Never rejects. */
  #working: Promise<void> | null = null;
  #diagnostics = "";

  constructor(process: ChildProcess, trace: FrameTrace | undefined) {
    this.#process = process;
    this.#trace = trace;
    this.pid = process.pid ?? -1;
    process.stdout?.on("data", (chunk: Buffer) => this.#receive(chunk));
    process.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#diagnostics = (this.#diagnostics + text).slice(-MAX_DIAGNOSTICS_BYTES);
    });
    // A process that was killed closes its pipes under our hands; its end is reported by "close".
    for (const pipe of [process.stdin, process.stdout, process.stderr]) pipe?.on("error", () => {});
    this.ended = new Promise((resolve) => {
      const end = async (reason: string) => {
        // What it said before it ended by itself still counts: each frame that takes time may have another behind it.
        while (this.#working !== null) await this.#working;
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
    if (this.#trace) {
      const bodyBytes = body.reduce((sum, { length }) => sum + length, 0);
      this.#trace(traced(this.pid, "sent", message, bodyBytes));
    }
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

  /** Acts on frames in order, up to one that takes time: then no more is read until it is done. */
  #work(): void {
    while (this.#working === null && this.endReason === null) {
      const frame = this.#frames.shift();
      if (!frame) return;
      const done = this.onFrame(frame);
      if (!done) continue;
      if (frame.body.length > LARGE_FRAME_BYTES) this.#process.stdout?.pause();
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

/**
 * Starts a process and waits for its first message.
 *
 * @throws {SandboxDiedError} if none comes in time, or the process cannot go on.
 */
export async function connect(
  options: ConnectOptions,
): Promise<{ connection: Connection; frame: Frame<GuestMessage> }> {
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

export function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
