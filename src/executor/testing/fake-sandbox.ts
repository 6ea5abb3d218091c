import type { Verdict } from "../../wire/guest-messages.ts";
import type { PooledSandbox } from "../slot.ts";

export const PRISTINE: Verdict = { state: "pristine", restoredPages: 0 };
export const RESIDENT: Verdict = { state: "resident" };

/** What a pool sees of a sandbox process. The test decides when an execution ends, with which verdict, and when the process does. */
export class FakeSandbox implements PooledSandbox {
  readonly startedAt = performance.now();
  readonly ended: Promise<string>;
  endReason: string | null = null;
  idle: Promise<Verdict> = Promise.resolve(PRISTINE);
  /** What a rewind comes to. */
  rewound: Verdict = PRISTINE;
  readonly #end: (reason: string) => void;
  #settle: (verdict: Verdict) => void = () => {};

  constructor() {
    ({ promise: this.ended, resolve: this.#end } = Promise.withResolvers<string>());
  }

  /** Begins an execution. @returns ends it; the process may have ended before. */
  begin(): (verdict: Verdict) => void {
    const { promise, resolve } = Promise.withResolvers<Verdict>();
    this.idle = promise;
    this.#settle = resolve;
    if (this.endReason !== null) resolve({ state: "discard", reason: this.endReason });
    return resolve;
  }

  async rewind(): Promise<Verdict> {
    const settle = this.begin();
    await turn();
    settle(this.rewound);
    return await this.idle;
  }

  kill(reason: string): void {
    this.endReason ??= reason;
    this.#settle({ state: "discard", reason });
    // As a process does: some time after it was killed.
    void turn().then(() => this.#end(reason));
  }
}

/** Lets everything go on that waits for no timer. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
