import type { Boot } from "./channel.ts";
import type { Exports, Module } from "./emscripten.ts";

/** What the guest uses of Pyodide's own interface, and only before user code runs. */
export interface Pyodide {
  readonly version: string;
  runPython(code: string): unknown;
  makeMemorySnapshot(): Uint8Array;
  setInterruptBuffer(buffer: Uint8Array): void;
}

/**
 * Starts Pyodide from what the main thread has read already, with our hand on the imports that WebAssembly sees.
 *
 * `_makeSnapshot` and `_loadSnapshot` are Pyodide's private options for memory snapshots.
 */
export async function loadInterpreter(
  boot: Boot,
  wrapImports: (imports: WebAssembly.Imports, needed: ReadonlySet<string>) => void,
): Promise<{ pyodide: Pyodide; module: Module; exports: Exports }> {
  hideHostRuntime();
  const { loadPyodide } = await import(`${boot.pyodideUrl}pyodide.mjs`);
  const { default: createModule } = await import(`${boot.pyodideUrl}pyodide.asm.mjs`);
  const stdlib = URL.createObjectURL(new Blob([boot.stdlib as Uint8Array<ArrayBuffer>]));
  let exports: Exports | undefined;
  let module: Module | undefined;
  const pyodide: Pyodide = await loadPyodide({
    indexURL: boot.pyodideUrl,
    stdLibURL: stdlib,
    lockFileContents: boot.lockFile,
    // Nothing of the realm: not even an empty object's prototype.
    jsglobals: Object.create(null),
    env: {
      HOME: "/home/pyodide",
      LANG: "en_US.UTF-8",
      PYTHONUTF8: "1",
      MPLBACKEND: "agg",
    },
    _makeSnapshot: boot.snapshot === null,
    _loadSnapshot: boot.snapshot ?? undefined,
    createPyodideModule: (settings: Module) => {
      module = settings;
      settings.instantiateWasm = (imports, done) => {
        instantiate(boot.module, imports, wrapImports).then((instance) => {
          exports = instance.exports as unknown as Exports;
          done(instance, boot.module);
        });
        return {};
      };
      return createModule(settings);
    },
  });
  URL.revokeObjectURL(stdlib);
  return { pyodide, module: module as Module, exports: exports as Exports };
}

async function instantiate(
  module: WebAssembly.Module,
  imports: WebAssembly.Imports,
  wrapImports: (imports: WebAssembly.Imports, needed: ReadonlySet<string>) => void,
): Promise<WebAssembly.Instance> {
  const env = imports.env as Record<string, WebAssembly.ImportValue>;
  const errors = errorImports();
  env.Jsv_GetError_import = () => errors.marker;
  env.JsvError_Check = (value: unknown) => (value === errors.marker ? 1 : 0);
  wrapImports(imports, new Set(WebAssembly.Module.imports(module).map(({ name }) => name)));
  return await WebAssembly.instantiate(module, imports);
}

/** Pyodide marks a failed call into JavaScript with a value that nothing else is. */
function errorImports(): { marker: symbol } {
  return { marker: Symbol("error marker") };
}

/**
 * Makes Pyodide take this worker for a browser's. In Node (which Deno resembles) it reaches for `child_process`: with
 * that, `os.system` runs commands on the host.
 */
function hideHostRuntime(): void {
  const realm = globalThis as Record<string, unknown>;
  for (const name of ["process", "Buffer", "global", "require", "Deno"]) delete realm[name];
}
