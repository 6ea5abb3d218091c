import type { Exports, Module } from "./emscripten.ts";

const PERMISSIONS = ["read", "write", "net", "env", "run", "sys", "ffi", "import"] as const;
const host = Deno;

/** Gives up, for good, every permission this thread was started with. */
export async function revokePermissions(): Promise<void> {
  for (const name of PERMISSIONS) {
    const status = await host.permissions.revoke({ name } as Deno.PermissionDescriptor);
    if (status.state === "granted") throw new Error(`permission ${name} could not be revoked`);
  }
}

const KEPT_GLOBALS = new Set([
  ...["Object", "Function", "Array", "Number", "parseFloat", "parseInt", "Infinity", "NaN", "undefined", "Boolean"],
  ...["String", "Symbol", "Date", "Promise", "RegExp", "Error", "AggregateError", "EvalError", "RangeError"],
  ...[
    "ReferenceError",
    "SyntaxError",
    "TypeError",
    "URIError",
    "SuppressedError",
    "globalThis",
    "JSON",
    "Math",
    "Intl",
  ],
  ...["ArrayBuffer", "Atomics", "Uint8Array", "Int8Array", "Uint16Array", "Int16Array", "Uint32Array", "Int32Array"],
  ...["Float16Array", "Float32Array", "Float64Array", "Uint8ClampedArray", "BigUint64Array", "BigInt64Array"],
  ...["DataView", "Map", "BigInt", "Set", "Iterator", "WeakMap", "WeakSet", "WeakRef", "Proxy", "Reflect"],
  ...["FinalizationRegistry", "SharedArrayBuffer", "WebAssembly", "TextEncoder", "TextDecoder", "crypto", "Crypto"],
  ...["performance", "Performance", "decodeURI", "decodeURIComponent", "encodeURI", "encodeURIComponent", "isFinite"],
  ...["isNaN", "self", "WorkerGlobalScope", "escape", "unescape", "atob", "btoa", "AbortSignal", "AbortController"],
  ...["Event", "EventTarget"],
]);

/** Leaves nothing in the global object but the language and what the interpreter needs to run. */
export function closeRealm(): void {
  const realm = globalThis as Record<PropertyKey, unknown>;
  for (const name of Reflect.ownKeys(globalThis)) {
    if (typeof name === "string" && KEPT_GLOBALS.has(name)) continue;
    try {
      if (!Reflect.deleteProperty(realm, name)) realm[name] = undefined;
    } catch {
      // Not configurable and not writable: a constant of the language.
    }
  }
}

/**
 * Replaces every JavaScript object that Python holds a reference to by an empty one.
 *
 * Pyodide keeps its own interface there (`pyodide_js`), from which all of Emscripten's can be reached; a walk over
 * `gc.get_objects()` finds those references even when no module offers them.
 */
export function severReferences(module: Module, exports: Exports): void {
  const nothing = Object.freeze(Object.create(null));
  const count = exports.hiwire_num_refs();
  for (let index = 1, severed = 0; severed < count && index < count + 16; index++) {
    try {
      module.__hiwire_get(index);
    } catch {
      continue;
    }
    module.__hiwire_set(index, nothing);
    severed++;
  }
}

/** Imports through which WebAssembly makes, holds or calls JavaScript objects, or asks for a code of its own to run. */
const JAVASCRIPT_IMPORT =
  /^(Js(?!vError_Check)|js2python|_?python2js|_python2js|pyproxy|_pyproxy|create_|destroy_|raw_call_js|new_error|wrap_|get_async|set_pyodide|pyodide_js|handle_next|_agen|proxy_cache|array_to_js|is_comlink|emscripten_asm_const|emscripten_promise|emscripten_debugger|emscripten_log|_emscripten_system|_emscripten_dlopen|get_length_|my_dict|gc_register|__hiwire_dedup|syncifyHandler|saveState|restoreState|_Js)/;

const NETWORK_IMPORT = /^(__syscall_(socket|connect|bind|listen|accept4|sendto|sendmsg|recvfrom|recvmsg)|getaddrinfo)$/;
const EACCES = 2;
const EAI_FAIL = -4;

/** Stands between WebAssembly and its imports. */
export interface ImportSeal {
  wrap(imports: WebAssembly.Imports): void;
  /**
   * From now on a call to an import that reaches JavaScript ends the sandbox: booting needed it, nothing that user code may
   * do does. Shared libraries cannot be loaded any more: their code would be part of a state that no rewind undoes.
   */
  close(): void;
  /** What Emscripten does when `malloc` needs room; false if there is none. */
  resizeHeap(bytes: number): boolean;
}

export function sealImports(): ImportSeal {
  let closed = false;
  let resizeHeap: (bytes: number) => boolean | number = () => false;
  return {
    wrap(imports) {
      const env = imports.env as Record<string, unknown>;
      resizeHeap = env.emscripten_resize_heap as typeof resizeHeap;
      const dlopen = env._dlopen_js as (handle: number) => number;
      env._dlopen_js = Object.assign((handle: number) => (closed ? 0 : dlopen(handle)), { sig: "pp" });
      for (const [name, original] of Object.entries(env)) {
        if (typeof original !== "function") continue;
        if (NETWORK_IMPORT.test(name)) env[name] = name === "getaddrinfo" ? () => EAI_FAIL : () => -EACCES;
        else if (JAVASCRIPT_IMPORT.test(name)) {
          env[name] = Object.assign(
            (...parameters: unknown[]) => {
              if (closed) throw new WebAssembly.RuntimeError(`sealed: ${name}`);
              return (original as (...parameters: unknown[]) => unknown)(...parameters);
            },
            { sig: (original as { sig?: string }).sig },
          );
        }
      }
    },
    close() {
      closed = true;
    },
    resizeHeap: (bytes) => Boolean(resizeHeap(bytes)),
  };
}
