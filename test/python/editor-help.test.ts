/** What the runner answers to an editor's questions, and that it executes nothing for that. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import type { EditorQuestion } from "../../src/wire/messages.ts";
import { runOn, startTestSandbox } from "../support/sandbox.ts";

let sandbox: Sandbox;
let executions = 0;

beforeAll(async () => {
  sandbox = await startTestSandbox();
  const files = { entries: [], maxBytes: 1_000_000, maxFiles: 100 };
  expect(await sandbox.load(null, files, null)).toMatchObject({ state: "resident" });
  expect(await run(SETUP)).toMatchObject({ success: true });
});

afterAll(async () => {
  sandbox.kill("the test is done");
  await sandbox.ended;
});

/** Each leaves a trace if an answer executes anything of it. */
const SETUP = `
import os, json, functools, dataclasses, collections
from pathlib import Path
executed = []
def trace(name):
    executed.append(name)
class Base:
    """A base."""
    inherited = 1
    def method_of_base(self, first, *, second=2) -> "Point":
        """Does what it does."""
class Trap(Base):
    __slots__ = ("slot",)
    def __init__(self, size: int = 3, label="a"):
        self.slot = Base()
        self.own = {"key_one": Path("."), "key_two": [1, "two"], "it's": 0}
    @property
    def effect(self) -> Path: trace("property")
    @functools.cached_property
    def cached(self) -> "collections.OrderedDict[str, int]": trace("cached")
    def __getattr__(self, name): trace("getattr")
    def __getattribute__(self, name): trace("getattribute"); return object.__getattribute__(self, name)
    def __dir__(self): trace("dir"); return []
    def __repr__(self): trace("repr"); return "trap"
    def __call__(self, argument): trace("call")
    @classmethod
    def made(cls) -> "Self": trace("made")
    @staticmethod
    def plain(x, y): trace("plain")
@dataclasses.dataclass
class Point:
    """Where it is."""
    x: int
    y: float = 0.0
class Default:
    def __repr__(self): trace("default")
def documented(alpha: "int", beta: Path = Default(), *args, gamma=None, **rest) -> Point:
    """What it does.

    And more.
    """
    return 1
@functools.lru_cache
def remembered(key: str) -> Path:
    "Remembers."
trap, point, numbers = Trap(), Point(1), [1, 2]
executed.clear()
os.makedirs("folder/inner", exist_ok=True)
open("folder/data file.csv", "w").close(); open("folder/.hidden", "w").close()
open("helper_module.py", "w").write("def of_helper(): pass\\nclass OfHelper: pass\\nimport sys\\nVALUE = 1\\n1/0\\n")
`;

async function run(code: string) {
  return (await runOn(sandbox, code, { execution: ++executions })).result;
}

async function ask(question: EditorQuestion): Promise<unknown> {
  const { result } = await runOn(sandbox, "", { execution: executions, question });
  expect(result).toMatchObject({ success: true, stdout: "", stderr: "" });
  expect((await run("executed[:], executed.clear()")).result).toEqual([[], null]);
  return result.result;
}

/** @param marked has `|` where the cursor is. */
async function complete(marked: string) {
  const [before, after] = marked.split("|") as [string, string];
  const cursor = [...before].length;
  const reply = (await ask({ type: "complete", code: before + after, cursor })) as {
    matches: { text: string; type: string }[];
    start: number;
    end: number;
    isCut: boolean;
  };
  expect(reply.end).toBe(cursor);
  return { ...reply, texts: reply.matches.map(({ text }) => text), typed: [...before].slice(reply.start).join("") };
}

async function inspect(marked: string, detail: 0 | 1 = 0): Promise<string | null> {
  const [before, after] = marked.split("|") as [string, string];
  const cursor = [...before].length;
  return (
    ((await ask({ type: "inspect", code: before + after, cursor, detail })) as { text: string } | null)?.text ?? null
  );
}

const isComplete = async (code: string) => await ask({ type: "is_complete", code });

