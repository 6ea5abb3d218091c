import { ARCHIVE_MTIME_MS } from "../files/archive-filesystem.ts";

/**
 * Makes memory images: the one way in which Pyodide's own start, and the imports of an environment, ever run.
 */

import type { GuestMessage, OpenFile } from "../../wire/guest-messages.ts";
import { encodeImage } from "../../wire/image-format.ts";
import { ENDS_INTERPRETER } from "../../wire/import-rules.ts";
import type { GuestEnvironment } from "../../wire/messages.ts";
import { findImageFiles } from "../files/image-files.ts";
import { openStreams } from "../files/streams.ts";
import type { HostConnection } from "../io/host-connection.ts";
import { fillHoles } from "../memory/heap.ts";
import type { ImageFile } from "../memory/image-file.ts";
import { openAgain, putBaseInPlace, startFromBase } from "./boot.ts";
import type { Module } from "./emscripten.ts";
import { ENVIRONMENT_PATH, layOut, PACKAGES_PATH, RUNNER_PATH } from "./layout.ts";
import { loadLibraries } from "./libraries.ts";
import { type Boot, loadPyodide, type Program, type Pyodide } from "./load.ts";
import { limitRecursion, StackGuard } from "./python-stack.ts";
import { type ImportSeal, sealImports } from "./realm.ts";
import { PythonFunction } from "./runner.ts";
import { slotsOf, tablesOf } from "./tables.ts";
import { raiseWalls } from "./walls.ts";

/** Where none was built. */
const NO_IMAGE = new Uint8Array(0);

export type Built = Omit<Extract<GuestMessage, { type: "image" }>, "type"> & { readonly image: Uint8Array };

export function isBuilding({ base, image, options }: Boot): boolean {
  return base === null || (options.environment !== null && image === null);
}

export async function build(options: Boot, host: HostConnection): Promise<Built> {
  stopTimeAndChance();
  return options.base === null ? await buildBase(options, host) : await buildEnvironment(options, options.base, host);
}

/** Builds the base image. What runs is Pyodide's, Python's and ours. */
async function buildBase(options: Boot, host: HostConnection): Promise<Built> {
  const program = await loadPyodide(options, sealImports().wrap);
  const { pyodide, module, exports } = program;
  layOut(program, options, host);
  const devices = openDescriptors(module);
  const pythonVersion = prepareBase(pyodide, options.options.preload);
  limitRecursion(exports);
  fillHoles(exports);
  const facts = { ...tablesOf(program), openFiles: openFilesOf(program, devices), pythonVersion };
  return { failedImports: {}, unfit: {}, image: encodeImage(new Uint8Array(exports.memory.buffer), facts) };
}

/** Builds an environment's image, on top of the base image as every sandbox that boots it does, and behind the same walls. */
async function buildEnvironment(options: Boot, base: ImageFile, host: HostConnection): Promise<Built> {
  const { environment } = options.options;
  if (!environment) throw new Error("there is nothing to build");
  const { program, imports } = await startFromBase(options, host, base.header.heapBytes);
  const devices = openDescriptors(program.module);
  // Before any library: one could move the limits that it looks between.
  const stackGuard = new StackGuard(program.exports);
  putBaseInPlace(program, base, environment);
  openAgain(program.module, base.header.openFiles);
  raiseWalls(imports);
  const unloadable = loadLibraries(program, imports, environment.libraries, options.libraries);
  if (Object.keys(unloadable).length > 0) return { failedImports: {}, unfit: unloadable, image: NO_IMAGE };
  const { pythonVersion } = base.header;
  return takeImage(program, imports, environment, { pythonVersion, devices, stackGuard });
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
sys.path.insert(0, "${RUNNER_PATH}")
import sandbox_runner.environment, sandbox_runner.execution
sys.path.remove("${RUNNER_PATH}")
sys.path += ["${ENVIRONMENT_PATH}/site-packages", "${PACKAGES_PATH}/site-packages"]
sandbox_runner.execution.prepare()
import ctypes
for name in ${JSON.stringify(preload)}:
    __import__(name)
sandbox_runner.execution.ending.remember()
sys.path.insert(0, "")
sandbox_runner.environment.finish_base()
`) as string;
}

function openDescriptors({ FS }: Module): ReadonlySet<number> {
  return new Set(Array.from(openStreams(FS), ([fd]) => fd));
}

/** @throws if something is open that no sandbox could open again. */
function openFilesOf(program: Program, devices: ReadonlySet<number>): readonly OpenFile[] {
  const { files, unfit } = findImageFiles(program, devices);
  const [what] = unfit.values();
  if (what !== undefined) throw new Error(`the image would have ${what}, open`);
  return files;
}

/**
 * Imports the environment's modules and takes the image. A module whose import changes the JavaScript side, or leaves a file open that is not
 * in every sandbox, cannot be in an image, since no other process would have that: it is named, and nothing is built.
 */
function takeImage(
  program: Program,
  imports: ImportSeal,
  environment: GuestEnvironment,
  {
    pythonVersion,
    devices,
    stackGuard,
  }: { readonly pythonVersion: string; readonly devices: ReadonlySet<number>; readonly stackGuard: StackGuard },
): Built {
  const { module, exports } = program;
  const unfit: Record<string, string> = {};
  const failedImports: Record<string, string> = {};
  const python = new PythonFunction(exports, "sandbox_runner.environment", "perform");
  const newlyUnfit = (before: ReadonlySet<unknown>) =>
    Array.from(findImageFiles(program, devices).unfit).find(([what]) => !before.has(what))?.[1];
  /** @returns false if the interpreter is lost. */
  const step = (name: string, ...call: [name: string, ...parameters: unknown[]]): boolean => {
    const unfitBefore = new Set(findImageFiles(program, devices).unfit.keys());
    const slots = slotsOf(module);
    const before = exports.hiwire_num_refs();
    const known = imports.broken();
    try {
      const failure = python.call(call);
      if (failure === null) failedImports[name] = "it failed in a way that cannot be told";
      else if (failure.length > 0) failedImports[name] = new TextDecoder().decode(failure);
      // What nothing refers to any more is closed by this.
      if (newlyUnfit(unfitBefore) !== undefined) python.call(["collect"]);
    } catch (error) {
      unfit[name] = `${ENDS_INTERPRETER}: ${(error as Error).message}`;
      return false;
    }
    const left = newlyUnfit(unfitBefore);
    if (imports.broken() !== known) unfit[name] = `importing it calls ${imports.broken()}`;
    else if (slotsOf(module) !== slots) unfit[name] = "importing it takes slots of the function table";
    else if (exports.hiwire_num_refs() !== before) unfit[name] = "importing it makes references into JavaScript";
    else if (left !== undefined) unfit[name] = `importing it leaves a file open that no sandbox has: ${left}`;
    return true;
  };
  const isWhole =
    environment.imports.every((name) => step(name, "import_module", name)) &&
    step("matplotlib.pyplot", "prepare_matplotlib") &&
    step("the environment", "finish", environment.aliases);
  if (isWhole && stackGuard.wasReached()) unfit["the environment"] = "importing it needs more stack than there is";
  if (!isWhole || Object.keys(unfit).length > 0) return { failedImports, unfit, image: NO_IMAGE };
  fillHoles(exports);
  const header = { ...tablesOf(program), openFiles: openFilesOf(program, devices), pythonVersion };
  return { failedImports, unfit, image: encodeImage(new Uint8Array(exports.memory.buffer), header) };
}
