import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { StreamedOutput } from "./streamed-output.ts";

const encoder = new TextEncoder();
let sent: [string, string][];
let output: StreamedOutput;
const print = (text: string, stream: "stdout" | "stderr" = "stdout") => output.push(stream, encoder.encode(text));

beforeEach(() => {
  vi.useFakeTimers();
  sent = [];
  output = new StreamedOutput((...piece) => void sent.push(piece));
});
afterEach(() => void vi.useRealTimers());

test("a line is one piece, however it is printed, and is sent at once", () => {
  for (const part of ["h", "i", "\n"]) print(part);
  print("a\nb\nc");
  print("d\n");
  expect(sent).toEqual([
    ["stdout", "hi\n"],
    ["stdout", "a\nb\n"],
    ["stdout", "cd\n"],
  ]);
  vi.runAllTimers();
  expect(sent).toHaveLength(3);
});

test("the beginning of a line waits 50 ms from its first part, not from its last", () => {
  print("1");
  vi.advanceTimersByTime(30);
  print("2");
  vi.advanceTimersByTime(19);
  expect(sent).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(sent).toEqual([["stdout", "12"]]);
  print("3");
  vi.advanceTimersByTime(50);
  expect(sent[1]).toEqual(["stdout", "3"]);
});

test("the order of the two streams stays, and so does what is told between", () => {
  print("a");
  print("b", "stderr");
  print("c");
  output.flush();
  expect(sent).toEqual([
    ["stdout", "a"],
    ["stderr", "b"],
    ["stdout", "c"],
  ]);
  output.flush();
  expect(sent).toHaveLength(3);
});

test("a byte order mark is text", () => {
  print("\uFEFFa\n");
  print("\uFEFFb\n");
  expect(sent).toEqual([
    ["stdout", "\uFEFFa\n"],
    ["stdout", "\uFEFFb\n"],
  ]);
});

test("a character that is cut waits for its rest, and is replaced at the end where none comes", () => {
  const [first = 0, ...rest] = encoder.encode("é");
  output.push("stdout", Uint8Array.of(first));
  output.push("stdout", Uint8Array.from(rest));
  output.push("stderr", Uint8Array.of(first));
  output.end();
  expect(sent).toEqual([
    ["stdout", "é"],
    ["stderr", "\uFFFD"],
  ]);
  vi.runAllTimers();
  expect(sent).toHaveLength(2);
});
