import type { Exports, Module } from "./emscripten.ts";
import { ENVIRONMENT_PATH } from "./layout.ts";
import type { Program } from "./load.ts";
import { withCString } from "./python-objects.ts";
import type { ImportSeal } from "./realm.ts";

/** In place of a symbol's address. */
const UNRESOLVED = -1;
const RTLD_NOW = 2;
const RTLD_GLOBAL = 256;

/**
 * Loads shared libraries, and looks up the function that Python will call in each: the look-up takes a slot of the
 * function table, which must be the same one whether the library's module is imported now, later, or was imported when
 * the image was built.
 *
 * The walls stand: a library's own code runs in here.
 *
 * @param compiled modules of some of them: path → module.
 * @returns those that cannot be loaded: path → why.
 */
export function loadLibraries(
  { module, exports }: Program,
  imports: ImportSeal,
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
    const handle = withCString(exports, `${ENVIRONMENT_PATH}/${library}`, (path) =>
      imports.loading(() => exports.dlopen(path, flags)),
    );
    const call = imports.broken();
    if (call !== null || handle === 0) {
      unloadable[library] = call === null ? lastLinkError(exports) : `it calls ${call} while it is loaded`;
      // What it did is done: no library that is loaded from here on could be told what is its own.
      if (call !== null) break;
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
