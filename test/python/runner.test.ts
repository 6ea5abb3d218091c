import { afterAll, beforeAll, expect, test } from "vitest";
import { py, startTestEngine, type TestEngine } from "../support/engine.ts";
import { at, gives, prints, type Row, raises, table as rowsTable, text } from "../support/table.ts";

const any = expect.anything();

let tested: TestEngine;
beforeAll(async () => {
  tested = await startTestEngine({ POOL_SIZE: "2" });
});
afterAll(() => tested.stop());

const table = (title: string, rows: readonly Row[]) => rowsTable(title, () => tested, rows);

table("the last expression is the result", [
  { name: "one line", code: "1 + 1", want: gives(2) },
  { name: "after statements", code: "x = 20\nx += 1\nx * 2", want: gives(42) },
  { name: "over many lines", code: "dict(\n  a=1,\n\n  b=[\n    2,\n  ],\n)", want: gives({ a: 1, b: [2] }) },
  { name: "in parentheses", code: "(\n  1\n  +\n  2\n)", want: gives(3) },
  { name: "with a backslash", code: "1 + \\\n  2", want: gives(3) },
  { name: "before comments", code: "5 # five\n# and no more\n\n", want: gives(5) },
  { name: "a string of many lines", code: '"""a\nb;\nc"""', want: gives("a\nb;\nc") },
  { name: "a trailing semicolon hides it", code: "5;", want: gives(null) },
  { name: "a semicolon before a comment", code: "5 ;  # five", want: gives(null) },
  { name: "a semicolon and comments below", code: "5;\n# a\n# b", want: gives(null) },
  { name: "a semicolon after many lines", code: "dict(\n  a=1\n);", want: gives(null) },
  { name: "a semicolon in a string", code: '"a;"', want: gives("a;") },
  { name: "a semicolon in a comment", code: "5 # a;", want: gives(5) },
  { name: "a semicolon between", code: "1; 2", want: gives(2) },
  { name: "an assignment has none", code: "x = 5", want: gives(null) },
  { name: "a block has none", code: "for i in range(3):\n  i", want: gives(null) },
  { name: "a definition has none", code: "def f(): return 1", want: gives(null) },
  { name: "a walrus has one", code: "(x := 5)", want: gives(5) },
  { name: "a lambda is a value", code: "(lambda: 5)()", want: gives(5) },
  { name: "None", code: "print('x')", want: prints("x\n") },
  { name: "only comments", code: "# nothing", want: gives(null) },
  { name: "no newline at the end, tabs, carriage returns", code: "if True:\r\n\tx = 1\r\nx", want: gives(1) },
  {
    name: "decorators",
    code: "def twice(f):\n  return lambda: f() * 2\n@twice\ndef g(): return 4\ng()",
    want: gives(8),
  },
  {
    name: "global and nested functions",
    code: "n = 1\ndef f():\n  global n\n  n += 1\n  return n\nf()",
    want: gives(2),
  },
  { name: "a match statement", code: "match [1, 2]:\n  case [a, b]: c = a + b\nc", want: gives(3) },
  { name: "names are those of __main__", code: "__name__", want: gives("__main__") },
  {
    name: "from __future__",
    code: "from __future__ import annotations\ndef f(x: Nowhere): pass\nf.__annotations__",
    want: gives({ x: "Nowhere" }),
  },
  { name: "a docstring is an expression", code: '"doc"', want: gives("doc") },
  { name: "unicode names", code: "π = 3\nπ", want: gives(3) },
  { name: "exec and eval", code: "exec('a = 2')\neval('a + 1')", want: gives(3) },
]);

