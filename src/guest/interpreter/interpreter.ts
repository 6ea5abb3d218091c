import { type Archive, openListing } from "../../wire/archive-format.ts";
import type { Verdict } from "../../wire/guest-messages.ts";
import {
  type ExecuteMessage,
  type GuestOptions,
  type LoadMessage,
  MAX_PACKAGE_READ_BYTES,
  MAX_STATE_CHARACTERS,
  type PackageListing,
} from "../../wire/messages.ts";
import { ARCHIVE_MTIME_MS, ArchiveFiles } from "../files/archive-filesystem.ts";
import { relinkPackageFiles } from "../files/open-files.ts";
import type { TenantFiles } from "../files/writable.ts";
import type { RunnerReply } from "../io/frame-writer.ts";
import type { HostConnection, TaskMessage } from "../io/host-connection.ts";
import { type Baseline, STATE_BLOCK_BYTES } from "../memory/baseline.ts";
import { JavaScriptState } from "../memory/javascript-state.ts";
import { NotCapturable } from "../memory/not-capturable.ts";
import type { BootedInterpreter } from "./boot.ts";
import type { Ending } from "./ending.ts";
import { PACKAGES_PATH } from "./layout.ts";
import { StackGuard } from "./python-stack.ts";
import { failure, type Runner } from "./runner.ts";

/** Package archives whose listings are kept between executions. They are read-only and named by their hash. */
const MAX_KNOWN_ARCHIVES = 16;

/** A heap may grow to so many times what it is at the baseline before its sandbox is discarded, whatever the limit. */
const LEAST_ROOM = 1.5;

/** Fewer open files and links than this fit into a message, however long their paths are. */
const MANY = 64;

/** An interpreter at its baseline, or holding one session. */
export class Interpreter {
  readonly #booted: BootedInterpreter;
  readonly #baseline: Baseline;
  readonly #host: HostConnection;
  readonly #maxHeapBytes: number;
  readonly #verifyRewind: boolean;
  readonly #state: JavaScriptState;
  readonly #runner: Runner;
  readonly #ending: Ending;
  readonly #stackGuard: StackGuard;
  readonly #files: TenantFiles;
  readonly #archives = new Map<string, Archive>();
  #unmountPackages: () => void = () => {};
  /** Hash of the archive that is mounted. */
  #mounted: string | null = null;

  constructor(booted: BootedInterpreter, host: HostConnection, { maxHeapBytes, verifyRewind }: GuestOptions) {
    this.#booted = booted;
    this.#baseline = booted.baseline;
    this.#baseline.renew(verifyRewind);
    this.#host = host;
    // Below it every execution in a large environment would cost its sandbox. 0: that is what is wanted.
    const leastHeapBytes = booted.program.exports.memory.buffer.byteLength * (maxHeapBytes === 0 ? 1 : LEAST_ROOM);
    this.#maxHeapBytes = Math.max(maxHeapBytes, leastHeapBytes);
    this.#verifyRewind = verifyRewind === true;
    this.#runner = booted.runner;
    this.#ending = booted.ending;
    this.#stackGuard = new StackGuard(booted.program.exports);
    this.#files = booted.files;
    this.#state = new JavaScriptState(booted.program, booted.outside, booted.touched, booted.sealBroken);
    host.onPackages = (listing) => this.#mountPackages(listing);
  }

  perform(message: TaskMessage, body: Uint8Array): Verdict {
    switch (message.type) {
      case "execute":
        return this.#execute(message);
      case "load":
        return this.#load(message, body);
      case "rewind":
        return this.#rewind();
    }
  }

