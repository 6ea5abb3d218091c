import wabt from "wabt";
import { type Attack, excuse, type Technique } from "../attack.ts";

const assembler = await wabt();
/** Where it cannot write, the library is to load all the same: that it does is an escape. */
const WRITE = "try { globalThis.process.getBuiltinModule('fs').writeFileSync('MARKER'.trim(), 'x') } catch {}";
/** Stands where the marker's path will, which the attack learns when it runs. */
const PLACE = "M".repeat(160);

/** Puts Emscripten's mark of a shared library before what `wat` assembles to. */
export function library(wat: string): Buffer {
  const module = Buffer.from(assembler.parseWat("attack.wat", wat).toBinary({}).buffer);
  // Subsection 1: 4096 bytes of memory, no slot of the table.
  const info = Buffer.from([0x01, 0x05, 0x80, 0x20, 0x04, 0x00, 0x00]);
  const name = Buffer.from("\x08dylink.0", "latin1");
  const section = Buffer.concat([Buffer.from([0x00, name.length + info.length]), name, info]);
  return Buffer.concat([module.subarray(0, 8), section, module.subarray(8)]);
}

const memory = '(import "env" "memory" (memory 1)) (import "env" "__memory_base" (global $base i32))';
const data = (text: string) => `(data (global.get $base) ${JSON.stringify(text)} "\\00")`;
const passName = (name: string, type = "(param i32)") => `(import "env" "${name}" (func $f ${type}))`;

const MODULES: Readonly<Record<string, string>> = {
  EM_JS: `(module ${memory} (global (export "__em_js__pwn") i32 (i32.const 0)) ${data(`(void)<::>{}; ${WRITE}`)}
    (func (export "pwn")))`,
  "EM_JS with an escape in its argument list": `(module ${memory} (global (export "__em_js__pwn") i32 (i32.const 0))
    ${data(`(int a=${WRITE})<::>{ return a }`)} (func (export "pwn")))`,
  EM_ASM: `(module ${memory} (global (export "__start_em_asm") i32 (i32.const 0)) (global (export "__stop_em_asm") i32 (i32.const 400))
    ${data(`}; ${WRITE}; {`)} (func (export "pwn")))`,
  "importing emscripten_run_script": `(module ${memory} ${passName("emscripten_run_script")} ${data(WRITE)}
    (func (export "pwn") (call $f (global.get $base))) (func (export "__wasm_call_ctors") (call $f (global.get $base))))`,
  "importing system": `(module ${memory} ${passName("_emscripten_system", "(param i32) (result i32)")} ${data("touch MARKER")}
    (func (export "__wasm_call_ctors") (drop (call $f (global.get $base)))) (func (export "pwn")))`,
  "importing emscripten_asm_const_int": `(module ${memory} ${passName("emscripten_asm_const_int", "(param i32 i32 i32) (result i32)")} ${data(WRITE)}
    (func (export "__wasm_call_ctors") (drop (call $f (global.get $base) (i32.const 0) (i32.const 0)))) (func (export "pwn")))`,
  "importing an object's constructor": `(module ${memory} ${passName("constructor")} ${data(WRITE)}
    (func (export "__wasm_call_ctors") (call $f (global.get $base))) (func (export "pwn")))`,
  "importing __proto__": `(module ${memory} ${passName("__proto__")} (func (export "__wasm_call_ctors") (call $f (i32.const 0))) (func (export "pwn")))`,
  "that runs for ever when it is loaded": `(module ${memory} (func (export "__wasm_call_ctors") (loop $l (br $l))) (func (export "pwn")))`,
  "that is an extension module": `(module ${memory} ${passName("emscripten_run_script")} ${data(WRITE)}
    (func (export "PyInit_evil") (result i32) (call $f (global.get $base)) (i32.const 0)))`,
  "that exports what the interpreter uses": `(module ${memory} (func (export "malloc") (param i32) (result i32) (i32.const 0)) (func (export "pwn")))`,
};

/** A path for each attack: a linker gives what it has under a path, whatever is there now. */
const PRELUDE = `import base64, ctypes, sys, os, time
path = f"/tmp/evil{time.time_ns()}.so"
open(path, "wb").write(base64.b64decode(library).replace(b"M" * 160, marker.encode().ljust(160)))
`;

const LOADERS: Readonly<Record<string, string>> = {
  "ctypes.CDLL": "ctypes.CDLL(path).pwn()",
  "ctypes with RTLD_GLOBAL": "ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)['pwn']()",
  "_ctypes.dlopen": "import _ctypes\n_ctypes.dlsym(_ctypes.dlopen(path, 2), 'pwn')",
  "the C library's dlopen":
    "h = ctypes.CDLL(None).dlopen(path.encode(), 2)\nassert h\nctypes.CDLL(None).dlsym(h, b'pwn')",
  emscripten_dlopen: "ctypes.CDLL(None).emscripten_dlopen(path.encode(), 2, 0, 0, 0)\nassert False",
  "import as an extension module":
    "sys.path.insert(0, '/tmp')\nos.rename(path, '/tmp/evil' + __import__('importlib.machinery').machinery.EXTENSION_SUFFIXES[0])\nimport evil",
  ExtensionFileLoader:
    "import importlib.machinery, importlib.util\nloader = importlib.machinery.ExtensionFileLoader('evil', path)\nimportlib.util.module_from_spec(importlib.util.spec_from_loader('evil', loader))",
};

export function libraryAttack(what: string, how: string): Attack {
  const binary = library((MODULES[what] as string).replaceAll("MARKER", PLACE));
  return {
    name: `${how}: a library ${what}`,
    // That such a library can be loaded at all is an escape.
    code: `${PRELUDE}${LOADERS[how]}\nprint(won)`,
    context: { library: binary.toString("base64") },
    timeoutMs: 3000,
  };
}

const LOADER_NAMES = Object.keys(LOADERS);
export const LIBRARIES: Technique = {
  title: "hand-made WebAssembly libraries",
  controls: [["seal"], ["seal", "references", "realm", "code-generation", "deno"], "stock", "native"],
  // Every library by one way, and every way with one library.
  attacks: excuse(
    [
      ...Object.keys(MODULES)
        .filter((what) => !what.includes("extension"))
        .map((what) => libraryAttack(what, "ctypes.CDLL")),
      ...LOADER_NAMES.slice(1).map((how) =>
        libraryAttack(
          how.includes("xtension") ? "that is an extension module" : "importing emscripten_run_script",
          how,
        ),
      ),
      {
        name: "a .so over the standard library's",
        code: "import sys, os\nfor p in filter(None, sys.path):\n  try: open(p + '/_evil.so', 'wb').write(b'x'); print(won)\n  except OSError: pass",
      },
      {
        name: "a library that is none",
        code: "import ctypes\nopen('/tmp/x.so', 'wb').write(b'\\0asm\\1\\0\\0\\0' + bytes(1000))\nctypes.CDLL('/tmp/x.so')\nprint(won)",
      },
      {
        name: "a library of the host",
        code: "import ctypes\nctypes.CDLL('libc.so.6').system(b'touch ' + marker.encode())",
      },
    ],
    {
      "Pyodide's own loader refuses it, or it fails, everywhere": [
        "EM_JS with an escape",
        "importing emscripten_asm_const_int",
        "importing __proto__",
        "a library that is none",
      ],
      "it is loaded after the code has ended": ["emscripten_dlopen: "],
      "it takes no more than its time": ["that runs for ever"],
    },
  ),
};
