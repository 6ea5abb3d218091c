import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startTestEngine, type TestEngine } from "../support/engine.ts";
import { isSampled } from "../support/scan.ts";

/**
 * What is 50,000 deep is what python3 makes of it: done, or an exception of Python's. Which of them may differ with Python's release and with what V8
 * has compiled; that the sandbox is lost may not be.
 */
const DEPTH = 50_000;
const deep = (name: string, start: string, step: string) =>
  `${name} = ${start}\nfor i in range(N): ${name} = ${step}\n`;

const NODES =
  "class Node:\n  def __init__(self, v, n): self.v, self.next = v, n\nhead = None\nfor i in range(N): head = Node(i, head)\n";
const SLOTS = NODES.replace("  def", "  __slots__ = 'v', 'next'\n  def");
const CAUSES = "e = None\nfor i in range(N): n = ValueError(i); n.__cause__ = e; e = n\n";
const CONTEXTS = CAUSES.replace("__cause__", "__context__");
const GROUPS = deep("e", "ValueError(1)", "ExceptionGroup('g', [e])");
const GENERATORS = `def g(it):\n  for v in it: yield v\n${deep("x", "iter([1])", "g(x)")}`;
const DELEGATES = `def g(it):\n  yield from it\n${deep("x", "iter([1])", "g(x)")}`;
const CLOSURES = `def wrap(f): return lambda: f()\n${deep("f", "lambda: 1", "wrap(f)")}`;
const ELEMENTS =
  "import xml.etree.ElementTree as ET\nroot = e = ET.Element('a')\nfor i in range(N): e = ET.SubElement(e, 'a')\n";
const DATACLASS = `import dataclasses\n@dataclasses.dataclass\nclass D:\n  n: object\n${deep("x", "None", "D(x)")}`;
const THROUGH = (method: string) =>
  `class A:\n  def __init__(self, n): self.n = n\n  ${method}\n${deep("x", "None", "A(x)")}`;

const CONTAINERS = {
  list: { start: "[]", step: "[x]" },
  tuple: { start: "()", step: "(x,)" },
  dict: { start: "{}", step: "{'a': x}" },
};

const DONE = "done";
const FAILS = /^(RecursionError|MemoryError)$/;
const EITHER = /^(done|RecursionError|MemoryError)$/;

type Row = readonly [name: string, code: string, want: RegExp | string];

/** Names of pairs of container and operation that only the nightly run tries. */
const leftToTheNight = new Set<string>();
const OF_CONTAINERS = Object.entries(CONTAINERS).flatMap(([name, { start, step }], container, { length }): Row[] => {
  const x = deep("x", start, step);
  const y = deep("y", start, step.replace("x", "y"));
  const rows: Row[] = [
    [`${name}: freed`, `${x}del x`, DONE],
    [`${name}: freed as a cycle`, `import gc\n${x}c = [x]; c.append(c)\ndel x, c\ngc.collect()`, DONE],
    [`${name}: repr`, `${x}repr(x)`, EITHER],
    [`${name}: printed`, `${x}print(x)`, EITHER],
    [`${name}: displayed`, `${x}display(x)`, EITHER],
    [`${name}: formatted`, `${x}f"{x} {x!r}"`, EITHER],
    [`${name}: compared`, `${x}${y}x == y`, EITHER],
    [`${name}: found`, `${x}${y}y in [x]`, EITHER],
    [`${name}: json.dumps`, `import json\n${x}json.dumps(x)`, EITHER],
    [`${name}: json.dumps, indented`, `import json\n${x}json.dumps(x, indent=1)`, EITHER],
    [`${name}: pickled`, `import pickle\n${x}pickle.dumps(x)`, EITHER],
    [`${name}: marshalled`, `import marshal\n${x}marshal.dumps(x)`, /^ValueError$/],
    [`${name}: copied`, `import copy\n${x}copy.deepcopy(x)`, EITHER],
    [`${name}: pprint`, `import pprint\n${x}pprint.pformat(x)`, EITHER],
  ];
  for (const [operation, [row]] of rows.entries())
    if (!isSampled(operation, container, length)) leftToTheNight.add(row);
  return rows;
});

