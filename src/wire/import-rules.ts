/**
 * What WebAssembly may import once a sandbox's walls stand. The guest seals by these rules, and the host refuses libraries by them.
 *
 * Imports nothing, since both use it.
 */

/** Imports through which WebAssembly makes, holds or calls JavaScript objects, or asks for a code of its own to run. */
const JAVASCRIPT_IMPORT =
  /^(Js(?!vError_Check)|js2python|_?python2js|_python2js|pyproxy|_pyproxy|create_|destroy_|raw_call_js|new_error|wrap_|get_async|set_pyodide|pyodide_js|handle_next|_agen|proxy_cache|array_to_js|is_comlink|emscripten_asm_const|emscripten_promise|emscripten_debugger|emscripten_log|_emscripten_system|_emscripten_dlopen|get_length_|my_dict|gc_register|__hiwire_dedup|syncifyHandler|saveState|restoreState|_Js)/;

/** Imports that set Pyodide's JavaScript side up. Done once; again, it would be set up as user code's memory says. */
const BOOT_IMPORT = /^(jslib_init_js|jslib_init_buffers_js|set_suspender)$/;

/**
 * Functions of Emscripten's JavaScript library that the interpreter itself does not import, but a shared library may: they
 * compute, and do nothing else. All others there (scripts, timers, workers, sockets, downloads, the page, 800 of WebGL) can
 * be reached by their names, with `dlsym` and so with `ctypes.CDLL(None)`.
 */
const HARMLESS_LIBRARY_FUNCTION =
  /^(emscripten_math_\w+|emscripten_(get_now_res|performance_now|random|notify_memory_growth|throw_number|throw_string|print_double|has_asyncify|is_main_browser_thread|runtime_keepalive_check)|_emscripten_get_now_is_monotonic|_Unwind_\w+|stack(Alloc|Save|Restore)|strptime(_l)?|__asctime_r)$/;

/**
 * Whether a call of this function of JavaScript's ends a sandbox.
 *
 * @param needed names of all that the interpreter's own module imports.
 */
export function isSealed(name: string, needed: ReadonlySet<string>): boolean {
  return (
    JAVASCRIPT_IMPORT.test(name) ||
    BOOT_IMPORT.test(name) ||
    (!needed.has(name) && !HARMLESS_LIBRARY_FUNCTION.test(name))
  );
}

/** Begins the reason why a module has no place in an image: its import does what no execution may. */
export const ENDS_INTERPRETER = "importing it ends the interpreter";
