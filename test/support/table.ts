import { describe, expect, test } from "vitest";
import type { ExecutionResult } from "../../src/sandbox/outcome.ts";
import type { TestEngine } from "./engine.ts";

/** What one piece of code must come to. */
export interface Row {
  readonly name: string;
  readonly code: string;
  readonly context?: Record<string, unknown>;
  readonly stdin?: string;
  /** Fields of the result; those that are left out may be anything. */
  readonly want: Partial<Record<keyof ExecutionResult, unknown>>;
}

export const text = (pattern: RegExp) => expect.stringMatching(pattern);
/** A Python exception of this class, whose message is this. */
export const raises = (type: string, message: unknown = expect.any(String)) => ({
  success: false,
  result: null,
  error: message,
  errorInfo: expect.objectContaining({ type, message }),
});
export const at = (line: number | null, column: number | null, type: string) => ({
  errorInfo: expect.objectContaining({ type, line, column }),
});
export const gives = (result: unknown, stdout: unknown = "") => ({
  success: true,
  result,
  error: null,
  stdout,
  stderr: "",
});
export const prints = (stdout: unknown) => gives(null, stdout);

/** One test for each row. @param tested is asked when the tests run. */
export function table(title: string, tested: () => TestEngine, rows: readonly Row[]): void {
  describe(title, () => {
    test.each(rows.map((row) => [row.name, row] as const))("%s", async (_, { code, context, stdin, want }) => {
      expect(await tested().run(code, { context, stdin })).toMatchObject(want);
      // Whatever it was, the next execution is none the worse for it.
      expect(await tested().run("6 * 7")).toMatchObject({ success: true, result: 42 });
    });
  });
}
