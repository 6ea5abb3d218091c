import { Archive } from "../../wire/archive-format.ts";
import type { GuestOptions } from "../../wire/messages.ts";
import { ARCHIVE_MTIME_MS, ArchiveFiles } from "../files/archive-filesystem.ts";
import { FileMappings } from "../files/file-mappings.ts";
import { type ExposedState, stateOf, withdrawState } from "../memory/exposed-state.ts";
import type { ImageFile } from "../memory/image-file.ts";
import { RESOLUTION_MS } from "./clock-resolution.ts";
import type { Exports, Module } from "./emscripten.ts";

/** All that was read for a start; nothing can be read after it. */
export interface Boot {
  /** `file:` URL of the folder of the `pyodide` package, with a slash at its end. */
  readonly pyodideUrl: string;
  readonly createModule: CreateModule;
  readonly module: WebAssembly.Module;
  /** An archive, or the bytes of Pyodide's own zip. */
  readonly stdlib: Archive | Uint8Array;
  /** The base image to start from; null: build it. */
  readonly base: ImageFile | null;
  /** The environment's memory image; null: there is none, or it is to be built. */
  readonly image: ImageFile | null;
  /** The environment's shared libraries, compiled: path in its archive → module. Empty while an image is built. */
  readonly libraries: Readonly<Record<string, WebAssembly.Module>>;
  /** Our own Python modules: path below `RUNNER_PATH` → source. */
  readonly sources: Readonly<Record<string, string>>;
  /** One byte: see {@link Module.Py_EmscriptenSignalBuffer}. */
  readonly interrupt: Uint8Array;
  readonly options: GuestOptions;
}

/** What the guest uses of Pyodide's own interface, and only where an image is built. */
export interface Pyodide {
  readonly version: string;
  runPython(code: string): unknown;
}

/** The interpreter's program: WebAssembly, and what Emscripten puts around it. */
export interface Program {
  readonly module: Module;
  readonly exports: Exports;
  readonly state: ExposedState;
  readonly mappings: FileMappings;
}

export type WrapImports = (imports: WebAssembly.Imports, needed: ReadonlySet<string>) => void;
export type CreateModule = (settings: Module) => Promise<Module>;

const RESOLUTION_NS = RESOLUTION_MS * 1e6;
const CLOCK_REALTIME = 0;
const UTC = [..."UTC\0"].map((character) => character.charCodeAt(0));

/** Python's own environment variables, and those that libraries ask for. */
const ENVIRONMENT = {
  HOME: "/home/pyodide",
  LANG: "en_US.UTF-8",
  PYTHONUTF8: "1",
  MPLBACKEND: "agg",
};

/** A worker of a browser's, which is what {@link hideHostRuntime} makes of this thread. */
const RUNTIME = { IN_BROWSER: true, IN_BROWSER_WEB_WORKER: true };

/** Reads the JavaScript half of the interpreter. @param pyodideUrl `file:` URL of Pyodide's folder, with a slash at its end. */
export async function importProgram(pyodideUrl: string): Promise<CreateModule> {
  hideHostRuntime();
  const { default: createModule } = await import(`${pyodideUrl}pyodide.asm.mjs`);
  return createModule;
}

/**
 * The program with its files, and nothing that has run: its memory is to come from an image.
 *
 * Of Pyodide's own start nothing happens here, so what it puts between Python and JavaScript does not exist in a sandbox.
 */
export async function loadProgram(boot: Boot, pythonVersion: string, wrap: WrapImports): Promise<Program> {
  let instance: Instance | undefined;
  const module = await boot.createModule({
    API: { config: {}, runtimeEnv: RUNTIME },
    noInitialRun: true,
    preRun: [(started: Module) => installFiles(started, boot.stdlib, pythonVersion)],
    instantiateWasm: instantiator(boot, wrap, (made) => {
      instance = made;
    }),
  } as unknown as Module);
  return attached({ module, ...(instance as Instance) });
}

function attached<P extends Program>(program: P): P {
  program.mappings.attach(program.module.FS, program.exports.memory);
  return program;
}

/** Pyodide as it starts by itself, in seconds, for building an image. */
export async function loadPyodide(boot: Boot, wrap: WrapImports): Promise<Program & { pyodide: Pyodide }> {
  const { loadPyodide: load } = await import(`${boot.pyodideUrl}pyodide.mjs`);
  const lock = await (await fetch(`${boot.pyodideUrl}pyodide-lock.json`)).json();
  const { python: pythonVersion } = lock.info as { python: string };
  const zip = boot.stdlib instanceof Archive ? new Uint8Array(0) : (boot.stdlib as Uint8Array<ArrayBuffer>);
  const stdlib = URL.createObjectURL(new Blob([zip]));
  let instance: Instance | undefined;
  let module: Module | undefined;
  const pyodide: Pyodide = await load({
    indexURL: boot.pyodideUrl,
    stdLibURL: stdlib,
    // Packages come from environments.
    lockFileContents: { ...lock, packages: {} },
    // Nothing of the realm: not even an empty object's prototype.
    jsglobals: Object.create(null),
    env: { ...ENVIRONMENT },
    createPyodideModule: (settings: Module) => {
      module = settings;
      const { stdlib: archive } = boot;
      if (archive instanceof Archive) {
        // Before Pyodide writes its zip there, which then is refused; it says so, and goes on.
        (settings.preRun as ((started: Module) => void)[]).push((started) =>
          mountStdlib(started, archive, pythonVersion),
        );
      }
      settings.instantiateWasm = instantiator(boot, wrap, (made) => {
        instance = made;
      });
      return boot.createModule(settings);
    },
  });
  URL.revokeObjectURL(stdlib);
  return attached({ pyodide, module: module as Module, ...(instance as Instance) });
}

