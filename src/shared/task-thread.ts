import { Worker } from "node:worker_threads";
import { FairTurns } from "./fair-turns.ts";

export interface TaskThreadOptions {
  /** What runs in the thread: answers each message, which is a task, by one. */
  readonly program: URL;
  /** What a task fails with that has taken too long, or that has ended the thread: there was no memory left, say. */
  readonly lost: () => Error;
  /** Most ms that a task may take; default: any. */
  readonly timeoutMs?: number;
  /** The thread ends once it has had nothing to do for so long, ms; default: it does not. */
  readonly idleMs?: number;
}

const MEMORY_MB = 512;

/**
 * Does one task at a time, in turns by principal, in a thread of its own: the event loop of this one goes on. The
 * thread is started when it is needed; whatever ends it takes the task along that it was at, and no other.
 */
export class TaskThread<Task, Answer> {
  readonly #options: TaskThreadOptions;
  readonly #turns = new FairTurns(1);
  #worker: Worker | null = null;
  #idle: NodeJS.Timeout | undefined;

  constructor(options: TaskThreadOptions) {
    this.#options = options;
  }

  /**
   * @param transfer memory that moves over with the task.
   * @param principal who asks; those who ask for less wait less.
   */
  async run(
    task: Task,
    { transfer = [], principal = "" }: { readonly transfer?: readonly ArrayBuffer[]; readonly principal?: string } = {},
  ): Promise<Answer> {
    return await this.#turns.run(principal, () => this.#do(task, transfer));
  }

  async #do(task: Task, transfer: readonly ArrayBuffer[]): Promise<Answer> {
    const { lost, timeoutMs, idleMs } = this.#options;
    clearTimeout(this.#idle);
    this.#worker ??= this.#start();
    const worker = this.#worker;
    const { promise, resolve, reject } = Promise.withResolvers<Answer>();
    const fail = () => reject(lost());
    worker.once("message", resolve).once("exit", fail);
    worker.ref();
    const timer = timeoutMs === undefined ? undefined : setTimeout(() => this.#end(), timeoutMs);
    try {
      worker.postMessage(task, [...transfer]);
      return await promise;
    } finally {
      clearTimeout(timer);
      worker.off("message", resolve).off("exit", fail);
      worker.unref();
      if (idleMs !== undefined) this.#idle = setTimeout(() => this.#end(), idleMs).unref();
    }
  }

  #start(): Worker {
    const worker = new Worker(this.#options.program, {
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB },
      // What the server is told (`--import`, an inspector) is not for this thread.
      execArgv: [],
    });
    // Of its end its task is told.
    worker.on("error", () => {});
    worker.once("exit", () => {
      if (this.#worker === worker) this.#worker = null;
    });
    return worker;
  }

  #end(): void {
    const worker = this.#worker;
    this.#worker = null;
    worker?.terminate().catch(() => {});
  }
}
