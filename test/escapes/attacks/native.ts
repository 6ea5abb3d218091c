import { each, REACHED, type Technique } from "../attack.ts";

const PRELUDE = `import ctypes, sys, os
lib = ctypes.CDLL(None)
api = ctypes.pythonapi
command = b"touch " + marker.encode()
write = "globalThis.process.getBuiltinModule('fs').writeFileSync('" + marker + "', 'x')"
script = write.encode()
`;

/** Functions of Emscripten's JavaScript library, found by their names. */
const LIBRARY = [
  "lib.emscripten_run_script(script)",
  "lib.emscripten_run_script_int(script)",
  'f = lib.emscripten_run_script_string; f.restype = ctypes.c_char_p; print(f(b"\'" + won.encode()[:8] + b"\' + \'" + won.encode()[8:] + b"\'"))',
  "lib.emscripten_async_run_script(script, 0)",
  "lib.emscripten_async_load_script(('file://' + secret_file).encode(), 0, 0)",
  "lib.emscripten_async_wget(f'http://127.0.0.1:{port}/'.encode(), b'/tmp/x', 0, 0)",
  "lib.emscripten_create_worker(b'data:text/javascript,' + script)",
  "lib.emscripten_websocket_new(ctypes.byref((ctypes.c_char_p * 4)(f'ws://127.0.0.1:{port}/'.encode())))",
  "lib.emscripten_set_timeout(0, ctypes.c_double(0), 0)",
  "lib.emscripten_set_interval(0, ctypes.c_double(0), 0)",
  "lib.emscripten_set_immediate(0, 0)",
  "lib.emscripten_set_main_loop(0, 0, 0)",
  "lib.emscripten_request_animation_frame(0, 0)",
  "lib.emscripten_asm_const_int(script, b'', 0)",
  "lib.emscripten_asm_const_async_on_main_thread(script, b'', 0)",
  "lib.emscripten_run_preload_plugins(secret_file.encode(), 0, 0)",
  "lib.emscripten_promise_create()",
  "lib.emscripten_promise_then(0, 0, 0, 0)",
  "lib.emscripten_console_log(b'x')",
  "lib.emscripten_get_window_title.restype = ctypes.c_char_p; print(lib.emscripten_get_window_title())",
  "lib.emscripten_set_window_title(script)",
  "b = ctypes.create_string_buffer(20000); lib.emscripten_get_callstack(24, b, 20000); print(b.value.decode())",
  "f = lib.emscripten_pc_get_file; f.restype = ctypes.c_char_p; print(f(lib.emscripten_stack_snapshot()))",
  "lib.emscripten_exit_with_live_runtime()",
  "lib.emscripten_force_exit(0)",
  "lib.emscripten_webgl_create_context(0, 0)",
  "lib.emscripten_glGetError()",
  "lib.SDL_Init(0)",
  "lib.alcOpenDevice(0)",
  "lib._emscripten_fs_load_embedded_files(0)",
  "lib.setNetworkCallback(0, 0, 0)",
  "lib.emscripten_set_socket_open_callback(0, 0)",
  "lib._emscripten_system(command)",
  "lib.jslib_init_js()",
  "lib.jslib_init_buffers_js()",
  "lib.set_suspender(0)",
  "lib.pyodide_js_init()",
  "lib._dlsym_catchup_js(0, 0)",
  "lib._emscripten_dlopen_js(0, 0, 0, 0)",
];

const C_LIBRARY = [
  "lib.system(command)",
  "lib.popen(command, b'r')",
  "lib.execve(b'/bin/sh', (ctypes.c_char_p * 4)(b'sh', b'-c', command, None), None)",
  "lib.fork()",
  "lib.vfork()",
  "lib.posix_spawn(0, b'/bin/sh', 0, 0, 0, 0)",
  "lib.raise_(9) if hasattr(lib, 'raise_') else getattr(lib, 'raise')(9)",
  "lib.kill(0, 9)",
  "lib.abort()",
  "lib._exit(0)",
  "lib.exit(0)",
  "lib.__builtin_trap() if hasattr(lib, '__builtin_trap') else lib.emscripten_force_exit(1)",
  "fd = lib.open(secret_file.encode(), 0); b = ctypes.create_string_buffer(100); lib.read(fd, b, 100); print(b.value)",
  "lib.socket(2, 1, 0); s = lib.socket(2, 1, 0); a = (ctypes.c_ubyte * 16)(2, 0, port >> 8, port & 255, 127, 0, 0, 1); print(lib.connect(s, a, 16))",
  "lib.mount(b'/', b'/mnt', b'nodefs', 0, 0)",
  "lib.chroot(b'/')",
  "lib.mknod(b'/tmp/sda', 0o60666, 0x800)",
  "lib.syscall(59, b'/bin/sh', 0, 0)",
  "lib.dlopen(secret_file.encode(), 2); f = lib.dlerror; f.restype = ctypes.c_char_p; print(f())",
  "lib.setitimer(0, (ctypes.c_long * 4)(0, 1, 0, 1), 0)\nwhile True: pass",
];

