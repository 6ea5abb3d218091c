import { readFileSync } from "node:fs";
import path from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { PYODIDE_DIR } from "../../src/sandbox/launch.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { py } from "../support/engine.ts";
import { runOn, startTestSandbox } from "../support/sandbox.ts";

/** State of WebAssembly's and Emscripten's that no rewind of the memory restores, changed through every door that user code has. */
let sandbox: Sandbox | undefined;
afterEach(() => sandbox?.kill("the test is over"));

/** All that code can see of it. */
const LOOK = py`
  import ctypes, os
  c = ctypes.CDLL(None)
  for name in ("getTempRet0", "emscripten_stack_get_base", "emscripten_stack_get_end", "emscripten_stack_get_free", "emscripten_stack_get_current", "hiwire_num_refs"):
      getattr(c, name).restype = ctypes.c_uint32
  [c.getTempRet0(), c.emscripten_stack_get_base(), c.emscripten_stack_get_end(), c.hiwire_num_refs(), os.getcwd(), os.pipe(), sorted(os.listdir("/proc/self/fd"))]`;

const C = "import ctypes\nc = ctypes.CDLL(None)\n";

const CHANGES: readonly [what: string, code: string][] = [
  ["tempRet0", `${C}c.setTempRet0(7)`],
  ["tempRet0 by its other name", `${C}c._emscripten_tempret_set(7)`],
  ["the stack's end", `${C}c.emscripten_stack_set_limits(c.emscripten_stack_get_base(), 0)`],
  ["the stack's base", `${C}c.emscripten_stack_set_limits(1, c.emscripten_stack_get_end())`],
  ["the stack's limits as at first", `${C}c.emscripten_stack_init()`],
  ["immortal references", `${C}for i in range(1000): c._hiwire_immortal_add(i)`],
  ["the table of immortal references", `${C}c._hiwire_immortal_table_init()`],
  ["a reference", `${C}c.hiwire_new(5)`],
  ["a reference that is set", `${C}c._hiwire_set(1, 5)`],
  ["a reference that is deleted", `${C}c._hiwire_delete(1)`],
  ["a reference that is popped", `${C}c.hiwire_pop(3)`],
  ["an interned reference", `${C}c.hiwire_intern(5)`],
  ["a function's slot", `${C}keep = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1)`],
  ["a symbol that gets a slot", `${C}ctypes.cast(c.emscripten_stack_get_free, ctypes.c_void_p).value`],
  ["a library", `${C}c.dlopen(b'/lib/libc.so', 2)`],
  ["a timer", `${C}c.setitimer(0, (ctypes.c_int * 8)(*([1] * 8)), 0)`],
  ["closed descriptors", "import os\nfor fd in (0, 1, 2, 4000): os.close(fd)"],
  [
    "descriptors that others took",
    "import os\nos.close(0); os.close(2); open('/tmp/a', 'w'); os.pipe(); os.dup2(1, 7); os.dup2(1, 2)",
  ],
  ["descriptors at the end", "import os\nfor fd in range(60, 4000, 400): os.dup2(1, fd)"],
  ["names", "import os\nopen('a', 'w').close(); os.rename('a', 'b'); os.symlink('b', 'c'); os.mkdir('d'); os.pipe()"],
  ["the arguments of a system call", `${C}import fcntl, os\nfcntl.fcntl(1, fcntl.F_GETFL)`],
];

describe.each(CHANGES)("%s", (_, code) => {
  test("is as it was for the next, or the sandbox is not used again", async () => {
    sandbox = await startTestSandbox({ verifyRewind: true });
    const before = (await runOn(sandbox, LOOK)).result;
    const changed = await runOn(sandbox, code);
    if (changed.verdict.state === "discard") return;
    const after = (await runOn(sandbox, LOOK)).result;
    expect([after.status, after.result]).toEqual([before.status, before.result]);
  });
});

test("most of these leave a sandbox that is used again", async () => {
  sandbox = await startTestSandbox({ verifyRewind: true });
  const limits = await runOn(sandbox, CHANGES[2]?.[1] as string);
  expect(limits.verdict).toMatchObject({ state: "pristine" });
  const ret = await runOn(sandbox, CHANGES[0]?.[1] as string);
  expect(ret.verdict).toMatchObject({ state: "pristine" });
});

test("Emscripten changes descriptors and names where it is listened to, and nowhere else", () => {
  const source = readFileSync(path.join(PYODIDE_DIR, "pyodide.asm.mjs"), "utf8");
  const count = (pattern: RegExp) => source.match(pattern)?.length;
  // `createStream` and `closeStream`.
  expect(count(/\.streams\[[^\]]+\]=(?!=)/g)).toBe(2);
  // `hashAddNode` and `hashRemoveNode`, two in each.
  expect(count(/\.nameTable\[[^\]]+\]=(?!=)|\.name_next=(?!=)/g)).toBe(4);
});
