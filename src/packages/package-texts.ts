import { Worker } from "node:worker_threads";
import { PackageError } from "./package-error.ts";
import type { PackageText, ReadText } from "./package-texts-worker.ts";
import { type CoreMetadata, parseCoreMetadata } from "./pep/metadata.ts";
import type { PythonPlatform } from "./pep/platform.ts";
import { type IndexOffers, type IndexPage, indexOffers } from "./sources/index-offers.ts";
import { NotSimpleApi } from "./sources/simple-api.ts";

/** Larger texts are read in a thread of their own: the event loop of this one goes on. */
const MAX_INLINE_BYTES = 64 * 1024;
const MAX_INLINE_METADATA_CHARACTERS = 16 * 1024;
const WORKER_MEMORY_MB = 512;
/** Texts of packages are their authors' and an index's: what takes longer is not read to its end. */
const TASK_TIMEOUT_MS = 30_000;
const IDLE_MS = 30_000;

/** As {@link indexOffers}. */
export async function readIndexOffers(page: IndexPage, key: string, python: PythonPlatform): Promise<IndexOffers> {
  if (page.bytes.length <= MAX_INLINE_BYTES) return indexOffers(page, key, python);
  return (await thread.read({ kind: "index", page, key, python })) as IndexOffers;
}

/** As {@link parseCoreMetadata}. */
export async function readMetadataText(text: string, label: string): Promise<CoreMetadata> {
  if (text.length <= MAX_INLINE_METADATA_CHARACTERS) return parseCoreMetadata(text, label);
  return (await thread.read({ kind: "metadata", text, label })) as CoreMetadata;
}

interface Task {
  readonly text: PackageText;
  readonly answer: PromiseWithResolvers<IndexOffers | CoreMetadata>;
}

/** Reads one text at a time. It is started when it is needed, and ended when it is not, or when a text keeps it for too long. */
class TextThread {
  #worker: Worker | null = null;
  readonly #waiting: Task[] = [];
  #current: Task | null = null;
  #timer: NodeJS.Timeout | undefined;

  async read(text: PackageText): Promise<IndexOffers | CoreMetadata> {
    const answer = Promise.withResolvers<IndexOffers | CoreMetadata>();
    this.#waiting.push({ text, answer });
    this.#next();
    return await answer.promise;
  }

  #next(): void {
    if (this.#current !== null) return;
    clearTimeout(this.#timer);
    const task = this.#waiting.shift();
    if (task === undefined) {
      this.#timer = setTimeout(() => this.#end(), IDLE_MS).unref();
      this.#worker?.unref();
      return;
    }
    this.#current = task;
    this.#worker ??= this.#start();
    this.#worker.ref();
    this.#worker.postMessage(task.text);
    this.#timer = setTimeout(() => this.#end(), TASK_TIMEOUT_MS);
  }

  #start(): Worker {
    const worker = new Worker(new URL("package-texts-worker.ts", import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: WORKER_MEMORY_MB },
      // What the server is told (`--import`, an inspector) is not for this thread.
      execArgv: [],
    });
    worker.on("message", (read: ReadText) => {
      if (this.#worker !== worker) return;
      if ("value" in read) this.#settle(({ resolve }) => resolve(read.value));
      else this.#settle(({ reject }) => reject(refused(read)));
    });
    // It has run out of memory, say.
    worker.on("error", () => {});
    worker.on("exit", () => {
      if (this.#worker === worker) this.#end();
    });
    return worker;
  }

  /** What it reads is not read any more; what waits is. */
  #end(): void {
    const worker = this.#worker;
    this.#worker = null;
    worker?.terminate().catch(() => {});
    const message = "The description of a package takes too long to read, or too much memory.";
    this.#settle(({ reject }) => reject(new PackageError("package_damaged", message)));
  }

  #settle(settle: (answer: Task["answer"]) => void): void {
    const task = this.#current;
    if (task === null) return;
    this.#current = null;
    settle(task.answer);
    this.#next();
  }
}

function refused({ refusal, code, message }: Extract<ReadText, { refusal: string }>): Error {
  if (refusal === "not-simple-api") return new NotSimpleApi(message);
  return code === null ? new Error(message) : new PackageError(code, message);
}

const thread = new TextThread();
