import { CONTROL, INPUT_BYTES, type Shared, wakeInterpreter } from "./shared-state.ts";

/** The ring of bytes from the watcher, which writes, to the interpreter, which reads; each thread has one of these on the same memory. */
export class InputRing {
  readonly #control: Int32Array<SharedArrayBuffer>;
  readonly #ring: Uint8Array;

  constructor({ control, input }: Shared) {
    this.#control = new Int32Array(control);
    this.#ring = new Uint8Array(input);
  }

  /**
   * Blocks while the ring is full. The host sends only what the interpreter waits for, so that it is being emptied. The interpreter
   * need not look before `flush`.
   */
  write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const written = Atomics.load(this.#control, CONTROL.INBOX_WRITTEN);
      const read = Atomics.load(this.#control, CONTROL.INBOX_READ);
      const start = (written >>> 0) % INPUT_BYTES;
      const room = Math.min(INPUT_BYTES - ((written - read) | 0), INPUT_BYTES - start);
      if (room === 0) {
        this.flush();
        Atomics.wait(this.#control, CONTROL.INBOX_READ, read);
        continue;
      }
      const part = bytes.subarray(done, done + room);
      this.#ring.set(part, start);
      done += part.length;
      Atomics.add(this.#control, CONTROL.INBOX_WRITTEN, part.length);
    }
  }

  /** Wakes the interpreter for what was written: once for a frame, not for each of its parts. */
  flush(): void {
    wakeInterpreter(this.#control);
  }

  /** Blocks until there is something. @returns a copy of it; null: there will be nothing more. */
  read(): Uint8Array | null {
    for (;;) {
      const seen = Atomics.load(this.#control, CONTROL.WAKE);
      const read = Atomics.load(this.#control, CONTROL.INBOX_READ);
      const waiting = (Atomics.load(this.#control, CONTROL.INBOX_WRITTEN) - read) | 0;
      if (waiting > 0) return this.#take(read, waiting);
      if (Atomics.load(this.#control, CONTROL.CLOSED) === 1) return null;
      Atomics.wait(this.#control, CONTROL.WAKE, seen);
    }
  }

  #take(read: number, waiting: number): Uint8Array {
    const start = (read >>> 0) % INPUT_BYTES;
    const part = this.#ring.slice(start, Math.min(start + waiting, INPUT_BYTES));
    Atomics.add(this.#control, CONTROL.INBOX_READ, part.length);
    Atomics.notify(this.#control, CONTROL.INBOX_READ);
    return part;
  }
}