/** Folders and files as Pyodide lays them out. */
function installFiles(module: Module, stdlib: Archive | Uint8Array, pythonVersion: string): void {
  const { FS, ENV } = module;
  const [major, minor] = pythonVersion.split(".");
  const home = `/lib/python${major}.${minor}`;
  for (const folder of [`${home}/site-packages`, `${home}/lib-dynload`, ENVIRONMENT.HOME]) FS.mkdirTree(folder);
  if (stdlib instanceof Archive) mountStdlib(module, stdlib, pythonVersion);
  else FS.writeFile(stdlibPath(pythonVersion), stdlib);
  FS.chdir(ENVIRONMENT.HOME);
  Object.assign(ENV, ENVIRONMENT);
}

/** Puts a folder where Python looks for a zip: it reads its modules from either, and bytecode fastest from a folder. */
function mountStdlib({ FS }: Module, stdlib: Archive, pythonVersion: string): void {
  const folder = stdlibPath(pythonVersion);
  FS.mkdirTree(folder);
  new ArchiveFiles(FS, stdlib, ARCHIVE_MTIME_MS).mount(folder);
}

function stdlibPath(pythonVersion: string): string {
  return `/lib/python${pythonVersion.split(".").slice(0, 2).join("")}.zip`;
}

type Instance = Omit<Program, "module">;

function instantiator(
  boot: Boot,
  wrap: WrapImports,
  got: (instance: Instance) => void,
): NonNullable<Module["instantiateWasm"]> {
  return (imports, done) => {
    const mappings = new FileMappings();
    // If it fails, so does this process, which nothing has started to use.
    void instantiate(boot.module, imports, wrap, mappings).then((instance) => {
      got({ exports: instance.exports as unknown as Exports, state: stateOf(instance.exports), mappings });
      done(instance, boot.module);
      withdrawState(imports.env as Record<string, unknown>);
    });
    return {};
  };
}

async function instantiate(
  module: WebAssembly.Module,
  imports: WebAssembly.Imports,
  wrap: WrapImports,
  mappings: FileMappings,
): Promise<WebAssembly.Instance> {
  const env = imports.env as Record<string, WebAssembly.ImportValue>;
  const errors = errorImports();
  env.Jsv_GetError_import = () => errors.marker;
  env.JsvError_Check = (value: unknown) => (value === errors.marker ? 1 : 0);
  let instance: WebAssembly.Instance | undefined;
  tellResolution(env, () => instance?.exports.memory as WebAssembly.Memory);
  mappings.wrap(env);
  keepUtc(env, () => instance?.exports.memory as WebAssembly.Memory);
  wrap(imports, new Set(WebAssembly.Module.imports(module).map(({ name }) => name)));
  instance = await WebAssembly.instantiate(module, imports);
  return instance;
}

/** Pyodide marks a failed call into JavaScript with a value that nothing else is. */
function errorImports(): { marker: symbol } {
  return { marker: Symbol("error marker") };
}

/**
 * Has the interpreter's imports tell how fine its clocks are. By themselves they say a microsecond, whatever `performance` does.
 *
 * @param memory the interpreter's, once it is there.
 */
function tellResolution(imports: WebAssembly.ModuleImports, memory: () => WebAssembly.Memory): void {
  const original = imports.clock_res_get as ((clock: number, result: number) => number) & Signed;
  const ofClock = (clock: number, result: number) => {
    const error = original(clock, result);
    if (error === 0 && clock !== CLOCK_REALTIME) {
      new DataView(memory().buffer).setBigUint64(result >>> 0, BigInt(RESOLUTION_NS), true);
    }
    return error;
  };
  const { sig } = imports.emscripten_get_now_res as Signed;
  imports.clock_res_get = Object.assign(ofClock, { sig: original.sig });
  imports.emscripten_get_now_res = Object.assign(() => RESOLUTION_NS, { sig });
}

/** Has the clock be in UTC by that name, wherever the host is. By itself Emscripten says `UTC-0000`, and takes the host's time zone. */
function keepUtc(imports: WebAssembly.ModuleImports, memory: () => WebAssembly.Memory): void {
  const { sig } = imports._tzset_js as Signed;
  const tzset = (timezone: number, daylight: number, standardName: number, daylightName: number) => {
    const view = new DataView(memory().buffer);
    view.setUint32(timezone >>> 0, 0, true);
    view.setInt32(daylight >>> 0, 0, true);
    for (const name of [standardName, daylightName]) {
      for (const [index, byte] of UTC.entries()) view.setUint8((name >>> 0) + index, byte);
    }
  };
  imports._tzset_js = Object.assign(tzset, { sig });
}

/** Emscripten makes a function pointer of an import by its signature. */
interface Signed {
  readonly sig?: string;
}

/**
 * Makes Pyodide take this thread for a browser's worker. In Node (which Deno resembles) it reaches for `child_process`: with
 * that, `os.system` runs commands on the host.
 */
function hideHostRuntime(): void {
  const realm = globalThis as Record<string, unknown>;
  for (const name of ["process", "Buffer", "global", "require", "Deno"]) delete realm[name];
  realm.WorkerGlobalScope = { [Symbol.hasInstance]: () => true };
}
