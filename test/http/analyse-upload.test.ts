import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { hasNative, native } from "../support/native-python.ts";

const SCRIPT = readFileSync(new URL("../../src/programs/analyse_upload.py", import.meta.url), "utf8");
const FAILED = { success: false, shape: null, columns: null, sample: null, memory_usage: null };

type Expected = { shape: number[]; columns: string[]; sample: object[] } | { error: RegExp };
const table = (columns: string[], ...rows: unknown[][]): Expected => ({
  shape: [rows.length, columns.length],
  columns,
  sample: rows.map((row) => Object.fromEntries(columns.map((name, index) => [name, row[index]]))),
});

/** Without pandas the same files are analysed in test/http/original-endpoints.test.ts. */
const CASES: [what: string, content: string | Buffer, expected: Expected][] = [
  ["numbers and text", "a,b\n1,x\n2.5,y\n", table(["a", "b"], [1, "x"], [2.5, "y"])],
  ["semicolons, and commas in numbers", "a;b\n1,5;2\n", table(["a", "b"], ["1,5", 2])],
  ["a byte order mark", "\ufeffa,b\n1,é\n", table(["a", "b"], [1, "é"])],
  ["UTF-16", Buffer.from("\ufeffa,b\n1,2\n", "utf16le"), table(["a", "b"], [1, 2])],
  ["Windows' encoding", Buffer.from("a,b\n1,\xe9\n", "latin1"), table(["a", "b"], [1, "é"])],
  ["columns of one name, and of none", "a,a,\n1,2,3\n", table(["a", "a.1", "Unnamed: 2"], [1, 2, 3])],
  ["missing and infinite values", "a,b\nNA,inf\n1,2\n", table(["a", "b"], [null, null], [1, 2])],
  ["numbers beyond 64 bits", `a\n${"9".repeat(30)}\n`, table(["a"], ["9".repeat(30)])],
  ["a fraction to its last digit", "a\n0.123456789012345\n", table(["a"], [0.123456789012345])],
  ["lines in quotes", 'a,b\n"x\ny",2\n', table(["a", "b"], ["x\ny", 2])],
  ["short lines", "a,b\n1\n", table(["a", "b"], [1, null])],
  ["a header alone", "a,b\n", table(["a", "b"])],
  ["more fields than the header, at once", "a,b\n1,2,3\n", { error: /^ValueError: .*more fields than the header/ }],
  ["more fields than the header, later", "a,b\n1,2\n1,2,3\n", { error: /^ParserError: .*Expected 2 fields.*saw 3$/ }],
  ["a quote without its end", 'a,b\n"x,2\n', { error: /^ParserError: / }],
  ["nothing", "", { error: /empty/ }],
  ["blank lines", "\n\n", { error: /empty/ }],
  ["bytes that are no text", "a\0b,c\n1,2\n", { error: /binary/ }],
];

describe.skipIf(!hasNative("pandas"))("an upload, where there is pandas, with", () => {
  let folder: string;
  let results: Record<string, unknown>[];
  beforeAll(() => {
    folder = temporaryFolder("pyodide-express-uploads");
    const files = CASES.map(([, content], index) => {
      const file = path.join(folder, `${index}.csv`);
      writeFileSync(file, content);
      return file;
    });
    results = native("analyses", [SCRIPT, ...files]) as typeof results;
  });

  test.each(CASES.map(([what, , expected], index) => [what, index, expected] as const))(
    "%s",
    (_what, index, expected) => {
      const { filename: _, ...result } = results[index] as Record<string, unknown>;
      expect(result).toEqual(
        "error" in expected
          ? { ...FAILED, error: expect.stringMatching(expected.error) }
          : { success: true, ...expected, memory_usage: expect.any(Number) },
      );
    },
  );
});
