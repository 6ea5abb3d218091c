import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { SingleFlight } from "../shared/single-flight.ts";
import { parseArchive } from "../wire/archive-format.ts";
import { type ArchivePart, buildArchive } from "./archive.ts";
import { type BytecodeCompiler, bytecodePart, type CompileOptions } from "./bytecode-compiler.ts";
import { type ArchiveNote, KeptArchives } from "./kept-archives.ts";

const FORMAT = 1;
/** Where an environment's packages are in a sandbox. In another place Python corrects what the code says of itself. */
const FOLDER = "/lib/environment";

export interface ReadableWheel extends ArchivePart {
  close(): void;
}

/** What wheels are compiled to, kept as archives that hold nothing else: each wheel is compiled once. */
export class BytecodeStore {
  readonly #archives: KeptArchives;
  readonly #compiler: BytecodeCompiler;
  /** Names the compiler: another may come to other bytecode. */
  readonly compilerKey: () => Promise<string>;
  readonly #compilations = new SingleFlight<ArchivePart>();

  constructor(folder: string, compiler: BytecodeCompiler, compilerKey: () => Promise<string>) {
    this.#archives = new KeptArchives(folder);
    this.#compiler = compiler;
    this.compilerKey = compilerKey;
  }

  /** @returns the bytecode of a wheel's sources; null if it is not there yet. @param isPartial for a caller: of what took too long there is none. */
  async #find(sha256: string, isPartial = false): Promise<ArchivePart | null> {
    const note = await this.#archives.find<ArchiveNote>(await this.#key(sha256, isPartial), FORMAT);
    return note && (await this.#open(note));
  }

  /**
   * The bytecode of a wheel's sources, compiled if it is not there yet.
   *
   * @param open opens the wheel: it is read for all who wait, however long the one who asked first does.
   * @throws {SandboxDiedError} if no sandbox can be started. @throws the signal's reason.
   */
  async get(
    open: () => Promise<ReadableWheel>,
    sha256: string,
    { principal, signal }: CompileOptions = { principal: null },
  ): Promise<ArchivePart> {
    const known = (await this.#find(sha256)) ?? (principal === null ? null : await this.#find(sha256, true));
    if (known !== null) return known;
    const make = (stop: AbortSignal) => this.#make(open, sha256, { principal, signal: stop });
    // What has no budget is not what a caller waits for, nor the other way round.
    return await this.#compilations.run(`${sha256} ${principal === null}`, make, signal);
  }

  async #make(open: () => Promise<ReadableWheel>, sha256: string, options: CompileOptions): Promise<ArchivePart> {
    const wheel = await open();
    try {
      const bytecode = bytecodePart(wheel.filename, await this.#compiler.compile(wheel, FOLDER, isImported, options));
      const archive = await buildArchive([bytecode], this.#archives.folder);
      const note = { format: FORMAT, archive: { sha256: archive.sha256, bytes: archive.bytes } };
      await this.#archives.remember(await this.#key(sha256, options.principal !== null), note);
      return await this.#open(note);
    } finally {
      wheel.close();
    }
  }

  async #open({ archive: { sha256 } }: ArchiveNote): Promise<ArchivePart> {
    const archive = parseArchive(await readFile(this.#archives.pathOf(sha256)));
    const entries = new Map(archive.entries.map((entry) => [entry.path, entry]));
    return {
      filename: sha256,
      files: archive.entries.map(({ path, size }) => ({ path, zipPath: path, size, hash: null })),
      read: async ({ path }) => {
        const entry = entries.get(path);
        if (!entry) throw new RangeError(`no bytecode is called ${path}`);
        return Buffer.from(archive.read(entry));
      },
    };
  }

  async #key(wheelSha256: string, isPartial: boolean): Promise<string> {
    const parts = ["bytecode", FORMAT, await this.compilerKey(), wheelSha256, ...(isPartial ? ["partial"] : [])];
    return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
  }
}

/** Not data, and not what packages test themselves with: a third of many, that hardly any program imports. */
function isImported(path: string): boolean {
  return path.startsWith("site-packages/") && !path.includes("/tests/");
}
