/**
 * The worker that holds the interpreter. It boots, says `ready`, and from then on does one task after another in a loop that
 * never returns to JavaScript's event loop.
 */
import { type Archive, openListing } from "../sandbox/archive-format.ts";
import type { PackageListing, Verdict } from "../sandbox/protocol.ts";
import { ArchiveFiles } from "./archive-filesystem.ts";
import { ARCHIVE_MTIME_MS, type BootedInterpreter, boot, PACKAGES_PATH } from "./boot.ts";
import type { Boot, Task } from "./channel.ts";
import type { TenantFiles } from "./filesystem.ts";
import { Checkpoint, STATE_BLOCK_BYTES } from "./image.ts";
import { JavaScriptState, NotCapturable } from "./javascript-state.ts";
import { importProgram } from "./load.ts";
import { Mailbox, post } from "./mailbox.ts";
import { failure, type Runner } from "./runner.ts";

/** Package archives whose listings are kept between executions. They are read-only and named by their hash. */
const MAX_KNOWN_ARCHIVES = 16;

const program = importProgram(self.name);

self.onmessage = (event: MessageEvent<Boot>) => {
  self.onmessage = null;
  serve(event.data).catch((error) => {
    post({ type: "fatal", reason: `boot failed: ${error?.stack ?? error}` });
  });
};

async function serve(options: Boot): Promise<void> {
  const mailbox = new Mailbox(options);
  const booted = await boot(options, await program, mailbox);
  if (booted === null) return;
  const checkpoint = Checkpoint.take(booted.exports.memory, options.options.verifyRewind);
  const interpreter = new Interpreter(booted, checkpoint, mailbox, options);
  booted.seal();
  const { exports, pythonVersion, pyodideVersion, hash } = booted;
  const heapBytes = exports.memory.buffer.byteLength;
  post({ type: "ready", pythonVersion, pyodideVersion, heapBytes, checkpoint: await hash() });
  for (;;) {
    const verdict = interpreter.perform(mailbox.nextTask());
    post({ type: "idle", verdict, heapBytes: exports.memory.buffer.byteLength });
    if (verdict.state === "discard") return;
  }
}

/** A heap may grow to so many times what it is at the checkpoint before its sandbox is discarded, whatever the limit. */
const LEAST_ROOM = 1.5;

/** An interpreter at its checkpoint, or holding one session. */
class Interpreter {
  readonly #booted: BootedInterpreter;
  readonly #checkpoint: Checkpoint;
  readonly #mailbox: Mailbox;
  readonly #maxHeapBytes: number;
  readonly #verifyRewind: boolean;
  readonly #state: JavaScriptState;
  readonly #runner: Runner;
  readonly #files: TenantFiles;
  readonly #archives = new Map<string, Archive>();
  #unmountPackages: () => void = () => {};

  constructor(booted: BootedInterpreter, checkpoint: Checkpoint, mailbox: Mailbox, options: Boot) {
    this.#booted = booted;
    this.#checkpoint = checkpoint;
    this.#mailbox = mailbox;
    const { maxHeapBytes } = options.options;
    // Below it every execution in a large environment would cost its sandbox. 0: that is what is wanted.
    const leastHeapBytes = booted.exports.memory.buffer.byteLength * (maxHeapBytes === 0 ? 1 : LEAST_ROOM);
    this.#maxHeapBytes = Math.max(maxHeapBytes, leastHeapBytes);
    this.#verifyRewind = options.options.verifyRewind === true;
    this.#runner = booted.runner;
    this.#files = booted.files;
    this.#state = new JavaScriptState(booted.module, booted.exports, booted.sealBroken);
    mailbox.onPackages = (listing) => this.#mountPackages(listing);
  }

  perform(task: Task): Verdict {
    switch (task.type) {
      case "execute":
        return this.#execute(task);
      case "load":
        return this.#load(task);
      case "rewind":
        return this.#rewind();
    }
  }