table("asyncio", [
  { name: "top-level await", code: "import asyncio\nawait asyncio.sleep(0, 'slept')", want: gives("slept") },
  { name: "await in the middle", code: "import asyncio\nx = await asyncio.sleep(0, 1)\nx + 1", want: gives(2) },
  { name: "asyncio.run", code: "import asyncio\nasync def f(): return 3\nasyncio.run(f())", want: gives(3) },
  {
    name: "gather sleeps side by side",
    code: py`
      import asyncio, time
      start = time.monotonic()
      values = await asyncio.gather(*(asyncio.sleep(0.3, i) for i in range(10)))
      values, time.monotonic() - start < 2`,
    want: gives([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], true]),
  },
  { name: "to_thread runs here", code: "import asyncio\nawait asyncio.to_thread(sum, [1, 2])", want: gives(3) },
  {
    name: "to_thread raises what the function raises",
    code: "import asyncio\nawait asyncio.to_thread(int, 'x')",
    want: raises("ValueError"),
  },
  {
    name: "TaskGroup",
    code: py`
      import asyncio
      async def square(n):
        await asyncio.sleep(0.01 * n)
        return n * n
      async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(square(n)) for n in range(4)]
      [task.result() for task in tasks]`,
    want: gives([0, 1, 4, 9]),
  },
  {
    name: "TaskGroup with an error in it",
    code: py`
      import asyncio
      async def fail(): raise KeyError("k")
      async with asyncio.TaskGroup() as group:
        group.create_task(fail())`,
    want: raises("ExceptionGroup", text(/unhandled errors in a TaskGroup \(1 sub-exception\)/)),
  },
  {
    name: "timeout",
    code: py`
      import asyncio
      try:
        async with asyncio.timeout(0.02):
          await asyncio.sleep(60)
      except TimeoutError:
        out = "timed out"
      out`,
    want: gives("timed out"),
  },
  {
    name: "wait_for",
    code: "import asyncio\nawait asyncio.wait_for(asyncio.sleep(60), 0.01)",
    want: raises("TimeoutError"),
  },
  {
    name: "Queue, Lock, Event, Semaphore",
    code: py`
      import asyncio
      queue, lock, event, gate = asyncio.Queue(2), asyncio.Lock(), asyncio.Event(), asyncio.Semaphore(1)
      seen = []
      async def produce():
        for i in range(5):
          await queue.put(i)
        event.set()
      async def consume():
        for _ in range(5):
          async with lock, gate:
            seen.append(await queue.get())
      await asyncio.gather(produce(), consume())
      seen, event.is_set()`,
    want: gives([[0, 1, 2, 3, 4], true]),
  },
  {
    name: "async generators and comprehensions",
    code: py`
      import asyncio
      async def count(n):
        for i in range(n):
          await asyncio.sleep(0)
          yield i
      [i async for i in count(3)] + [x for x in [await asyncio.sleep(0, 9)]]`,
    want: gives([0, 1, 2, 9]),
  },
  {
    name: "a loop inside a running loop is refused, as in Python",
    code: "import asyncio\nasync def f():\n  asyncio.run(asyncio.sleep(0))\nawait f()",
    want: raises("RuntimeError", text(/cannot be called from a running event loop/)),
  },
  {
    name: "asyncio.run beside a top-level await",
    code: "import asyncio\nasync def f():\n    return 1\nx = asyncio.run(f())\ny = await f()\nx, y",
    want: gives([1, 1]),
  },
  {
    name: "loops of all kinds beside a top-level await",
    code: py`
      import asyncio
      async def f(n):
        await asyncio.sleep(0)
        return n
      async def numbers():
        for n in range(3): yield n
      def run(n): return asyncio.run(f(n))
      loop = asyncio.new_event_loop()
      found = [await f(0), asyncio.run(f(1)), asyncio.get_event_loop().run_until_complete(f(2))]
      found += [loop.run_until_complete(f(3)), run(4), (lambda: run(5))(), *(run(n) for n in (6, 7))]
      with asyncio.Runner() as runner: found += [runner.run(f(8)), runner.run(f(9))]
      found += [asyncio.run(f(n + 10)) async for n in numbers()]
      async with asyncio.timeout(30): found += [asyncio.run(f(13)), await f(14)]
      found += await asyncio.gather(f(15), f(16))
      found == list(range(17)), asyncio.current_task() in asyncio.all_tasks()`,
    want: gives([true, true]),
  },
  {
    name: "tasks of the top level's loop run on while another call of it waits",
    code: py`
      import asyncio
      seen = []
      async def tell(n):
        seen.append(n)
        await asyncio.sleep(0)
        seen.append(-n)
      await asyncio.sleep(0)
      tasks = [asyncio.create_task(tell(n)) for n in (1, 2, 3)]
      asyncio.get_event_loop().run_until_complete(tell(4))
      seen.append("back")
      await asyncio.gather(*tasks)
      seen`,
    want: gives([1, 2, 3, 4, -1, -2, -3, -4, "back"]),
  },
  {
    name: "create_task at the top level runs at the next await",
    code: py`
      import asyncio
      async def f(): print("ran"); return 5
      task = asyncio.create_task(f(), name="mine")
      print("before")
      await task, task.get_name()`,
    want: gives([5, "mine"], "before\nran\n"),
  },
  {
    name: "create_task where nothing awaits, and then asyncio.run",
    code: py`
      import asyncio
      async def f(n): return n
      task = asyncio.create_task(f(1))
      asyncio.run(f(2)), task.done()`,
    want: gives([2, false]),
  },
  {
    name: "whether a loop runs is told as Python does where nothing awaits",
    code: py`
      import asyncio
      async def f(): return "ran"
      try:
        loop = asyncio.get_running_loop()
      except RuntimeError:
        loop = None
      loop.create_task(f()) if loop else asyncio.run(f())`,
    want: gives("ran"),
  },
  {
    name: "what a context variable is set to stays",
    code: py`
      import asyncio, contextvars, decimal
      v = contextvars.ContextVar("v", default=0)
      v.set(1)
      async def f(): return v.get()
      found = [await f()]
      v.set(2)
      found + [asyncio.run(f()), v.get()]`,
    want: gives([1, 2, 2]),
  },
  {
    name: "IsolatedAsyncioTestCase beside a top-level await",
    code: py`
      import asyncio, io, unittest
      class Case(unittest.IsolatedAsyncioTestCase):
        async def test(self): self.assertEqual(await asyncio.sleep(0, 1), 1)
      await asyncio.sleep(0)
      unittest.TextTestRunner(io.StringIO()).run(unittest.defaultTestLoader.loadTestsFromTestCase(Case)).wasSuccessful()`,
    want: gives(true),
  },
  {
    name: "a task left behind does not run on",
    code: "import asyncio\nasync def late():\n  await asyncio.sleep(1)\n  print('late')\nt = asyncio.ensure_future(late())\nawait asyncio.sleep(0)\n'done'",
    want: gives("done"),
  },
  {
    name: "a loop of its own, closed",
    code: py`
      import asyncio
      loop = asyncio.new_event_loop()
      x = loop.run_until_complete(asyncio.sleep(0, 4))
      loop.close()
      asyncio.set_event_loop(None)
      x + await asyncio.sleep(0, 1)`,
    want: gives(5),
  },
  {
    name: "callbacks come in the order of their times",
    code: py`
      import asyncio
      order = []
      loop = asyncio.get_running_loop() if False else asyncio.get_event_loop()
      now = loop.time()
      for delay in (0.03, 0.01, 0.02):
        loop.call_at(now + delay, order.append, delay)
      await asyncio.sleep(0.1)
      loop.call_later(0.01, order.append, "later")
      await asyncio.sleep(0.02)
      order`,
    want: gives([0.01, 0.02, 0.03, "later"]),
  },
  {
    name: "waiting for what can never happen",
    code: "import asyncio\nawait asyncio.Event().wait()",
    want: raises("RuntimeError", text(/deadlock/)),
  },
  {
    name: "await of nothing awaitable",
    code: "await 5",
    want: raises("TypeError", text(/can't be awaited/)),
  },
  {
    name: "an error after an await has its line",
    code: "import asyncio\nawait asyncio.sleep(0)\n1 / 0",
    want: { ...raises("ZeroDivisionError", "division by zero"), ...at(3, 1, "ZeroDivisionError") },
  },
]);

table("time", [
  {
    name: "sleep blocks",
    code: "import time\nt = time.monotonic()\ntime.sleep(0.05)\ntime.monotonic() - t >= 0.05",
    want: gives(true),
  },
  {
    name: "sleep takes what has __index__",
    code: "import time\nclass Zero:\n  def __index__(self): return 0\ntime.sleep(Zero())",
    want: gives(null),
  },
  {
    name: "negative",
    code: "import time\ntime.sleep(-1)",
    want: raises("ValueError", "sleep length must be non-negative"),
  },
  {
    name: "NaN",
    code: "import time\ntime.sleep(float('nan'))",
    want: raises("ValueError", "Invalid value NaN (not a number)"),
  },
  { name: "a string", code: "import time\ntime.sleep('x')", want: { success: false } },
  { name: "no argument", code: "import time\ntime.sleep()", want: raises("TypeError") },
]);

table("standard streams", [
  { name: "order, newlines, and no newline at the end", code: "print('a')\nprint('b', end='')", want: prints("a\nb") },
  { name: "carriage returns stay", code: "print('50%\\r100%\\r\\n', end='')", want: prints("50%\r100%\r\n") },
  {
    name: "stdout and stderr apart",
    code: "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.stdout.write('more')",
    want: { success: true, result: 4, stdout: "out\nmore", stderr: "err\n" },
  },
  { name: "unicode, and beyond the first plane", code: "print('grüße 日本 🐍')", want: prints("grüße 日本 🐍\n") },
  { name: "a lone surrogate is escaped", code: "print('\\ud800')", want: prints("\\ud800\n") },
  { name: "NUL", code: "print('a\\0b')", want: prints("a\0b\n") },
  { name: "bytes through the buffer", code: "import sys\nsys.stdout.buffer.write('é'.encode())", want: gives(2, "é") },
  { name: "bytes that are no UTF-8", code: "import sys, os\nos.write(1, b'a\\xffb')", want: gives(3, "a\ufffdb") },
  {
    name: "the descriptors themselves",
    code: "import os\nos.write(1, b'out')\nos.write(2, b'err')",
    want: { success: true, stdout: "out", stderr: "err" },
  },
  {
    name: "print keeps its order with os.write",
    code: "import os\nprint('a', end='')\nos.write(1, b'b')\nprint('c', end='')",
    want: prints("abc"),
  },
  {
    name: "redirect_stdout",
    code: "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as f:\n  print('in')\nf.getvalue()",
    want: gives("in\n"),
  },
  { name: "stdout closed", code: "import sys\nsys.stdout.close()\n'still'", want: { success: true, result: "still" } },
  {
    name: "stdout replaced by None",
    code: "import sys\nprint('a', end='')\nsys.stdout = None\nsys.__stdout__ = None",
    want: prints("a"),
  },
  {
    name: "stderr replaced: the traceback is there all the same",
    code: "import sys\nclass Bad:\n  def write(self, text): raise OSError('full')\n  def flush(self): raise SystemExit(9)\nsys.stdout = sys.stderr = Bad()\n1 / 0",
    want: { ...raises("ZeroDivisionError", "division by zero"), stderr: text(/ZeroDivisionError/) },
  },
  {
    name: "warnings go to stderr",
    code: "import warnings\nwarnings.warn('careful')",
    want: { success: true, stdout: "", stderr: text(/UserWarning: careful/) },
  },
  {
    name: "logging goes to stderr",
    code: "import logging\nlogging.warning('careful')",
    want: { success: true, stdout: "", stderr: "WARNING:root:careful\n" },
  },
  {
    name: "input without stdin",
    code: "input()",
    want: raises("EOFError", "EOF when reading a line: input() reads the request's `stdin`, which has no more lines"),
  },
  {
    name: "input caught",
    code: "try: input()\nexcept EOFError as e: print(e)",
    want: prints("EOF when reading a line\n"),
  },
  ...[
    "breakpoint()",
    "breakpoint()\nx = 1",
    "import pdb\npdb.set_trace()",
    "import pdb\ndef f(): pdb.set_trace()\nf()",
  ].map((code) => ({
    name: `a debugger without a terminal: ${code}`,
    code,
    want: raises("RuntimeError", text(/^the debugger .* has no terminal here: .*`stdin`/)),
  })),
  {
    name: "a debugger with commands",
    code: "x = 6 * 7\nbreakpoint()\nx",
    stdin: "p x\nc\n",
    want: { success: true, result: 42, stdout: text(/\(Pdb\) 42\n/) },
  },
  {
    name: "an exception without a message",
    code: "raise ValueError",
    want: {
      success: false,
      error: "ValueError",
      errorInfo: expect.objectContaining({ type: "ValueError", message: "" }),
    },
  },
  { name: "a bare assert", code: "assert 1 > 2", want: { success: false, error: "AssertionError" } },
  {
    name: "input with stdin",
    code: "input('name? '), input(), int(input())",
    stdin: "Ann\nBob Lee\n7",
    want: gives(["Ann", "Bob Lee", 7], "name? "),
  },
  { name: "stdin.read", code: "import sys\nsys.stdin.read()", stdin: "a\nü\n", want: gives("a\nü\n") },
  {
    name: "stdin line by line",
    code: "import sys\n[line.strip() for line in sys.stdin]",
    stdin: "a\nb\n",
    want: gives(["a", "b"]),
  },
  { name: "stdin without any", code: "import sys\nsys.stdin.read()", want: gives("") },
]);

table("limits of output", [
  {
    name: "100 MB of stdout and of stderr are cut at 1 MiB each",
    code: "import sys\nfor _ in range(100):\n  sys.stdout.write('o' * 10**6)\n  sys.stderr.write('e' * 10**6)\n'end'",
    want: { success: true, result: "end", stdout: "o".repeat(2 ** 20), stderr: "e".repeat(2 ** 20), truncated: true },
  },
  {
    name: "exactly the limit is not cut",
    code: "import sys\nsys.stdout.write('x' * 2**20)\nNone",
    want: { success: true, stdout: "x".repeat(2 ** 20), truncated: false },
  },
  {
    name: "a long string",
    code: "'x' * (11 * 2**20)",
    want: { success: true, result: "x".repeat(10 * 2 ** 20), truncated: true },
  },
  {
    name: "a long string that fits",
    code: "'x' * 2**20",
    want: { success: true, result: "x".repeat(2 ** 20), truncated: false },
  },
  {
    name: "a long string is cut by its bytes, not inside a character",
    code: "'é' * (6 * 2**20)",
    want: { success: true, result: "é".repeat(5 * 2 ** 20), truncated: true },
  },
  { name: "a long list", code: "[1] * 10**7", want: { success: true, result: expect.any(Array), truncated: true } },
  {
    name: "a long dict",
    code: "{str(i): 'v' * 100 for i in range(200_000)}",
    want: { success: true, result: expect.any(Object), truncated: true },
  },
  { name: "a list of long strings", code: "['x' * 2**20] * 100", want: { success: true, truncated: true } },
  {
    name: "a message of 100 MB",
    code: "raise ValueError('x' * 10**8)",
    want: { success: false, error: text(/^x{100000}… \(99900000 more characters\)$/) },
  },
  { name: "memory runs out", code: "x = []\nwhile True: x.append(bytearray(10**7))", want: raises("MemoryError") },
  { name: "one allocation that cannot be", code: "bytearray(10**12)", want: { success: false } },
]);

table("conversion of the result", [
  {
    name: "None, bool, int, float, str",
    code: "[None, True, False, 0, -1, 1.5, 'é']",
    want: gives([null, true, false, 0, -1, 1.5, "é"]),
  },
  {
    name: "NaN and the infinities",
    code: "[float('nan'), float('inf'), -float('inf')]",
    want: gives([null, null, null]),
  },
  { name: "NaN alone", code: "float('nan')", want: gives(null) },
  {
    name: "integers around 2**53",
    code: "[2**53 - 1, 2**53, 2**53 + 1, -2**53, -2**53 - 1]",
    want: gives([2 ** 53 - 1, 2 ** 53, "9007199254740993", -(2 ** 53), "-9007199254740993"]),
  },
  { name: "an integer over the interpreter's own limit", code: "10**5000", want: gives(`1${"0".repeat(5000)}`) },
  { name: "tuples and ranges", code: "[(1, 2), range(3)]", want: gives([[1, 2], "range(0, 3)"]) },
  {
    name: "keys that are no strings",
    code: "{1: 'a', None: 'b', (1, 2): 'c', 1.5: 'd', True: 'e'}",
    want: gives({ 1: "e", None: "b", "(1, 2)": "c", "1.5": "d" }),
  },
  {
    name: "__proto__ is a key like another",
    code: "{'__proto__': 1, 'constructor': 2}",
    want: { success: true, result: JSON.parse('{"__proto__":1,"constructor":2}') },
  },
  {
    name: "sets, bytes, complex",
    code: "[{1}, b'\\x00', 1j, frozenset()]",
    want: gives(["{1}", "b'\\x00'", "1j", "frozenset()"]),
  },
  {
    name: "Decimal, Fraction, datetime, UUID, Path",
    code: py`
      import datetime, decimal, fractions, pathlib, uuid
      [decimal.Decimal("1.10"), fractions.Fraction(1, 3), datetime.date(2024, 2, 29), uuid.UUID(int=1), pathlib.Path("/a")]`,
    want: gives(["1.10", "1/3", "2024-02-29", "00000000-0000-0000-0000-000000000001", "/a"]),
  },
  {
    name: "a namedtuple is an array",
    code: "import collections\ncollections.namedtuple('P', 'x y')(1, 2)",
    want: gives([1, 2]),
  },
  {
    name: "a dataclass is its str",
    code: "import dataclasses\n@dataclasses.dataclass\nclass P:\n  x: int\nP(1)",
    want: gives("P(x=1)"),
  },
  {
    name: "enumerations",
    code: "import enum\nclass C(enum.IntEnum):\n  R = 1\nclass S(enum.StrEnum):\n  A = 'a'\nclass E(enum.Enum):\n  X = 1\n[C.R, S.A, E.X]",
    want: gives([1, "a", "E.X"]),
  },
  {
    name: "subclasses of int, str, float, list, dict",
    code: py`
      class I(int):
        def __int__(self): raise ValueError
        def __repr__(self): return "no"
      class S(str):
        def __str__(self): return "no"
      class F(float): pass
      class L(list):
        def __iter__(self):
          while True: yield 1
      class D(dict):
        def items(self): raise ValueError
      [I(1), S("s"), F(1.5), L([1]), D(a=1)]`,
    want: gives([1, "s", 1.5, [1], { a: 1 }]),
  },
  {
    name: "defaultdict, OrderedDict, Counter, deque",
    code: "import collections as c\n[c.defaultdict(int, a=1), c.OrderedDict(b=2), c.Counter('aa'), c.deque([1])]",
    want: gives([{ a: 1 }, { b: 2 }, { a: 2 }, "deque([1])"]),
  },
  {
    name: "to_dict and tolist",
    code: "class A:\n  def to_dict(self): return {'a': (1,)}\nclass B:\n  def tolist(self): return [2]\n[A(), B()]",
    want: gives([{ a: [1] }, [2]]),
  },
  { name: "array.array by tolist", code: "import array\narray.array('i', [1, 2])", want: gives([1, 2]) },
  {
    name: "the class itself is no value of it",
    code: "class A:\n  def to_dict(self): return {}\nA",
    want: gives("<class '__main__.A'>"),
  },
  {
    name: "to_dict that never ends",
    code: "class A:\n  def to_dict(self): return A()\nA()",
    want: { success: true, result: text(/^<__main__.A object/) },
  },
  {
    name: "to_dict that raises, or exits",
    code: "class A:\n  def to_dict(self): raise SystemExit(3)\n  def tolist(self): raise ValueError\n  def __str__(self): return 'A'\nA()",
    want: gives("A"),
  },
  { name: "a list in itself", code: "x = [1]\nx.append(x)\nx", want: gives([1, "[1, [...]]"]) },
  { name: "a dict in itself", code: "x = {}\nx['x'] = x\nx", want: gives({ x: "{'x': {...}}" }) },
  { name: "the same thing twice is no cycle", code: "x = [1]\n[x, x]", want: gives([[1], [1]]) },
  {
    name: "depth 100 is kept, more becomes text",
    code: "x = 'deep'\nfor _ in range(101): x = [x]\nx",
    want: { success: true, result: expect.any(Array) },
  },
  {
    name: "a generator is not run",
    code: "def forever():\n  while True: yield 1\nforever()",
    want: { success: true, result: text(/^<generator object forever/) },
  },
  {
    name: "__str__ raises",
    code: "class A:\n  def __str__(self): raise KeyError('k')\nA()",
    want: gives("<A object: str() raised KeyError>"),
  },
  {
    name: "__str__ exits",
    code: "class A:\n  def __str__(self): raise SystemExit(1)\nA()",
    want: gives("<A object: str() raised SystemExit>"),
  },
  {
    name: "__str__ returns no str",
    code: "class A:\n  def __str__(self): return 5\nA()",
    want: gives("<A object: str() raised TypeError>"),
  },
  {
    name: "__str__ recurses",
    code: "class A:\n  def __str__(self): return str(self)\nA()",
    want: gives("<A object: str() raised RecursionError>"),
  },
  {
    name: "__repr__ of a key raises",
    code: "class A:\n  def __repr__(self): 1 / 0\n{A(): 1}",
    want: gives({ "<A object: str() raised ZeroDivisionError>": 1 }),
  },
  {
    name: "__getattr__ raises, exits, recurses",
    code: py`
      class A:
        def __getattr__(self, name): raise SystemExit(2)
        def __str__(self): return "A"
      class B:
        def __getattr__(self, name): return getattr(self, name + "x")
        def __str__(self): return "B"
      [A(), B()]`,
    want: gives(["A", "B"]),
  },
  {
    name: "an object that claims to be a str",
    code: "class A:\n  __class__ = property(lambda self: str)\n  def __str__(self): return 'A'\nA()",
    want: gives("A"),
  },
  {
    name: "mocks",
    code: "from unittest.mock import Mock\n[Mock(spec=str, name='s'), Mock(spec=dict, name='d')]",
    want: { success: true, result: [text(/^<Mock name='s'/), text(/^<Mock name='d'/)] },
  },
  {
    name: "a metaclass that lies",
    code: "class M(type):\n  __name__ = property(lambda c: 1 / 0)\n  def __instancecheck__(c, x): return True\nclass A(metaclass=M):\n  def __str__(self): raise ValueError\nA()",
    want: gives("<A object: str() raised ValueError>"),
  },
  {
    name: "a list that grows while it is converted",
    code: "x = []\nclass A:\n  def __str__(self):\n    x.append(A())\n    return 'a'\nx.append(A())\nx",
    want: gives(["a"]),
  },
  { name: "a lone surrogate", code: "'a\\ud800'", want: gives("a\ud800") },
  {
    name: "a module and a function",
    code: "import math\n[math, len]",
    want: gives([text(/^<module 'math'/), "<built-in function len>"]),
  },
]);

table("errors", [
  {
    name: "message, traceback, place",
    code: "x = 1\ny = [1, 2][5]",
    want: {
      success: false,
      error: "list index out of range",
      errorInfo: {
        type: "IndexError",
        message: "list index out of range",
        traceback:
          'Traceback (most recent call last):\n  File "<exec>", line 2, in <module>\n    y = [1, 2][5]\n        ~~~~~~^^^\nIndexError: list index out of range\n',
        line: 2,
        column: 5,
      },
      stderr: text(/IndexError: list index out of range/),
    },
  },
  {
    name: "in a nested function",
    code: "def f(x):\n  return g(x)\ndef g(x):\n  return 1 / x\nf(0)",
    want: {
      ...at(4, 10, "ZeroDivisionError"),
      stderr: text(/line 5, in <module>[\s\S]*line 2, in f[\s\S]*line 4, in g/),
    },
  },
  {
    name: "inside the standard library: the user's line",
    code: "import json\n\njson.loads('{')",
    want: { ...at(3, 1, "JSONDecodeError"), stderr: expect.not.stringContaining("decoder.py") },
  },
  {
    name: "a callback of the standard library's",
    code: "import functools\nfunctools.reduce(lambda a, b: a / b, [1, 0])",
    want: at(2, 31, "ZeroDivisionError"),
  },
  {
    name: "a cause",
    code: "try:\n  {}['k']\nexcept KeyError as e:\n  raise ValueError('bad') from e",
    want: { ...raises("ValueError", "bad"), stderr: text(/KeyError: 'k'[\s\S]*direct cause[\s\S]*ValueError: bad/) },
  },
  {
    name: "a context",
    code: "try:\n  {}['k']\nexcept KeyError:\n  1 / 0",
    want: {
      ...raises("ZeroDivisionError"),
      stderr: text(/KeyError: 'k'[\s\S]*During handling[\s\S]*ZeroDivisionError/),
    },
  },
  {
    name: "a context suppressed",
    code: "try:\n  {}['k']\nexcept KeyError:\n  raise ValueError('v') from None",
    want: { stderr: expect.not.stringContaining("KeyError") },
  },
  {
    name: "a chain of a thousand",
    code: "e = None\nfor i in range(1000):\n  try: raise ValueError(i) from e\n  except ValueError as x: e = x\nraise e",
    want: raises("ValueError", "999"),
  },
  {
    name: "an exception that is its own cause",
    code: "e = ValueError('v')\ne.__cause__ = e\nraise e",
    want: raises("ValueError", "v"),
  },
  {
    name: "a group",
    code: "raise ExceptionGroup('many', [ValueError('a'), ExceptionGroup('in', [KeyError('b')])])",
    want: { ...raises("ExceptionGroup", "many (2 sub-exceptions)"), stderr: text(/ValueError: a[\s\S]*KeyError: 'b'/) },
  },
  {
    name: "a note",
    code: "e = ValueError('v')\ne.add_note('look here')\nraise e",
    want: { stderr: text(/look here/) },
  },
  {
    name: "a class of its own",
    code: "class Custom(Exception):\n  def __str__(self): return 'mine'\nraise Custom",
    want: raises("Custom", "mine"),
  },
  {
    name: "str() of it raises",
    code: "class Bad(Exception):\n  def __str__(self): 1 / 0\nraise Bad",
    want: raises("Bad", "<Bad object: str() raised ZeroDivisionError>"),
  },
  { name: "an assertion", code: "assert 1 == 2, 'unequal'", want: raises("AssertionError", "unequal") },
  {
    name: "SyntaxError",
    code: "x = 1\ny = = 2",
    want: { ...raises("SyntaxError", text(/^invalid syntax/)), ...at(2, 5, "SyntaxError") },
  },
  { name: "IndentationError", code: "if True:\nx = 1", want: at(2, 1, "IndentationError") },
  { name: "an open string", code: "x = 'abc", want: at(1, 5, "SyntaxError") },
  {
    name: "an open bracket",
    code: "x = (1,\ny",
    want: { success: false, errorInfo: expect.objectContaining({ type: "SyntaxError" }) },
  },
  { name: "return outside of a function", code: "return 5", want: at(1, 1, "SyntaxError") },
  {
    name: "a SyntaxError of nonsense",
    code: "raise SyntaxError('m', ('<exec>', 'x', -3, None))",
    want: at(null, null, "SyntaxError"),
  },
  { name: "SyntaxError in eval", code: "\neval('1 +')", want: at(2, 1, "SyntaxError") },
  { name: "NUL in the code", code: "x = 1\0", want: raises("SyntaxError", text(/null bytes/)) },
  {
    name: "a lone surrogate in the code",
    code: "x = '\ud800'",
    want: { success: false, errorInfo: expect.objectContaining({ type: "UnicodeEncodeError" }) },
  },
  {
    name: "lines are counted as Python does",
    code: "x = '\u2028\u0085'\ny = '\f'\n1 / 0",
    want: { ...at(3, 1, "ZeroDivisionError"), stderr: text(/\n {4}1 \/ 0\n/) },
  },
  {
    name: "an error in a top-level await",
    code: "import asyncio\nasync def f():\n  await asyncio.sleep(0)\n  raise KeyError('x')\nawait f()",
    want: { ...at(4, 3, "KeyError"), stderr: text(/line 5, in <module>[\s\S]*line 4, in f/) },
  },
  {
    name: "traceback.print_exc shows the user's own",
    code: "import traceback\ntry: 1 / 0\nexcept ZeroDivisionError: traceback.print_exc()",
    want: { success: true, stderr: text(/line 2, in <module>[\s\S]*ZeroDivisionError/) },
  },
]);

table("the end of the program", [
  { name: "sys.exit()", code: "import sys\nprint('a')\nsys.exit()", want: prints("a\n") },
  { name: "sys.exit(0)", code: "import sys\nsys.exit(0)", want: gives(null) },
  { name: "sys.exit(False)", code: "import sys\nsys.exit(False)", want: gives(null) },
  {
    name: "sys.exit(3)",
    code: "import sys\nsys.exit(3)",
    want: { ...raises("SystemExit", "exited with status 3"), stderr: "" },
  },
  {
    name: "sys.exit with a message",
    code: "import sys\nsys.exit('went wrong')",
    want: { ...raises("SystemExit", "went wrong"), stderr: "went wrong\n" },
  },
  { name: "exit() of site", code: "exit(2)", want: { success: false } },
  {
    name: "SystemExit in a task",
    code: "import asyncio\nasync def f(): raise SystemExit(4)\nawait asyncio.gather(f())",
    want: raises("SystemExit", "exited with status 4"),
  },
  {
    name: "a status whose comparison raises",
    code: "class C(int):\n  def __ne__(self, o): 1 / 0\n  __eq__ = __ne__\n  __hash__ = int.__hash__\nraise SystemExit(C(5))",
    want: raises("SystemExit", "exited with status 5"),
  },
  {
    name: "KeyboardInterrupt",
    code: "raise KeyboardInterrupt",
    want: { ...raises("KeyboardInterrupt", ""), error: "KeyboardInterrupt" },
  },
  {
    name: "GeneratorExit",
    code: "raise GeneratorExit",
    want: { ...raises("GeneratorExit", ""), error: "GeneratorExit" },
  },
  { name: "os._exit(0)", code: "import os\nprint('x')\nos._exit(0)", want: prints("x\n") },
  { name: "os._exit(7)", code: "import os\nos._exit(7)", want: raises("ProcessExit", "exited with status 7") },
  {
    name: "os._exit is not stopped by except Exception",
    code: "import os\ntry: os._exit(7)\nexcept Exception: print('no')",
    want: { ...raises("ProcessExit"), stdout: "" },
  },
  { name: "os.abort", code: "import os\nos.abort()", want: raises("ProcessExit", "exited with status 134") },
  {
    name: "raise_signal(SIGINT)",
    code: "import signal\nsignal.raise_signal(signal.SIGINT)\nfor _ in range(10**6): pass",
    want: { success: false },
  },
  {
    name: "raise_signal(SIGKILL)",
    code: "import signal\nsignal.raise_signal(signal.SIGKILL)",
    want: { success: false },
  },
  {
    name: "a handler of SIGINT's own",
    code: "import signal\nseen = []\nsignal.signal(signal.SIGINT, lambda *a: seen.append(a[0]))\nsignal.raise_signal(signal.SIGINT)\nfor _ in range(1000): pass\nseen",
    want: gives([2]),
  },
]);

const overflow = {
  success: false,
  errorInfo: expect.objectContaining({ type: text(/^(RecursionError|MemoryError|FatalError|SyntaxError)$/) }),
};
table("recursion and deep nesting", [
  {
    name: "a function without end",
    code: "def f(): return f()\nf()",
    want: raises("RecursionError", text(/maximum recursion depth/)),
  },
  {
    name: "the limit raised",
    code: "import sys\nsys.setrecursionlimit(20_000)\ndef f(n): return n and f(n - 1)\nf(15_000)",
    want: { success: any },
  },
  {
    name: "the limit raised out of reach",
    code: "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
    want: overflow,
  },
  ...[10 ** 4, 10 ** 5, 10 ** 6].map((limit) => ({
    name: `${limit} frames that no code catches`,
    code: `import sys\nsys.setrecursionlimit(${limit})\ndef f(n): return f(n + 1)\nf(0)`,
    want: {
      ...raises("RecursionError", text(/maximum recursion depth/)),
      stderr: text(
        new RegExp(
          `^Traceback.*\\n  File "<exec>", line 4.*Previous line repeated ${limit / 10 - 1}\\d+ more times\\]\\nRecursionError`,
          "s",
        ),
      ),
    },
  })),
  {
    name: "two functions in turn that no code stops",
    code: "import sys\nsys.setrecursionlimit(10**4)\ndef f(): g()\ndef g(): f()\nf()",
    want: {
      ...raises("RecursionError", text(/maximum recursion depth/)),
      stderr: text(
        /^Traceback.*line 5, in <module>\n.*\n {2}\[89\d\d more frames\]\n.*line 4, in g\n.*\nRecursionError/s,
      ),
    },
  },
  {
    name: "a __repr__ without end",
    code: "class A:\n  def __repr__(self): return repr(self)\nrepr(A())",
    want: raises("RecursionError"),
  },
  {
    name: "from C to Python and back, the limit raised out of reach",
    code: "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return sorted([2, 1], key=lambda _: f())\nf()",
    want: raises("RecursionError"),
  },
  {
    name: "the limit lowered",
    code: "import sys\nsys.setrecursionlimit(40)\nx = []\nfor _ in range(60): x = [x]\nx",
    want: { success: any },
  },
  {
    name: "recursion through C",
    code: "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n  def __eq__(self, o): return self == o\nA() == A()",
    want: overflow,
  },
  { name: "json.loads", code: "import json\njson.loads('[' * 10**6)", want: overflow },
  { name: "json.dumps", code: "import json\nx = []\nfor _ in range(10**5): x = [x]\njson.dumps(x)", want: overflow },
  { name: "ast.parse", code: "import ast\nast.parse('-' * 10**5 + '1')", want: overflow },
  { name: "ast.literal_eval", code: "import ast\nast.literal_eval('(' * 150 + ')' * 150)", want: { success: any } },
  { name: "compile of nested source", code: "compile('+' .join(['1'] * 50_000), 'x', 'eval')", want: { success: any } },
  { name: "parentheses in the source itself", code: `${"(".repeat(40_000)}1${")".repeat(40_000)}`, want: overflow },
  { name: "operators in the source itself", code: `x = ${"-".repeat(90_000)}1`, want: overflow },
  { name: "repr of a deep list", code: "x = []\nfor _ in range(10**6): x = [x]\nrepr(x)", want: overflow },
  { name: "a deep list as the result", code: "x = []\nfor _ in range(10**5): x = [x]\nx", want: { success: any } },
  {
    name: "pickle of a deep list",
    code: "import pickle\nx = []\nfor _ in range(10**5): x = [x]\npickle.dumps(x)",
    want: raises("RecursionError"),
  },
  {
    name: "deepcopy of a deep list",
    code: "import copy\nx = []\nfor _ in range(10**5): x = [x]\ncopy.deepcopy(x)",
    want: overflow,
  },
  {
    name: "freeing a long chain",
    code: "class N: pass\nn = None\nfor _ in range(10**5):\n  m = N(); m.next = n; n = m\ndel n, m",
    want: { success: any },
  },
  {
    name: "a regular expression of nested groups",
    code: "import re\nre.compile('(' * 5000 + ')' * 5000)",
    want: overflow,
  },
]);

table("processes, threads, JavaScript", [
  ...[
    "os.system('id')",
    "os.popen('id')",
    "os.execv('/bin/sh', ['sh'])",
    "os.execvpe('sh', ['sh'], {})",
    "os.spawnv(0, '/bin/sh', ['sh'])",
    "os.posix_spawn('/bin/sh', ['sh'], {})",
    "os.fork()",
    "os.kill(1, 9)",
    "os.waitpid(-1, 0)",
  ].map((call) => ({
    name: call,
    code: `import os\n${call}`,
    want: { success: false, errorInfo: expect.objectContaining({ type: text(/^(PermissionError|AttributeError)$/) }) },
  })),
  {
    name: "locks and thread locals work",
    code: "import threading\nl = threading.local()\nl.x = 1\nwith threading.Lock(): l.x += 1\nl.x",
    want: gives(2),
  },
  {
    name: "import js",
    code: "import js\njs.console.log('a', 1)\njs.console.error('b')",
    want: { success: true, stdout: "a 1\n", stderr: "b\n" },
  },
  {
    name: "js.anything",
    code: "import js\njs.fetch('/')",
    want: raises("AttributeError", text(/no access to JavaScript/)),
  },
  {
    name: "pyodide_js",
    code: "import pyodide_js",
    want: raises("ModuleNotFoundError", text(/no access to JavaScript/)),
  },
  { name: "run_js", code: "from pyodide.code import run_js\nrun_js('1')", want: raises("PermissionError") },
  { name: "a proxy", code: "from pyodide.ffi import to_js\nto_js([1])", want: { success: false } },
  {
    name: "a socket",
    code: "import socket\nsocket.create_connection(('127.0.0.1', 80), timeout=1)",
    want: { success: false },
  },
  { name: "getaddrinfo", code: "import socket\nsocket.getaddrinfo('example.org', 80)", want: raises("gaierror") },
  { name: "gethostbyname", code: "import socket\nsocket.gethostbyname('example.org')", want: { success: any } },
  {
    name: "urllib",
    code: "import urllib.request\nurllib.request.urlopen('http://127.0.0.1/')",
    want: { success: false },
  },
  {
    name: "ctypes: the C library's system()",
    code: "import ctypes\nctypes.CDLL(None).system(b'id')",
    want: { success: false },
  },
  { name: "ctypes: a null pointer", code: "import ctypes\nctypes.string_at(0, 4)", want: { success: any } },
  {
    name: "ctypes: an address out of memory",
    code: "import ctypes\nctypes.string_at(2**32 - 8, 4)",
    want: { success: false },
  },
  {
    name: "ctypes: a call through a wrong pointer",
    code: "import ctypes\nctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_double)(3)(1.0)",
    want: { success: any },
  },
  {
    name: "ctypes: a library from disk",
    code: "import ctypes\nopen('/tmp/x.so', 'wb').write(b'\\0asm\\1\\0\\0\\0')\nctypes.CDLL('/tmp/x.so')",
    want: raises("OSError"),
  },
  {
    name: "a code object of nonsense",
    code: "def f(): pass\nf.__code__ = f.__code__.replace(co_code=b'\\xff' * 64, co_stacksize=1)\nf()",
    want: { success: any },
  },
]);

table("files", [
  {
    name: "home, /tmp and /plots are writable",
    code: py`
      import os
      for folder in ("/home/pyodide", "/tmp", "/plots", "/plots/matplotlib", "/plots/seaborn"):
        with open(f"{folder}/x", "w") as f: f.write("y")
      os.getcwd(), open("x").read(), sorted(os.listdir("/plots"))`,
    want: gives(["/home/pyodide", "y", ["matplotlib", "seaborn", "x"]]),
  },
  ...["/lib/x.py", "/lib/importlib_bootstrap/sandbox_runner/execution.py", "/dev/x", "/proc/x", "/etc/passwd"].map(
    (path) => ({
      name: `${path} is not`,
      code: `open(${JSON.stringify(path)}, "w")`,
      want: {
        success: false,
        errorInfo: expect.objectContaining({ type: text(/^(PermissionError|FileNotFoundError|OSError)$/) }),
      },
    }),
  ),
  {
    name: "at the root and elsewhere folders and files are for one execution",
    code: py`
      import os
      os.makedirs("/workspace/out"); open("/workspace/out/a", "w").write("a"); open("/x", "w").write("b")
      os.mkdir("/home/own"); open("/mnt/z", "w").close(); open("/home/web_user/a", "w").close(); os.symlink("/x", "/link")
      os.rename("/x", "/workspace/y"); os.symlink("/workspace/y", "/mnt/link"); os.unlink("/link")
      sorted(os.listdir("/")), os.listdir("/workspace"), open("/mnt/link").read(), sorted(os.listdir("/home")), os.listdir(".")`,
    want: gives([
      ["dev", "home", "lib", "mnt", "plots", "proc", "tmp", "workspace"],
      ["out", "y"],
      "b",
      ["own", "pyodide", "user", "web_user"],
      [],
    ]),
  },
  {
    name: "and gone after it",
    code: "import os\nsorted(os.listdir('/')), os.listdir('/mnt'), sorted(os.listdir('/home')), os.path.exists('/workspace/y')",
    want: gives([
      ["dev", "home", "lib", "mnt", "plots", "proc", "tmp"],
      ["data"],
      ["pyodide", "user", "web_user"],
      false,
    ]),
  },
  ...[
    "os.rename('/lib', '/lib2')",
    "os.rename('/w', '/lib')",
    "os.rename('/w', '/proc')",
    "os.rename('/w', '/tmp/w')",
    "os.rename('/tmp', '/t')",
    "os.rename('/w', '/mnt/data')",
    "os.rename('/mnt/data', '/d')",
    "os.mkdir('/lib')",
    "os.mkdir('/lib/x')",
    "os.mkdir('/dev/x')",
    "os.symlink('/w', '/home')",
    "os.unlink('/mnt/data')",
    "os.unlink('/home/user')",
    "os.rename('/w', '/home/user')",
    "os.rmdir('/mnt')",
    "os.rmdir('/home/web_user')",
    "os.chmod('/', 0o777)",
    "os.utime('/')",
    "open('/w', 'w')",
  ].map((call) => ({
    name: `what was there is not changed: ${call}`,
    code: `import os\nos.mkdir("/w")\ntry: ${call}\nexcept OSError as e: print("refused")\nsorted(os.listdir("/")), [os.path.realpath(p) for p in ("/mnt/data", "/home/user")]`,
    want: gives(
      [
        ["dev", "home", "lib", "mnt", "plots", "proc", "tmp", "w"],
        ["/home/pyodide", "/home/pyodide"],
      ],
      "refused\n",
    ),
  })),
  {
    name: "more than may be, in folders of its own",
    code: "os = __import__('os')\nf = open('/big', 'wb')\nwhile True: f.write(bytes(2**20))",
    want: raises("OSError", text(/No space left/)),
  },
  ...["/mnt/data", "/home/user"].map((link) => ({
    name: `${link} is the home folder`,
    code: `import os\nopen('${link}/a', 'w').write('x')\nopen('b', 'w').write('y')\nos.path.realpath('${link}'), os.listdir('.'), open('${link}/b').read()`,
    want: gives(["/home/pyodide", ["a", "b"], "y"]),
  })),
  ...["/mnt/data", "/home/user"].map((link) => ({
    name: `a working directory that is entered by ${link} has that name`,
    code: py`
      import os
      os.makedirs("a/b"); os.symlink("/tmp", "out"); os.symlink("a", "in")
      seen = []
      for step in ("${link}", "a/../a/./b", "..", "${link}/in", "${link}/out", "${link}/../..", "${link}", "/home/pyodide/a"):
          try: os.chdir(step)
          except OSError as error: seen.append(error.errno)
          seen.append(os.getcwd())
      os.chdir("${link}/a")
      open("written", "w").write("w")
      seen, os.path.exists("/home/pyodide/a/written"), os.listdir("..") == os.listdir("${link}"), os.path.samefile(".", "/home/pyodide/a")`,
    want: gives([
      [...[link, `${link}/a/b`, `${link}/a`, "/home/pyodide/a", "/tmp"], ...["/", link, "/home/pyodide/a"]],
      true,
      true,
      true,
    ]),
  })),
  {
    name: "the host's files are not there",
    code: "import os\n[os.path.exists(p) for p in ('/etc/passwd', '/proc/self/environ', '/root', '/work', '/bin/sh')]",
    want: gives([false, false, false, false, false]),
  },
  {
    name: "tempfile",
    code: "import tempfile, os\nwith tempfile.NamedTemporaryFile('w+') as f:\n  f.write('a'); f.seek(0); x = f.read()\nwith tempfile.TemporaryDirectory() as d: y = os.path.isdir(d)\nx, y, os.listdir('/tmp')",
    want: gives(["a", true, []]),
  },
  { name: "a pipe", code: "import os\nr, w = os.pipe()\nos.write(w, b'abc')\nos.read(r, 10)", want: gives("b'abc'") },
  {
    name: "a pipe that is full",
    code: "import os\nr, w = os.pipe()\nn = os.write(w, bytes(10**6))\ntry: os.write(w, b'x')\nexcept BlockingIOError: n = (n, 'full')\nn",
    want: gives([65536, "full"]),
  },
  {
    name: "mmap",
    code: "import mmap\nopen('m', 'wb').write(b'abc' * 10)\nf = open('m', 'r+b')\nm = mmap.mmap(f.fileno(), 0)\nm[0:3] = b'xyz'\nm.flush()\nm.close()\nopen('m', 'rb').read(6)",
    want: gives("b'xyzabc'"),
  },
  {
    name: "links, renames, times, modes",
    code: py`
      import os
      os.makedirs("a/b"); open("a/b/c", "w").write("text"); os.symlink("a/b/c", "link")
      os.rename("a/b", "d"); os.utime("d/c", (1, 2)); os.chmod("d/c", 0o400)
      os.path.islink("link"), os.path.exists("link"), open("d/c").read(), os.stat("d/c").st_mtime, oct(os.stat("d/c").st_mode)`,
    want: gives([true, false, "text", 2, "0o100400"]),
  },
  {
    name: "a folder into itself",
    code: "import os\nos.makedirs('a/b')\nos.rename('a', 'a/b/c')",
    want: raises("OSError"),
  },
  {
    name: "a name of 300 characters",
    code: "open('n' * 300, 'w')",
    want: raises("OSError", text(/Filename too long/)),
  },
  {
    name: "a folder chain of 300",
    code: "import os\nfor _ in range(300):\n  os.mkdir('d'); os.chdir('d')\nlen(os.getcwd())",
    want: gives(613),
  },
  {
    name: "more files than may be",
    code: "for i in range(10**6): open(f'/tmp/{i}', 'w').close()",
    want: raises("OSError", text(/No space left/)),
  },
  {
    name: "more bytes than may be",
    code: "f = open('big', 'wb')\nwhile True: f.write(bytes(2**20))",
    want: raises("OSError", text(/No space left/)),
  },
  {
    name: "more bytes than may be, in files that are deleted while open",
    code: "import os\nopen_files = []\nwhile True:\n  f = open('big', 'wb', buffering=0); open_files.append(f); f.write(bytes(2**20)); os.remove('big')",
    want: raises("OSError", text(/No space left/)),
  },
  {
    name: "a file as large as a number can say",
    code: "import os\nos.truncate(os.open('big', os.O_CREAT | os.O_RDWR), 2**52)",
    want: raises("OSError"),
  },
  {
    name: "all descriptors taken",
    code: "import os\nfor _ in range(10**5): os.dup(1)",
    want: raises("OSError", text(/Too many open files|No file descriptors/)),
  },
  {
    name: "zip files",
    code: "import zipfile\nwith zipfile.ZipFile('z.zip', 'w') as z: z.writestr('a', 'b')\nzipfile.ZipFile('z.zip').read('a')",
    want: gives("b'b'"),
  },
  {
    name: "a module of its own",
    code: "open('mine.py', 'w').write('x = 5')\nimport sys\nsys.path.insert(0, '')\nimport mine\nmine.x",
    want: gives(5),
  },
]);

table("display", [
  {
    name: "MIME bundles",
    code: "class Rich:\n  def _repr_html_(self): return '<b>r</b>'\n  def _repr_png_(self): return b'png'\n  def __repr__(self): return 'rich'\ndisplay(Rich(), 5)",
    want: {
      success: true,
      outputs: [{ "text/html": "<b>r</b>", "image/png": "cG5n", "text/plain": "rich" }, { "text/plain": "5" }],
    },
  },
  {
    name: "_repr_mimebundle_",
    code: "class B:\n  def _repr_mimebundle_(self): return {'text/plain': 'p', 'application/json': {'a': [1]}}\ndisplay(B())",
    want: { success: true, outputs: [{ "text/plain": "p", "application/json": '{"a": [1]}' }] },
  },
  {
    name: "a representation that raises",
    code: "class B:\n  def _repr_html_(self): 1 / 0\n  def __repr__(self): 1 / 0\ndisplay(B())",
    want: { success: true, outputs: [{ "text/plain": text(/^<B object/) }] },
  },
  { name: "a lone surrogate", code: "display('\\ud800')", want: { success: true, outputs: [{ "text/plain": any }] } },
  {
    name: "more than 10 MiB is left out",
    code: "for _ in range(30): display('x' * 10**6)",
    want: { success: true, outputs: { length: 10 } },
  },
  {
    name: "the device itself has a limit",
    code: "import json, os\nm = json.dumps(['display', {'bundle': {'text/plain': 'x' * 10**6}, 'kind': 'update', 'id': 'x'}]).encode()\nwhile True: os.write(4000, m)",
    want: raises("OSError", text(/No space left/)),
  },
  {
    name: "nonsense to the device",
    code: py`
      import os
      refused = 0
      for m in (b"", b"x", b"[]", b"{}", b"null", b'["sleep", "x"]', b'["sleep", -1]', b'["display", 5]', b'["display", {"bundle": {"a": 1}}]', b'["display", {"bundle": {}, "kind": "update"}]', b'["display", {"bundle": {}, "id": "%s"}]' % (b"x" * 257), b'["display", {"bundle": {}, "kind": "value", "id": "x"}]', b'["display", {"bundle": {}, "kind": "other"}]', b'["display", {"bundle": {}, "metadata": 1}]', b'["display", {"bundle": {}, "metadata": {"a": %s}}]' % (b"[" * 20 + b"]" * 20), b'["display", {"bundle": {}, "metadata": {"a": "%s"}}]' % (b"x" * 20000), b'["display", {"bundle": {}, "id": "\\ud800"}]', b'["clear-output", 1]', b"[" * 10**6, b"\xff\xfe"):
        try: os.write(4000, m)
        except OSError: refused += 1
      refused == 20`,
    want: gives(true),
  },
  {
    name: "an operation nobody knows",
    code: 'import os\nos.write(4000, b\'["open", "/etc/passwd"]\')\nos.read(4000, 1000)',
    want: { success: true, result: text(/does not offer/) },
  },
]);

table("context", [
  {
    name: "values are data",
    code: "[s, n, f, b, z, l, d]",
    context: { s: `'"""\\n{x}\u0000é🐍`, n: 5, f: 1.5, b: true, z: null, l: [1, [2]], d: { a: { b: "c" } } },
    want: gives([`'"""\\n{x}\u0000é🐍`, 5, 1.5, true, null, [1, [2]], { a: { b: "c" } }]),
  },
  {
    name: "never spliced into source",
    code: "x",
    context: { x: "'); import os; os._exit(3) #" },
    want: gives("'); import os; os._exit(3) #"),
  },
  { name: "may hide a builtin, for this execution only", code: "print", context: { print: 5 }, want: gives(5) },
  { name: "is gone afterwards", code: "'s' in globals()", want: gives(false) },
  { name: "a lone surrogate", code: "len(x)", context: { x: "\ud800" }, want: gives(1) },
  {
    name: "10,000 names",
    code: "sum(globals()[f'k{i}'] for i in range(10_000))",
    context: Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`k${i}`, 1])),
    want: gives(10_000),
  },
]);

