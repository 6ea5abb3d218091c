import fc from "fast-check";
import { expect, test } from "vitest";
import { turnsOf } from "../testing/turns.ts";
import { contentOf, textMembers } from "./json-members.ts";
import { JsonText } from "./json-text.ts";

const LIMITS = {
  maxDepth: 1,
  maxNodes: 101,
  maxNameBytes: Number.POSITIVE_INFINITY,
  compact: true,
};
const bundleOf = (text: string) => JsonText.check(Buffer.from(text), LIMITS);

async function read(bundle: JsonText): Promise<Record<string, string>> {
  const members: [string, string][] = [];
  for (const [name, text] of await textMembers(bundle)) members.push([name, (await contentOf(text)).toString()]);
  return Object.fromEntries(members);
}

test.each([
  ["nothing", "{}"],
  ["a name twice", '{"a":"b","c":"d","a":"e"}'],
  ["names and texts of quotes and backslashes", String.raw`{"\"":"\\","\\\"":"\"\\\"","\\":""}`],
  ["names that objects have", '{"__proto__":"a","constructor":"b"}'],
])("has the members that JSON.parse has, of %s", async (_, text) => {
  expect(await read(bundleOf(text))).toEqual(JSON.parse(text));
});

test("says what a text says, wherever it is cut into slices", async () => {
  const unit = fc.constantFrom("a", '"', "\\", "\n", "\u0001", "é", "€", "😀");
  const filler = fc.constantFrom("", "x", "é", "€", "😀", "\\", "\u0001");
  await fc.assert(
    fc.asyncProperty(
      fc.string({ unit, maxLength: 40 }),
      filler,
      fc.nat(64),
      fc.boolean(),
      async (text, fill, at, isAscii) => {
        const long = fill.repeat(300_000 / 4) + "y".repeat(at) + text.repeat(20_000);
        const json = JSON.stringify({ [text]: long, b: text });
        const escaped = isAscii
          ? json.replace(/[^\0-\x7f]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`)
          : json;
        const members = await read(bundleOf(escaped));
        // A comparison, not a difference that would be printed.
        expect(members[text] === (text === "b" ? text : long) && members.b === text).toBe(true);
      },
    ),
    { numRuns: 40 },
  );
});

test("members are the bytes of the object, and not a copy", async () => {
  const bundle = bundleOf('{"a":"b"}');
  const a = (await textMembers(bundle)).get("a");
  expect(a?.bytes.buffer).toBe(bundle.bytes.buffer);
  expect(a?.toString()).toBe('"b"');
});

test("the event loop has its turn after each 256 KiB: of one large text, of many small ones, of quotes and of names", async () => {
  const part = 64 * 1024;
  const parts = Array.from({ length: 64 }, (_, at) => at);
  const bundles = {
    "one text": JSON.stringify({ a: "x".repeat(64 * part) }),
    "small ones": JSON.stringify(Object.fromEntries(parts.map((at) => [at, "x".repeat(part)]))),
    quotes: JSON.stringify({ a: '"'.repeat(32 * part) }),
    names: JSON.stringify(Object.fromEntries(parts.map((at) => [`${at}${"n".repeat(part)}`, ""]))),
  };
  for (const [name, text] of Object.entries(bundles)) {
    const bundle = bundleOf(text);
    const turns = await turnsOf(async () => await textMembers(bundle));
    expect(turns, name).toBeGreaterThanOrEqual(15);
  }
  const text = JsonText.of("\u0001".repeat(16 * part));
  expect(await turnsOf(async () => await contentOf(text))).toBeGreaterThanOrEqual(15);
});
