/**
 * From nothing to a checkpoint.
 *
 * A sandbox starts from memory images. The base image is the interpreter with the standard library imported, and holds what
 * Pyodide's own start, which takes seconds, came to. An environment's shared libraries are not memory alone, so every process
 * loads them on top of the base, in one order, so that they land at the same places; the environment's image goes over that.
 */
import type { Archive } from "../sandbox/archive-format.ts";
import { decodeImage, encodeImage, ImageFormatError, type ImageHeader } from "../sandbox/image-format.ts";
import type { GuestEnvironment } from "../sandbox/protocol.ts";
import { openArchive } from "./archive-file.ts";
import { ArchiveFiles } from "./archive-filesystem.ts";
import type { Boot } from "./channel.ts";
import { Clock } from "./clock.ts";
import { Devices } from "./device.ts";
import type { Exports, Module, Node } from "./emscripten.ts";
import { boundStreams, freeze, TenantFiles, WRITABLE_ROOTS } from "./filesystem.ts";
import { fillHoles } from "./heap.ts";
import { references } from "./javascript-state.ts";
import { type CreateModule, loadProgram, loadPyodide, type Program, type Pyodide } from "./load.ts";
import { type Mailbox, post } from "./mailbox.ts";
import { closeRealm, type ImportSeal, revokePermissions, sealImports } from "./realm.ts";
import { Runner, withCString } from "./runner.ts";

/** Where an environment's archive is mounted, and a caller's own packages. */
export const ENVIRONMENT_PATH = "/lib/environment";
export const PACKAGES_PATH = "/lib/packages";
/** 1980-01-01, the earliest a zip can say. An archive's files have no time of their own. */
export const ARCHIVE_MTIME_MS = 315_532_800_000;

