import { readFile } from "node:fs/promises";
import path from "node:path";
import { Worker } from "node:worker_threads";
import { PYODIDE_DIR } from "../sandbox/launch.ts";
import { isSealed } from "../wire/import-rules.ts";
import { readWasmModule, WasmFormatError, type WasmImport, type WasmModule } from "./wasm-module.ts";

/** What Emscripten itself hands to every library, and what each is. */
const LINKED: Readonly<Record<string, WasmImport["kind"]>> = {
  memory: "memory",
  __indirect_function_table: "table",
  __stack_pointer: "global",
  __memory_base: "global",
  __table_base: "global",
  __cpp_exception: "tag",
  __c_longjmp: "tag",
};
const FUNCTION_MODULES = ["env", "wasi_snapshot_preview1"];
const ADDRESS_MODULES = ["GOT.func", "GOT.mem"];
/** JavaScript that Emscripten would make functions of. */
const SCRIPT = /^(__em_js__.*|__(start|stop)_em_(asm|js))$/;
const SYMBOL = /^[\w.$@:]+$/;

/** What a library may ask for: of the interpreter's program. */
interface Interface {
  /** Functions and addresses that it exports. */
  readonly exports: ReadonlySet<string>;
  /** Functions of JavaScript's that it imports. */
  readonly imports: ReadonlySet<string>;
}

export interface Library {
  /** In the archive. */
  readonly path: string;
  readonly bytes: Uint8Array;
}

let program: Promise<Interface> | undefined;

function ownsMemory(bytes: Uint8Array): boolean {
  return bytes.byteLength === bytes.buffer.byteLength;
}

/** As {@link findUnsafe}, in a thread of its own: a large library takes longer than a request may wait. Takes the bytes over. */
export async function findUnsafeInThread(
  libraries: readonly Library[],
  isWhole = true,
): Promise<Readonly<Record<string, string>>> {
  if (libraries.length === 0) return {};
  // Their memory moves over, where they share it with nothing: to copy it would take this thread's time.
  const own = libraries.map(({ path, bytes }) => ({ path, bytes: ownsMemory(bytes) ? bytes : new Uint8Array(bytes) }));
  const worker = new Worker(new URL("library-check-thread.ts", import.meta.url), {
    workerData: [own, isWhole],
    transferList: own.map(({ bytes }) => bytes.buffer as ArrayBuffer),
  });
  const { promise, resolve, reject } = Promise.withResolvers<Readonly<Record<string, string>>>();
  worker.once("message", resolve);
  worker.once("error", reject);
  worker.once("exit", () => reject(new Error("the check of libraries ended without a result")));
  return await promise;
}

/**
 * Finds what a shared library may not have or ask for: its code runs in a sandbox's process, and is to have no more than any code there.
 *
 * - Nothing of JavaScript's but functions that are not sealed, which take and return numbers.
 * - No state but memory: a rewind restores that.
 *
 * @param isWhole whether these are all that are loaded together. If not, another may have what is missing here.
 * @returns path → what is wrong.
 */
export async function findUnsafe(
  libraries: readonly Library[],
  isWhole = true,
): Promise<Readonly<Record<string, string>>> {
  program ??= readInterface();
  const known = await program;
  const unsafe: Record<string, string> = {};
  const modules: [path: string, module: WasmModule][] = [];
  for (const { path, bytes } of libraries) {
    try {
      modules.push([path, readWasmModule(bytes)]);
    } catch (error) {
      if (!(error instanceof WasmFormatError)) throw error;
      unsafe[path] = error.message;
    }
  }
  const symbols = new Set(modules.flatMap(([, { exports }]) => exports.map(({ name }) => name)));
  const isElsewhere = (name: string) => symbols.has(name) || !isWhole;
  for (const [path, module] of modules) {
    const problem = stateProblem(module) ?? exportProblem(module) ?? importProblem(module, known, isElsewhere);
    if (problem !== null) unsafe[path] = problem;
  }
  return unsafe;
}

/**
 * What of the interpreter's own program no sandbox would restore. It is the one that Pyodide brings; another version may be another.
 *
 * @returns null: nothing.
 */
