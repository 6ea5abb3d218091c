/** A notebook, as people write them, of which ipykernel's outputs and this server's are compared. */

/** An output of a cell as notebooks have it, less tracebacks. */
export type Output = Readonly<Record<string, unknown>>;

export interface Cell {
  readonly code: string;
  /** `raises-exception`: nbclient goes on behind it. */
  readonly tags?: readonly string[];
  /** What docs/clients.md says of it, and what is here instead. */
  readonly differs?: { readonly because: Difference; readonly here: readonly Output[] };
}

/** As docs/clients.md has them, word for word. */
export const DIFFERENCES = {
  repr: "`text/plain` is `repr`",
  png: "base64 has no line break at its end",
  errno: "numbers of `OSError` are those of Emscripten",
  exit: "no advice on how to exit",
} as const;
export type Difference = keyof typeof DIFFERENCES;

const shows = (text: string, execution_count: number): Output => ({
  output_type: "execute_result",
  data: { "text/plain": text },
  metadata: {},
  execution_count,
});

const raises = (code: string): Cell => ({ code, tags: ["raises-exception"] });

const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

export const CELLS: readonly Cell[] = [
  { code: "print('one')\nprint('two', end='')\nprint()" },
  { code: "import sys\nprint('out')\nprint('err', file=sys.stderr)\nprint('out again')" },
  { code: "6 * 7" },
  { code: "x = [1, 'a', None, {'k': (1.5, b'x')}]\nx" },
  { code: "None" },
  { code: "'hidden';" },
  { code: "'grün 🍐 日本語 \\u200b'" },
  { code: "print('grün 🍐 日本語')\nname = 'Ö'\nf'{name!r:>6}'" },
  {
    code: `class Point:
    """Of two dimensions."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __repr__(self):
        return f"Point({self.x}, {self.y})"

p = Point(1, 2)
p`,
  },
  {
    code: `class Table:
    def _repr_html_(self):
        return "<table><tr><td>1</td></tr></table>"

    def __repr__(self):
        return "Table of 1"

Table()`,
  },
  {
    code: `class Many:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/markdown": "**many**", "application/json": {"a": [1, None]}}, {"text/markdown": {"isolated": True}}

    def __repr__(self):
        return "many"

Many()`,
  },
  {
    code: `class Broken:
    def _repr_html_(self):
        return None

    def __repr__(self):
        return "only text"

Broken()`,
  },
  {
    code: `from IPython.display import HTML, Markdown, JSON, Latex, SVG, Javascript, display
display(HTML("<b>bold</b>"))
display(Markdown("# head"), "second", 3)
display(JSON({"a": [1, 2]}))
display(Latex("$x$"))
display(SVG("<svg xmlns='http://www.w3.org/2000/svg'><circle r='1'/></svg>"))
HTML("<i>last</i>")`,
  },
  { code: 'display({"text/plain": "raw", "text/html": "<u>raw</u>"}, raw=True)\ndisplay({"a": 1})' },
  {
    code: `from IPython.display import Image
import base64
Image(data=base64.b64decode("${PIXEL}"))`,
    differs: {
      because: "png",
      here: [
        {
          output_type: "execute_result",
          data: { "image/png": PIXEL, "text/plain": "<IPython.core.display.Image object>" },
          metadata: {},
          execution_count: 15,
        },
      ],
    },
  },
  {
    code: `from IPython.display import update_display
display("before", display_id="shown")
update_display("after", display_id="shown")
print("between")`,
  },
  { code: 'handle = display("begun", display_id=True)\nhandle.update("ended")' },
  { code: 'handle.update("ended later")' },
  { code: "from IPython.display import clear_output\nprint('gone')\nclear_output()\nprint('stays')" },
  { code: "print('shown until')\nclear_output(wait=True)\nprint('the next')" },
  { code: "print('kept')\nclear_output(wait=True)" },
  raises("1 / 0"),
  raises("print('before')\nundefined_name"),
  raises(`class OwnError(Exception):
    pass

try:
    {}["missing"]
except KeyError as error:
    raise OwnError("with a cause", 2) from error`),
  raises("try:\n    int('x')\nexcept ValueError:\n    [][1]"),
  raises("x = = 1"),
  raises("import json\njson.loads('{')"),
  raises("assert p.x == 2, 'x is not 2'"),
  raises("raise SystemError"),
  raises("raise ExceptionGroup('several', [ValueError(1), TypeError('t')])"),
  {
    code: "import asyncio\nawait asyncio.sleep(0.01)\nprint('slept')\nawait asyncio.gather(*[asyncio.sleep(0, n) for n in range(3)])",
  },
  { code: "async def numbers():\n    for n in range(3):\n        yield n\n\n[n async for n in numbers()]" },
  { code: "async with asyncio.timeout(5):\n    value = 'in time'\nvalue" },
  {
    code: `def squares():
    for n in range(4):
        print("yielding", n)
        yield n * n

generator = squares()
next(generator), sum(generator)`,
  },
  {
    code: "import os, sys\nos.makedirs('made', exist_ok=True)\nwith open('made/file.txt', 'w') as file:\n    file.write('text\\n')\nopen('made/file.txt').read()",
  },
  { code: "_ , 'last'" },
  { code: "Out[3], In[3]" },
  { code: "{n: str(n) * 10 for n in range(12)}" },
  { code: "list(range(60))" },
  { code: "sorted(set('hello')), frozenset([3, 1, 2]), range(3), {}, set()" },
  { code: "[[n * m for n in range(12)] for m in range(8)]" },
  { code: "print", differs: { because: "repr", here: [shows("<built-in function print>", 42)] } },
  {
    code: "Point, p.__init__.__name__, int, OwnError",
    differs: {
      because: "repr",
      here: [shows("(<class '__main__.Point'>, '__init__', <class 'int'>, <class '__main__.OwnError'>)", 43)],
    },
  },
  { code: "1.0e300, float('nan'), 3 + 4j, ..., NotImplemented" },
  { code: "'line\\nbreak', r'a\\b', \"it's\"" },
  { code: "from dataclasses import dataclass\n\n@dataclass\nclass Pair:\n    a: int\n    b: str = 'b'\n\nPair(1)" },
  {
    code: "from collections import Counter, deque, namedtuple\nCounter('aab'), deque([1]), namedtuple('N', 'a b')(1, 2)",
  },
  {
    code: "from collections import OrderedDict, defaultdict\nOrderedDict(a=1), defaultdict(int, a=1)",
    differs: { because: "repr", here: [shows("(OrderedDict({'a': 1}), defaultdict(<class 'int'>, {'a': 1}))", 48)] },
  },
  {
    code: "import datetime, decimal, fractions, pathlib\ndatetime.date(2026, 1, 2), decimal.Decimal('1.10'), fractions.Fraction(1, 3), pathlib.PurePosixPath('a/b')",
  },
  { code: "for n in range(3):\n    n\nelse:\n    'else'" },
  { code: "if True:\n    'inside'" },
  { code: "a = b = 5\na == b" },
  { code: "%%capture captured\nprint('captured')" },
  { code: "captured.stdout" },
  { code: "get_ipython().__class__.__mro__[-1] is object" },
  { code: "import warnings\nwarnings.warn('careful')" },
  { code: "sys.stdout.write('written\\n')" },
  { code: "import logging\nlogging.warning('logged')" },
  { code: "# nothing but a comment" },
  { code: "" },
  { code: "help(p.__init__)" },
  { code: "import this as zen\nlen(zen.s)" },
  raises("import no_such_module"),
  {
    ...raises("open('no/such/file')"),
    differs: {
      because: "errno",
      here: [
        {
          output_type: "error",
          ename: "FileNotFoundError",
          evalue: "[Errno 44] No such file or directory: 'no/such/file'",
        },
      ],
    },
  },
  raises("def recurse():\n    recurse()\n\nrecurse()"),
  {
    ...raises("sys.exit(3)"),
    differs: { because: "exit", here: [{ output_type: "error", ename: "SystemExit", evalue: "3" }] },
  },
  { code: "x" },
];
