import { expect, test } from "vitest";
import type { ExecutionResult } from "../sandbox/outcome.ts";
import { Slices } from "../shared/json/json-members.ts";
import { jsonParts } from "../shared/json/json-parts.ts";
import { JsonText } from "../shared/json/json-text.ts";
import { turnsOf } from "../shared/testing/turns.ts";
import { toResult } from "./e2b/results.ts";
import { notebookData } from "./jupyter/bundles.ts";
import { executionResult } from "./mcp/results.ts";
import { toCell } from "./sandboxfusion/cells.ts";

const LIMITS = { maxDepth: 1, maxNodes: 101, compact: true };
const bundleOf = (members: object) => JsonText.check(Buffer.from(JSON.stringify(members)), LIMITS);
const parse = (object: object) => JSON.parse(Buffer.concat(jsonParts(object)).toString());
const resultOf = (...outputs: JsonText[]) =>
  ({
    status: "completed",
    success: true,
    stdout: "",
    stderr: "",
    outputs,
    result: JsonText.null,
  }) as unknown as ExecutionResult;

const READERS = {
  Jupyter: async (bundle: JsonText) => await notebookData(bundle),
  SandboxFusion: async (bundle: JsonText) => await toCell(resultOf(bundle)),
  E2B: async (bundle: JsonText) => await toResult(bundle, false, new Slices()),
  MCP: async (bundle: JsonText) => await executionResult(resultOf(bundle), undefined),
};

test.each(Object.entries(READERS))(
  "%s: a bundle of 4 MiB is not looked through in one turn of the event loop",
  async (_, read) => {
    const json = (bytes: number) => `[${"0,".repeat(bytes / 2)}0]`;
    for (const members of [1, 5, 96]) {
      const each = json((4 << 20) / members);
      const names = [
        "application/json",
        ...Array.from({ length: members - 1 }, (_value, at) => `application/a${at}+json`),
      ];
      const bundle = bundleOf(Object.fromEntries(names.map((name) => [name, each])));
      // 16 slices are found; in what is JSON they are looked through, too.
      expect(await turnsOf(async () => await read(bundle)), `${members} members`).toBeGreaterThanOrEqual(15);
    }
  },
);

test.each(["Jupyter", "SandboxFusion"] as const)(
  "%s: each slice of what is JSON is counted, in however many members",
  async (name) => {
    for (const members of [1, 5, 96]) {
      const each = `[${"0,".repeat((2 << 20) / members)}0]`;
      const bundle = bundleOf(
        Object.fromEntries(Array.from({ length: members }, (_, at) => [`application/a${at}+json`, each])),
      );
      // Found, read and looked through: 16 slices each.
      expect(await turnsOf(async () => await READERS[name](bundle)), `${members} members`).toBeGreaterThanOrEqual(40);
    }
  },
);

test("what is JSON is no text, what is none stays one, and texts are what code has displayed", async () => {
  const bundle = bundleOf({
    "application/json": ' {"a":\n[1.0]} ',
    "application/x+json": "{",
    "text/plain": "\"'\\\u0001é😀\ud800",
    "application/vnd.pyodide-express.table+json": "{}",
  });
  const notebook = parse(await notebookData(bundle));
  expect(notebook).toEqual({
    "application/json": { a: [1] },
    "application/x+json": "{",
    "text/plain": "\"'\\\u0001é😀\ud800",
  });
  const cell = parse(await toCell(resultOf(bundle)));
  expect(cell.display).toEqual([{ ...notebook, "application/vnd.pyodide-express.table+json": {} }]);
});

test.each([
  ["'a'", "a"],
  ['"a\'b"', "a'b"],
  ["'a\\\\'", "a\\\\"],
  ["'a\"", "'a\""],
  ["a", "a"],
  ["", ""],
  ["'", "'"],
  ['"', '"'],
  ["''", ""],
  ['""', ""],
  ['a"', 'a"'],
])("E2B: the text of %s has no quotes of a repr", async (text, shown) => {
  const result = parse(await toResult(bundleOf({ "text/plain": text }), true, new Slices()));
  expect(result).toEqual({ type: "result", is_main_result: true, text: shown });
});

test("E2B: members of no name of its own are texts beside it, whatever they are called", async () => {
  const bundle = bundleOf({ "application/x+json": "[1]", "text/html": "<b>" });
  const named = JsonText.check(Buffer.from('{"__proto__":"a"}'), LIMITS);
  const of = async (shown: JsonText) => parse(await toResult(shown, false, new Slices()));
  expect(await of(bundle)).toMatchObject({ html: "<b>", extra: { "application/x+json": "[1]" } });
  expect(Object.entries((await of(named)).extra)).toEqual([["__proto__", "a"]]);
});
