import { readFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { internalJob } from "../sandbox/running-job.ts";
import { Sandbox, type SandboxOptions } from "../sandbox/sandbox.ts";
import { SandboxDiedError } from "../shared/errors.ts";
import { FairTurns } from "../shared/fair-turns.ts";
import { readHostLimits } from "../shared/host-limits.ts";
import { encodeArchiveHeader } from "../wire/archive-format.ts";
import type { ArchivePart, ArchivePartFile } from "./archive.ts";
import { CompileBudget } from "./compile-budget.ts";
import { bytecodePath, bytecodeProblem } from "./pyc.ts";

export const COMPILE_SCRIPT = readFileSync(new URL("../programs/compile.py", import.meta.url), "utf8");

const RESULT_PATH = "/home/pyodide/bytecode";
/** Of sources that are compiled at a time. A sandbox takes a second or two for them, and forgets them before it takes others. */
const CHUNK_BYTES = 1024 * 1024;
/** What is longer is data that is written as Python, and goes without: its hash would hold the event loop. */
const MAX_SOURCE_BYTES = 2 * 1024 * 1024;
/** Of sources that are compiled at a time. */
const CHUNK_FILES = 1_000;
/** Bytecode is about as long as its source; of a source that is little but operators, several times. */
const MAX_RESULT_BYTES = 256 * 1024 * 1024;
/** In one turn of the event loop: what a source's hash is has to be found out here. */
const CHECKED_AT_ONCE_BYTES = 256 * 1024;
const CHUNK_TIMEOUT_MS = 120_000;
/** Of one wheel, where its caller waits. What is compiled for a caller takes two or three seconds on a machine that has nothing else to do. */
const AWAITED_BUDGET_MS = 20_000;
const MAX_SANDBOXES = 4;
/** An unused sandbox is kept for so long: packages are often installed one after another. */
const IDLE_MS = 5000;

interface Source extends ArchivePartFile {
  readonly bytes: Uint8Array;
}

export interface BytecodeFile {
  /** `site-packages/numpy/__pycache__/__init__.cpython-314.pyc`. */
  readonly path: string;
  readonly bytes: Uint8Array;
}

/** For whom sources are compiled. */
export interface CompileOptions {
  /** Turns are taken by principal. Null: for the server's own environments, which have no budget. */
  readonly principal: string | null;
  /** Aborting it ends the work with its reason. */
  readonly signal?: AbortSignal | undefined;
}

/** Bytecode as a part of an archive. @param filename of what it was compiled from. */
export function bytecodePart(filename: string, compiled: readonly BytecodeFile[]): ArchivePart {
  const contents = new Map(compiled.map((file) => [file.path, file.bytes]));
  return {
    filename,
    files: Array.from(contents, ([path, { length: size }]) => ({ path, zipPath: path, size, hash: null })),
    read: async (file) => Buffer.from(contents.get(file.path) as Uint8Array),
  };
}

/**
 * Compiles Python's sources to its bytecode, in sandboxes that run nothing but the compiler: no code of any package, so that
 * none can put its own into another's bytecode. Each piece of work begins at the checkpoint, as an execution does.
 *
 * The same sources give the same bytes on any machine.
 */
export class BytecodeCompiler {
  readonly #options: () => Promise<SandboxOptions>;
  readonly #idle: { readonly sandbox: Sandbox; readonly timer: NodeJS.Timeout }[] = [];
  readonly #turns = new FairTurns(Math.min(Math.ceil(readHostLimits().cpus.count), MAX_SANDBOXES));
  #isClosed = false;

  /** @param options how to start a sandbox of the standard library. */
  constructor(options: () => Promise<SandboxOptions>) {
    this.#options = options;
  }

  /**
   * @param isWanted which sources are compiled.
   * @param folder where Python finds the archive, which is where the code says that it comes from.
   * @returns the bytecode of each source that can be compiled, and in the time that a wheel has.
   * @throws {SandboxDiedError} if no sandbox can be started. @throws the signal's reason.
   */
  async compile(
    part: ArchivePart,
    folder: string,
    isWanted: (path: string) => boolean = () => true,
    { principal, signal }: CompileOptions = { principal: null },
  ): Promise<readonly BytecodeFile[]> {
    const sources = part.files
      .filter(({ path, size }) => size <= MAX_SOURCE_BYTES && path.endsWith(".py") && isWanted(path))
      .toSorted((a, b) => (a.path < b.path ? -1 : 1));
    const chunks: ArchivePartFile[][] = [];
    let left = 0;
    for (const source of sources) {
      if (source.size > left || (chunks.at(-1)?.length ?? CHUNK_FILES) === CHUNK_FILES) {
        chunks.push([]);
        left = CHUNK_BYTES;
      }
      chunks.at(-1)?.push(source);
      left -= source.size;
    }
    const budget =
      principal === null
        ? new CompileBudget(Number.POSITIVE_INFINITY, CHUNK_TIMEOUT_MS)
        : new CompileBudget(AWAITED_BUDGET_MS);
    const work: Work = { part, folder, budget, principal: principal ?? "", signal };
    // All that were begun have ended before an error is passed on: their reader is closed then.
    const compiled = await Promise.allSettled(chunks.map((chunk) => this.#compileOrSplit(work, chunk)));
    return compiled.flatMap((result) => {
      if (result.status === "rejected") throw result.reason;
      return result.value;
    });
  }

  /** Ends sandboxes that wait for work. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all(
      this.#idle.splice(0).map(async ({ sandbox, timer }) => {
        clearTimeout(timer);
        await sandbox.end();
      }),
    );
  }

  /** A source that ends its sandbox, or keeps it for too long, goes without; it takes no other with it. */
  async #compileOrSplit(work: Work, files: readonly ArchivePartFile[]): Promise<readonly BytecodeFile[]> {
    const compiled = await this.#compileInTurn(work, files);
    if (compiled !== null || files.length === 1) return compiled ?? [];
    const results: BytecodeFile[] = [];
    // Each in a turn of its own: what takes long for one principal is a step of a line in which others stand as well.
    for (const file of files) results.push(...((await this.#compileInTurn(work, [file])) ?? []));
    return results;
  }

  /** @returns null if the sandbox did not come to an end of it in its time. */
  async #compileInTurn(work: Work, files: readonly ArchivePartFile[]): Promise<readonly BytecodeFile[] | null> {
    return await this.#turns.run(work.principal, () => this.#compileNow(work, files), work.signal);
  }

  async #compileNow(work: Work, files: readonly ArchivePartFile[]): Promise<readonly BytecodeFile[] | null> {
    const allowedMs = work.budget.take();
    if (allowedMs === null) return null;
    let usedMs = 0;
    try {
      const sources: Source[] = [];
      for (const file of files) sources.push({ ...file, bytes: await work.part.read(file) });
      const sandbox = await this.#takeSandbox();
      const startedAt = performance.now();
      const compiled = await this.#compileOn(sandbox, sources, work, allowedMs);
      usedMs = performance.now() - startedAt;
      return compiled;
    } finally {
      work.budget.giveBack(allowedMs, usedMs);
    }
  }

  /** @returns null if the sandbox did not come to an end of it. */
  async #compileOn(
    sandbox: Sandbox,
    sources: readonly Source[],
    { folder, signal }: Work,
    timeoutMs: number,
  ): Promise<readonly BytecodeFile[] | null> {
    const { entries } = encodeArchiveHeader(
      sources.map(({ bytes }, index) => ({ path: nameOf(index), size: bytes.length })),
    );
    const data = Buffer.concat(sources.map(({ bytes }) => bytes));
    const job = internalJob(COMPILE_SCRIPT, timeoutMs);
    const context = JSON.stringify({
      folder: `${folder}/`,
      names: sources.map((_, index) => nameOf(index)),
      paths: sources.map(({ path }) => path),
    });
    const { files, result } = await sandbox.execute({
      ...job,
      signal,
      message: {
        ...job.message,
        program: { ...job.message.program, context },
        files: { entries: [], maxBytes: MAX_RESULT_BYTES, maxFiles: 16 },
        packages: { sha256: String(this.#lastListing++), entries },
      },
      calls: () => ({
        "read-package": {
          answer: ({ offset, length }) => ({ value: null, body: data.subarray(offset, offset + length) }),
        },
      }),
    });
    const { state } = await sandbox.idle;
    if (state === "pristine" && !this.#isClosed) this.#keep(sandbox);
    else sandbox.kill("it has compiled what it should");
    signal?.throwIfAborted();
    const written = files?.changes.written.findIndex(({ path }) => path === RESULT_PATH) ?? -1;
    if (result.status !== "completed" && result.status !== "error") return null;
    if (written === -1) throw new SandboxDiedError(`Compiling Python sources failed: ${result.error}`);
    const tag = `cpython-${sandbox.pythonVersion.split(".").slice(0, 2).join("")}`;
    return await readResult(files?.contents[written] as Uint8Array, sources, tag);
  }

  #lastListing = 0;

  async #takeSandbox(): Promise<Sandbox> {
    for (let kept = this.#idle.pop(); kept !== undefined; kept = this.#idle.pop()) {
      clearTimeout(kept.timer);
      if (kept.sandbox.endReason === null) return kept.sandbox;
    }
    return await Sandbox.start(await this.#options());
  }

  #keep(sandbox: Sandbox): void {
    const timer = setTimeout(() => {
      const index = this.#idle.findIndex((kept) => kept.sandbox === sandbox);
      if (index !== -1) this.#idle.splice(index, 1);
      void sandbox.end();
    }, IDLE_MS).unref();
    this.#idle.push({ sandbox, timer });
  }
}

/** What is compiled of one wheel, and for whom. */
interface Work {
  readonly part: ArchivePart;
  readonly folder: string;
  readonly budget: CompileBudget;
  readonly principal: string;
  readonly signal: AbortSignal | undefined;
}

/** In the order of the sources, which is that of an archive. */
function nameOf(index: number): string {
  return `${String(index).padStart(6, "0")}.py`;
}

/**
 * What comes out of a sandbox is looked at: bytecode is a source's own, or there is none.
 *
 * @throws {SandboxDiedError} if it is of another form.
 */
async function readResult(result: Uint8Array, sources: readonly Source[], tag: string): Promise<BytecodeFile[]> {
  const refuse = (why: string) => new SandboxDiedError(`Compiling Python sources failed: ${why}.`);
  const lineEnd = result.indexOf(0x0a);
  let sizes: unknown;
  try {
    sizes = JSON.parse(Buffer.from(result.subarray(0, lineEnd)).toString());
  } catch {
    throw refuse("the sizes cannot be read");
  }
  if (!Array.isArray(sizes) || sizes.length !== sources.length) throw refuse("the sizes are not those of the sources");
  let position = lineEnd + 1;
  let checkedBytes = 0;
  const files: BytecodeFile[] = [];
  for (const [index, source] of sources.entries()) {
    const size: unknown = sizes[index];
    if (size === null) continue;
    if (!Number.isSafeInteger(size) || (size as number) < 0) throw refuse("a size is none");
    const bytes = result.subarray(position, position + (size as number));
    position += size as number;
    checkedBytes += source.bytes.length;
    if (checkedBytes > CHECKED_AT_ONCE_BYTES) {
      checkedBytes = source.bytes.length;
      await setImmediate();
    }
    const problem = bytecodeProblem(bytes, source.bytes);
    if (bytes.length !== size || problem !== null) throw refuse(`${source.path}: ${problem ?? "it is cut off"}`);
    files.push({ path: bytecodePath(source.path, tag), bytes });
  }
  if (position !== result.length) throw refuse("there is more than the sizes tell of");
  return files;
}
