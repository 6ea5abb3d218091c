import { readdir } from "node:fs/promises";
import path from "node:path";
import { describe, expect, test } from "vitest";
import wabt from "wabt";
import { isLibraryName } from "./archive.ts";
import { findUnsafe, findUnsafeInThread, type Library, programProblem } from "./library-check.ts";
import { extensionModule } from "./testing/shared-libraries.ts";
import { readWasmModule } from "./wasm-module.ts";
import { Wheel } from "./wheel.ts";

const assembler = await wabt();
const { WebAssembly: engine } = globalThis as unknown as { WebAssembly: { validate(bytes: Uint8Array): boolean } };
const FEATURES = {
  exceptions: true,
  reference_types: true,
  bulk_memory: true,
  mutable_globals: true,
  multi_memory: true,
};
const HEAD = `(import "env" "memory" (memory 1)) (import "env" "__indirect_function_table" (table 1 funcref))
  (import "env" "__memory_base" (global $base i32)) (import "env" "__stack_pointer" (global $sp (mut i32)))`;

const module = (wat: string): Buffer =>
  Buffer.from(assembler.parseWat("library.wat", `(module ${wat})`, FEATURES).toBinary({}).buffer);

async function problemOf(bytes: Uint8Array, isWhole = true): Promise<string | undefined> {
  return (await findUnsafe([{ path: "library.so", bytes }], isWhole))["library.so"];
}