const ROWS: readonly Row[] = [
  ...OF_CONTAINERS,
  ["linked list: freed", `${NODES}head = None`, DONE],
  ["linked list: deleted", `${NODES}del head`, DONE],
  ["linked list with slots: freed", `${SLOTS}head = None`, DONE],
  ["linked list with slots, ten times as deep: freed", `N = N * 10\n${SLOTS}head = None`, DONE],
  [
    "linked list: freed as a cycle",
    `import gc\n${NODES}last = Node(0, head); head.v = last\ndel head, last\ngc.collect()`,
    DONE,
  ],
  ["linked list: copied", `import copy\n${NODES}copy.deepcopy(head)`, FAILS],
  ["linked list: pickled", `import pickle\n${NODES}pickle.dumps(head)`, EITHER],
  ["linked list: compared by Python", `${THROUGH("def __eq__(self, o): return self.n == o.n")}x == x.n`, FAILS],
  ["linked list: hashed by Python", `${THROUGH("def __hash__(self): return hash(self.n)")}hash(x)`, FAILS],
  ["linked list: printed by Python", `${THROUGH("def __repr__(self): return f'A({self.n!r})'")}print(x)`, FAILS],
  ["linked list: with finalisers", `${THROUGH("def __del__(self): pass")}del x`, DONE],
  ["proxies", `${THROUGH("def __getattr__(self, name): return getattr(self.n, name)")}x.real`, FAILS],
  ["dataclass: repr", `${DATACLASS}repr(x)`, FAILS],
  ["dataclass: asdict", `${DATACLASS}dataclasses.asdict(x)`, FAILS],
  ["tuple: hashed", `${deep("x", "()", "(x,)")}hash(x)`, EITHER],
  ["tuple: isinstance", `${deep("x", "int", "(x,)")}isinstance("a", x)`, EITHER],
  ["frozenset: hashed", `${deep("x", "frozenset()", "frozenset([x])")}hash(x)`, EITHER],
  ["frozenset: freed", `${deep("x", "frozenset()", "frozenset([x])")}del x`, DONE],
  ["deque: freed", `import collections\n${deep("x", "1", "collections.deque([x])")}del x`, DONE],
  ["OrderedDict: repr", `import collections\n${deep("x", "1", "collections.OrderedDict(a=x)")}repr(x)`, EITHER],
  ["json.loads of lists", "import json\njson.loads('[' * N + ']' * N)", EITHER],
  ["json.loads of objects", `import json\njson.loads('{"a":' * N + '1' + '}' * N)`, EITHER],
  ["pickle.loads", "import pickle\npickle.loads(b'\\x80\\x04' + b']' * N + b'a' * (N - 1) + b'.')", DONE],
  ["causes: freed", `${CAUSES}e = n = None`, DONE],
  ["causes: raised", `${CAUSES}raise e`, "ValueError"],
  ["causes: printed", `import traceback\n${CAUSES}traceback.print_exception(e)`, EITHER],
  ["causes: logged", `import logging\n${CAUSES}logging.error("x", exc_info=e)`, EITHER],
  ["contexts: freed", `${CONTEXTS}e = n = None`, DONE],
  ["contexts: raised", `${CONTEXTS}raise e`, "ValueError"],
  ["groups: raised", `${GROUPS}raise e`, "ExceptionGroup"],
  ["groups: freed", `${GROUPS}del e`, DONE],
  ["groups: split", `${GROUPS}e.split(ValueError)`, EITHER],
  ["generators: next", `${GENERATORS}next(x)`, EITHER],
  ["generators: freed", `${GENERATORS}del x`, DONE],
  ["yield from: next", `${DELEGATES}next(x)`, EITHER],
  ["yield from: freed", `${DELEGATES}del x`, DONE],
  ["coroutines", "async def f(n): return await f(n - 1) if n else 1\nawait f(N)", FAILS],
  ["closures: called", `${CLOSURES}f()`, FAILS],
  ["closures: freed", `${CLOSURES}del f`, DONE],
  ["partial: called", `import functools\n${deep("f", "int", "functools.partial(lambda g: g(), f)")}f()`, FAILS],
  ["bound methods: called", `import types\n${deep("x", "lambda *a: 1", "types.MethodType(x, 1)")}x()`, EITHER],
  ["map", `${deep("x", "iter([1])", "map(abs, x)")}next(x)`, FAILS],
  ["filter", `${deep("x", "iter([1])", "filter(abs, x)")}next(x)`, EITHER],
  ["zip", `${deep("x", "iter([1])", "zip(x)")}next(x)`, EITHER],
  ["itertools.chain", `import itertools\n${deep("x", "iter([1])", "itertools.chain(x, [2])")}next(x)`, EITHER],
  ["itertools.islice: freed", `import itertools\n${deep("x", "iter([1])", "itertools.islice(x, 9)")}del x`, DONE],
  ["itertools.tee: freed", `import itertools\n${deep("x", "iter([1])", "itertools.tee(x)[0]")}del x`, DONE],
  ["elements: tostring", `${ELEMENTS}ET.tostring(root)`, FAILS],
  ["elements: freed", `${ELEMENTS}del root, e`, DONE],
  ["elements: iter", `${ELEMENTS}sum(1 for _ in root.iter())`, DONE],
  ["elements: copied", `import copy\n${ELEMENTS}copy.deepcopy(root)`, EITHER],
  ["elements: parsed", "import xml.etree.ElementTree as ET\nET.fromstring('<a>' * N + '</a>' * N)", EITHER],
  ["a generic alias: repr", `${deep("x", "int", "list[x]")}repr(x)`, EITHER],
  ["a generic alias: hashed", `${deep("x", "int", "list[x]")}hash(x)`, EITHER],
  ["slices: compared", `${deep("x", "1", "slice(x)")}${deep("y", "1", "slice(y)")}x == y`, EITHER],
  [
    "cells: compared",
    `import types\n${deep("x", "1", "types.CellType(x)")}${deep("y", "1", "types.CellType(y)")}x == y`,
    EITHER,
  ],
  ["mapping proxies: get", `import types\n${deep("x", "{}", "types.MappingProxyType(x)")}x.get(1)`, EITHER],
  ["static methods", `${deep("f", "int", "staticmethod(f)")}f()`, EITHER],
  ["constants of code", "c = compile('1', 'f', 'eval')\nfor i in range(N): c = c.replace(co_consts=(c,))\ndel c", DONE],
  ["a syntax tree: freed", `import ast\n${deep("x", "ast.Constant(1)", "ast.UnaryOp(ast.USub(), x)")}del x`, DONE],
  [
    "a syntax tree: compiled",
    `import ast\n${deep("x", "ast.Constant(1, lineno=1, col_offset=0)", "ast.UnaryOp(ast.USub(), x, lineno=1, col_offset=0)")}compile(ast.Expression(x), "f", "eval")`,
    FAILS,
  ],
  ["attributes in source", "class A: pass\na = A(); a.b = a\neval('a' + '.b' * N)", EITHER],
  ["calls in source", "f = lambda: f\neval('f' + '()' * N)", EITHER],
  ["subscripts in source", "x = []\nx.append(x)\neval('x' + '[0]' * N)", EITHER],
  ["sums in source", "eval('1' + '+1' * N)", EITHER],
  ["powers in source", "eval('2' + '**1' * N)", EITHER],
  ["signs in source", "eval('-' * N + '1')", EITHER],
  ["parentheses in source", "eval('(' * N + '1' + ')' * N)", "SyntaxError"],
  ["lambdas in source", "eval('lambda: ' * N + '1')", EITHER],
  ["conditions in source", "eval('1 if 1 else ' * N + '1')", EITHER],
  ["elif in source", "exec('if 0: pass\\n' + 'elif 0: pass\\n' * N)", EITHER],
  ["a regular expression", "import re\nre.compile('(?:' * N + 'a' + ')' * N)", FAILS],
  ["TOML", "import tomllib\ntomllib.loads('a = ' + '[' * N + ']' * N)", /^(RecursionError|TOMLDecodeError)$/],
  [
    "plain recursion, the limit raised",
    "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)\nf(N)",
    DONE,
  ],
  [
    "sorted and back, the limit raised",
    "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return max([n], key=lambda _: f(n))\nf(1)",
    FAILS,
  ],
  ["repr, the limit raised", `import sys\nsys.setrecursionlimit(10**6)\n${deep("x", "[]", "[x]")}repr(x)`, EITHER],
];

