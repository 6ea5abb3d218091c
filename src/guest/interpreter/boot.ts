/**
 * From nothing to a baseline.
 *
 * A sandbox starts from memory images. The base image is the interpreter with the standard library imported, and holds what
 * Pyodide's own start, which takes seconds, came to. An environment's shared libraries are not memory alone, so every process
 * loads them on top of the base, in one order, so that they land at the same places; the environment's image goes over that.
 *
 * A library's own code runs when it is loaded. So all that needs a permission, or more of JavaScript than user code gets, is done before, and
 * the walls stand from then on.
 */

import type { OpenFile } from "../../wire/guest-messages.ts";
import { ImageFormatError } from "../../wire/image-format.ts";
import type { GuestEnvironment } from "../../wire/messages.ts";
import { openArchive } from "../files/archive-file.ts";
import { ARCHIVE_MTIME_MS, ArchiveFiles } from "../files/archive-filesystem.ts";
import { reopen } from "../files/open-files.ts";
import { freeze } from "../files/read-only.ts";
import { boundStreams, openStreams } from "../files/streams.ts";
import { TenantFiles } from "../files/writable.ts";
import type { Devices } from "../io/device.ts";
import type { HostConnection } from "../io/host-connection.ts";
import { Baseline, putInPlace } from "../memory/baseline.ts";
import type { ImageFile } from "../memory/image-file.ts";
import { OutsideMemory } from "../memory/outside-memory.ts";
import { Clock } from "./clock.ts";
import type { Exports, Module } from "./emscripten.ts";
import { Ending } from "./ending.ts";
import { ENVIRONMENT_PATH, layOut } from "./layout.ts";
import { loadLibraries } from "./libraries.ts";
import { type Boot, loadProgram, type Program } from "./load.ts";
import { type ImportSeal, sealImports } from "./realm.ts";
import { Runner } from "./runner.ts";
import { adoptTables, fitImage } from "./tables.ts";
import { raiseWalls } from "./walls.ts";

export interface BootedInterpreter {
  readonly program: Program;
  readonly outside: OutsideMemory;
  /** What the image said; not yet what booting has changed since. */
  readonly baseline: Baseline;
  /** Why a rewind looks at every page of the memory; null: it looks at those that were written to. */
  readonly everyPage: string | null;
  readonly runner: Runner;
  readonly ending: Ending;
  readonly files: TenantFiles;
  readonly devices: Devices;
  readonly clock: Clock;
  /** Descriptors that were opened or closed; see {@link boundStreams}. */
  readonly touched: Set<number>;
  readonly pythonVersion: string;
  readonly pyodideVersion: string;
  /** Why a rewind of the memory is not enough since then; null: it is. */
  sealBroken(): string | null;
  /** Makes the heap at least so large; false if it may not be. */
  growHeap(bytes: number): boolean;
  /** SHA-256 of the memory where the options ask for it. */
  hash(): Promise<string | null>;
}

/** An interpreter as the base image says, with nothing of a package's in it. */
export interface Base {
  readonly program: Program;
  readonly imports: ImportSeal;
  readonly devices: Devices;
}

/**
 * The program with files, devices, and tables as they were when the base image was taken. The image itself is not in place.
 *
 * @param heapBytes how large the heap has to be at least.
 */
export async function startFromBase(options: Boot, host: HostConnection, heapBytes: number): Promise<Base> {
  const { header } = options.base as ImageFile;
  const imports = sealImports();
  const program = await loadProgram(options, header.pythonVersion, imports.wrap);
  const devices = layOut(program, options, host);
  if (!growHeap(program.exports, imports, heapBytes)) throw new ImageFormatError("the image needs more memory");
  adoptTables(header, program);
  return { program, imports, devices };
}

/** Puts the base image in place, with an environment's files, for its libraries to be loaded. */
export function putBaseInPlace({ module, exports }: Program, base: ImageFile, environment: GuestEnvironment): void {
  const archive = openArchive(environment.archivePath);
  putInPlace(exports.memory, base);
  fitImage(base.header, module, exports);
  new ArchiveFiles(module.FS, archive, ARCHIVE_MTIME_MS).mount(ENVIRONMENT_PATH);
}

/**
 * @param beforeWalls called once nothing needs a permission any more.
 * @throws {ImageFormatError} if an image is not what this process comes to.
 */
export async function boot(options: Boot, host: HostConnection, beforeWalls: () => void): Promise<BootedInterpreter> {
  const { environment } = options.options;
  const base = options.base as ImageFile;
  const image = environment ? (options.image as ImageFile) : base;
  const clock = new Clock();
  clock.install();
  // At once as large as the image's: what is to be mapped where is fixed before a library is loaded.
  const heapBytes = Math.max(base.header.heapBytes, image.header.heapBytes);
  const { program, imports, devices } = await startFromBase(options, host, heapBytes);
  const { module, exports } = program;
  if (environment) putBaseInPlace(program, base, environment);
  const baseline = new Baseline(exports.memory, image);
  const place = baseline.preparePlace(image);
  const outside = new OutsideMemory(program);
  const startBytes = exports.memory.buffer.byteLength;
  const fs = module.FS;
  fs.ignorePermissions = false;
  freeze(fs, ARCHIVE_MTIME_MS);
  const touched = boundStreams(module);
  const files = new TenantFiles(fs, program.mappings, (path) => host.fetch("read-file", path));
  // It is in the interpreter now, and no collector runs in a thread that never ends its turn.
  if (options.stdlib instanceof Uint8Array) (options.stdlib.buffer as ArrayBuffer).transfer(0);
  beforeWalls();
  raiseWalls(imports);
  const streams = openStreams(fs);
  if (environment) {
    const [problem] = Object.entries(loadLibraries(program, imports, environment.libraries, options.libraries));
    if (problem) throw new ImageFormatError(`the library ${problem.join(" cannot be loaded: ")}`);
    if (exports.memory.buffer.byteLength !== startBytes) throw new ImageFormatError("the libraries need more memory");
  }
  const everyPage = place();
  outside.restore();
  outside.renew();
  const difference = outside.difference();
  if (difference !== null) throw new ImageFormatError(`loading the libraries has changed ${difference}`);
  fitImage(image.header, module, exports);
  // What the libraries have opened is not what the image has open.
  fs.streams.length = 0;
  for (const [fd, stream] of streams) fs.streams[fd] = stream;
  program.mappings.clear();
  openAgain(module, image.header.openFiles);
  image.close();
  if (image !== base) base.close();
  files.reset();
  const runner = new Runner(exports);
  const ending = new Ending(exports, () => host.isInterrupted());
  listenForInterrupts(program, options.interrupt);
  return {
    program,
    outside,
    baseline,
    everyPage,
    runner,
    ending,
    files,
    devices,
    clock,
    touched,
    pythonVersion: base.header.pythonVersion,
    pyodideVersion: module.API.version,
    sealBroken: imports.broken,
    growHeap: (bytes) => growHeap(exports, imports, bytes),
    hash: async () => (options.options.hashBaseline ? await sha256(new Uint8Array(exports.memory.buffer)) : null),
  };
}

/** Opens what was open when the image was taken, as part of the baseline. */
export function openAgain(module: Module, openFiles: readonly OpenFile[]): void {
  try {
    reopen(module, { streams: openFiles, mappings: [], unnamed: [], contents: [] }, null, new Map());
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
