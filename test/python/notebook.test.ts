import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestEngine, type TestEngine } from "../support/engine.ts";
import { at, gives, prints, type Row, raises, table as rowsTable, text } from "../support/table.ts";

let tested: TestEngine;
beforeAll(async () => {
  tested = await startTestEngine({ POOL_SIZE: "1" });
});
afterAll(() => tested.stop());
const table = (title: string, rows: readonly Row[]) => rowsTable(title, () => tested, rows);

const fenced = (code: string, tag = "python") => `\`\`\`${tag}\n${code}\n\`\`\``;
const wallTime = text(/^CPU times: user .+, sys: 0 ns, total: .+\nWall time: .+\n$/);

table("code that is indented as a whole", [
  { name: "the case", code: "\n    import sys\n    def f(a):\n        return a\n    f(2)\n", want: gives(2) },
  { name: "with tabs", code: "\tx = 1\n\tif x:\n\t\ty = 2\n\ty", want: gives(2) },
  { name: "its first line alone", code: "  x = 1\nx", want: gives(1) },
  { name: "below a comment that is not", code: "# a\n  x = 1\n  x", want: gives(1) },
  { name: "from __future__", code: "  from __future__ import annotations\n  5", want: gives(5) },
  { name: "top-level await", code: "  import asyncio\n  await asyncio.sleep(0, 3)", want: gives(3) },
  { name: "a semicolon hides the value", code: "  5;", want: gives(null) },
  { name: "an error's place", code: "  x = 1\n  1 / 0", want: at(2, 3, "ZeroDivisionError") },
  { name: "a SyntaxError's place after umlauts", code: "  x = 'ä'; y = = 0", want: at(1, 16, "SyntaxError") },
  { name: "the traceback quotes what was sent", code: "  1 / 0", want: { stderr: text(/\n {4}1 \/ 0\n {4}~~\^~~\n/) } },
  { name: "a SyntaxError's place", code: "  x = 1\n  y = = 2", want: at(2, 7, "SyntaxError") },
  { name: "a line that is indented less", code: "    x = 1\n  y = 2", want: at(2, 2, "IndentationError") },
  { name: "inside a block nothing is taken away", code: "if True:\nx = 1", want: at(2, 1, "IndentationError") },
]);