describe("completion", () => {
  test.each([
    ["docu|", ["documented"]],
    ["x = docu|mented", ["documented"]],
    ["whi|", ["while"]],
    ["isin|", ["isinstance"]],
    ["DOCU|", ["documented"]],
    ["os.path.isd|", ["isdevdrive", "isdir"]],
    ["trap.me|", ["method_of_base"]],
    ["trap.ow|", ["own"]],
    ["trap.eff|", ["effect"]],
    ["trap.slot.inh|", ["inherited"]],
    ["trap.effect.is_f|", ["is_fifo", "is_file"]],
    ["trap.cached.move|", ["move_to_end"]],
    ["trap.made().eff|", ["effect"]],
    ["trap.method_of_base(1).__class_|", ["__class__"]],
    ["documented(1).x|", ["x"]],
    ["Point(1, 2).x|", ["x"]],
    ["numbers[0].bit_l|", ["bit_length"]],
    ["trap.own['key_two'][-1].upp|", ["upper"]],
    ["'a b'.upp|", ["upper"]],
    ["[1, 2].app|", ["append"]],
    ["f'{trap.ow|", ["own"]],
    ["print(json.du|", ["dump", "dumps"]],
    ["documented(alp|", ["alpha="]],
    ["documented(1, ga|", ["gamma="]],
    ["remembered(ke|", ["key="]],
    ["remembered('a').is_fil|", ["is_file"]],
    ["documented(print(1), ga|", ["gamma="]],
    ["Trap(si|", ["size="]],
    ["trap.method_of_base(sec|", ["second="]],
    ["json.dumps(1, ind|", ["indent="]],
    ["trap(arg|", ["argument="]],
    ["import collections.ab|", ["abc"]],
    ["import os, js|", ["json"]],
    ["from collections import Ordered|", ["OrderedDict"]],
    ["from json import (dumps, dum|", ["dump", "dumps"]],
    ["from json import (\n  dumps,\n  loa|", ["load", "loads"]],
    ["import helper_m|", ["helper_module"]],
    ["from helper_module import of|", ["of_helper"]],
    ["from helper_module import VA|", ["VALUE"]],
    ["from xml.do|", ["dom"]],
    ["from xml.dom import mini|", ["minicompat", "minidom"]],
    ["open('fold|", ["folder/"]],
    ["open('folder/d|", ["data file.csv"]],
    ["open('folder/.h|", [".hidden"]],
    ["trap.own['key_|", ["key_one", "key_two"]],
    ['trap.own["it|', ["it's"]],
    ["trap.own['it|", []],
    ["%timei|", ["timeit"]],
    ["%%writef|", ["writefile"]],
    ["%time docu|", ["documented"]],
    ["def later_defined(): pass\nlater_d|", ["later_defined"]],
    ["für_später = 1\nüber = für_s|", ["für_später"]],
    ["'😀'; docu|", ["documented"]],
    ["# docu|", []],
    ["'docu|", []],
    ["def docu|", []],
    ["12|", []],
    ["1.|", []],
    ["nothing.of.it|", []],
    [".|", []],
    ["!pip inst|", []],
    ["b'fold|", []],
    ["nope(alp|", []],
  ])("%j", async (marked, expected) => {
    const { texts, isCut } = await complete(marked);
    expect([...texts].sort()).toEqual([...expected].sort());
    expect(isCut).toBe(false);
  });

  test("says where the match goes, and what each is", async () => {
    expect(await complete("'😀'; trap.own['key_|'] + 1")).toMatchObject({
      typed: "key_",
      matches: [
        { text: "key_one", type: "dict key" },
        { text: "key_two", type: "dict key" },
      ],
    });
    expect((await complete("os.pat|")).matches).toContainEqual({ text: "path", type: "module" });
    expect((await complete("trap.effec|")).matches).toEqual([{ text: "effect", type: "property" }]);
    expect((await complete("documen|")).matches).toEqual([{ text: "documented", type: "function" }]);
    expect((await complete("open('folder/da|")).typed).toBe("da");
  });

  test("gives the first of many, arguments before names, private ones where they are asked for", async () => {
    await run("globals().update({f'many_{n:04}': n for n in range(2000)}); _private = 1");
    expect(await complete("many_|")).toMatchObject({ isCut: true, matches: expect.objectContaining({ length: 500 }) });
    expect((await complete("documented(|")).texts.slice(0, 3)).toEqual(["alpha=", "beta=", "gamma="]);
    expect((await complete("Point(|")).texts.slice(0, 2)).toEqual(["x=", "y="]);
    expect((await complete("|")).texts).not.toContain("_private");
    expect((await complete("_pri|")).texts).toEqual(["_private"]);
    await run("for n in range(2000): del globals()[f'many_{n:04}']");
  });

  test.each([
    "(".repeat(5000),
    "a.".repeat(50_000),
    "f'{".repeat(3000),
    "'\\",
    `x = ${"[".repeat(1000)}1`,
    "\ud800.a",
    "\0",
  ])("of code that is strange: %#", async (code) => {
    expect((await complete(`${code}|`)).matches.length).toBeLessThanOrEqual(500);
    expect(await inspect(`${code}|`)).toBe(null);
  });
});

