import wabt from "wabt";

const assembler = await wabt();

/** Tags of a wheel with compiled code for the installed Pyodide. */
export const COMPILED_TAG = "cp314-cp314-pyemscripten_2026_0_wasm32";
/** What Python adds to a module's name to find its library. */
export const EXTENSION_SUFFIX = ".cpython-314-wasm32-emscripten.so";

export interface Linking {
  /** Libraries to load before, by file name. */
  readonly needed?: readonly string[];
  /** Where to look for them: `$ORIGIN` is the library's own folder. */
  readonly runtimePaths?: readonly string[];
}

/**
 * A shared library as Emscripten links one: a WebAssembly module behind the section that says what it needs.
 *
 * @param wat the module's text; 4096 bytes at `__memory_base` are its own.
 */
export function sharedLibrary(wat: string, { needed = [], runtimePaths = [] }: Linking = {}): Buffer {
  const module = Buffer.from(assembler.parseWat("library.wat", wat).toBinary({}).buffer);
  // 4096 bytes of memory, no slot of the table.
  const memory = subsection(1, Buffer.from([0x80, 0x20, 0x04, 0x00, 0x00]));
  const lists = [
    ...(needed.length > 0 ? [subsection(2, stringList(needed))] : []),
    ...(runtimePaths.length > 0 ? [subsection(5, stringList(runtimePaths))] : []),
  ];
  const body = Buffer.concat([string("dylink.0"), memory, ...lists]);
  const section = Buffer.concat([Buffer.from([0x00]), leb128(body.length), body]);
  return Buffer.concat([module.subarray(0, 8), section, module.subarray(8)]);
}

export interface ExtensionRecipe extends Linking {
  /** Without packages: `_multiarray_umath`. */
  readonly name: string;
  /** Becomes the module's `value`. */
  readonly value?: number;
  /** In its place: an integer that a library of `needed` returns from this function. */
  readonly valueFrom?: string;
  /** Functions of the environment that it imports and never calls. */
  readonly imports?: readonly string[];
}

/** A Python extension module, in which there is an integer named `value`. */
export function extensionModule({ name, value = 0, valueFrom, imports = [], ...linking }: ExtensionRecipe): Buffer {
  const valueCode = valueFrom === undefined ? `(i32.const ${value})` : "(call $value)";
  // A PyModuleDef of the C API (PEP 3121), of which name and size are set; behind it the texts.
  const definition = Buffer.alloc(256);
  definition.writeInt32LE(1, 0);
  definition.writeInt32LE(-1, 28);
  definition.write("value", 128);
  definition.write(name, 160);
  const data = Array.from(definition, (byte) => `\\${byte.toString(16).padStart(2, "0")}`).join("");
  const wat = `(module
    (import "env" "memory" (memory 1))
    (import "env" "__memory_base" (global $base i32))
    (import "env" "PyModule_Create2" (func $create (param i32 i32) (result i32)))
    (import "env" "PyModule_AddIntConstant" (func $add (param i32 i32 i32) (result i32)))
    ${valueFrom === undefined ? "" : `(import "env" "${valueFrom}" (func $value (result i32)))`}
    ${imports.map((used) => `(import "env" "${used}" (func))`).join("\n")}
    (data (global.get $base) "${data}")
    (func (export "PyInit_${name}") (result i32) (local $module i32)
      (i32.store offset=20 (global.get $base) (i32.add (global.get $base) (i32.const 160)))
      (local.set $module (call $create (global.get $base) (i32.const 1013)))
      (drop (call $add (local.get $module) (i32.add (global.get $base) (i32.const 128)) ${valueCode}))
      (local.get $module)))`;
  return sharedLibrary(wat, linking);
}

function subsection(type: number, content: Buffer): Buffer {
  return Buffer.concat([Buffer.from([type]), leb128(content.length), content]);
}

function stringList(texts: readonly string[]): Buffer {
  return Buffer.concat([leb128(texts.length), ...texts.map(string)]);
}

function string(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([leb128(bytes.length), bytes]);
}

function leb128(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    bytes.push(rest > 127 ? (rest & 127) | 128 : rest);
    if (rest <= 127) return Buffer.from(bytes);
  }
}