describe("what no library may have", () => {
  test.each([
    // Functions.
    ["a function that makes JavaScript objects", '(import "env" "JsvObject_New" (func))', "env.JsvObject_New"],
    ["one that runs scripts", '(import "env" "emscripten_run_script" (func (param i32)))', "env.emscripten_run_script"],
    [
      "one that runs programs",
      '(import "env" "_emscripten_system" (func (param i32) (result i32)))',
      "_emscripten_system",
    ],
    ["one that loads libraries", '(import "env" "_emscripten_dlopen_js" (func (param i32 i32 i32 i32)))', "dlopen"],
    ["one of WebGL", '(import "env" "glClear" (func (param i32)))', "env.glClear"],
    ["one of Pyodide's own", '(import "env" "pyproxy_new" (func (param i32)))', "pyproxy_new"],
    ["one that nothing has", '(import "env" "no_such_function" (func))', "env.no_such_function"],
    [
      "a sealed one that it has itself as well",
      '(import "env" "js2python_js" (func)) (func (export "js2python_js"))',
      "js2python",
    ],
    ["one that every object has", '(import "env" "constructor" (func (param i32)))', "env.constructor"],
    ["the prototype of objects", '(import "env" "__proto__" (func))', "env.__proto__"],
    ["one of another module", '(import "node" "exit" (func))', "node.exit"],
    ["one of WASI that there is not", '(import "wasi_snapshot_preview1" "sock_open" (func))', "sock_open"],
    [
      "an object in place of a number",
      '(import "env" "clock_res_get" (func (param externref) (result externref)))',
      "more than numbers",
    ],
    ["a table's function in place of a number", '(import "env" "malloc" (func (param funcref)))', "more than numbers"],
    // Addresses.
    [
      "the address of a sealed function",
      '(import "GOT.func" "emscripten_run_script" (global (mut i32)))',
      "GOT.func.emscripten_run_script",
    ],
    [
      "a datum of a sealed function",
      '(import "GOT.mem" "emscripten_asm_const_int" (global (mut i32)))',
      "GOT.mem.emscripten",
    ],
    ["the address of what every object has", '(import "GOT.func" "toString" (global (mut i32)))', "GOT.func.toString"],
    ["a function among addresses", '(import "GOT.func" "malloc" (func))', "GOT.func.malloc"],
    // Other imports.
    ["another memory", '(import "env" "other" (memory 1))', "env.other, a memory"],
    ["another table", '(import "env" "other" (table 1 externref))', "env.other, a table"],
    ["another variable", '(import "env" "other" (global (mut i32)))', "env.other, a global"],
    ["a base that changes", '(import "env" "__table_base" (global (mut i32)))', "env.__table_base"],
    ["another tag", '(import "env" "other" (tag))', "env.other, a tag"],
    // State.
    ["a table of its own", "(table 1 funcref)", "a table of its own"],
    ["a table of objects", "(table 1 externref)", "a table of its own"],
    [
      "a variable that is set",
      '(global $x (mut i32) (i32.const 0)) (func (export "f") (global.set $x (i32.const 1)))',
      "outside of memory",
    ],
    [
      "a variable that its start sets, and others call that",
      '(global $x (mut i32) (i32.const 0)) (func $f (global.set $x (i32.const 1))) (func (export "g") (call $f)) (start $f)',
      "outside of memory",
    ],
    [
      "a variable that its start sets, which is in a table",
      "(global $x (mut i32) (i32.const 0)) (func $f (global.set $x (i32.const 1))) (elem (i32.const 0) func $f) (start $f)",
      "outside of memory",
    ],
    [
      "a variable that its start and another set",
      "(global $x (mut i32) (i32.const 0)) (func $f (global.set $x (i32.const 1))) (func (global.set $x (i32.const 2))) (start $f)",
      "outside of memory",
    ],
    ["a variable for objects", "(global (mut externref) (ref.null extern))", "no number"],
    [
      "an address that it sets",
      '(import "GOT.mem" "stdout" (global $g (mut i32))) (func (global.set $g (i32.const 1)))',
      "sets the variable GOT.mem.stdout",
    ],
    ["data that can be dropped", '(data "abc") (func (data.drop 0))', "code can drop"],
    ["elements that can be dropped", "(elem func 0) (func (elem.drop 0))", "code can drop"],
    ["a slot of the function table that it sets", "(func (table.set 0 (i32.const 0) (ref.null func)))", "table.set 0"],
    ["slots that it adds", "(func (drop (table.grow 0 (ref.null func) (i32.const 1))))", "table.grow 0"],
    ["slots that it fills", "(func (table.fill 0 (i32.const 0) (ref.null func) (i32.const 1)))", "table.fill 0"],
    ["slots that it copies", "(func (table.copy 0 0 (i32.const 0) (i32.const 1) (i32.const 1)))", "table.copy 0"],
    ["memory that it asks for itself", "(func (drop (memory.grow (i32.const 1))))", "memory.grow 0"],
    // Exports.
    ["JavaScript (EM_JS)", '(global (export "__em_js__f") i32 (i32.const 0))', "contains JavaScript"],
    ["JavaScript (EM_ASM)", '(global (export "__start_em_asm") i32 (i32.const 0))', "contains JavaScript"],
    ["an export that every object has", '(func (export "hasOwnProperty"))', 'exports "hasOwnProperty"'],
    ["an export of an odd name", '(func (export "a b"))', 'exports "a b"'],
    ["a variable for others to set", '(global (export "x") (mut i32) (i32.const 0))', "exports the global"],
    ["the memory, for others", '(export "m" (memory 0))', "exports the memory"],
  ])("%s", async (_, wat, problem) => {
    expect(await problemOf(module(`${wat.startsWith("(import") ? "" : HEAD} ${wat}`))).toContain(problem);
  });

  test("a memory of its own", async () => {
    expect(await problemOf(module("(memory 1)"))).toContain("a memory of its own");
  });

  test.each([
    ["no bytes", Buffer.alloc(0), "cut off"],
    ["text", Buffer.from("not a module"), "no WebAssembly module"],
    ["half of a module", extensionModule({ name: "half" }).subarray(0, 200), "cut off"],
    // A type section with one struct type (garbage collection); a body with `atomic.fence`; a memory of 64 bits.
    ["a struct", [1, 4, 1, 0x5f, 1, 0x7f], "type"],
    [
      "an instruction of threads",
      [1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 10, 7, 1, 5, 0, 0xfe, 3, 0, 0x0b],
      "0xfe is not known",
    ],
    ["a memory of 64 bits", [5, 3, 1, 4, 1], "memory or table of a kind"],
    ["a section that is not known", [14, 1, 0], "section 14"],
    [
      "a function that goes on behind its end",
      [1, 4, 1, 0x60, 0, 0, 3, 2, 1, 0, 10, 5, 1, 3, 0, 0x0b, 0x0b],
      "behind its end",
    ],
    ["a number that is too long", [1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], "too long"],
  ])("what is not known: %s", async (_, bytes, problem) => {
    const code =
      bytes instanceof Buffer ? bytes : Buffer.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...(bytes as number[])]);
    expect(await problemOf(code)).toContain(problem);
  });
});

