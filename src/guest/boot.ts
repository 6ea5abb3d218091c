/**
 * From nothing to a checkpoint.
 *
 * A sandbox starts from memory images. The base image is the interpreter with the standard library imported, and holds what
 * Pyodide's own start, which takes seconds, came to. An environment's shared libraries are not memory alone, so every process
 * loads them on top of the base, in one order, so that they land at the same places; the environment's image goes over that.
 */
import { ImageFormatError } from "../sandbox/image-format.ts";
import type { OpenFile } from "../sandbox/protocol.ts";
import { openArchive } from "./archive-file.ts";
import { ArchiveFiles } from "./archive-filesystem.ts";
import { Clock } from "./clock.ts";
import type { Devices } from "./device.ts";
import type { Exports, Module } from "./emscripten.ts";
import { boundStreams, freeze, TenantFiles } from "./filesystem.ts";
import type { HostConnection } from "./host-connection.ts";
import { Checkpoint, putInPlace } from "./image.ts";
import type { ImageFile } from "./image-file.ts";
import { ARCHIVE_MTIME_MS, ENVIRONMENT_PATH, layOut } from "./layout.ts";
import { loadLibraries } from "./libraries.ts";
import { type Boot, loadProgram, type Program } from "./load.ts";
import { reopen } from "./open-files.ts";
import { type ImportSeal, sealImports } from "./realm.ts";
import { Runner } from "./runner.ts";
import { adoptTables, fitImage } from "./tables.ts";

export interface BootedInterpreter {
  readonly module: Module;
  readonly exports: Exports;
  /** What the image said; not yet what booting has changed since. */
  readonly checkpoint: Checkpoint;
  /** Why a rewind looks at every page of the memory; null: it looks at those that were written to. */
  readonly everyPage: string | null;
  readonly runner: Runner;
  readonly files: TenantFiles;
  readonly devices: Devices;
  readonly clock: Clock;
  readonly pythonVersion: string;
  readonly pyodideVersion: string;
  /** After this, what reaches JavaScript from WebAssembly ends the sandbox. */
  seal(): void;
  /** Why a rewind of the memory is not enough since then; null: it is. */
  sealBroken(): string | null;
  /** Makes the heap at least so large; false if it may not be. */
  growHeap(bytes: number): boolean;
  /** SHA-256 of the memory where the options ask for it. */
  hash(): Promise<string | null>;
}

/** @throws {ImageFormatError} if an image is not what this process comes to. */
export async function boot(options: Boot, host: HostConnection): Promise<BootedInterpreter> {
  const { environment } = options.options;
  const readArchive = environment && openArchive(environment.archivePath);
  const base = options.base as ImageFile;
  const { image } = options;
  const clock = new Clock();
  clock.install();
  const imports = sealImports();
  const program = await loadProgram(options, base.header.pythonVersion, imports.wrap);
  const { module, exports } = program;
  const devices = layOut(program, options, host);
  const makeRoom = ({ header }: ImageFile) => {
    if (!growHeap(exports, imports, header.heapBytes)) throw new ImageFormatError("the image needs more memory");
  };
  makeRoom(base);
  adoptTables(base.header, program);
  let checkpoint: Checkpoint;
  let everyPage: string | null;
  if (environment && readArchive && image) {
    putInPlace(exports.memory, base);
    fitImage(base.header, module, exports);
    new ArchiveFiles(module.FS, readArchive, ARCHIVE_MTIME_MS).mount(ENVIRONMENT_PATH);
    const [problem] = Object.entries(loadLibraries(program, environment.libraries, options.libraries));
    if (problem) throw new ImageFormatError(`the library ${problem.join(" cannot be loaded: ")}`);
    makeRoom(image);
    fitImage(image.header, module, exports);
    checkpoint = new Checkpoint(exports.memory, image);
    everyPage = checkpoint.place(image);
  } else {
    checkpoint = new Checkpoint(exports.memory, base);
    everyPage = checkpoint.place(base);
    // Some of it the image itself says.
    fitImage(base.header, module, exports);
  }
  const { openFiles } = (image ?? base).header;
  image?.close();
  base.close();
  // It is in the interpreter now, and no collector runs in a thread that never ends its turn.
  (options.stdlib.buffer as ArrayBuffer).transfer(0);
  const runner = new Runner(exports);
  const fs = module.FS;
  fs.ignorePermissions = false;
  freeze(fs, ARCHIVE_MTIME_MS);
  boundStreams(module);
  openAgain(module, openFiles);
  const files = new TenantFiles(fs, (path) => host.fetch("read-file", path));
  listenForInterrupts(program, options.interrupt);
  return {
    module,
    exports,
    checkpoint,
    everyPage,
    runner,
    files,
    devices,
    clock,
    pythonVersion: base.header.pythonVersion,
    pyodideVersion: module.API.version,
    seal: imports.close,
    sealBroken: imports.broken,
    growHeap: (bytes) => growHeap(exports, imports, bytes),
    hash: async () => (options.options.hashCheckpoint ? await sha256(new Uint8Array(exports.memory.buffer)) : null),
  };
}

/** Opens what was open when the image was taken, as part of the checkpoint. */
function openAgain(module: Module, openFiles: readonly OpenFile[]): void {
  try {
    reopen(module, { streams: openFiles, unnamed: [], contents: [] }, null, new Map());
  } catch (cause) {
    throw new ImageFormatError("a file that the image has open is not there", { cause });
  }
}

function growHeap(exports: Exports, imports: ImportSeal, bytes: number): boolean {
  return bytes <= exports.memory.buffer.byteLength || imports.resizeHeap(bytes);
}

/** Has Python look at this byte now and then; 2 (SIGINT) raises KeyboardInterrupt. As `pyodide.setInterruptBuffer` does it. */
function listenForInterrupts({ module, exports }: Program, buffer: Uint8Array): void {
  new Uint8Array(exports.memory.buffer)[module._Py_EMSCRIPTEN_SIGNAL_HANDLING] = 1;
  module.Py_EmscriptenSignalBuffer = buffer;
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