table("user code that turns on the runner", [
  {
    name: "json.dumps patched",
    code: "import json\njson.dumps = json.loads = lambda *a, **k: 1 / 0\n5",
    want: gives(5),
  },
  {
    name: "an outcome of nonsense",
    code: "import sandbox_runner.execution as e\ne._answer = lambda *a: b'{\"success\": 3}\\n\\n1'",
    want: raises("SandboxDied"),
  },
  {
    name: "an outcome that is no JSON",
    code: "import sandbox_runner.execution as e\ne._answer = lambda *a: b'x\\n\\nx'",
    want: raises("SandboxDied"),
  },
  {
    name: "an outcome that is no bytes",
    code: "import sandbox_runner.execution as e\ne._answer = lambda *a: 5",
    want: { success: false },
  },
  {
    name: "an outcome of 200 MB",
    code: "import sandbox_runner.execution as e\ne._answer = lambda *a: b'null\\n\\n' + b'[' * (2 * 10**8)",
    want: { success: false },
  },
  {
    name: "compile patched",
    code: "import builtins\nbuiltins.compile = builtins.eval = builtins.isinstance = None\n5",
    want: { success: any },
  },
  {
    name: "the runner's modules gone",
    code: "import sys\nfor name in list(sys.modules): del sys.modules[name]\n5",
    want: { success: any },
  },
  {
    name: "builtins emptied",
    code: "__builtins__.__dict__.clear() if hasattr(__builtins__, '__dict__') else __builtins__.clear()\n5",
    want: { success: any },
  },
]);

test("two executions draw different random numbers", async () => {
  const code =
    "import random, uuid, secrets, os, tempfile\n[random.random(), str(uuid.uuid4()), secrets.token_hex(), os.urandom(8).hex(), tempfile.mktemp()]";
  const [one, other] = [(await tested.run(code)).result, (await tested.run(code)).result] as [string[], string[]];
  for (const [index, value] of one.entries()) expect(value).not.toBe(other[index]);
});

test("a depth over 100 becomes text, exactly there", async () => {
  const { result } = await tested.run("x = 'deep'\nfor _ in range(102): x = [x]\nx");
  let value: unknown = result;
  let depth = 0;
  for (; Array.isArray(value); depth++) value = value[0];
  expect(depth).toBe(100);
  expect(value).toBe("[['deep']]");
});
