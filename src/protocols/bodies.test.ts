import { expect, test } from "vitest";
import { BASE64 } from "./bodies.ts";

test.each(["", "YQ==", "YWI=", "YWJj", "YW\nJj\n", " YQ==\n ", "YWJj\r\nYQ"])("%j is base64", (text) => {
  expect(BASE64.test(text)).toBe(true);
});

test.each(["!", "YQ===", "Y=Q=", "YQ= =", "YQ==!", "-_"])("%j is not base64", (text) => {
  expect(BASE64.test(text)).toBe(false);
});