for (const isolation of ["auto", "deno"]) {
  describe(`ISOLATION=${isolation}`, () => {
    let tested: TestEngine;
    beforeAll(async () => {
      tested = await startTestEngine({ POOL_SIZE: "1", ISOLATION: isolation });
    });
    afterAll(async () => await tested?.stop());

    // With Deno alone only the way to the stack differs: a few of those that need most.
    const rows =
      isolation === "auto"
        ? ROWS.filter(([name]) => !leftToTheNight.has(name))
        : ROWS.filter(([name]) => /groups|linked list: freed|list: (freed|repr)/.test(name));
    test.each(rows)("%s", async (_, code, want) => {
      const { success, errorInfo } = await tested.run(`N = ${DEPTH}\n${code}`, { timeoutMs: 50_000 });
      const outcome = success ? DONE : (errorInfo?.type ?? "");
      if (typeof want === "string") expect(outcome).toBe(want);
      else expect(outcome).toMatch(want);
      expect(await tested.run("6 * 7")).toMatchObject({ success: true, result: 42 });
    });

    test("a deep result is text from the hundredth level on, and whole or an error below it", async () => {
      for (const { start, step } of Object.values(CONTAINERS)) {
        const { success, result } = await tested.run(`N = ${DEPTH}\n${deep("x", start, step)}x`);
        expect(success).toBe(true);
        expect(JSON.stringify(result)).toMatch(/^(\[|\{"a":){100}"/);
      }
    });

    test("what goes to the end of the stack unseen is told, and leaves no trace", async () => {
      // What C code may do that recurses without asking Python: write below the stack, and come back.
      const code =
        "import ctypes\nend = ctypes.CDLL(None).emscripten_stack_get_end()\nctypes.memset(end + 1000, 1, 500)\n'went on'";
      const result = await tested.run(code);
      expect(result).toMatchObject({
        success: false,
        errorInfo: { type: "FatalError", message: "the interpreter's stack overflowed" },
      });
      expect(await tested.run("6 * 7")).toMatchObject({ success: true, result: 42 });
    });
  });
}
