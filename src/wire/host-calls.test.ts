import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { type GuestOperations, HOST_CALLS, isHostCall } from "./host-calls.ts";

const RUNNER = new URL("../guest/python/sandbox_runner/", import.meta.url);
const sources = readdirSync(RUNNER)
  .filter((name) => name.endsWith(".py"))
  .map((name) => readFileSync(new URL(name, RUNNER), "utf8"))
  .join("\n");

/** First argument of each call of one of these functions, where it is a text. */
const named = (functions: string): string[] =>
  Array.from(sources.matchAll(new RegExp(`\\b(?:${functions})\\(\\s*"([\\w-]+)"`, "g")), ([, name]) => name as string);

test("what Python asks of the host is in the table, and nothing in the table is asked by no one", () => {
  const asked = new Set(named("device\\.ask|device\\.ask_for_bytes|_ask"));
  // The guest itself asks for these.
  const own = ["read-file", "read-package"];
  expect([...asked, ...own].sort()).toEqual(Object.keys(HOST_CALLS).sort());
});

test("what Python tells the device is what the guest does", () => {
  const operations: Readonly<Record<keyof GuestOperations, true>> = {
    sleep: true,
    "repeat-interrupt": true,
    display: true,
    "clear-output": true,
  };
  expect([...new Set(named("device\\.tell"))].sort()).toEqual(Object.keys(operations).sort());
  for (const operation of Object.keys(operations)) expect(isHostCall(operation)).toBe(false);
});

test.each(["constructor", "__proto__", "toString", ""])("%j names no call", (name) => {
  expect(isHostCall(name)).toBe(false);
});
