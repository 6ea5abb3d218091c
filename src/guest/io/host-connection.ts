import { type Frame, FrameReader, readHeaderOf } from "../../wire/frames.ts";
import type { DisplayMessage, FileChanges, GuestMessage, ResultMessage } from "../../wire/guest-messages.ts";
import type { HostCallArgument } from "../../wire/host-calls.ts";
import { ORDINARY_MESSAGE_TYPES, type OrdinaryMessage, type PackageListing } from "../../wire/messages.ts";
import type { Answer, Host } from "./device.ts";
import { FrameWriter, type RunnerReply } from "./frame-writer.ts";
import { InputRing } from "./input-ring.ts";
import { CONTROL, type Shared, SIGINT } from "./shared-state.ts";

/** A message that the interpreter acts on, one at a time; each ends with `idle`. */
export type TaskMessage = Exclude<OrdinaryMessage, { type: "start" | "answer" }>;

const encoder = new TextEncoder();

/**
 * The interpreter's way to the host and back, all of it synchronous: no promise, timer or finaliser of JavaScript ever runs between
 * two executions, or inside one.
 */
export class HostConnection implements Host {
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #interrupt: Uint8Array;
  readonly #ring: InputRing;
  readonly #writer: FrameWriter;
  readonly #reader = new FrameReader<OrdinaryMessage>(readHeaderOf(ORDINARY_MESSAGE_TYPES));
  readonly #frames: Frame<OrdinaryMessage>[] = [];
  readonly #processNonce: string;
  #jobNonce = "";
  #nextCall = 1;
  /** Called when a call has changed the caller's packages, before the code that made it goes on. */
  onPackages: (listing: PackageListing) => void = () => {};

  /** @param processNonce for what belongs to no job. */
  constructor(shared: Shared, processNonce: string) {
    this.#control = new Int32Array(shared.control);
    this.#interrupt = new Uint8Array(shared.interrupt);
    this.#ring = new InputRing(shared);
    this.#writer = new FrameWriter(shared);
    this.#processNonce = processNonce;
  }

  /** Blocks until there is one. @returns null: there will be none, the host has ended this process. */
  nextTask(): Frame<TaskMessage> | null {
    for (let frame = this.#next(); frame !== null; frame = this.#next()) {
      const { nonce, message, body } = frame;
      // A late answer belongs to a call that was interrupted.
      if (message.type === "answer") continue;
      if (message.type === "start") throw new Error("the host said start twice");
      this.#jobNonce = nonce;
      return { nonce, message, body };
    }
    return null;
  }

  /** Says what belongs to no job. */
  announce(message: Extract<GuestMessage, { type: "ready" | "image" | "fatal" }>, body?: Uint8Array): void {
    this.#writer.send(this.#processNonce, message, ...(body ? [body] : []));
  }

  finish(
    facts: Pick<ResultMessage, "executionTimeMs" | "crashed">,
    reply: RunnerReply,
    changes: FileChanges | null = null,
    contents: readonly Uint8Array[] = [],
  ): void {
    this.#writer.sendResult(this.#jobNonce, facts, reply, changes, contents);
  }

  /** Says what follows a job's result. */
  report(message: Extract<GuestMessage, { type: "state" | "idle" }>, ...body: Uint8Array[]): void {
    this.#writer.send(this.#jobNonce, message, ...body);
  }

  print(stream: "stdout" | "stderr", bytes: Uint8Array, streaming: boolean): void {
    if (streaming) this.#writer.keepOrder(stream, this.#jobNonce);
    if (this.#writer.print(stream, bytes) && streaming) this.#writer.announceOutput(this.#jobNonce);
  }

  /** Whether the host has interrupted what runs. */
  isInterrupted(): boolean {
    return Atomics.load(this.#control, CONTROL.INTERRUPTED) === 1;
  }

  sleep(durationMs: number): void {
    const deadline = performance.now() + durationMs;
    for (let left = durationMs; left > 0; left = deadline - performance.now()) {
      // In this order: an interrupt that comes after the look changes what is waited for.
      const seen = Atomics.load(this.#control, CONTROL.WAKE);
      if (this.#interrupt[0] !== 0) return;
      Atomics.wait(this.#control, CONTROL.WAKE, seen, left);
    }
  }

  repeatInterrupt(): void {
    if (this.#control[CONTROL.INTERRUPTED] === 1) this.#interrupt[0] = SIGINT;
  }

  display(message: DisplayMessage, ...body: Uint8Array[]): void {
    this.#writer.sendInOrder(this.#jobNonce, message, ...body);
  }

  clearOutput(wait: boolean): void {
    this.#writer.sendInOrder(this.#jobNonce, { type: "clear_output", wait });
  }

  call(operation: string, argument: unknown): Answer {
    const call = this.#nextCall++;
    const message = { type: "call", call, operation } as const;
    const body = encoder.encode(JSON.stringify(argument));
    // The client is shown both, in the order in which they came.
    if (operation.startsWith("tool-")) this.#writer.sendInOrder(this.#jobNonce, message, body);
    else this.#writer.send(this.#jobNonce, message, body);
    for (;;) {
      const frame = this.#next();
      if (frame === null) throw new Error("the host is gone");
      const { message, body } = frame;
      if (message.type !== "answer" || message.call !== call) continue;
      if (message.packages) this.onPackages(message.packages);
      const { value, error } = message;
      return { value, ...(error !== undefined && { error }), body };
    }
  }

  /** Bytes of a file or an archive, for the guest itself. @throws {Error} if the host refuses. */
  fetch<N extends "read-file" | "read-package">(operation: N, argument: HostCallArgument<N>): Uint8Array {
    const answer = this.call(operation, argument);
    if (answer.error !== undefined) throw new Error(answer.error);
    return answer.body;
  }

  #next(): Frame<OrdinaryMessage> | null {
    for (;;) {
      const frame = this.#frames.shift();
      if (frame) return frame;
      const bytes = this.#ring.read();
      if (bytes === null) return null;
      this.#frames.push(...this.#reader.push(bytes));
    }
  }
}
