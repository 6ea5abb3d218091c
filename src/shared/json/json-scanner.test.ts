import fc from "fast-check";
import { expect, test } from "vitest";
import { JsonLimitError, MAX_NAME_BYTES, scanJson, scanJsonInSlices } from "./json-scanner.ts";

const LIMITS = { maxDepth: 10, maxNodes: 100_000 };
const bytesOf = (text: string) => Buffer.from(text);

test("a name is bounded, a value is not: V8 compares names of 16,384 characters and more", () => {
  const named = (name: string) => () => scanJson(bytesOf(JSON.stringify({ [name]: "x".repeat(50_000) })), LIMITS);
  expect(named("n".repeat(MAX_NAME_BYTES))).not.toThrow();
  expect(named("n".repeat(MAX_NAME_BYTES + 1))).toThrow(JsonLimitError);
  expect(() => scanJson(bytesOf(`{"${"\\u0041".repeat(MAX_NAME_BYTES + 1)}":1}`), LIMITS)).toThrow(JsonLimitError);
  expect(MAX_NAME_BYTES).toBeLessThan(16_384);
});

test("where names are passed on, they may be of any length", () => {
  const text = JSON.stringify({ ["n".repeat(100_000)]: 1 });
  expect(scanJson(bytesOf(text), { ...LIMITS, maxNameBytes: Number.POSITIVE_INFINITY }).nodes).toBe(2);
});

test("no name of more characters passes, however it is written and wherever it is cut into slices", async () => {
  const name = fc.string({ unit: fc.constantFrom("a", "é", "€", "😀", '"', "\\", "\n", "\u0001"), maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(fc.array(name, { minLength: 1, maxLength: 8 }), fc.nat(300_000), async (names, filler) => {
      const text = JSON.stringify([["x".repeat(filler)], ...names.map((each) => ({ [each]: each }))]);
      const limits = { ...LIMITS, maxNameBytes: 20 };
      const passed = await scanJsonInSlices(bytesOf(text), limits).then(
        () => true,
        (error) => !(error instanceof JsonLimitError),
      );
      if (passed) expect(Math.max(...names.map(({ length }) => length))).toBeLessThanOrEqual(20);
    }),
  );
});
