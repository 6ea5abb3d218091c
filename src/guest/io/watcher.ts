/**
 * The second thread of a sandbox process. It reads what the host sends and passes it to the interpreter, but for what is urgent:
 * that has to be done while user code runs. Nothing of a tenant's is ever in it but what passes through.
 */
import { frameBytes, NONCE_BYTES, PREFIX_BYTES, URGENT_OFFSET } from "../../wire/frames.ts";
import { revokePermissions } from "../interpreter/realm.ts";
import { FrameWriter } from "./frame-writer.ts";
import { InputRing } from "./input-ring.ts";
import { CONTROL, type Shared, SIGINT, wakeInterpreter } from "./shared-state.ts";

const HEAD_BYTES = PREFIX_BYTES + NONCE_BYTES;
/** How long the interpreter may take to notice that the host is gone, ms. */
const END_GRACE_MS = 100;
const { stdin, pid, kill } = Deno;

const decoder = new TextDecoder();

self.onmessage = async ({ data }: MessageEvent<Shared>) => {
  revokePermissions();
  self.postMessage("watching");
  try {
    new Watcher(data).watch();
  } catch (error) {
    console.error(`the watcher failed: ${error}`);
  }
  end(new Int32Array(data.control));
};
self.postMessage("loaded");

class Watcher {
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #interrupt: Uint8Array;
  readonly #ring: InputRing;
  readonly #writer: FrameWriter;
  readonly #input = new Input();
  /** Of the job that the interpreter has, or had last. */
  #jobNonce = "";

  constructor(shared: Shared) {
    this.#control = new Int32Array(shared.control);
    this.#interrupt = new Uint8Array(shared.interrupt);
    this.#ring = new InputRing(shared);
    this.#writer = new FrameWriter(shared);
  }

  /** Passes frames on until the host closes the pipe. */
  watch(): void {
    for (let head = this.#input.take(HEAD_BYTES); head !== null; head = this.#input.take(HEAD_BYTES)) {
      const nonce = decoder.decode(head.subarray(PREFIX_BYTES));
      const left = frameBytes(head) - HEAD_BYTES;
      if (head[URGENT_OFFSET] === 1) {
        const header = this.#input.take(left);
        if (header !== null) this.#act(nonce, JSON.parse(decoder.decode(header)).type);
        continue;
      }
      if (nonce !== this.#jobNonce) {
        this.#jobNonce = nonce;
        this.#interrupt[0] = 0;
        this.#control[CONTROL.INTERRUPTED] = 0;
      }
      this.#ring.write(head);
      this.#input.pass(left, (bytes) => this.#ring.write(bytes));
      this.#ring.flush();
    }
  }

  #act(nonce: string, type: "interrupt" | "more-output"): void {
    // A late one must not hit the next job.
    if (nonce !== this.#jobNonce) return;
    this.#writer.sendOutput(nonce);
    if (type !== "interrupt") return;
    this.#control[CONTROL.INTERRUPTED] = 1;
    this.#interrupt[0] = SIGINT;
    wakeInterpreter(this.#control);
  }
}

/** The pipe from the host, as bytes. */
class Input {
  readonly #buffer = new Uint8Array(64 * 1024);
  #unread: Uint8Array = new Uint8Array(0);

  /** @returns so many bytes; null: there are not so many to come. */
  take(count: number): Uint8Array<ArrayBuffer> | null {
    const bytes = new Uint8Array(count);
    let filled = 0;
    this.pass(count, (part) => {
      bytes.set(part, filled);
      filled += part.length;
    });
    return filled === count ? bytes : null;
  }

  /** Gives so many bytes to `use`, in parts; fewer, where the pipe ends. */
  pass(count: number, use: (bytes: Uint8Array) => void): void {
    for (let left = count; left > 0; ) {
      if (this.#unread.length === 0) {
        const size = stdin.readSync(this.#buffer);
        if (size === null) return;
        this.#unread = this.#buffer.subarray(0, size);
      }
      const part = this.#unread.subarray(0, left);
      this.#unread = this.#unread.subarray(part.length);
      left -= part.length;
      use(part);
    }
  }
}

/** Ends the process, whatever the interpreter is doing: the server is gone. */
function end(control: Int32Array<SharedArrayBuffer>): void {
  Atomics.store(control, CONTROL.CLOSED, 1);
  wakeInterpreter(control);
  Atomics.wait(control, CONTROL.CLOSED, 1, END_GRACE_MS);
  // `Deno.exit` would end this thread only. Where a filter on system calls forbids this, the wrapper ends the process.
  kill(pid, "SIGKILL");
}
