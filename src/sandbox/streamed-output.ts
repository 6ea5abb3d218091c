type StreamName = "stdout" | "stderr";

/** So long the beginning of a line waits for its rest, ms. */
const HELD_MS = 50;

/**
 * What an execution prints, as text for a listener: whole lines at once, the beginning of a line after a pause. `print` writes a text and
 * its line end one by one, and between the two a busy machine may stop: clients count the pieces, and put line ends between them.
 */
export class StreamedOutput {
  readonly #send: (stream: StreamName, text: string) => void;
  // A byte order mark is text that was printed, as any other.
  readonly #decoders = {
    stdout: new TextDecoder("utf-8", { ignoreBOM: true }),
    stderr: new TextDecoder("utf-8", { ignoreBOM: true }),
  };
  #held: { readonly stream: StreamName; text: string } | null = null;
  #timer: NodeJS.Timeout | undefined;

  constructor(send: (stream: StreamName, text: string) => void) {
    this.#send = send;
  }

  /** @param bytes UTF-8; a character may be cut at their end. */
  push(stream: StreamName, bytes: Uint8Array): void {
    this.#add(stream, this.#decoders[stream].decode(bytes, { stream: true }));
  }

  /** Sends what is held, before anything else is told. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const held = this.#held;
    this.#held = null;
    if (held !== null) this.#send(held.stream, held.text);
  }

  /** Nothing more is printed. */
  end(): void {
    for (const stream of ["stdout", "stderr"] as const) this.#add(stream, this.#decoders[stream].decode());
    this.flush();
  }

  #add(stream: StreamName, text: string): void {
    if (text === "") return;
    if (this.#held !== null && this.#held.stream !== stream) this.flush();
    // What is held has no line end.
    const end = text.lastIndexOf("\n") + 1;
    if (end > 0) {
      this.#hold(stream, text.slice(0, end));
      this.flush();
    }
    if (end === text.length) return;
    this.#hold(stream, text.slice(end));
    this.#timer ??= setTimeout(() => this.flush(), HELD_MS);
  }

  #hold(stream: StreamName, text: string): void {
    if (this.#held === null) this.#held = { stream, text };
    else this.#held.text += text;
  }
}
