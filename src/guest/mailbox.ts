import { receiveMessageOnPort } from "node:worker_threads";
import type { MimeBundle, PackageListing } from "../sandbox/protocol.ts";
import {
  type Answer,
  type Boot,
  CONTROL,
  type Envelope,
  type FromWorker,
  type Task,
  type ToWorker,
} from "./channel.ts";
import type { Host } from "./device.ts";

/** Sends to the main thread. Works while the worker blocks. */
export const post = self.postMessage.bind(self) as (message: FromWorker, transfer?: Transferable[]) => void;

/** Messages from the main thread, taken synchronously, and what can be asked of it. */
export class Mailbox implements Host {
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #interrupt: Uint8Array;
  readonly #port: MessagePort;
  #nextCall = 1;
  /** Called when the host has installed packages for user code that is running, before that code goes on. */
  onPackages: (listing: PackageListing) => void = () => {};

  constructor({ shared, port }: Boot) {
    this.#control = new Int32Array(shared.control);
    this.#interrupt = new Uint8Array(shared.interrupt);
    this.#port = port;
  }

  nextTask(): Task {
    for (;;) {
      const message = this.#next();
      // An answer that nobody waits for any more belongs to a call that was interrupted.
      if (message.type !== "answer") return message;
    }
  }

  sleep(durationMs: number): void {
    const deadline = performance.now() + durationMs;
    for (let left = durationMs; left > 0 && this.#interrupt[0] === 0; left = deadline - performance.now()) {
      Atomics.wait(this.#control, CONTROL.WAKE, Atomics.load(this.#control, CONTROL.WAKE), left);
    }
  }

  display(bundle: MimeBundle): void {
    Atomics.add(this.#control, CONTROL.DISPLAYS, 1);
    const stdout = Atomics.load(this.#control, CONTROL.STDOUT_BYTES);
    const stderr = Atomics.load(this.#control, CONTROL.STDERR_BYTES);
    post({ type: "display", bundle, stdout, stderr });
  }

  announceOutput(): void {
    post({ type: "output" });
  }

  /** Blocks until the host answers; a refusal is in `error`. */
  call(operation: string, argument: unknown): Answer {
    const call = this.#nextCall++;
    post({ type: "call", call, operation, argument });
    for (;;) {
      const message = this.#next();
      if (message.type !== "answer" || message.call !== call) continue;
      if (operation !== "install-packages" || message.error !== undefined) return message;
      if (message.value !== null) this.onPackages(message.value as PackageListing);
      return { ...message, value: null };
    }
  }

  /** @throws if the host refuses. */
  fetch(operation: string, argument: unknown): Uint8Array {
    const answer = this.call(operation, argument);
    if (answer.error !== undefined) throw new Error(answer.error);
    return new Uint8Array(answer.body);
  }

  #next(): ToWorker {
    for (;;) {
      const seen = Atomics.load(this.#control, CONTROL.WAKE);
      const received = receiveMessageOnPort(this.#port as never);
      if (received) {
        const { message, body } = received.message as Envelope;
        return { ...JSON.parse(message), body };
      }
      Atomics.wait(this.#control, CONTROL.WAKE, seen);
    }
  }
}
