import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestEngine, type TestEngine } from "../support/engine.ts";

/**
 * Loops that an interrupt ends, and loops that only the end of the process does. Which is which may change with Pyodide;
 * what the caller gets may not.
 */
const LOOPS: readonly (readonly [name: string, code: string])[] = [
  ["while True", "while True: pass"],
  ["time.sleep", "import time\ntime.sleep(10**6)"],
  ["except BaseException", "while True:\n  try:\n    while True: pass\n  except BaseException: pass"],
  [
    "except BaseException around time.sleep",
    "import time\nwhile True:\n  try: time.sleep(60)\n  except BaseException: pass",
  ],
  ["a loop in C", "sum(range(10**11))"],
  ["a loop in C over an endless iterator", "import itertools\nsum(itertools.repeat(0))"],
  ["allocation, kept below the limit", "while True:\n  x = [0] * 10**6"],
  [
    "allocation without end",
    "x = []\nwhile True:\n  try:\n    while True: x.append('x' * 10**6)\n  except MemoryError: x.clear()",
  ],
  ["a regular expression", "import re\nre.match('(a+)+b', 'a' * 64)"],
  ["a large power", "x = 7 ** (10**9)"],
  ["an integer as text", "import sys\nsys.set_int_max_str_digits(0)\nstr(1 << 10**8)"],
  ["asyncio.sleep", "import asyncio\nawait asyncio.sleep(10**6)"],
  ["asyncio that is always ready", "import asyncio\nwhile True: await asyncio.sleep(0)"],
  [
    "asyncio that shields itself",
    "import asyncio\nwhile True:\n  try: await asyncio.sleep(60)\n  except BaseException: pass",
  ],
  ["__repr__ of the result", "class A:\n  def __repr__(self):\n    while True: pass\nA()"],
  [
    "__repr__ that shields itself",
    "class A:\n  def __str__(self):\n    while True:\n      try:\n        while True: pass\n      except BaseException: pass\nA()",
  ],
  ["to_dict of the result", "class A:\n  def to_dict(self):\n    while True: pass\nA()"],
  ["str() of the exception", "class E(Exception):\n  def __str__(self):\n    while True: pass\nraise E"],
  ["endless output", "while True: print('x' * 10_000)"],
  ["endless output without a newline", "import sys\nwhile True: sys.stderr.write('x')"],
  ["endless displays", "while True: display('x')"],
  ["finally", "try: 1 / 0\nfinally:\n  while True: pass"],
  ["__del__", "class A:\n  def __del__(self):\n    while True: pass\na = A()\ndel a"],
  [
    "__del__ of an object that stays",
    "class A:\n  def __del__(self):\n    while True: pass\na = A()\nwhile True: pass",
  ],
  ["atexit", "import atexit\ndef f():\n  while True: pass\natexit.register(f)\natexit._run_exitfuncs()"],
  ["a trace function", "import sys\ndef t(*a):\n  while True: pass\nsys.settrace(t)\n(lambda: 0)()"],
  [
    "a handler of the interrupt itself",
    "import signal\nsignal.signal(signal.SIGINT, lambda *a: None)\nwhile True: pass",
  ],
  ["the interrupt ignored", "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"],
  ["a wait for the host", "import os\nwhile True: os.write(4000, b'[\"nothing\", 1]')"],
  ["sleep asked of the device", "import os\nwhile True: os.write(4000, b'[\"sleep\", 1e9]')"],
  [
    "import of a module that loops",
    "open('m.py', 'w').write('while True: pass')\nimport sys; sys.path.insert(0, '')\nimport m",
  ],
  ["compilation", "compile('x = ' + '[' * 50 + '1,' * 10**7 + ']' * 50, 'f', 'exec')\nwhile True: pass"],
];

let tested: TestEngine;
beforeAll(async () => {
  tested = await startTestEngine({ POOL_SIZE: "2" });
});
afterAll(() => tested.stop());

test.each(LOOPS)("%s ends, and the next execution is well", async (_, code) => {
  const timeoutMs = 400;
  const result = await tested.run(`print("before", end="")\n${code}`, { timeoutMs });
  expect(result).toMatchObject({
    success: false,
    result: null,
    error: `Execution timed out after ${timeoutMs}ms`,
    errorInfo: { type: "Timeout" },
  });
  // What was printed before is there, though no newline followed it and the process may have been killed.
  expect(result.stdout).toMatch(/^before/);
  expect(await tested.run("'well'")).toMatchObject({ success: true, result: "well" });
});

test("an interrupt leaves a place in the code and what was printed", async () => {
  const result = await tested.run("print('a')\nx = 1\nwhile True:\n  x += 1", { timeoutMs: 300 });
  expect(result).toMatchObject({ stdout: "a\n", errorInfo: { type: "Timeout", line: expect.any(Number) } });
  expect(result.errorInfo?.traceback).toContain("KeyboardInterrupt");
});

test("code that catches the interrupt and returns has timed out all the same", async () => {
  const code = "try:\n  while True: pass\nexcept KeyboardInterrupt: pass\n'caught'";
  expect(await tested.run(code, { timeoutMs: 300 })).toMatchObject({
    success: false,
    result: null,
    errorInfo: { type: "Timeout" },
  });
});

test("a late interrupt does not hit the next execution", async () => {
  // Ends at about the moment of its timeout, again and again.
  const code = "import time\nt = time.monotonic()\nwhile time.monotonic() - t < 0.1: pass\n'done'";
  for (let round = 0; round < 12; round++) {
    const result = await tested.run(code, { timeoutMs: 98 + round });
    expect(result.success ? result.result : result.errorInfo?.type).toMatch(/^(done|Timeout)$/);
    expect(await tested.run("sum(range(1000))")).toMatchObject({ success: true, result: 499_500 });
  }
});

test("output streams while the code runs, up to the kill", async () => {
  const seen: string[] = [];
  const result = await tested.run("import sys\nfor i in range(3): print(i, end=' ')\nsum(range(10**11))", {
    timeoutMs: 400,
    onOutput: (event) => seen.push("content" in event ? event.content : "display"),
  });
  expect(seen.join("")).toBe("0 1 2 ");
  expect(result.stdout).toBe("0 1 2 ");
});
