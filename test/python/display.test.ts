import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { OutputEvent } from "../../src/sandbox/running-job.ts";
import { py, startTestEngine, type TestEngine, type TestRequest } from "../support/engine.ts";

let tested: TestEngine;
beforeAll(async () => {
  tested = await startTestEngine({ POOL_SIZE: "1" });
});
afterAll(async () => await tested?.stop());

const run = async (code: string, request: TestRequest = {}) => await tested.run(code, { display: "on", ...request });

/** As a client that follows the output sees it, with values in the place of their JSON. */
const follow = async (code: string) => {
  const events: unknown[] = [];
  const onOutput = (event: OutputEvent) => {
    if (event.type !== "output") events.push(event.type === "clear_output" ? event : [event.type, event.content]);
    else {
      const { bundle, metadata, ...rest } = event;
      events.push({ ...rest, data: bundle.parseAll(), ...(metadata && { metadata: metadata.parseAll() }) });
    }
  };
  const result = await tested.run(code, { onOutput, display: "after-outputs" });
  return { events, result };
};

describe("the last value as a bundle", () => {
  test.each([
    ["1+1", "2"],
    ["'a\\nb'", "'a\\nb'"],
    ["[1, 'x', None]", "[1, 'x', None]"],
    ["x = 5\nx", "5"],
    ["float('nan')", "nan"],
    ["10**5000", `1${"0".repeat(5000)}`],
    ["'\\ud800'", "'\\ud800'"],
    ["import asyncio\nawait asyncio.sleep(0, 7)", "7"],
    ["%time 3", "3"],
  ])("%s has its repr as text", async (code, text) => {
    expect(await run(code)).toMatchObject({ success: true, display: { "text/plain": text } });
  });

  test.each(["None", "x = 1", "1;", "pass", "print(1)", "display(1)"])("%s has none", async (code) => {
    expect(await run(code)).toMatchObject({ success: true, display: null });
  });

  test("is there only where it is asked for", async () => {
    expect(await run("1+1", { display: undefined })).not.toHaveProperty("display");
  });

  test("is beside the JSON, with all that a notebook would show of it", async () => {
    const code = py`
      class Rich:
        def _repr_html_(self): return '<b>r</b>'
        def _repr_png_(self): return b'png', {'width': 5}
        def _repr_mimebundle_(self, include=None, exclude=None):
          return {'application/json': {'a': [1]}, 'text/markdown': '*m*'}, {'text/markdown': {'a': 1}}
        def __repr__(self): return 'rich'
        def to_dict(self): return {'b': 2}
      Rich()`;
    const { result, display, displayMetadata, outputs } = await run(code);
    expect({ result, display, displayMetadata, outputs }).toEqual({
      result: { b: 2 },
      display: {
        "application/json": '{"a": [1]}',
        "text/markdown": "*m*",
        "text/html": "<b>r</b>",
        "image/png": "cG5n",
        "text/plain": "rich",
      },
      displayMetadata: { "text/markdown": { a: 1 }, "image/png": { width: 5 } },
      outputs: [],
    });
  });

  test("of code that raises there is none, whatever was sent before", async () => {
    const code = `import os\nos.write(4000, b'["display", {"bundle": {"a": "b"}, "kind": "value"}]')\n1/0`;
    expect(await run(code)).toMatchObject({ success: false, display: null, outputs: [] });
    // Of code that sends one itself the last one counts.
    expect(await run(code.replace("1/0", "5"))).toMatchObject({ display: { "text/plain": "5" } });
    expect(await run(code.replace("1/0", "5"), { display: undefined })).not.toHaveProperty("display");
  });

  test("a representation that raises, or is interrupted by an exit, is left out", async () => {
    const code = py`
      class B:
        def _repr_html_(self): 1 / 0
        def _repr_mimebundle_(self, **_): raise ValueError
        def __repr__(self): raise SystemExit
      B()`;
    const { success, display } = await run(code);
    expect([success, display]).toEqual([true, { "text/plain": expect.stringMatching(/^<B object: repr\(\) raised/) }]);
  });

  test("one that never ends is ended by the timeout", async () => {
    const code = "class B:\n  def _repr_html_(self):\n    while True: pass\nB()";
    expect(await run(code, { timeoutMs: 300 })).toMatchObject({ status: "timeout", display: null });
  });

  test("what is too large is cut, and that is said", async () => {
    const long = await run("'x' * 12_000_000");
    expect(long.truncated).toBe(true);
    expect(long.display?.["text/plain"]).toMatch(/^'x{1048575}…$/);
    const code = "class B:\n  def _repr_html_(self): return 'h' * 11_000_000\n  def __repr__(self): return 'b'\nB()";
    expect(await run(code)).toMatchObject({ truncated: true, display: { "text/plain": "b" } });
    const escaped = await run("display({'a': '\\x00' * 10_000_000}, raw=True)\n'\\x01'\n");
    expect(escaped.errorInfo).toBeUndefined();
    expect(escaped).toMatchObject({
      truncated: false,
      outputs: [expect.anything()],
      display: { "text/plain": "'\\x01'" },
    });
  });

  test("what shows itself is displayed by that, and has no bundle", async () => {
    const code = py`
      class Own:
        def _ipython_display_(self): display('own')
        def _repr_html_(self): return 'x'
      Own()`;
    expect(await run(code)).toMatchObject({ display: null, outputs: [{ "text/plain": "'own'" }] });
    const refused = `class Own:\n  def _ipython_display_(self): raise NotImplementedError\n  def __repr__(self): return 'o'\nOwn()`;
    expect(await run(refused)).toMatchObject({ display: { "text/plain": "o" }, outputs: [] });
  });

  test("a mock is text alone, and is not asked for anything", async () => {
    const code = "from unittest.mock import MagicMock\nm = MagicMock()\nm";
    expect(await run(code)).toMatchObject({ display: { "text/plain": expect.stringMatching(/^<MagicMock id=/) } });
    const { outputs } = await tested.run(`${code}\ndisplay(m)\nassert not m.mock_calls`);
    expect(outputs).toHaveLength(1);
  });

  test("a class is no instance of itself", async () => {
    const code =
      "class B:\n  def _repr_html_(self): return 'x'\n  def _repr_mimebundle_(self): return {'a': 'b'}\n  def _ipython_display_(self): 1/0\nB";
    expect(await run(code)).toMatchObject({ display: { "text/plain": "<class '__main__.B'>" } });
  });

  test("_repr_pretty_ writes the text, unless a class that is derived says otherwise", async () => {
    const code = py`
      class P:
        def _repr_pretty_(self, p, cycle):
          with p.group(2, 'P(', ')'):
            p.text('a'); p.breakable(); p.pretty([1]); p.break_(); p.text('b')
      class Q(P):
        def __repr__(self): return 'q'
      display(Q())
      P()`;
    expect(await run(code)).toMatchObject({
      display: { "text/plain": "P(a [1]\n  b)" },
      outputs: [{ "text/plain": "q" }],
    });
  });

  test("in a session's execution, and with a context", async () => {
    expect(await run("a + 1", { context: { a: 2 } })).toMatchObject({ result: 3, display: { "text/plain": "3" } });
  });
});

describe("display", () => {
  test("metadata, ids and updates are in the events, and the outputs are as they were last", async () => {
    const code = py`
      class M:
        def _repr_mimebundle_(self, **_): return {'a/b': 'x'}, {'a/b': {'w': 1}}
        def __repr__(self): return 'm'
      h = display(M(), display_id='one', metadata={'a/b': {'h': 2}, 'text/plain': {'c': 3}})
      display(5)
      h.update(6)
      display(7, display_id=h.display_id)
      h.update({'text/html': 'r'}, raw=True)
      assert repr(h) == '<DisplayHandle display_id=one>'
      None`;
    const { events, result } = await follow(code);
    const [first, ...rest] = events;
    expect(first).toEqual({
      type: "output",
      data: { "a/b": "x", "text/plain": "m" },
      displayId: "one",
      metadata: { "a/b": { w: 1, h: 2 }, "text/plain": { c: 3 } },
    });
    expect(rest).toEqual([
      { type: "output", data: { "text/plain": "5" } },
      { type: "output", data: { "text/plain": "6" }, displayId: "one", isUpdate: true },
      { type: "output", data: { "text/plain": "7" }, displayId: "one" },
      { type: "output", data: { "text/html": "r" }, displayId: "one", isUpdate: true },
    ]);
    expect(result.outputs).toEqual([{ "text/html": "r" }, { "text/plain": "5" }, { "text/html": "r" }]);
  });

  test("an id of one's own, or a new one; without a value a place for one", async () => {
    const code = py`
      a, b, c = display(1, display_id=True), display(display_id='mine'), display(2, transient={'display_id': 't'})
      b.update(3)
      update_display = __import__('IPython.display').display.update_display
      update_display(4, display_id='t')
      [len(a.display_id) > 20, b.display_id, c.display_id, display(1) is None]`;
    const { result, outputs } = await run(code);
    expect(result).toEqual([true, "mine", "t", true]);
    expect(outputs).toEqual([1, 3, 4, 1].map((value) => ({ "text/plain": String(value) })));
  });

  test.each([
    ["display(1, update=True)", "TypeError"],
    ["display(1, raw=True)", "TypeError"],
    ["display(1, display_id='x' * 257)", "ValueError"],
  ])("%s is an error", async (code, type) => {
    expect(await run(code)).toMatchObject({ success: false, errorInfo: { type } });
  });

  test("metadata that are none, or too large, are left out", async () => {
    for (const metadata of [
      "5",
      "{'a': 'x' * 20_000}",
      `${"{'a': ".repeat(14)}1${"}".repeat(14)}`,
      "{'\\ud800': 1}",
      "{'a': float('nan')}",
    ]) {
      const { events } = await follow(`display(1, metadata=${metadata})`);
      expect(events).toMatchObject([{ type: "output", data: { "text/plain": "1" } }]);
    }
  });

  test("clear_output takes back what was displayed, at once or when something else comes", async () => {
    const outputsOf = async (code: string) => {
      const { outputs } = await run(`from IPython.display import clear_output, HTML\n${code}`);
      return outputs.map((bundle) => bundle["text/plain"]);
    };
    expect(await outputsOf("display(1)\nclear_output()\ndisplay(2)")).toEqual(["2"]);
    expect(await outputsOf("display(1)\nclear_output()")).toEqual([]);
    expect(await outputsOf("display(1)\nclear_output(wait=True)")).toEqual(["1"]);
    expect(await outputsOf("display(1)\nclear_output(wait=True)\nprint('x')")).toEqual([]);
    expect(await outputsOf("display(1)\nclear_output(wait=True)\nprint('x')\ndisplay(2)")).toEqual(["2"]);
    expect(await outputsOf("display(1)\ndisplay(2, clear=True)")).toEqual(["2"]);
    expect(await outputsOf("for i in range(100): clear_output(wait=True); display(i)")).toEqual(["99"]);
    const { events } = await follow(
      "from IPython.display import clear_output\nprint('a')\nclear_output(True)\nprint('b')\nclear_output()",
    );
    expect(events.filter((event) => !Array.isArray(event))).toEqual([
      { type: "clear_output", wait: true },
      { type: "clear_output", wait: false },
    ]);
  });

  test("what was replaced or cleared counts no more towards the 10 MiB", async () => {
    const large = "{'text/html': 'x' * 6_000_000}";
    const updated = await run(
      `h = display(${large}, raw=True, display_id=True)\nfor _ in range(5): h.update(${large}, raw=True)\ndisplay('last')`,
    );
    expect([updated.outputs.length, updated.truncated]).toEqual([2, false]);
    const cleared = await run(`for _ in range(5): display(${large}, raw=True, clear=True)\ndisplay('last')`);
    expect([cleared.outputs.length, cleared.truncated]).toEqual([2, false]);
    const both = await run(`for _ in range(2): display(${large}, raw=True)\ndisplay('last')`);
    expect([both.outputs.length, both.truncated]).toEqual([2, true]);
  });

  test("an update counts in each place where it stands: a reply has it as often", async () => {
    const { success, truncated, outputs } = await run(
      `from IPython.display import update_display\nfor _ in range(11): display({}, raw=True, display_id='x')\nupdate_display({'a': 'b' * 2**20}, raw=True, display_id='x')\nupdate_display({'a': 'c' * 900_000}, raw=True, display_id='x')`,
    );
    expect([success, truncated, outputs.length]).toEqual([true, true, 11]);
    expect(outputs.every(({ a }) => a?.[0] === "c" && a.length === 900_000)).toBe(true);
  });

  test("who evades the count of the module in Python has its sandbox ended", async () => {
    const lifted = "import sandbox_runner.display as module\nmodule._MAX_BYTES = 10**9\n";
    const { status } = await run(`${lifted}for _ in range(11): display({'a': 'b' * 2**20}, raw=True)`);
    expect(status).toBe("sandbox_died");
  });

  test("all that was ever sent has a limit of its own, and code that goes on and on is not ended by it", async () => {
    const { success, truncated, outputs } = await run(
      `h = display(1, display_id=True)\nfor _ in range(30): h.update({'a': '\\x00' * 3_000_000}, raw=True)\nfrom IPython.display import clear_output\nfor _ in range(13_000): clear_output(True)`,
    );
    expect([success, truncated, outputs.length]).toEqual([true, true, 1]);
  });

  test("of a JSON type all data is JSON", async () => {
    const code = `display({'application/json': 'plain text', 'application/vnd.a+json': '{"a": 1}', 'application/vnd.b+json; x=1': [1, None], 'text/x': {'a': 1}, 'image/png': b'png'}, raw=True)`;
    expect(await run(code)).toMatchObject({
      outputs: [
        {
          "application/json": '"plain text"',
          "application/vnd.a+json": '{"a": 1}',
          "application/vnd.b+json; x=1": "[1, null]",
          "text/x": '{"a": 1}',
          "image/png": "cG5n",
        },
      ],
    });
  });
});

describe("IPython.display", () => {
  test("its objects have the MIME types and the metadata that IPython's have", async () => {
    const png = `b"\\x89PNG\\r\\n\\x1a\\n" + bytes([0, 0, 0, 13]) + b"IHDR" + bytes([0, 0, 0, 6, 0, 0, 0, 4])`;
    const rows: [string, object, object?][] = [
      ["HTML('<b>', metadata={'a': 1})", { "text/html": "<b>" }, { "text/html": { a: 1 } }],
      [
        "Markdown('*m*', metadata={'isolated': True})",
        { "text/markdown": "*m*" },
        { "text/markdown": { isolated: true } },
      ],
      ["Latex('$x$')", { "text/latex": "$x$" }],
      ["Math('x', metadata={'a': 1})", { "text/latex": "$\\displaystyle x$" }, { "text/latex": { a: 1 } }],
      ["SVG('<?xml version=\"1.0\"?><svg><g/></svg>')", { "image/svg+xml": "<svg><g/></svg>" }],
      ["SVG('<svg><open></svg>')", { "image/svg+xml": "<svg><open></svg>" }],
      [
        "JSON({'a': [1]}, expanded=True)",
        { "application/json": '{"a": [1]}' },
        { "application/json": { expanded: true, root: "root" } },
      ],
      [
        "JSON('[1]', x=2)",
        { "application/json": "[1]" },
        { "application/json": { expanded: false, root: "root", x: 2 } },
      ],
      [
        "GeoJSON({'b': 2}, url_template='u')",
        { "application/geo+json": '{"b": 2}' },
        { "application/geo+json": { expanded: false, root: "root", url_template: "u" } },
      ],
      ["Javascript('f()')", { "application/javascript": "f()" }],
      [
        `Image(${png}, width=3, alt="it")`,
        { "image/png": expect.stringMatching(/^iVBORw0KGgo/) },
        { "image/png": { width: 3, alt: "it" } },
      ],
      [
        `Image(${png}, retina=True)`,
        { "image/png": expect.stringMatching(/^iVBORw0KGgo/) },
        { "image/png": { width: 3, height: 2 } },
      ],
      ["Image(b'RIFF', format='webp')", { "image/webp": "UklGRg==" }],
      [
        "Image(url='http://a/b.png', width=3, alt='\"x')",
        { "text/html": '<img src="http://a/b.png" width="3" alt="&quot;x"/>' },
      ],
      [
        "Audio(url='http://a/b.mp3')",
        { "text/html": expect.stringMatching(/<source src="http:\/\/a\/b.mp3" type="audio\/mpeg">/) },
      ],
      ["Audio(b'RIFF', rate=1)", { "text/html": expect.stringMatching(/data:audio\/wav;base64,UklGRg==/) }],
      [
        "Video('http://a/b.mp4')",
        { "text/html": expect.stringMatching(/^<video controls><source src="http:\/\/a\/b.mp4"/) },
      ],
      ["VimeoVideo('7')", { "text/html": expect.stringMatching(/player.vimeo.com\/video\/7/) }],
      ["ScribdDocument('7')", { "text/html": expect.stringMatching(/scribd.com\/embeds\/7\/content/) }],
      ["Pretty('p')", {}],
    ];
    for (const [code, data, metadata] of rows) {
      const { display, displayMetadata, error } = await run(`from IPython.display import *\n${code}`);
      const name = /^\w+/.exec(code)?.[0];
      const plain =
        name === "Pretty" ? "p" : expect.stringMatching(new RegExp(`^<IPython\\.\\w+\\.display\\.${name} object>$`));
      expect({ code, error, display, displayMetadata }).toEqual({
        code,
        error: null,
        display: { ...data, "text/plain": plain },
        displayMetadata: metadata,
      });
    }
  });

  test("a script waits for its libraries", async () => {
    const { display } = await run(
      "from IPython.display import Javascript\nJavascript('f()', lib=['http://a/b.js'], css='http://a/c.css')",
    );
    const script = display?.["application/javascript"] ?? "";
    for (const part of ['link.href = "http://a/c.css"', 'script.src = "http://a/b.js"', "}).then(() => {\nf()\n});"]) {
      expect(script).toContain(part);
    }
    expect(() => new Function(script)).not.toThrow();
  });

  test.each([
    ["HTML(5)", "TypeError"],
    ["JSON('5')", "TypeError"],
    ["JSON(5)", "TypeError"],
    ["Image()", "ValueError"],
    ["Audio()", "ValueError"],
    ["Audio('x.wav', embed=False)", "ValueError"],
  ])("%s is an error", async (code, type) => {
    expect(await run(`from IPython.display import *\n${code}`)).toMatchObject({ errorInfo: { type } });
  });

  test("display_html and the like show that type alone, and nothing of what has none", async () => {
    const code = py`
      from IPython.display import *
      class H:
        def _repr_html_(self): return "h"
      display_html(H()); display_markdown(H()); display_html("<b>", raw=True, metadata={"a": 1}); display_pdf(b"pdf", raw=True)
      display_webp(b"webp", raw=True); display_pretty(5); display_json({"a": 1}, raw=True)
      publish_display_data({"text/plain": "p"}, {}, transient={"display_id": "x"})
      publish_display_data({"text/plain": "q"}, transient={"display_id": "x"}, update=True)
      None`;
    const { events, result } = await follow(code);
    expect(result.error).toBeNull();
    expect(result.outputs).toEqual([
      { "text/html": "h" },
      { "text/html": "<b>" },
      { "application/pdf": "cGRm" },
      { "image/webp": "d2VicA==" },
      { "text/plain": "5" },
      { "application/json": '{"a": 1}' },
      { "text/plain": "q" },
    ]);
    expect(events[1]).toMatchObject({ metadata: { "text/html": { a: 1 } } });
  });

  test("all names of IPython's own module are there", async () => {
    const names =
      "display clear_output publish_display_data update_display DisplayHandle display_pretty display_html display_markdown display_svg display_png display_jpeg display_webp display_latex display_json display_javascript display_pdf DisplayObject TextDisplayObject Pretty HTML Markdown Math Latex SVG ProgressBar JSON GeoJSON Javascript Image Video Audio IFrame YouTubeVideo VimeoVideo ScribdDocument FileLink FileLinks Code set_matplotlib_formats set_matplotlib_close";
    const { result } = await run(`import IPython.display as d\n[n for n in "${names}".split() if not hasattr(d, n)]`);
    expect(result).toEqual([]);
  });

  test("a progress bar is updated in its place", async () => {
    const { events, result } = await follow("from IPython.display import ProgressBar\n[i for i in ProgressBar(3)]");
    expect(events).toHaveLength(5);
    expect(result).toMatchObject({ result: [0, 1, 2], outputs: [{ "text/plain": expect.stringMatching(/ 3\/3$/) }] });
  });
});

test("an execution after one that displayed knows nothing of it", async () => {
  await run("display(1, display_id='x')\nfrom IPython.display import clear_output\nclear_output(True)");
  expect(await run("display(2)\n3")).toMatchObject({
    outputs: [{ "text/plain": "2" }],
    display: { "text/plain": "3" },
  });
});
