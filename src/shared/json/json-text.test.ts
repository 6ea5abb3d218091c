import { expect, test } from "vitest";
import { JsonLimitError } from "./json-scanner.ts";
import { JsonText } from "./json-text.ts";

const LIMITS = { maxDepth: 100, maxNodes: 1_000_000, maxNameBytes: 100 };
const many = JsonText.check(Buffer.from(`[${Array(150_000).fill("{}")}]`), LIMITS);

test("a text of many values is no object by mistake: who wants that says how many it may have", () => {
  expect(() => many.parseAll()).toThrow(JsonLimitError);
  expect(many.parse()).toEqual({ tooLarge: "it has more than 100000 values" });
  expect(many.parseAll(Number.POSITIVE_INFINITY)).toHaveLength(150_000);
  expect(many.parse({ maxBytes: 2 ** 20, maxNodes: 200_000 })).toHaveProperty("value");
  expect(JsonText.of([1, { a: null }]).parseAll()).toEqual([1, { a: null }]);
});
