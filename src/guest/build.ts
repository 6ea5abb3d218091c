/**
 * Makes memory images: the one way in which Pyodide's own start, and the imports of an environment, ever run.
 */
import { encodeImage, ImageFormatError } from "../sandbox/image-format.ts";
import type { GuestEnvironment, GuestMessage, OpenFile } from "../sandbox/protocol.ts";
import { openArchive } from "./archive-file.ts";
import { ArchiveFiles } from "./archive-filesystem.ts";
import type { Exports } from "./emscripten.ts";
import { fillHoles } from "./heap.ts";
import type { HostConnection } from "./host-connection.ts";
import { findImageFiles } from "./image-files.ts";
import { ARCHIVE_MTIME_MS, ENVIRONMENT_PATH, layOut, PACKAGES_PATH } from "./layout.ts";
import { loadLibraries, refusedCallsOf } from "./libraries.ts";
import { type Boot, loadPyodide, type Program, type Pyodide } from "./load.ts";
import { openStreams } from "./open-files.ts";
import { sealImports } from "./realm.ts";
import { slotsOf, tablesOf } from "./tables.ts";

/** Of 10 MiB that there are. [measured] Calls from C to Python and back fill V8's stack (`launch.ts`) with more than twice this. */
const PYTHON_STACK_BYTES = 2 * 1024 * 1024;

export type Built = Omit<Extract<GuestMessage, { type: "image" }>, "type"> & { readonly image: Uint8Array };

export function isBuilding({ base, image, options }: Boot): boolean {
  return base === null || (options.environment !== null && image === null);
}

/** Builds the base image, or an environment's on top of it. */
export async function build(options: Boot, host: HostConnection): Promise<Built> {
  const { environment, preload } = options.options;
  const readArchive = environment && openArchive(environment.archivePath);
  stopTimeAndChance();
  const imports = sealImports();
  const program = await loadPyodide(options, imports.wrap);
  const { pyodide, module, exports } = program;
  layOut(program, options, host);
  const devices = new Set(Array.from(openStreams(module.FS), ([fd]) => fd));
  const pythonVersion = prepareBase(pyodide, preload);
  limitRecursion(exports);
  fillHoles(exports);
  const facts = { ...tablesOf(program), openFiles: openFilesOf(program, devices), pythonVersion };
  const base = encodeImage(new Uint8Array(exports.memory.buffer), facts);
  if (options.base === null) return { failedImports: {}, unfit: {}, refusedCalls: {}, image: base };
  // What is built now goes on top of that one, byte for byte.
  if (!areEqual(base, options.base.readAll()))
    throw new ImageFormatError("the base image is not what this process came to");
  if (!environment || !readArchive) throw new Error("there is nothing to build");
  new ArchiveFiles(module.FS, readArchive, ARCHIVE_MTIME_MS).mount(ENVIRONMENT_PATH);
  const unloadable = loadLibraries(program, environment.libraries, {});
  if (Object.keys(unloadable).length > 0) {
    return { failedImports: {}, unfit: unloadable, refusedCalls: {}, image: new Uint8Array(0) };
  }
  const refusedCalls = refusedCallsOf(readArchive, environment.libraries, imports.refuses);
  return buildImage(program, pyodide, environment, { pythonVersion, refusedCalls, devices });
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

/** @throws if something is open that no sandbox could open again. */
function openFilesOf({ module }: Program, devices: ReadonlySet<number>): readonly OpenFile[] {
  const { files, unfit } = findImageFiles(module.FS, devices);
  const [what] = unfit.values();
  if (what !== undefined) throw new Error(`the image would have ${what}, open`);
  return files;
}

/**
 * Imports the environment's modules and takes the image. A module whose import changes the JavaScript side, or leaves a file open that is not
 * in every sandbox, cannot be in an image, since no other process would have that: it is named, and nothing is built.
 */
function buildImage(
  program: Program,
  pyodide: Pyodide,
  environment: GuestEnvironment,
  facts: {
    readonly pythonVersion: string;
    readonly refusedCalls: Readonly<Record<string, readonly string[]>>;
    readonly devices: ReadonlySet<number>;
  },
): Built {
  const { module, exports } = program;
  const unfit: Record<string, string> = {};
  const failedImports: Record<string, string> = {};
  const newlyUnfit = (before: ReadonlySet<number>) =>
    Array.from(findImageFiles(module.FS, facts.devices).unfit).find(([fd]) => !before.has(fd))?.[1];
  const step = (name: string, code: string) => {
    const unfitBefore = new Set(findImageFiles(module.FS, facts.devices).unfit.keys());
    const slots = slotsOf(module);
    const before = exports.hiwire_num_refs();
    const failure = pyodide.runPython(`import sandbox_runner.environment as _environment\n_environment.${code}`);
    if (failure) failedImports[name] = String(failure);
    if (slotsOf(module) !== slots) unfit[name] = "importing it takes slots of the function table";
    else if (exports.hiwire_num_refs() !== before) unfit[name] = "importing it makes references into JavaScript";
    else if (newlyUnfit(unfitBefore) !== undefined) {
      // What nothing refers to any more is closed by this.
      pyodide.runPython("import gc\ngc.collect()");
      const left = newlyUnfit(unfitBefore);
      if (left !== undefined) unfit[name] = `importing it leaves a file open that no sandbox has: ${left}`;
    }
  };
  for (const name of environment.imports) step(name, `import_module(${JSON.stringify(name)})`);
  step("matplotlib.pyplot", "prepare_matplotlib()");
  pyodide.runPython(`
import sandbox_runner.environment
sandbox_runner.environment.finish(${JSON.stringify(JSON.stringify(environment.aliases))})
`);
  const isFit = Object.keys(unfit).length === 0;
  const { refusedCalls, pythonVersion, devices } = facts;
  if (!isFit) return { failedImports, unfit, refusedCalls, image: new Uint8Array(0) };
  fillHoles(exports);
  const header = { ...tablesOf(program), openFiles: openFilesOf(program, devices), pythonVersion };
  const image = encodeImage(new Uint8Array(exports.memory.buffer), header);
  return { failedImports, unfit, refusedCalls, image };
}

function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}
