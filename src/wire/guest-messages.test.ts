import { expect, test } from "vitest";
import { errorInfo } from "./guest-messages.ts";

const error = { type: "E", message: "m", traceback: "t", line: 1, column: null };

test.each([
  // What `sandbox_runner/tracebacks.py` leaves of a text, and its note.
  ["type", 1000],
  ["message", 100_000],
  ["traceback", 200_000],
] as const)("an error's %s is no longer than the runner makes it", (part, characters) => {
  const longest = `${"🐍".repeat(characters)}… (123456789 more characters)`;
  expect(errorInfo.safeParse({ ...error, [part]: longest }).success).toBe(true);
  expect(errorInfo.safeParse({ ...error, [part]: longest + "x".repeat(100) }).success).toBe(false);
});
