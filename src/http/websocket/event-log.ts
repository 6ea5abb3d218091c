/** An event as it is sent. */
export interface LoggedEvent {
  /** Counts up by one from 1. */
  readonly seq: number;
  readonly bytes: Uint8Array;
}

/** What all channels of one principal hold together. */
export class EventBudget {
  /** Most of events. */
  readonly maxBytes: number;
  /** Of events. */
  bytes = 0;
  /** Of messages whose executions are not over. */
  inputBytes = 0;

  constructor(maxBytes: number) {
    this.maxBytes = maxBytes;
  }
}

/** What an event takes besides its bytes. */
const EVENT_BYTES = 200;
const costOf = ({ bytes }: LoggedEvent): number => bytes.length + EVENT_BYTES;

export interface EventLogOptions {
  readonly budget: EventBudget;
  /** Most of what was not sent yet, with what was, bytes. The last event stays, whatever it has. */
  readonly maxBytes: number;
  /** Most of what was sent, for a client that has lost its connection, bytes. */
  readonly maxSentBytes: number;
}

/** The events of a channel, oldest first; the oldest are dropped when there are too many bytes of them. */
export class EventLog {
  readonly #options: EventLogOptions;
  readonly #events: LoggedEvent[] = [];
  #lastSeq = 0;
  #bytes = 0;
  #sentSeq = 0;
  #sentBytes = 0;

  constructor(options: EventLogOptions) {
    this.#options = options;
  }

  get lastSeq(): number {
    return this.#lastSeq;
  }

  /** The first event that is still there; one more than the last if none is. */
  get firstSeq(): number {
    return this.#lastSeq - this.#events.length + 1;
  }

  add(encode: (seq: number) => Uint8Array): void {
    const bytes = encode(this.#lastSeq + 1);
    this.#lastSeq++;
    const event = { seq: this.#lastSeq, bytes };
    this.#events.push(event);
    this.#bytes += costOf(event);
    this.#options.budget.bytes += costOf(event);
    this.#trim();
  }

  /** The first event after this one that is still there. */
  after(seq: number): LoggedEvent | undefined {
    return this.#events[Math.max(0, seq + 1 - this.firstSeq)];
  }

  /** From here on it is known how much was sent. @param seq the last one that was; lower again when a client says that it has less. */
  markSent(seq: number): void {
    const next = this.after(seq - 1);
    if (seq === this.#sentSeq + 1 && next) this.#sentBytes += costOf(next);
    else {
      const sent = this.#events.filter((event) => event.seq <= seq);
      this.#sentBytes = sent.reduce((sum, event) => sum + costOf(event), 0);
    }
    this.#sentSeq = seq;
    this.#trim();
  }

  clear(): void {
    this.#drop(this.#events.length);
  }

  #trim(): void {
    const { budget, maxBytes, maxSentBytes } = this.#options;
    let bytes = this.#bytes;
    let sentBytes = this.#sentBytes;
    let excess = budget.bytes - budget.maxBytes;
    let count = 0;
    while (count < this.#events.length - 1 && (bytes > maxBytes || sentBytes > maxSentBytes || excess > 0)) {
      const event = this.#events[count++] as LoggedEvent;
      bytes -= costOf(event);
      excess -= costOf(event);
      if (event.seq <= this.#sentSeq) sentBytes -= costOf(event);
    }
    this.#drop(count);
  }

  #drop(count: number): void {
    if (count === 0) return;
    for (const event of this.#events.splice(0, count)) {
      this.#bytes -= costOf(event);
      this.#options.budget.bytes -= costOf(event);
      if (event.seq <= this.#sentSeq) this.#sentBytes -= costOf(event);
    }
  }
}
