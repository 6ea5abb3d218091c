import { afterEach, describe, expect, test } from "vitest";
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
  [c.getTempRet0(), c.emscripten_stack_get_base(), c.emscripten_stack_get_end(), c.hiwire_num_refs(), os.getcwd(), os.pipe()]`;

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
