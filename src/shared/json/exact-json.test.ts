import { expect, test } from "vitest";
import { parseExact } from "./exact-json.ts";

test("numbers are written again as they were", () => {
  const text = '{"a":[12345678901234567890,1.0,-0.0,1e400,1,0.5],"b":{"c":true,"d":null,"e":"1.0"},"__proto__":1.0}';
  expect(JSON.stringify(parseExact(text))).toBe(text);
  expect(JSON.stringify({ more: parseExact("1.0"), ...(parseExact('{"x":9007199254740993}') as object) })).toBe(
    '{"more":1.0,"x":9007199254740993}',
  );
});

test("other values are JavaScript's own", () => {
  expect(parseExact('{"a":[1,2.5,"x"],"b":null}')).toEqual({ a: [1, 2.5, "x"], b: null });
  expect(() => parseExact("{")).toThrow(SyntaxError);
});