export async function programProblem(): Promise<string | null> {
  const module = readWasmModule(await readProgram());
  const changing = module.stateInstructions.find(
    // Tables of references are compared at each rewind; the heap's size is looked at.
    ({ name }) => !/^table\.(set|grow|fill) [1-9]\d*$/.test(name) && name !== "memory.grow 0",
  );
  if (changing) return `function ${changing.function} has the instruction ${changing.name}`;
  if (module.passiveSegments > 0) return "it has segments that code can drop";
  if (module.globals.some(({ isMutable, isNumber }) => isMutable && !isNumber))
    return "it has a variable that is no number";
  const imported = module.imports.filter(({ kind }) => kind === "global");
  if (imported.some((_, index) => module.settersOfGlobals.has(index))) return "it sets a variable that it imports";
  if (module.start !== null) return "it runs code when it is instantiated";
  return null;
}

function stateProblem(module: WasmModule): string | null {
  const { tableCount, memoryCount, passiveSegments, stateInstructions, globals, settersOfGlobals, imports } = module;
  if (memoryCount > 0) return "it has a memory of its own";
  if (tableCount > 0) return "it has a table of its own";
  if (passiveSegments > 0) return "it has segments that code can drop";
  const [instruction] = stateInstructions;
  if (instruction) return `it has the instruction ${instruction.name}, whose effect would outlive an execution`;
  if (globals.some(({ isNumber }) => !isNumber)) return "it has a variable that is no number";
  const imported = imports.filter(({ kind }) => kind === "global");
  for (const [index, setters] of settersOfGlobals) {
    const variable = imported[index];
    if (variable !== undefined) {
      if (variable.module !== "env" || variable.name !== "__stack_pointer") {
        return `it sets the variable ${variable.module}.${variable.name}`;
      }
      continue;
    }
    // The linker's own: addresses that become final when the library is loaded.
    const [setter, ...others] = setters;
    if (others.length > 0 || setter !== module.start || module.referredTo.has(module.start)) {
      return "it has a variable outside of memory, which would outlive an execution";
    }
  }
  return null;
}

function exportProblem({ exports, globals }: WasmModule): string | null {
  for (const { name, kind, index } of exports) {
    if (SCRIPT.test(name)) return `it contains JavaScript (${name})`;
    if (!SYMBOL.test(name) || isMemberOfEveryObject(name)) return `it exports "${name}"`;
    const isConstant = kind === "global" && globals[index]?.isMutable === false;
    if (kind !== "function" && !isConstant) return `it exports the ${kind} "${name}"`;
  }
  return null;
}

function importProblem(
  { imports }: WasmModule,
  known: Interface,
  isElsewhere: (name: string) => boolean,
): string | null {
  for (const { module, name, kind, detail } of imports) {
    const asked = `it asks for ${module}.${name}`;
    if (isMemberOfEveryObject(name)) return asked;
    if (ADDRESS_MODULES.includes(module)) {
      if (kind !== "global") return asked;
    } else if (kind !== "function") {
      if (module !== "env" || LINKED[name] !== kind) return `${asked}, a ${kind}`;
      if (kind === "global" && detail !== (name === "__stack_pointer")) return asked;
      continue;
    } else if (!FUNCTION_MODULES.includes(module)) {
      return asked;
    } else if (!detail) {
      return `${asked}, and would give it more than numbers`;
    }
    if (known.exports.has(name)) continue;
    // A function of JavaScript's goes before a library's of the same name.
    const isAnothers = !known.imports.has(name) && isElsewhere(name);
    if (!isAnothers && isSealed(name, known.imports)) return `${asked}, which no sandbox gives`;
  }
  return null;
}

/** Emscripten looks names up in plain objects. */
function isMemberOfEveryObject(name: string): boolean {
  return name in Object.prototype;
}

async function readInterface(): Promise<Interface> {
  const { exports, imports } = readWasmModule(await readProgram());
  return {
    exports: new Set(exports.map(({ name }) => name)),
    imports: new Set(imports.map(({ name }) => name)),
  };
}

async function readProgram(): Promise<Uint8Array> {
  return await readFile(path.join(PYODIDE_DIR, "pyodide.asm.wasm"));
}
