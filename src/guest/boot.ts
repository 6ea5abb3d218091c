/**
 * From nothing to a checkpoint.
 *
 * Two stages, because Pyodide's own snapshot cannot hold shared libraries: its snapshot with the standard library imported;
 * then, on top of it, the environment's libraries, loaded by every process in one order so that they land at the same
 * places, and the environment's memory image over all that.
 */
import { Archive } from "../sandbox/archive-format.ts";
import { decodeImage, encodeImage, ImageFormatError } from "../sandbox/image-format.ts";
import type { GuestEnvironment } from "../sandbox/protocol.ts";
import { ArchiveFiles } from "./archive-filesystem.ts";
import type { Boot } from "./channel.ts";
import { Clock } from "./clock.ts";
import { Devices } from "./device.ts";
import type { Exports, Module, Node } from "./emscripten.ts";
import { boundStreams, freeze, TenantFiles, WRITABLE_ROOTS } from "./filesystem.ts";
import { loadInterpreter, type Pyodide } from "./load.ts";
import { type Mailbox, post } from "./mailbox.ts";
import { closeRealm, revokePermissions, sealImports, severReferences } from "./realm.ts";
import { Runner, withCString } from "./runner.ts";

/** Where an environment's archive is mounted, and a caller's own packages. */
export const ENVIRONMENT_PATH = "/lib/environment";
export const PACKAGES_PATH = "/lib/packages";
/** 1980-01-01, the earliest a zip can say. An archive's files have no time of their own. */
export const ARCHIVE_MTIME_MS = 315_532_800_000;

/** Slots of the function table that importing ctypes takes, and leaves free. */
const CTYPES_SLOTS = 1;
const RTLD_NOW = 2;
const RTLD_GLOBAL = 256;