  #execute(task: Extract<Task, { type: "execute" }>): Verdict {
    const { code, context, mode, reseed } = task;
    const stateless = mode === "stateless";
    this.#booted.devices.begin(task.stdin, task.stream);
    if (stateless) this.#files.begin(task.files);
    if (task.packages) this.#mountPackages(task.packages);
    const startedAt = performance.now();
    let outcome: Uint8Array<ArrayBuffer>;
    try {
      outcome = this.#runner.run({ code, context, reseed });
    } catch (error) {
      // Out of WebAssembly by an exception of JavaScript's: a trap, or a stack that overflowed. Nothing can be believed.
      const executionTimeMs = performance.now() - startedAt;
      post({ type: "result", executionTimeMs, outcome: crashed(error), files: null, contents: [] });
      return { state: "discard", reason: "the interpreter crashed" };
    }
    const executionTimeMs = performance.now() - startedAt;
    const wanted = !stateless || task.files !== null;
    const { changes, contents } = wanted ? this.#files.changes() : { changes: null, contents: [] };
    post({ type: "result", executionTimeMs, outcome, files: changes, contents }, [outcome.buffer]);
    if (stateless) return this.#rewind();
    this.#files.commit();
    this.#booted.devices.reset();
    this.#capture();
    return { state: "resident" };
  }

  /** Reports what the session is now. The memory stays as it is. */
  #capture(): void {
    try {
      const difference = this.#state.difference();
      if (difference !== null) throw new NotCapturable(difference);
      const streams = this.#state.captureStreams();
      const { exports } = this.#booted;
      const deadStack = [exports.emscripten_stack_get_end(), exports.__stack_pointer.value] as const;
      const { heapBytes, blocks, data } = this.#checkpoint.difference(deadStack);
      const { currentPath, nextInode } = this.#booted.module.FS;
      const links = this.#files.links();
      const clockMs = this.#booted.clock.nowMs();
      const state = { heapBytes, blockCount: blocks.length, currentPath, nextInode, clockMs, streams, links };
      post({ type: "state", state, blocks, data });
    } catch (error) {
      if (!(error instanceof NotCapturable)) throw error;
      const nothing = { blocks: new Uint32Array(0), data: new Uint8Array(0) };
      post({ type: "state", state: null, reason: error.message, ...nothing });
    }
  }

  /** From the checkpoint to a session's state. What does not fit is refused: the process is then no longer usable. */
  #load({ state, files, body: buffer }: Extract<Task, { type: "load" }>): Verdict {
    this.#files.begin(files);
    if (state === null) return { state: "resident" };
    const { blockCount, heapBytes } = state;
    const body = new Uint8Array(buffer);
    if (body.length !== blockCount * (4 + STATE_BLOCK_BYTES)) return refuse("the session's memory is incomplete");
    const blocks = new Uint32Array(buffer, 0, blockCount);
    const last = blocks.at(-1) ?? -1;
    if (blocks.some((block, index) => index > 0 && block <= (blocks[index - 1] as number))) {
      return refuse("the session's blocks are out of order");
    }
    if ((last + 1) * STATE_BLOCK_BYTES > heapBytes) return refuse("the session's blocks lie outside its heap");
    if (!this.#booted.growHeap(heapBytes)) return refuse("the session needs more memory than a sandbox may have");
    this.#checkpoint.apply({ heapBytes, blocks, data: body.subarray(blockCount * 4) });
    const fs = this.#booted.module.FS;
    try {
      this.#files.addLinks(state.links);
      this.#state.restoreStreams(state.streams);
    } catch {
      return refuse("a file that the session had open is missing");
    }
    fs.currentPath = state.currentPath;
    // Not less than it is: two nodes of one number would share an entry in the file system's table of names.
    fs.nextInode = Math.max(fs.nextInode, state.nextInode);
    this.#booted.clock.advanceTo(state.clockMs);
    return { state: "resident" };
  }

  #rewind(): Verdict {
    const heapBytes = this.#booted.exports.memory.buffer.byteLength;
    const reason = this.#state.difference() ?? (heapBytes > this.#maxHeapBytes ? "heap over its limit" : null);
    if (reason !== null) return refuse(reason);
    const restoredPages = this.#checkpoint.restore();
    this.#state.restore();
    this.#files.reset();
    this.#booted.devices.reset();
    this.#booted.clock.reset();
    this.#unmountPackages();
    this.#unmountPackages = () => {};
    if (this.#verifyRewind && !this.#checkpoint.isIntact()) return refuse("the rewind is not exact");
    return { state: "pristine", restoredPages };
  }

  #mountPackages({ sha256, entries }: PackageListing): void {
    this.#unmountPackages();
    let archive = this.#archives.get(sha256);
    if (!archive) {
      archive = openListing(entries, (offset, length) =>
        this.#mailbox.fetch("read-package", { sha256, offset, length }),
      );
      const [oldest] = this.#archives.keys();
      if (this.#archives.size >= MAX_KNOWN_ARCHIVES && oldest !== undefined) this.#archives.delete(oldest);
      this.#archives.set(sha256, archive);
    }
    this.#unmountPackages = new ArchiveFiles(this.#booted.module.FS, archive, ARCHIVE_MTIME_MS).mount(PACKAGES_PATH);
  }
}

function refuse(reason: string): Verdict {
  return { state: "discard", reason };
}

function crashed(error: unknown): Uint8Array<ArrayBuffer> {
  const overflow = error instanceof RangeError;
  return failure(
    "FatalError",
    overflow ? "the interpreter's stack overflowed" : "the interpreter crashed and was replaced",
  );
}