describe("what a library may have", () => {
  test.each([
    [
      "what Emscripten links",
      '(import "env" "malloc" (func (param i32) (result i32))) (import "GOT.mem" "stdout" (global (mut i32)))',
    ],
    [
      "what the interpreter imports and is not sealed",
      '(import "env" "clock_time_get" (func (param i32 i64 i32) (result i32)))',
    ],
    ["the same as WASI's", '(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))'],
    [
      "an exception",
      '(import "env" "__cpp_exception" (tag (param i32))) (func (try (do (throw 0 (i32.const 1))) (catch_all)))',
    ],
    [
      "its own symbols",
      '(import "env" "own" (func)) (import "GOT.func" "own" (global (mut i32))) (func (export "own"))',
    ],
    [
      "variables that its start sets",
      "(global $x (mut i32) (i32.const 0)) (func $f (global.set $x (i32.const 1))) (start $f)",
    ],
    ["the stack", '(import "env" "__stack_pointer" (global $s (mut i32))) (func (global.set $s (i32.const 8)))'],
  ])("%s", async (_, wat) => {
    expect(await problemOf(module(wat))).toBeUndefined();
  });

  test("what another that is loaded with it exports, if it is", async () => {
    const wants = module('(import "env" "shared_function" (func))');
    const has = module('(func (export "shared_function"))');
    const both: Library[] = [
      { path: "wants.so", bytes: wants },
      { path: "has.so", bytes: has },
    ];
    expect(await findUnsafe(both)).toEqual({});
    expect(await problemOf(wants)).toContain("env.shared_function");
    expect(await problemOf(wants, false)).toBeUndefined();
    expect(await problemOf(module('(import "env" "JsvObject_New" (func))'), false)).toContain("env.JsvObject_New");
  });
});

test("of the interpreter's program nothing escapes the checks of a rewind", async () => {
  expect(await programProblem()).toBeNull();
});

test("every instruction that this engine knows is known here, or refused", () => {
  // A body of one instruction: V8 must not take one that is read otherwise here, so that its end is missed.
  const refused: number[] = [];
  for (let code = 0; code < 256; code++) {
    const body = [0, code, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b];
    const bytes = Uint8Array.from([
      0,
      0x61,
      0x73,
      0x6d,
      1,
      0,
      0,
      0,
      1,
      4,
      1,
      0x60,
      0,
      0,
      3,
      2,
      1,
      0,
      5,
      3,
      1,
      0,
      1,
      10,
      body.length + 2,
      1,
      body.length,
      ...body,
    ]);
    try {
      if (engine.validate(bytes)) readWasmModule(bytes);
    } catch {
      refused.push(code);
    }
  }
  // `ref.null` of a type of the module's own.
  expect(refused).toEqual([0xd0]);
});

const folder = process.env.PYODIDE_EXPRESS_WHEELS ?? "";
test.skipIf(folder === "")(
  "every library of the wheels in PYODIDE_EXPRESS_WHEELS is safe",
  async () => {
    let count = 0;
    for (const filename of (await readdir(folder)).filter((name) => name.includes("wasm32"))) {
      // One that is not whole is another test's.
      const wheel = await Wheel.open(path.join(folder, filename), filename).catch(() => null);
      if (wheel === null) continue;
      const files = wheel.files.filter((file) => isLibraryName(file.path));
      const libraries = await Promise.all(
        files.map(async (file) => ({ path: file.path, bytes: await wheel.read(file) })),
      );
      expect(await findUnsafeInThread(libraries), filename).toEqual({});
      count += libraries.length;
      wheel.close();
    }
    expect(count).toBeGreaterThan(20);
  },
  120_000,
);