export interface BootedInterpreter {
  readonly module: Module;
  readonly exports: Exports;
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

/** @returns null if what was asked for was to build something; it has been posted then. */
export async function boot(options: Boot, mailbox: Mailbox): Promise<BootedInterpreter | null> {
  const { environment } = options.options;
  const readArchive = environment && openArchive(environment.archivePath);
  const image = options.image && decodeImage(options.image);
  const clock = new Clock();
  if (isBuilding(options)) stopTimeAndChance();
  else clock.install();
  const imports = sealImports();
  const { pyodide, module, exports } = await loadInterpreter(options, imports.wrap);
  const devices = new Devices(module.FS, options.shared, mailbox);
  devices.install();
  const fs = module.FS;
  const encoder = new TextEncoder();
  for (const [path, source] of Object.entries(options.sources)) {
    const target = `/lib/${path}`;
    fs.mkdirTree(target.slice(0, target.lastIndexOf("/")));
    fs.writeFile(target, encoder.encode(source));
  }
  for (const path of [ENVIRONMENT_PATH, PACKAGES_PATH, ...WRITABLE_ROOTS]) fs.mkdirTree(path);
  setTimes(fs, ARCHIVE_MTIME_MS);
  if (options.snapshot === null) {
    const tableLength = module.wasmTable.length;
    const pythonVersion = prepareSnapshot(pyodide, options.options.preload);
    if (module.wasmTable.length !== tableLength + CTYPES_SLOTS || module.freeTableIndexes.length !== CTYPES_SLOTS) {
      throw new Error("the snapshot's modules use the function table in another way than boot.ts expects");
    }
    post({
      type: "image",
      pythonVersion,
      failedImports: {},
      unfit: {},
      refusedCalls: {},
      image: pyodide.makeMemorySnapshot(),
    });
    return null;
  }

  reserveTableSlots(module);
  if (environment && readArchive) {
    new ArchiveFiles(fs, readArchive, ARCHIVE_MTIME_MS).mount(ENVIRONMENT_PATH);
    const unloadable = loadLibraries(exports, environment.libraries);
    const [problem] = Object.entries(unloadable);
    if (problem && image !== null) throw new ImageFormatError(`the library ${problem.join(" cannot be loaded: ")}`);
    if (problem) {
      post({
        type: "image",
        pythonVersion: "",
        failedImports: {},
        unfit: unloadable,
        refusedCalls: {},
        image: new Uint8Array(0),
      });
      return null;
    }
    if (image === null) {
      const refusedCalls = refusedCallsOf(readArchive, environment.libraries, imports.refuses);
      buildImage(pyodide, module, exports, environment, refusedCalls);
      return null;
    }
    const missing = image.header.heapBytes - exports.memory.buffer.byteLength;
    if (missing > 0) imports.resizeHeap(image.header.heapBytes);
    fitImage(image.header, module, exports);
    const heap = new Uint8Array(exports.memory.buffer);
    heap.fill(0);
    let position = 0;
    for (const [start, end] of image.header.runs) {
      heap.set(image.data.subarray(position, position + end - start), start);
      position += end - start;
    }
  }
  // All of them are in the interpreter now, and no collector runs in a thread that never ends its turn.
  for (const bytes of [options.stdlib, options.snapshot, options.image])
    (bytes?.buffer as ArrayBuffer | undefined)?.transfer(0);
  const pythonVersion = pyodide.runPython("import sys; sys.version.split()[0]") as string;
  const runner = new Runner(exports);
  fs.ignorePermissions = false;
  freeze(fs, ARCHIVE_MTIME_MS);
  boundStreams(module);
  const files = new TenantFiles(fs, (path) => mailbox.fetch("read-file", path));
  pyodide.setInterruptBuffer(new Uint8Array(options.shared.interrupt));
  severReferences(module);
  await revokePermissions();
  closeRealm();
  return {
    module,
    exports,
    runner,
    files,
    devices,
    clock,
    pythonVersion,
    pyodideVersion: pyodide.version,
    seal: imports.close,
    sealBroken: imports.broken,
    growHeap(bytes) {
      const missing = bytes - exports.memory.buffer.byteLength;
      return missing <= 0 || imports.resizeHeap(bytes);
    },
    hash: async () => (options.options.hashCheckpoint ? await sha256(new Uint8Array(exports.memory.buffer)) : null),
  };
}

/**
 * Brings the function table to where it was when the snapshot was taken, which holds memory only: importing ctypes makes a
 * closure, which takes a slot, and frees it again. Whatever is loaded later must land above it, as it did there.
 */
function reserveTableSlots({ wasmTable, freeTableIndexes }: Module): void {
  for (let slot = 0; slot < CTYPES_SLOTS; slot++) {
    freeTableIndexes.push(wasmTable.length);
    wasmTable.grow(1);
  }
}

/** What a process is to build: bytes that are the same wherever and whenever they are built. */
function isBuilding({ snapshot, image, options }: Boot): boolean {
  return snapshot === null || (options.environment !== null && image === null);
}

/**
 * Makes an image a function of what it is built from. Sessions are differences from an image: they must outlive a cache that
 * was deleted, and move to a machine that built its own. What would be secret in an image is drawn anew for each execution.
 */
function stopTimeAndChance(): void {
  const now = ARCHIVE_MTIME_MS;
  Date.now = () => now;
  globalThis.Date = class extends Date {
    constructor(...parameters: [] | [number]) {
      super(...((parameters.length === 0 ? [now] : parameters) as [number]));
    }
  } as DateConstructor;
  // It goes on, or a loop that waits for it would never end; a millisecond at each look, wherever that is.
  let monotonicMs = 0;
  performance.now = () => ++monotonicMs;
  Math.random = () => 0.5;
  let state = 1;
  crypto.getRandomValues = <T extends ArrayBufferView | null>(view: T): T => {
    if (view === null) return view;
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    for (let index = 0; index < bytes.length; index++) {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      bytes[index] = state >>> 16;
    }
    return view;
  };
}

/** Python's import system remembers folders' times: they must not differ from process to process. */
function setTimes(fs: Module["FS"], timeMs: number): void {
  const seen = new Set<Node>();
  const visit = (node: Node) => {
    if (seen.has(node)) return;
    seen.add(node);
    node.atime = node.mtime = node.ctime = timeMs;
    if (!fs.isDir(node.mode)) return;
    if (node.contents) for (const child of Object.values(node.contents as Record<string, Node>)) visit(child);
    if (node.mounted) visit(node.mounted.root);
  };
  visit(fs.root);
}

/** Imports all that every execution needs, so that the snapshot holds it. Returns Python's version. */
function prepareSnapshot(pyodide: Pyodide, preload: readonly string[]): string {
  return pyodide.runPython(`
import sys
sys.path.insert(0, "/lib")
import sandbox_runner.execution
sys.path.remove("/lib")
sys.path += ["${ENVIRONMENT_PATH}/site-packages", "${PACKAGES_PATH}/site-packages"]
sandbox_runner.execution.prepare()
import ctypes
for name in ${JSON.stringify(preload)}:
    __import__(name)
while "" in sys.path:
    sys.path.remove("")  # Pyodide puts it back at each start
import __main__
for name in [name for name in vars(__main__) if not name.startswith("__")]:
    if name != "sys": del vars(__main__)[name]
import gc
gc.collect()
gc.freeze()  # or each collection would write to every object of the image, and sessions be that much larger
sys.version.split()[0]
`) as string;
}

/**
 * Loads shared libraries, and looks up the function that Python will call in each: the look-up takes a slot of the
 * function table, which must be the same one whether the library's module is imported now, later, or was imported when
 * the image was built.
 *
 * @returns those that cannot be loaded: path → why.
 */
function loadLibraries(exports: Exports, libraries: readonly string[]): Record<string, string> {
  const unloadable: Record<string, string> = {};
  // Pyodide sets it to folders of its own. Without it a library that is a package finds none that it links to.
  withCString(exports, "LD_LIBRARY_PATH", (name) =>
    withCString(exports, `${ENVIRONMENT_PATH}/dynlib`, (path) => exports.setenv(name, path, 1)),
  );
  for (const library of libraries) {
    const isLinkedTo = library.startsWith("dynlib/");
    const flags = RTLD_NOW | (isLinkedTo ? RTLD_GLOBAL : 0);
    const handle = withCString(exports, `${ENVIRONMENT_PATH}/${library}`, (path) => exports.dlopen(path, flags));
    if (handle === 0) {
      unloadable[library] = lastLinkError(exports);
      continue;
    }
    const name = library.slice(library.lastIndexOf("/") + 1).split(".")[0] as string;
    if (!isLinkedTo) withCString(exports, `PyInit_${name}`, (symbol) => exports.dlsym(handle, symbol));
    exports.dlerror();
  }
  return unloadable;
}

function lastLinkError(exports: Exports): string {
  const pointer = exports.dlerror();
  const heap = new Uint8Array(exports.memory.buffer);
  return pointer === 0 ? "no reason given" : new TextDecoder().decode(heap.slice(pointer, heap.indexOf(0, pointer)));
}

/** What each library may call that ends the sandbox once it is sealed: better known now than from somebody's lost execution. */
function refusedCallsOf(
  archive: Archive,
  libraries: readonly string[],
  refuses: (name: string) => boolean,
): Record<string, readonly string[]> {
  const wanted = new Set(libraries);
  const refused: Record<string, readonly string[]> = {};
  for (const entry of archive.entries) {
    if (!wanted.has(entry.path)) continue;
    const imported = WebAssembly.Module.imports(new WebAssembly.Module(archive.read(entry) as Uint8Array<ArrayBuffer>));
    const calls = imported.filter(({ module, name }) => /^(env|GOT\.func)$/.test(module) && refuses(name));
    if (calls.length > 0) refused[entry.path] = [...new Set(calls.map(({ name }) => name))].toSorted();
  }
  return refused;
}

/** Which slots of the function table there are, and which of them are free. */
function slotsOf({ wasmTable, freeTableIndexes }: Module): string {
  return [wasmTable.length, ...freeTableIndexes].join();
}

/**
 * Imports the environment's modules and posts the image. A module whose import changes the JavaScript side cannot be in an
 * image, since no other process would have that change: it is named, and nothing is built.
 */
function buildImage(
  pyodide: Pyodide,
  module: Module,
  exports: Exports,
  environment: GuestEnvironment,
  refusedCalls: Readonly<Record<string, readonly string[]>>,
): void {
  const tableLength = module.wasmTable.length;
  const references = exports.hiwire_num_refs();
  const unfit: Record<string, string> = {};
  const failedImports: Record<string, string> = {};
  const step = (name: string, code: string) => {
    const slots = slotsOf(module);
    const before = exports.hiwire_num_refs();
    const failure = pyodide.runPython(`import sandbox_runner.environment as _environment\n_environment.${code}`);
    if (failure) failedImports[name] = String(failure);
    if (slotsOf(module) !== slots) unfit[name] = "importing it takes slots of the function table";
    else if (exports.hiwire_num_refs() !== before) unfit[name] = "importing it makes references into JavaScript";
  };
  for (const name of environment.imports) step(name, `import_module(${JSON.stringify(name)})`);
  step("matplotlib.pyplot", "prepare_matplotlib()");
  pyodide.runPython(`
import sandbox_runner.environment
sandbox_runner.environment.finish(${JSON.stringify(JSON.stringify(environment.aliases))})
`);
  const pythonVersion = pyodide.runPython("import sys; sys.version.split()[0]") as string;
  const isFit = Object.keys(unfit).length === 0;
  const image = isFit
    ? encodeImage(new Uint8Array(exports.memory.buffer), {
        tableLength,
        references,
        freeTableSlots: [...module.freeTableIndexes],
        stackPointer: exports.__stack_pointer.value,
      })
    : new Uint8Array(0);
  post({ type: "image", pythonVersion, failedImports, unfit, refusedCalls, image });
}

/** @throws {ImageFormatError} if this process is not as the one that made the image was at the same point. */
function fitImage(header: ReturnType<typeof decodeImage>["header"], module: Module, exports: Exports): void {
  const facts: [string, unknown, unknown][] = [
    ["function table", module.wasmTable.length, header.tableLength],
    ["free slots of the function table", module.freeTableIndexes.join(), header.freeTableSlots.join()],
    ["references into JavaScript", exports.hiwire_num_refs(), header.references],
    ["stack pointer", exports.__stack_pointer.value, header.stackPointer],
    ["heap", exports.memory.buffer.byteLength >= header.heapBytes, true],
  ];
  for (const [what, here, there] of facts) {
    if (here !== there) throw new ImageFormatError(`the image does not fit: ${what} ${here}, not ${there}`);
  }
}

/** The archive stays open: reading from it needs no permission later. */
function openArchive(path: string): Archive {
  const file = Deno.openSync(path);
  const { size } = file.statSync();
  return new Archive((offset, length) => {
    const bytes = new Uint8Array(Math.max(0, Math.min(length, size - offset)));
    file.seekSync(offset, 0);
    let filled = 0;
    while (filled < bytes.length) {
      const count = file.readSync(bytes.subarray(filled));
      if (count === null) break;
      filled += count;
    }
    return bytes.subarray(0, filled);
  }, size);
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
