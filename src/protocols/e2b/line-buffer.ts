const HELD_MS = 50;

type Stream = "stdout" | "stderr";

/** Puts together what is printed in pieces: `print` writes a text and its line end one by one, and clients count messages. */
export class LineBuffer {
  readonly #send: (stream: Stream, text: string) => void;
  #held: { readonly stream: Stream; text: string } | null = null;
  #timer: NodeJS.Timeout | undefined;

  /** @param send takes whole lines, or what came before a pause. */
  constructor(send: (stream: Stream, text: string) => void) {
    this.#send = send;
  }

  print(stream: Stream, text: string): void {
    if (this.#held !== null && this.#held.stream !== stream) this.flush();
    if (this.#held === null) this.#held = { stream, text };
    else this.#held.text += text;
    if (text.endsWith("\n")) this.flush();
    else this.#timer ??= setTimeout(() => this.flush(), HELD_MS);
  }

  /** Before anything else is sent, and at the end. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const held = this.#held;
    this.#held = null;
    if (held !== null) this.#send(held.stream, held.text);
  }

  /** What is held is wanted no more. */
  [Symbol.dispose](): void {
    this.#held = null;
    this.flush();
  }
}