/** Pyodide's own functions, by which WebAssembly makes and uses JavaScript objects. */
const PYODIDE = [
  "api.JsProxy_create(0)",
  "api.js2python(0)",
  "api.python2js(id(won))",
  "api.pyodide_export()",
  "api.run_js(id(write))",
  "api.pyproxy_new(id(print))",
  "api.hiwire_get(1)",
  "lib.JsvObject_New(); print(won)",
  "lib.JsvLiteral(script)",
  "lib.JsvString_FromId(0); print(won)",
  "lib.wrap_generator(0)",
  "lib.create_promise_handles(0, 0, 0, 0)",
  "lib.raw_call_js(0)",
  "lib.new_error(b'x', 0, 0)",
  "lib.Jsv_GetGlobal()",
  "lib._PyEM_TrampolineCall_JS(1, 0, 0, 0)",
  "lib.ffi_call_js(0, 0, 0, 0)",
];

const MEMORY = [
  "ctypes.memset(0, 255, 1 << 20)",
  "ctypes.memset(4096, 0, 64 << 20)",
  "ctypes.memset(id(int), 255, 400)",
  "ctypes.memset(id(None), 0, 8)",
  "ctypes.string_at(0xffff0000, 1 << 20)",
  "ctypes.memmove(0, 1, 0x7fffffff)",
  "ctypes.c_int.from_address(id(5) + 8).value = 6; 5 + 0",
  "print(ctypes.cast(id(won), ctypes.py_object).value == 1)",
  "data = ctypes.string_at(0, 60 << 20)\nfor word in (b'secret-', b'-key', b'/work/', b'nonce'):\n  i = data.find(word)\n  while 0 <= i:\n    print(data[i:i + 60].decode('latin1')) if won.encode() not in data[i-200:i+200] else 0\n    i = data.find(word, i + 1)",
  "for i in range(20): ctypes.CFUNCTYPE(None)(i)()",
  "for i in range(1, 200000, 997):\n  try: ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(i)(0)\n  except Exception: pass",
  "ctypes.CFUNCTYPE(ctypes.c_int)(-1)()",
  "ctypes.CFUNCTYPE(ctypes.c_int)(0x7fffffff)()",
  "callback = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1 / 0)\ncallback()",
  "callbacks = [ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 5) for _ in range(20000)]",
  "f = lib.qsort; f(ctypes.create_string_buffer(64), 8, 8, ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda a, b: os._exit(3)))",
  "def f(): pass\nf.__code__ = f.__code__.replace(co_code=bytes(range(256)) * 4, co_stacksize=0, co_consts=())\nf()",
  "import types\ntypes.FunctionType(types.CodeType(0, 0, 0, 0, 0, 0, b'\\x64\\xff' * 50, (), (), (), '', '', '', 0, b'', b''), {})()",
  "import _testinternalcapi",
  "import _xxsubinterpreters as s\ns.create()",
  "api.Py_FinalizeEx()",
  "api.Py_Exit(0)",
  "api.PyErr_SetInterrupt()",
  "api.PyEval_SaveThread()",
  "api.PyGILState_Release(0)",
  "api._Py_Dealloc(id(sys))",
  "api.Py_RunMain()",
];

export const NATIVE: Technique = {
  title: "native code through ctypes",
  controls: ["stock", "native", ["seal", "references", "realm", "code-generation"]],
  attacks: [
    ...each([...LIBRARY, ...PYODIDE], {}, { before: PRELUDE, after: REACHED }),
    ...each(
      ["api.hiwire_new(0)", "api._hiwire_immortal_get(1)"],
      { noControl: "they can be called, and hold no more than a number for JavaScript" },
      { before: PRELUDE },
    ),
    ...each(C_LIBRARY, {}, { before: PRELUDE }),
    ...each(MEMORY, { denial: true }, { before: PRELUDE }),
  ],
};