describe("inspection", () => {
  test("has signature, type, file and docstring; with detail the source", async () => {
    const text = await inspect("documented|(1)");
    expect(text).toContain(
      "Signature:      documented(alpha: int, beta: Path = <Default object>, *args, gamma=None, **rest) -> Point",
    );
    expect(text).toContain("Type:           function");
    expect(text).toContain("File:           <exec 1>");
    expect(text).toMatch(/Docstring:\nWhat it does\.\n\nAnd more\.$/);
    expect(await inspect("documented|", 1)).toMatch(/Source:\ndef documented\(alpha[\s\S]*return 1\n$/);
  });

  test.each([
    ["docum|ented", "Signature:      documented("],
    ["documented(1, |", "Signature:      documented("],
    ["documented('a|", "Signature:      documented("],
    ["documented?|", "Signature:      documented("],
    ["trap.method_of_base|", "Signature:      method_of_base(first, *, second=2) -> Point"],
    ["trap.effect|", "Type:           property"],
    ["remembered|", "Signature:      remembered(key: str) -> Path"],
    ["remembered|", "Docstring:\nRemembers."],
    ["trap|", "Class docstring:\nA base."],
    ["Point|", "Init signature: Point(x: int, y: float = 0.0)"],
    ["Trap|", "Init signature: Trap(size: int = 3, label='a')"],
    ["numbers|", "Length:         2"],
    ["json.dumps|", "Docstring:\nSerialize ``obj`` to a JSON formatted ``str``."],
    ["len|", "Signature:      len(obj, /)"],
    ["os.path|", "Type:           module"],
    ["os.sep|", "String form:    '/'"],
  ])("of %j", async (marked, expected) => {
    expect(await inspect(marked)).toContain(expected);
  });

  test.each(["nothing|", "# documented|", "|", "1 + |", "trap.nothing|", "nothing(1, |"])(
    "of %j is nothing",
    async (marked) => {
      expect(await inspect(marked)).toBe(null);
    },
  );
});

describe("whether code is complete", () => {
  const complete = { status: "complete" };
  const invalid = { status: "invalid" };
  const incomplete = (indent: string) => ({ status: "incomplete", indent });
  test.each([
    ["", complete],
    ["  \n", complete],
    ["1 + 1", complete],
    ["x = 1; y = 2\n", complete],
    ["await f()", complete],
    ["1\\\n+2", complete],
    ["def f():\n    return 1\n", complete],
    ["for i in x:\n    y\n\n", complete],
    ["%matplotlib inline", complete],
    ["%time f()\nx = %pwd\n!ls -l", complete],
    ["%%writefile a.txt\ntext (\n", incomplete("")],
    ["%%writefile a.txt\ntext (\n\n", complete],
    ["print?", complete],
    [">>> 1 + 1", complete],
    ["    x = 1\n    y = 2\n", complete],
    ["# only a comment", complete],
    ["if x:", incomplete("    ")],
    ["if x:  # why", incomplete("    ")],
    ["def f():\n  if x:\n", incomplete("      ")],
    ["class A:\n    def f(self):\n        pass", incomplete("        ")],
    ["for i in x:\n    y", incomplete("    ")],
    ["a = [1,\n2,", incomplete("")],
    ["f(a,\n  b", incomplete("  ")],
    ["a = '''\n   hi", incomplete("   ")],
    ["x = \\", incomplete("")],
    ["try:\n    x\n", incomplete("    ")],
    ["@decorator\n", incomplete("")],
    ["raise = 2", invalid],
    ["def a():\n  x=1\n  global x", invalid],
    ["(\n))", invalid],
    ["x = 'abc", invalid],
    ["1 +", invalid],
    ["f(1,, ", invalid],
    ["return 1", invalid],
    ["\ud800", invalid],
    ["\0", invalid],
  ])("%j", async (code, expected) => {
    expect(await isComplete(code)).toEqual(expected);
  });
});
