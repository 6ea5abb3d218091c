import { expect, test } from "vitest";
import { JsonText } from "../shared/json/json-text.ts";
import { DisplayedOutputs, Displays } from "./displays.ts";

const bundle = (text: string) => JsonText.of({ "text/plain": text });
const textsOf = ({ bundles }: DisplayedOutputs) =>
  bundles.map((shown) => (shown.parseAll() as Record<string, string>)["text/plain"]);

test("an update takes the place of all that have its name, and only of these", () => {
  const outputs = new DisplayedOutputs();
  outputs.show(bundle("a"), "x");
  outputs.show(bundle("b"));
  outputs.show(bundle("c"), "x");
  outputs.show(bundle("d"), "y");
  outputs.show(bundle("new"), "x", true);
  expect(textsOf(outputs)).toEqual(["new", "b", "new", "d"]);
});

test("an update of what an earlier execution displayed is shown, and can be updated", () => {
  const outputs = new DisplayedOutputs();
  outputs.show(bundle("a"), "__proto__", true);
  outputs.show(bundle("b"), "__proto__", true);
  expect(textsOf(outputs)).toEqual(["b"]);
});

test("what is cleared is gone, and an update does not bring it back", () => {
  const outputs = new DisplayedOutputs();
  outputs.show(bundle("a"), "x");
  outputs.show(bundle("b"));
  outputs.clear(false);
  outputs.show(bundle("late"), "x", true);
  expect(textsOf(outputs)).toEqual([]);
  outputs.show(bundle("again"), "x");
  outputs.show(bundle("updated"), "x", true);
  expect(textsOf(outputs)).toEqual(["updated"]);
});

test("a clear that waits is done by what comes next: a display, an update or a print", () => {
  for (const next of ["display", "update", "print"] as const) {
    const outputs = new DisplayedOutputs();
    outputs.show(bundle("a"), "x");
    outputs.clear(true);
    expect(textsOf(outputs)).toEqual(["a"]);
    if (next === "print") outputs.somethingCame();
    else outputs.show(bundle("b"), "x", next === "update");
    expect(textsOf(outputs)).toEqual(next === "display" ? ["b"] : []);
  }
});

test("a clear at once takes the place of one that waits", () => {
  const outputs = new DisplayedOutputs();
  outputs.clear(true);
  outputs.clear(false);
  outputs.show(bundle("a"));
  outputs.somethingCame();
  expect(textsOf(outputs)).toEqual(["a"]);
});

const encode = (text: string) => new TextEncoder().encode(text);

test("a bundle's metadata stands behind it", async () => {
  const displays = new Displays();
  const about = '{"a":{"width":[1]}}';
  const body = encode(`{"a":"b"}${about}`);
  const shown = await displays.take({ type: "display", displayId: "x", metadataBytes: about.length }, body);
  expect({ ...shown, bundle: shown?.bundle.parseAll(), metadata: shown?.metadata?.parseAll() }).toEqual({
    type: "output",
    bundle: { a: "b" },
    displayId: "x",
    metadata: { a: { width: [1] } },
  });
});

test("the value's bundle is no output, and the last one counts", async () => {
  const displays = new Displays();
  for (const text of ["a", "b"]) {
    expect(await displays.take({ type: "display", kind: "value" }, encode(`{"x":"${text}"}`))).toBeNull();
  }
  expect(displays.value?.bundle.parseAll()).toEqual({ x: "b" });
  expect(displays.bundles).toEqual([]);
});

test.each([
  ["no object", "[]", 0],
  ["no texts", '{"a":1}', 0],
  ["two levels", '{"a":{"b":"c"}}', 0],
  ["whitespace", '{"a": "b"}', 0],
  ["more metadata than there is", "{}", 3],
  ["metadata that are no object", "{}[]", 2],
  ["metadata with whitespace", '{}{"a": 1}', 8],
  ["metadata of 17 levels", `{}${'{"a":'.repeat(17)}1${"}".repeat(17)}`, 17 * 6 + 1],
  ["metadata that begin in the bundle", '{"a":"b"}{}', 5],
])("refuses a bundle with %s", async (_, body, metadataBytes) => {
  const message = { type: "display", ...(metadataBytes > 0 && { metadataBytes }) } as const;
  await expect(new Displays().take(message, encode(body))).rejects.toThrow();
});

const MIB = 1024 * 1024;

test("refuses more than 10 MiB at a time: what was replaced or cleared does not count, and each place does where an update stands", () => {
  const mebibyte = bundle("x".repeat(MIB - 1024));
  const outputs = new DisplayedOutputs();
  for (let count = 0; count < 10; count++) outputs.show(mebibyte, "x", count > 0);
  expect(textsOf(outputs)).toHaveLength(1);
  for (let count = 0; count < 9; count++) outputs.show(mebibyte);
  expect(() => outputs.show(bundle(""))).toThrow("more shown at a time than there can be");
  outputs.clear(false);
  for (let count = 0; count < 11; count++) outputs.show(bundle(""), "y");
  expect(() => outputs.show(mebibyte, "y", true)).toThrow("more shown at a time than there can be");
});

test("an update may be larger than some that it replaces, and smaller than others", () => {
  const outputs = new DisplayedOutputs();
  for (const size of [0, 0, 9 * MIB]) outputs.show(bundle("x".repeat(size)), "x");
  outputs.show(bundle("x".repeat(3 * MIB)), "x", true);
  expect(outputs.bundles).toHaveLength(3);
});

test("data is counted as Python has it, or less: however it is written in JSON", async () => {
  for (const character of ["\u0001", '"', "\n", "\ud800", "é", "😀"]) {
    const bytes = Buffer.byteLength(character);
    const text = character.repeat(MIB / bytes);
    const shown = await new Displays().take({ type: "display" }, encode(JSON.stringify({ a: text })));
    expect(shown?.bundle.facts.textBytes).toBeLessThanOrEqual(Buffer.byteLength(text));
  }
});

test("refuses a value's bundle of more than 10 MiB", async () => {
  const body = encode(JSON.stringify({ a: "x".repeat(10 * MIB) }));
  await expect(new Displays().take({ type: "display", kind: "value" }, body)).rejects.toThrow("over its limit");
});

test("refuses more displays and clears than there can be", () => {
  const displays = new Displays();
  for (let count = 0; count < 12_000; count++) displays.clear(true);
  expect(() => displays.clear(true)).toThrow("more displayed than there can be");
});
