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
    // What has a symbol for its name is Deno's: by it the global object is known for one when the process ends.
    if (typeof name === "symbol" || KEPT_GLOBALS.has(name)) continue;
    try {
      if (!Reflect.deleteProperty(realm, name)) realm[name] = undefined;
    } catch {
      // Not configurable and not writable: a constant of the language.
    }
  }
}

/** Imports through which WebAssembly makes, holds or calls JavaScript objects, or asks for a code of its own to run. */
const JAVASCRIPT_IMPORT =
  /^(Js(?!vError_Check)|js2python|_?python2js|_python2js|pyproxy|_pyproxy|create_|destroy_|raw_call_js|new_error|wrap_|get_async|set_pyodide|pyodide_js|handle_next|_agen|proxy_cache|array_to_js|is_comlink|emscripten_asm_const|emscripten_promise|emscripten_debugger|emscripten_log|_emscripten_system|_emscripten_dlopen|get_length_|my_dict|gc_register|__hiwire_dedup|syncifyHandler|saveState|restoreState|_Js)/;

/**
 * Imports that change what the JavaScript side keeps (function table, libraries, its own caches) in ways that leave its counts
 * as they were: a freed slot that is taken again still has the next tenant call the last one's function.
 */
const CHANGING_IMPORT =
  /^(ffi_closure_alloc_js|ffi_closure_free_js|ffi_prep_closure_loc_js|_setitimer_js|capture_stderr|restore_stderr|emscripten_set_up_async_input_device_js)$/;

/**
 * Functions of Emscripten's JavaScript library that the interpreter itself does not import, but a shared library may: they
 * compute, and do nothing else. All others there (scripts, timers, workers, sockets, downloads, the page, 800 of WebGL) can
 * be had by their names, with `dlsym` and so with `ctypes.CDLL(None)`.
 */
const HARMLESS_LIBRARY_FUNCTION =
  /^(emscripten_math_\w+|emscripten_(get_now_res|performance_now|random|notify_memory_growth|throw_number|throw_string|print_double|has_asyncify|is_main_browser_thread|runtime_keepalive_check)|_emscripten_get_now_is_monotonic|_Unwind_\w+|stack(Alloc|Save|Restore)|strptime(_l)?|__asctime_r)$/;

/** Imports that set Pyodide's JavaScript side up. Done once; again, it would be set up as user code's memory says. */
const BOOT_IMPORT = /^(jslib_init_js|jslib_init_buffers_js|set_suspender)$/;

const EACCES = 2;
const EAI_FAIL = -4;
/** What imports answer that would reach for the network. */
const NETWORK_ANSWERS: Readonly<Record<string, number>> = {
  ...Object.fromEntries(
    ["socket", "connect", "bind", "listen", "accept4", "sendto", "sendmsg", "recvfrom", "recvmsg"].map((call) => [
      `__syscall_${call}`,
      -EACCES,
    ]),
  ),
  getaddrinfo: EAI_FAIL,
  // Emscripten's allocates its table in linear memory once and keeps the addresses: after a rewind they point anywhere.
  getprotobyname: 0,
};

/** Stands between WebAssembly and its imports. */
export interface ImportSeal {
  /** @param needed names of all that the interpreter's own module imports. */
  wrap(imports: WebAssembly.Imports, needed: ReadonlySet<string>): void;
  /**
   * From now on a call to an import that reaches JavaScript ends the sandbox: booting needed it, nothing that user code may
   * do does. Shared libraries cannot be loaded any more: their code would be part of a state that no rewind undoes.
   */
  close(): void;
  /** Whether a call to this import ends the sandbox after `close`. */
  refuses(name: string): boolean;
  /** The import, if one was called since `close`, after which a rewind of the memory is not enough; else null. */
  broken(): string | null;
  /** What Emscripten does when `malloc` needs room; false if there is none. */
  resizeHeap(bytes: number): boolean;
}

export function sealImports(): ImportSeal {
  let closed = false;
  let broken: string | null = null;
  let resizeHeap: (bytes: number) => boolean | number = () => false;
  const refused = new Set<string>();
  return {
    broken: () => broken,
    refuses: (name) => refused.has(name),
    wrap(imports, needed) {
      const env = imports.env as Record<string, unknown>;
      resizeHeap = env.emscripten_resize_heap as typeof resizeHeap;
      const dlopen = env._dlopen_js as (handle: number) => number;
      env._dlopen_js = Object.assign((handle: number) => (closed ? 0 : dlopen(handle)), { sig: "pp" });
      for (const [name, original] of Object.entries(env)) {
        if (typeof original !== "function") continue;
        const call = original as ((...parameters: unknown[]) => unknown) & { sig?: string };
        const answer = NETWORK_ANSWERS[name];
        const replace = (replacement: (...parameters: unknown[]) => unknown) => {
          env[name] = Object.assign(replacement, { sig: call.sig });
        };
        if (answer !== undefined) {
          replace(() => answer);
        } else if (CHANGING_IMPORT.test(name)) {
          replace((...parameters) => {
            if (closed) broken ??= name;
            return call(...parameters);
          });
        } else if (
          JAVASCRIPT_IMPORT.test(name) ||
          BOOT_IMPORT.test(name) ||
          (!needed.has(name) && !HARMLESS_LIBRARY_FUNCTION.test(name))
        ) {
          refused.add(name);
          replace((...parameters) => {
            if (!closed) return call(...parameters);
            // C++ that catches everything catches this too; what it goes on with is not used again.
            broken ??= name;
            throw new WebAssembly.RuntimeError(`sealed: ${name}`);
          });
        }
      }
    },
    close() {
      closed = true;
    },
    resizeHeap: (bytes) => Boolean(resizeHeap(bytes)),
  };
}