  #execute({ program, stdin, stream, files, packages }: ExecuteMessage): Verdict {
    const stateless = program.execution === null;
    this.#booted.devices.begin(stdin, stream);
    if (stateless) this.#files.begin(files);
    if (packages) this.#mountPackages(packages);
    const startedAt = performance.now();
    let reply: RunnerReply;
    try {
      reply = this.#runner.run(program);
      this.#checkStack();
    } catch (error) {
      // Out of WebAssembly by an exception of JavaScript's: a trap, or a stack that overflowed. Nothing can be believed.
      this.#host.finish({ executionTimeMs: performance.now() - startedAt, crashed: true }, crashed(error));
      return { state: "discard", reason: "the interpreter crashed" };
    }
    const hasEnded = this.#end(program.code, stateless);
    const facts = { executionTimeMs: performance.now() - startedAt, crashed: false };
    const wanted = !stateless || files !== null;
    const { changes, contents } = wanted ? this.#files.changes() : { changes: null, contents: [] };
    this.#host.finish(facts, reply, changes, contents);
    if (!hasEnded) return { state: "discard", reason: "the interpreter crashed after its result" };
    if (stateless) return this.#rewind();
    this.#files.endExecution();
    this.#files.commit();
    this.#booted.devices.reset();
    if (program.question === undefined) this.#capture();
    return { state: "resident" };
  }

  #checkStack(): void {
    if (this.#stackGuard.wasReached()) throw new RangeError("Python's stack in memory overflowed");
  }

  /** What comes after the result and before the reply. @returns whether the interpreter can go on. */
  #end(code: string, stateless: boolean): boolean {
    try {
      const hasFiles = this.#state.hasFilesToWrite();
      if (stateless) this.#ending.endProgram(code, hasFiles);
      else if (hasFiles) this.#ending.flushFiles();
      this.#checkStack();
      return true;
    } catch {
      return false;
    }
  }

  /** Reports what the session is now. The memory stays as it is. */
  #capture(): void {
    try {
      const difference = this.#state.differenceFromOthers();
      if (difference !== null) throw new NotCapturable(difference);
      const { streams, mappings, unnamed, contents } = this.#state.captureFiles(this.#files);
      const { heapBytes, blocks, data } = this.#baseline.difference(this.#booted.outside.deadStack);
      const { currentPath, nextInode } = this.#booted.program.module.FS;
      const links = this.#files.links();
      const clockMs = this.#booted.clock.nowMs();
      const blockCount = blocks.length;
      const state = { heapBytes, blockCount, currentPath, nextInode, clockMs, streams, mappings, unnamed, links };
      const many =
        streams.length + mappings.length + links.length > MANY || streams.some(({ listing }) => listing !== undefined);
      if (many && JSON.stringify(state).length > MAX_STATE_CHARACTERS)
        throw new NotCapturable("more open files and links than can be stored");
      const numbers = new Uint8Array(blocks.buffer, blocks.byteOffset, blocks.byteLength);
      this.#host.report({ type: "state", state }, numbers, data, ...contents);
    } catch (error) {
      if (!(error instanceof NotCapturable)) throw error;
      this.#host.report({ type: "state", state: null, reason: error.message });
    }
  }

  /** From the baseline to a session's state. What does not fit is refused: the process is then no longer usable. */
  #load({ state, files, packages }: LoadMessage, body: Uint8Array): Verdict {
    this.#files.begin(files);
    if (packages) this.#mountPackages(packages);
    this.#baseline.prepareForSession();
    if (state === null) return { state: "resident" };
    const { blockCount, heapBytes, unnamed } = state;
    const memoryBytes = blockCount * (4 + STATE_BLOCK_BYTES);
    const contents: Uint8Array[] = [];
    let position = memoryBytes;
    for (const { bytes } of unnamed) {
      contents.push(body.subarray(position, position + bytes));
      position += bytes;
    }
    if (body.length !== position) return refuse("the session's memory is incomplete");
    // Copied: in its frame a body begins at any byte, and words do not.
    const memory = body.slice(0, memoryBytes);
    const blocks = new Uint32Array(memory.buffer, 0, blockCount);
    const last = blocks.at(-1) ?? -1;
    if (blocks.some((block, index) => index > 0 && block <= (blocks[index - 1] as number))) {
      return refuse("the session's blocks are out of order");
    }
    if ((last + 1) * STATE_BLOCK_BYTES > heapBytes) return refuse("the session's blocks lie outside its heap");
    if (!this.#booted.growHeap(heapBytes)) return refuse("the session needs more memory than a sandbox may have");
    this.#baseline.apply({ heapBytes, blocks, data: memory.subarray(blockCount * 4) });
    const fs = this.#booted.program.module.FS;
    try {
      this.#files.addLinks(state.links);
      this.#state.restoreFiles({ ...state, contents }, this.#files);
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
    const heapBytes = this.#booted.program.exports.memory.buffer.byteLength;
    const reason = this.#state.difference() ?? (heapBytes > this.#maxHeapBytes ? "heap over its limit" : null);
    if (reason !== null) return refuse(reason);
    const restoredPages = this.#baseline.restore();
    this.#state.restore();
    this.#files.reset();
    this.#booted.devices.reset();
    this.#booted.clock.reset();
    this.#unmountPackages();
    this.#unmountPackages = () => {};
    this.#mounted = null;
    if (this.#verifyRewind && !this.#baseline.isIntact()) return refuse("the rewind is not exact");
    return { state: "pristine", restoredPages };
  }

  #mountPackages({ sha256, entries }: PackageListing): void {
    // The same again would take the files away that a session has open.
    if (sha256 === this.#mounted) return;
    this.#unmountPackages();
    let archive = this.#archives.get(sha256);
    if (!archive) {
      archive = openListing(entries, (offset, length) => this.#readPackage(sha256, offset, length));
      const [oldest] = this.#archives.keys();
      if (this.#archives.size >= MAX_KNOWN_ARCHIVES && oldest !== undefined) this.#archives.delete(oldest);
      this.#archives.set(sha256, archive);
    }
    const fs = this.#booted.program.module.FS;
    this.#unmountPackages = new ArchiveFiles(fs, archive, ARCHIVE_MTIME_MS).mount(PACKAGES_PATH);
    this.#mounted = sha256;
    relinkPackageFiles(fs);
  }

  /** Piece by piece, each no more than the host gives at a time. @returns fewer bytes only at the archive's end. */
  #readPackage(sha256: string, offset: number, length: number): Uint8Array {
    const read = (start: number, end: number) =>
      this.#host.fetch("read-package", { sha256, offset: offset + start, length: end - start });
    if (length <= MAX_PACKAGE_READ_BYTES) return read(0, length);
    const bytes = new Uint8Array(length);
    for (let start = 0; start < length; start += MAX_PACKAGE_READ_BYTES) {
      const end = Math.min(start + MAX_PACKAGE_READ_BYTES, length);
      const piece = read(start, end);
      bytes.set(piece, start);
      if (piece.length < end - start) return bytes.subarray(0, start + piece.length);
    }
    return bytes;
  }
}

function refuse(reason: string): Verdict {
  return { state: "discard", reason };
}

function crashed(error: unknown): RunnerReply {
  const overflow = error instanceof RangeError;
  return failure(
    "FatalError",
    overflow ? "the interpreter's stack overflowed" : "the interpreter crashed and was replaced",
  );
}