/** Of 10 MiB that there are. [measured] Calls from C to Python and back fill V8's 3.6 MB (`launch.ts`) with more than this. */
const PYTHON_STACK_BYTES = 2 * 1024 * 1024;
/** In place of a symbol's address. */
const UNRESOLVED = -1;
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
export async function boot(options: Boot, create: CreateModule, mailbox: Mailbox): Promise<BootedInterpreter | null> {
  if (isBuilding(options)) {
    await build(options, create, mailbox);
    return null;
  }
  const { environment } = options.options;
  const readArchive = environment && openArchive(environment.archivePath);
  const base = decodeImage(options.base as Uint8Array);
  const image = options.image && decodeImage(options.image);
  const clock = new Clock();
  clock.install();
  const imports = sealImports();
  const program = await loadProgram(options, base.header.pythonVersion, create, imports.wrap);
  const { module, exports } = program;
  const devices = layOut(program, options, mailbox);
  if (!growHeap(exports, imports, base.header.heapBytes)) throw new ImageFormatError("the image needs more memory");
  adoptTables(base.header, program);
  putInPlace(base, exports);
  fitImage(base.header, module, exports);
  if (environment && readArchive && image) {
    new ArchiveFiles(module.FS, readArchive, ARCHIVE_MTIME_MS).mount(ENVIRONMENT_PATH);
    const [problem] = Object.entries(loadLibraries(program, environment.libraries, options.libraries));
    if (problem) throw new ImageFormatError(`the library ${problem.join(" cannot be loaded: ")}`);
    if (!growHeap(exports, imports, image.header.heapBytes)) throw new ImageFormatError("the image needs more memory");
    fitImage(image.header, module, exports);
    putInPlace(image, exports);
  }
  // All of them are in the interpreter now, and no collector runs in a thread that never ends its turn.
  for (const bytes of [options.stdlib, options.base, options.image])
    (bytes?.buffer as ArrayBuffer | undefined)?.transfer(0);
  const runner = new Runner(exports);
  const fs = module.FS;
  fs.ignorePermissions = false;
  freeze(fs, ARCHIVE_MTIME_MS);
  boundStreams(module);
  const files = new TenantFiles(fs, (path) => mailbox.fetch("read-file", path));
  listenForInterrupts(program, new Uint8Array(options.shared.interrupt));
  await revokePermissions();
  closeRealm();
  return {
    module,
    exports,
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

/** Builds the base image, or an environment's on top of it, and posts it. */
async function build(options: Boot, create: CreateModule, mailbox: Mailbox): Promise<void> {
  const { environment, preload } = options.options;
  const readArchive = environment && openArchive(environment.archivePath);
  stopTimeAndChance();
  const imports = sealImports();
  const program = await loadPyodide(options, create, imports.wrap);
  const { pyodide, module, exports } = program;
  layOut(program, options, mailbox);
  const pythonVersion = prepareBase(pyodide, preload);
  limitRecursion(exports);
  fillHoles(exports);
  const facts = { ...tablesOf(program), pythonVersion };
  const base = encodeImage(new Uint8Array(exports.memory.buffer), facts);
  if (options.base === null) {
    post({ type: "image", failedImports: {}, unfit: {}, refusedCalls: {}, image: base });
    return;
  }
  // What is built now goes on top of that one, byte for byte.
  if (!areEqual(base, options.base)) throw new ImageFormatError("the base image is not what this process came to");
  if (!environment || !readArchive) return;
  new ArchiveFiles(module.FS, readArchive, ARCHIVE_MTIME_MS).mount(ENVIRONMENT_PATH);
  const unloadable = loadLibraries(program, environment.libraries, {});
  if (Object.keys(unloadable).length > 0) {
    post({ type: "image", failedImports: {}, unfit: unloadable, refusedCalls: {}, image: new Uint8Array(0) });
    return;
  }
  const refusedCalls = refusedCallsOf(readArchive, environment.libraries, imports.refuses);
  buildImage(program, pyodide, environment, { pythonVersion, refusedCalls });
}

/** Devices, our own Python modules, and the folders that everything else is mounted on. */
function layOut({ module }: Program, { shared, sources }: Boot, mailbox: Mailbox): Devices {
  const fs = module.FS;
  const devices = new Devices(fs, shared, mailbox);
  devices.install();
  const encoder = new TextEncoder();
  for (const [path, source] of Object.entries(sources)) {
    const target = `/lib/${path}`;
    fs.mkdirTree(target.slice(0, target.lastIndexOf("/")));
    fs.writeFile(target, encoder.encode(source));
  }
  for (const path of [ENVIRONMENT_PATH, PACKAGES_PATH, ...WRITABLE_ROOTS]) fs.mkdirTree(path);
  setTimes(fs, ARCHIVE_MTIME_MS);
  return devices;
}

function growHeap(exports: Exports, imports: ImportSeal, bytes: number): boolean {
  return bytes <= exports.memory.buffer.byteLength || imports.resizeHeap(bytes);
}

/** Makes the memory what an image says. */
function putInPlace({ header, data }: ReturnType<typeof decodeImage>, exports: Exports): void {
  const heap = new Uint8Array(exports.memory.buffer);
  let covered = 0;
  let position = 0;
  for (const [start, end] of header.runs) {
    heap.fill(0, covered, start);
    heap.set(data.subarray(position, position + end - start), start);
    position += end - start;
    covered = end;
  }
  heap.fill(0, covered);
}

/**
 * Makes stack, function table and references into JavaScript as long as they were when the image was made, so that whatever is loaded
 * from here on lands where it did then. What stood in those places was Pyodide's own, which a sandbox does not have: a
 * slot of the table holds nothing (a call of it ends the sandbox), a reference an empty object.
 */
function adoptTables(header: ImageHeader, { module, exports }: Program): void {
  const { tableLength, freeTableSlots, referenceSlots, stackPointer } = header;
  // The arguments of Python's `main` stand above it.
  exports.__stack_pointer.value = stackPointer;
  const missing = tableLength - module.wasmTable.length;
  if (missing < 0) throw new ImageFormatError(`the function table has ${-missing} slots more than the image's`);
  module.wasmTable.grow(missing);
  module.freeTableIndexes.push(...freeTableSlots);
  const nothing = Object.freeze(Object.create(null));
  for (const slot of referenceSlots) {
    if (module.__hiwire_set(slot, nothing) < 0) throw new ImageFormatError("the image's references have no place");
  }
}

/** Has Python look at this byte now and then; 2 (SIGINT) raises KeyboardInterrupt. As `pyodide.setInterruptBuffer` does it. */
function listenForInterrupts({ module, exports }: Program, buffer: Uint8Array): void {
  new Uint8Array(exports.memory.buffer)[module._Py_EMSCRIPTEN_SIGNAL_HANDLING] = 1;
  module.Py_EmscriptenSignalBuffer = buffer;
}

function isBuilding({ base, image, options }: Boot): boolean {
  return base === null || (options.environment !== null && image === null);
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

/** Imports all that every execution needs, so that the base image holds it. Returns Python's version. */
function prepareBase(pyodide: Pyodide, preload: readonly string[]): string {
  return pyodide.runPython(`
import sys
sys.path.remove("")  # the caller's folder: nothing is imported from there now
sys.path.insert(0, "/lib")
import sandbox_runner.execution
sys.path.remove("/lib")
sys.path += ["${ENVIRONMENT_PATH}/site-packages", "${PACKAGES_PATH}/site-packages"]
sandbox_runner.execution.prepare()
import ctypes
for name in ${JSON.stringify(preload)}:
    __import__(name)
sys.path.insert(0, "")
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
 * Has Python raise RecursionError while there is room on V8's stack, too: frames of WebAssembly are on both, and Python, which
 * knows of its own only, would go on to the end of the other and take the sandbox with it.
 */
function limitRecursion(exports: Exports): void {
  const start = exports.emscripten_stack_get_base() - PYTHON_STACK_BYTES;
  const thread = exports.PyThreadState_Get();
  if (exports.PyUnstable_ThreadState_SetStackProtection(thread, start, PYTHON_STACK_BYTES) !== 0) {
    throw new Error("Python did not take the limit of its stack");
  }
}

/**
 * Loads shared libraries, and looks up the function that Python will call in each: the look-up takes a slot of the
 * function table, which must be the same one whether the library's module is imported now, later, or was imported when
 * the image was built.
 *
 * @param compiled modules of some of them: path → module.
 * @returns those that cannot be loaded: path → why.
 */
function loadLibraries(
  { module, exports }: Program,
  libraries: readonly string[],
  compiled: Readonly<Record<string, WebAssembly.Module>>,
): Record<string, string> {
  const unloadable: Record<string, string> = {};
  const { FS } = module;
  const { readFile } = FS;
  // Emscripten reads a library with this, and takes a module as well as bytes.
  FS.readFile = (path, options) => {
    const known = path.startsWith(`${ENVIRONMENT_PATH}/`) && compiled[path.slice(ENVIRONMENT_PATH.length + 1)];
    return known || readFile(path, options);
  };
  // Pyodide sets it to folders of its own. Without it a library that is a package finds none that it links to.
  withCString(exports, "LD_LIBRARY_PATH", (name) =>
    withCString(exports, `${ENVIRONMENT_PATH}/dynlib`, (path) => exports.setenv(name, path, 1)),
  );
  const setAside = setResolvedAside(module);
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
    setAside();
  }
  FS.readFile = readFile;
  return unloadable;
}

/**
 * Puts resolved symbols where they are still found by name, but no longer listed.
 *
 * After each library Emscripten lists all symbols there are, thousands, to find those that are not resolved yet. With 40 libraries
 * that is a third of a start [measured].
 *
 * @returns does it again, for what has been resolved since.
 */
function setResolvedAside({ GOT }: Module): () => void {
  const resolved = new Map<PropertyKey, WebAssembly.Global<"i32">>();
  const beneath = Object.getPrototypeOf(GOT);
  Object.setPrototypeOf(
    GOT,
    new Proxy(Object.create(beneath), { get: (_, name) => resolved.get(name) ?? Reflect.get(beneath, name) }),
  );
  const setAside = () => {
    for (const [name, address] of Object.entries(GOT)) {
      if (address.value === UNRESOLVED) continue;
      resolved.set(name, address);
      delete GOT[name];
    }
  };
  setAside();
  return setAside;
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
  program: Program,
  pyodide: Pyodide,
  environment: GuestEnvironment,
  facts: { readonly pythonVersion: string; readonly refusedCalls: Readonly<Record<string, readonly string[]>> },
): void {
  const { module, exports } = program;
  const header = { ...tablesOf(program), pythonVersion: facts.pythonVersion };
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
  const isFit = Object.keys(unfit).length === 0;
  fillHoles(exports);
  const image = isFit ? encodeImage(new Uint8Array(exports.memory.buffer), header) : new Uint8Array(0);
  const { refusedCalls } = facts;
  post({ type: "image", failedImports, unfit, refusedCalls, image });
}

/** What an image says of the JavaScript side besides its memory. */
function tablesOf({ module, exports }: Program) {
  const isUsed = (value: unknown) => value !== null && value !== undefined;
  return {
    tableLength: module.wasmTable.length,
    freeTableSlots: [...module.freeTableIndexes],
    references: exports.hiwire_num_refs(),
    referenceSlots: references(module).flatMap((value, slot) => (isUsed(value) ? [slot] : [])),
    stackPointer: exports.__stack_pointer.value,
  };
}

/** @throws {ImageFormatError} if this process is not as the one that made the image was at the same point. */
function fitImage(header: ImageHeader, module: Module, exports: Exports): void {
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

function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