table("fences", [
  { name: "the case", code: fenced("print(1)"), want: prints("1\n") },
  ...["", "py", "Python", "python3", "ipython", "{python}", "{code-cell} ipython3", 'python title="a"'].map((tag) => ({
    name: `marked ${JSON.stringify(tag)}`,
    code: fenced("1 + 1", tag),
    want: gives(2),
  })),
  { name: "with ~", code: "~~~python\n3\n~~~", want: gives(3) },
  {
    name: "prose around it",
    code: `Here's it (at last:\n\n${fenced("x = 4\nx")}\nOutput: the value\nDone`,
    want: gives(4),
  },
  { name: "several", code: `First\n${fenced("x = 2")}\nthen\n${fenced("x * 2")}`, want: gives(4) },
  { name: "one that is text", code: `${fenced("5")}\n${fenced("6 7", "text")}`, want: gives(5) },
  { name: "the last one left out", code: "```python\n5", want: gives(5) },
  { name: "the first one left out", code: "x = 5\nx\n```", want: gives(5) },
  { name: "indented", code: "  ```python\n  5\n  ```", want: gives(5) },
  { name: "fences in a string of the code", code: fenced('s = """\n```\na\n```\n"""\ns.count("`")'), want: gives(6) },
  { name: "magics in it", code: fenced("%matplotlib inline\n5"), want: gives(5) },
  { name: "an error's place", code: `a\n${fenced("1 / 0")}`, want: at(3, 1, "ZeroDivisionError") },
  {
    name: "code around it is not dropped",
    code: `x = 5\n${fenced("print(x)")}`,
    want: { ...raises("SyntaxError", text(/code outside of the ``` fences/)), ...at(1, 1, "SyntaxError") },
  },
  {
    name: "another language",
    code: fenced("ls", "bash"),
    want: raises("SyntaxError", text(/marked 'bash': only Python runs here/)),
  },
  {
    name: "one of which it is not said what it is",
    code: `${fenced("print(1)")}\n${fenced("1", "")}`,
    want: { ...raises("SyntaxError", text(/are marked as Python and this one is not/)), ...at(4, 1, "SyntaxError") },
  },
  {
    name: "in a string of code that is wrong elsewhere",
    code: 's = """\n```python\n```\n"""\ny = = 2',
    want: at(5, 5, "SyntaxError"),
  },
]);

table("prompts", [
  { name: "of Python", code: ">>> x = 4\n>>> x + 1\n5", want: gives(5) },
  {
    name: "blocks and output",
    code: ">>> for i in (1, 2):\n...     print(i)\n...\n1\n2\n\n>>> i\n2",
    want: gives(2, "1\n2\n"),
  },
  { name: "indented", code: "    >>> 1 + 1\n    2", want: gives(2) },
  { name: "of IPython", code: "In [1]: x = [\n   ...:   1]\n\nIn [2]: x\nOut[2]: [1]", want: gives([1]) },
  { name: "an error's place", code: ">>> x = 1\n>>> 1 / 0\nTraceback", want: at(2, 5, "ZeroDivisionError") },
  { name: "that Python takes for annotations", code: "In [1]: x = 5\nIn [2]: x", want: gives(5) },
  { name: "of an expression, with its output", code: "In [1]: 1+1\nOut[1]: 2", want: gives(2) },
  { name: "with printed output below", code: 'In [1]: print("a")\na', want: prints("a\n") },
  { name: "below a comment, of a cell that runs", code: "# a\nIn [*]: x = 1\nIn [2]: x", want: gives(1) },
  { name: "below a comment, taken for annotations", code: "# a\nIn [1]: x = 1\nIn [2]: x", want: gives(1) },
  { name: "an error's place behind one", code: "In [1]: x = 1\nIn [2]: 1 / 0", want: at(2, 9, "ZeroDivisionError") },
  { name: "a SyntaxError behind one", code: "In [1]: x = 1\nIn [2]: x = = 1", want: at(2, 13, "SyntaxError") },
  { name: "an annotation that is one", code: "In[1]: int = 3", want: raises("NameError", "name 'In' is not defined") },
  { name: "an annotation of the code's own", code: "In = {}\nIn [1]: int = 3\nIn", want: gives({ 1: 3 }) },
  { name: "text below is not dropped", code: ">>> x = 1\n\nand so on\n", want: at(3, 1, "SyntaxError") },
]);

table("a byte order mark", [
  { name: "at the beginning", code: "\ufeffx = 1\nx", want: gives(1) },
  { name: "an error's place", code: "\ufeffx = 0\n1 / x", want: at(2, 1, "ZeroDivisionError") },
  { name: "elsewhere", code: "x = \ufeff1", want: at(1, 5, "SyntaxError") },
]);

table("magics that are done", [
  {
    name: "the case",
    code: "%matplotlib inline\n!pip install pandas\nprint(1)",
    want: { success: true, stdout: "1\n", stderr: text(/^ERROR: /) },
  },
  {
    name: "%matplotlib notebook",
    code: "%matplotlib notebook\n%config InlineBackend.figure_format = 'png'\n%config InlineBackend.rc = {}\n%config Completer.use_jedi = False\n1",
    want: gives(1),
  },
  {
    name: "a format of figures that is not there",
    code: "%config InlineBackend.figure_format = 'svg'\n%config InlineBackend.figure_formats = {'png', 'retina'}\n1",
    want: { success: true, result: 1, stderr: text(/svg.*PNGs.*\n.*retina.*PNGs/) },
  },
  { name: "%autoreload", code: "%load_ext autoreload\n%autoreload 2\n%reload_ext autoreload\n1", want: gives(1) },
  { name: "%time of an expression", code: "%time 1 + 1", want: gives(2, wallTime) },
  { name: "%time of a statement", code: "%time x = 5\nx", want: gives(5, wallTime) },
  { name: "%time of a loop", code: "%time for i in range(3): pass\ni", want: gives(2, wallTime) },
  { name: "%time over lines", code: "%time x = max(1,\n  2)\nx", want: gives(2, wallTime) },
  { name: "%time of an await", code: "import asyncio\n%time await asyncio.sleep(0, 3)", want: gives(3, wallTime) },
  { name: "%time assigned", code: "x = %time 5\nx", want: gives(5, wallTime) },
  { name: "%time of nothing", code: "%time\n5", want: gives(5, wallTime) },
  { name: "%time in a block", code: "for i in (1, 2):\n  if i > 1:\n    %time y = i\ny", want: gives(2, wallTime) },
  { name: "an error's place in it", code: "x = 0\n%time 1 / x", want: at(2, 7, "ZeroDivisionError") },
  { name: "a SyntaxError's place in it", code: "x = 0\n%time y = = 1", want: at(2, 11, "SyntaxError") },
  { name: "%%time", code: "%%time\nx = 2\nx * 2", want: gives(4, wallTime) },
  { name: "%%time without a value", code: "%%time\nx = 2", want: prints(wallTime) },
  { name: "an error's place below it", code: "\n%%time\nx = 1\n1 / 0", want: at(4, 1, "ZeroDivisionError") },
  {
    name: "what sleeps takes no time of the processor's",
    code: "%%time\nimport time\ntime.sleep(0.2)",
    want: prints(text(/user [\d.]+ (μs|ms|ns).*\nWall time: [23]\d\d ms/)),
  },
  {
    name: "%timeit",
    code: "%timeit -n 3 -r 2 sum([1])",
    want: prints(text(/ per loop \(mean ± std\. dev\. of 2 runs, 3 loops each\)\n$/)),
  },
  {
    name: "%timeit counts its loops",
    code: "n = 0\ndef f():\n  global n\n  n += 1\n%timeit -n 5 -r 3 -q f()\nn",
    want: gives(15),
  },
  {
    name: "%timeit -o",
    code: "r = %timeit -n1 -r1 -o -q 1\nr.loops, '__timeit__' in globals()",
    want: gives([1, false]),
  },
  {
    name: "%%timeit with a setup",
    code: "%%timeit -n 2 -r 1 x = [1]\nfor i in x:\n  i",
    want: prints(text(/1 run, 2 loops each/)),
  },
  { name: "an error's place in %timeit", code: "\n%timeit 1 / 0", want: at(2, 9, "ZeroDivisionError") },
  {
    name: "%%capture",
    code: "%%capture out\nimport sys\nprint('a')\nprint('b', file=sys.stderr)\ndisplay(5)",
    want: { ...prints(""), outputs: [] },
  },
  {
    name: "an error in %%capture",
    code: "%%capture\nprint('a')\n1 / 0",
    want: { ...raises("ZeroDivisionError"), stdout: "" },
  },
  { name: "%who", code: "x = 1\ny = 'a'\n%who\n%who str\n%who_ls", want: gives(["x", "y"], "x\t y\ny\n") },
  { name: "%who of nothing", code: "%who", want: prints("Interactive namespace is empty.\n") },
  { name: "%whos", code: "x = [1]\n%whos", want: prints(text(/^Variable {3}Type .*\n-+\nx {10}list {11}\[1\]\n$/)) },
  { name: "%env", code: "%env A=b c\n%env A", want: gives("b c", "env: A=b c\n") },
  {
    name: "%env with a space, %set_env",
    code: "import os\n%env A b\n%set_env B=c\nos.environ['A'] + os.environ['B']",
    want: gives("bc", "env: A=b\nenv: B=c\n"),
  },
  {
    name: "%env of all",
    code: "%env",
    want: { success: true, result: expect.objectContaining({ HOME: "/home/pyodide" }) },
  },
  { name: "%cd and %pwd", code: "%cd /tmp\n%pwd", want: gives("/tmp", "/tmp\n") },
  { name: "%cd to a folder that is not there", code: "%cd /nowhere", want: raises("FileNotFoundError") },
  {
    name: "name?",
    code: "def f(a):\n  'Doc.'\nf?",
    want: prints("Signature: f(a)\nType:      function\nDocstring:\nDoc.\n"),
  },
  { name: "?name", code: "?len", want: prints(text(/Return the number of items/)) },
  { name: "name??", code: "def f(a):\n  return a\nf??", want: prints(text(/Source:\ndef f\(a\):\n {2}return a/)) },
  { name: "of no such name", code: "nothing?", want: prints("Object `nothing` not found.\n") },
  { name: "%magic?", code: "%time?", want: prints(text(/%time/)) },
  { name: "%%writefile", code: "%%writefile a.py\nx = 1\n%matplotlib", want: prints("Writing a.py\n") },
  {
    name: "%%html",
    code: "%%html\n<b>x</b>",
    want: { success: true, outputs: [{ "text/html": "<b>x</b>\n", "text/plain": text(/HTML/) }] },
  },
  {
    name: "get_ipython().run_line_magic",
    code: "get_ipython().run_line_magic('matplotlib', 'inline')",
    want: gives(null),
  },
  { name: "pip list", code: "!pip list", want: { success: true, error: null } },
  ...[
    "%pip install nowhere",
    "!pip3 install -q -U nowhere",
    "!python -m pip install nowhere",
    "pip install nowhere",
    "%pip install 'nowhere>=1'",
  ].map((line) => ({
    name: line,
    code: `${line}\n5`,
    want: { success: true, result: 5, stderr: text(/^ERROR: [^\n]*\n$/) },
  })),
  {
    name: "a line in a string is none",
    code: "s = '''\n%cd /\n!ls\n'''\n%matplotlib inline\ns.count('%')",
    want: gives(1),
  },
  {
    name: "nor one in brackets, nor after a backslash",
    code: "x = (7\n%4) + 9 \\\n% 5\n%matplotlib inline\nx",
    want: gives(7),
  },
  { name: "of a condition that is false", code: "if False:\n  !apt-get install x\n5", want: gives(5) },
]);

table("magics and shell lines that are not", [
  ...(
    [
      ["!ls -la", "!ls", "os.listdir"],
      ["!!pwd", "!pwd", "os.getcwd"],
      ["!wget http://a.b", "!wget", "urlretrieve"],
      ["!apt-get install -y x", "!apt-get", "%pip"],
      ["!/usr/bin/python3 a.py", "!/usr/bin/python3", "runpy"],
      ["!nvidia-smi", "!nvidia-smi", "no GPU"],
      ["!whatever it's", "!whatever", "Python"],
      ["files = !ls", "!ls", "os.listdir"],
      ["%run a.py", "%run", "runpy.run_path"],
      ["%load_ext tensorboard", "%load_ext", "import"],
      ["%sql select 1", "%sql", "sqlite3"],
      ["%nonsense", "%nonsense", "write it in Python"],
      ["%%bash\nls", "%%bash", "Python"],
      ["%%javascript\nalert(1)", "%%javascript", "HTML"],
      ["%%nonsense\n1", "%%nonsense", "write it in Python"],
      ["*int*?", "", ""],
      ["%pip uninstall x", "%pip uninstall", "install, list and freeze"],
      ["%pip install --index-url http://a x", "--index-url", "the server decides"],
    ] as const
  ).map(([code, name, instead]) => ({
    name: code,
    code: code.startsWith("%%") ? `\n${code}` : `x = 1\n${code}`,
    want: {
      ...(name === "" ? { success: false } : raises("UsageError", text(new RegExp(`${name}.*${instead}`)))),
      errorInfo: expect.objectContaining({ line: 2 }),
    },
  })),
  {
    name: "%%time below other code",
    code: "x = 1\n%%time\nx",
    want: { ...raises("SyntaxError", text(/%%time is for the whole of the code/)), ...at(2, 1, "SyntaxError") },
  },
  {
    name: "a percent sign is none",
    code: "x = 5\n%",
    want: at(2, 1, "SyntaxError"),
  },
]);

table("IPython", [
  {
    name: "the case",
    code: "from IPython.display import display, HTML\ndisplay(HTML('<b>x</b>'))",
    want: { success: true, outputs: [{ "text/html": "<b>x</b>", "text/plain": "<IPython.core.display.HTML object>" }] },
  },
  {
    name: "what notebooks show",
    code: `from IPython.display import *
from IPython.display import clear_output
display(Markdown("# a"), Latex("$x$"), Math("x"), SVG("<svg/>"), JSON({"a": 1}), Pretty("p"), Code("1 < 2"), metadata={})
display(Javascript("1"), GeoJSON({"b": 2}), IFrame("http://a", 1, 2), YouTubeVideo("v"), FileLink("nothing"))
display(Image(b"\\x89PNGx"), Image(b"GIF8", width=3), Image(url="http://a/b.png"), Video("http://a/b.mp4"))
clear_output(wait=True)`,
    want: {
      success: true,
      stderr: "",
      outputs: [
        { "text/markdown": "# a", "text/plain": text(/Markdown/) },
        { "text/latex": "$x$" },
        { "text/latex": "$\\displaystyle x$" },
        { "image/svg+xml": "<svg/>" },
        { "application/json": '{"a": 1}' },
        { "text/plain": "p" },
        { "text/html": "<pre><code>1 &lt; 2</code></pre>", "text/plain": "1 < 2" },
        { "application/javascript": "1" },
        { "application/geo+json": '{"b": 2}' },
        { "text/html": text(/^<iframe width="1" height="2" src="http:\/\/a"/) },
        { "text/html": text(/youtube.com\/embed\/v/) },
        { "text/html": text(/does not exist/) },
        { "image/png": "iVBOR3g=" },
        { "image/gif": "R0lGOA==" },
        { "text/html": '<img src="http://a/b.png"/>' },
        { "text/html": text(/<source src="http:\/\/a\/b.mp4" type="video\/mp4">/) },
      ],
    },
  },
  {
    name: "files, sound, and progress",
    code: `from IPython.display import Audio, HTML, Image, ProgressBar, FileLinks
open("a.html", "w").write("<i>")
open("a.jpg", "wb").write(b"\\xff\\xd8x")
display(HTML(filename="a.html"), Image("a.jpg"), Audio([0.0, 0.5, -0.5], rate=8000), FileLinks("."))
[i for i in ProgressBar(2)]`,
    want: {
      success: true,
      result: [0, 1],
      outputs: [
        { "text/html": "<i>" },
        { "image/jpeg": "/9h4" },
        { "text/html": text(/^<audio controls><source src="data:audio\/wav;base64,UklGRi/) },
        { "text/html": text(/a\.html.*a\.jpg/) },
        { "text/plain": `[${"=".repeat(60)}] 2/2`, "text/html": text(/value='2'/) },
      ],
    },
  },
  {
    name: "an image that is not there",
    code: "from IPython.display import Image\nImage('nothing.png')",
    want: raises("FileNotFoundError"),
  },
  {
    name: "get_ipython, by all its names",
    code: "import IPython\nfrom IPython.core.getipython import get_ipython as g\nIPython.get_ipython() is get_ipython() is g(), IPython.display.HTML.__name__, IPython.version_info[0] > 8",
    want: gives([true, "HTML", true]),
  },
  {
    name: "display's own options",
    code: "h = display(1, display_id=True)\nh.update(2)\ndisplay({'text/html': 'r'}, raw=True)\nclass B:\n  def _repr_html_(self): return 'b'\ndisplay(B(), exclude=['text/html'])\ndisplay(B(), include=['text/html'])",
    want: {
      success: true,
      outputs: [
        { "text/plain": "2" },
        { "text/html": "r" },
        { "text/plain": text(/^<.*B object/) },
        { "text/html": "b" },
      ],
    },
  },
  {
    name: "a long name of a form",
    code: "display({'a/' + 'b' * 20_000: 'c'}, raw=True)\n{'k' * 20_000: 1}",
    want: { success: true, outputs: [{ [`a/${"b".repeat(20_000)}`]: "c" }], result: { ["k".repeat(20_000)]: 1 } },
  },
  {
    name: "formatters for classes",
    code: "class B: pass\nget_ipython().display_formatter.formatters['text/html'].for_type(B, lambda b: '<b>')\ndisplay(B())",
    want: { success: true, outputs: [{ "text/html": "<b>" }] },
  },
  {
    name: "formatters for plain text",
    code: "class B: pass\nget_ipython().display_formatter.formatters['text/plain'].for_type(B, lambda b, p, cycle: p.text('bee'))\ndisplay(B())",
    want: { success: true, outputs: [{ "text/plain": "bee" }] },
  },
  {
    name: "%%capture keeps what was shown",
    code: "from IPython.display import HTML\nwith get_ipython().capture('out'):\n  print('a')\n  display(HTML('x'))\nprint(out.stdout, end='')\nout.show()\nlen(out.outputs)",
    want: { success: true, result: 1, stdout: "a\na\n", outputs: [{ "text/html": "x" }] },
  },
  {
    name: "what the stand-in has not",
    code: "import IPython.parallel",
    want: raises("ModuleNotFoundError", text(/stand-in for IPython/)),
  },
  {
    name: "what the shell has not",
    code: "get_ipython().nothing",
    want: raises("AttributeError", text(/stand-in for IPython's shell/)),
  },
]);

test("what %%writefile writes is a file like another", async () => {
  const magic = "get_ipython().run_cell_magic('writefile',";
  const code = `${magic} 'n.txt', 'a\\n')\n${magic} '-a n.txt', 'b\\n')\n${magic} '/tmp/m', '')\nopen('n.txt').read()`;
  expect(await tested.run(code)).toMatchObject(gives("a\nb\n", "Writing n.txt\nAppending to n.txt\nWriting /tmp/m\n"));
});

test("code of 100,000 characters that is no notebook's is refused as fast as Python does", async () => {
  for (const code of [
    `${"(".repeat(99_990)}`,
    `  ${"x = '\n".repeat(14_000)}`,
    "%".repeat(99_990),
    `%time ${"-".repeat(90_000)}1`,
    "!a\n".repeat(33_000),
  ]) {
    expect(await tested.run(code, { timeoutMs: 10_000 })).toMatchObject({ success: false });
    expect(await tested.run("6 * 7")).toMatchObject(gives(42));
  }
});
