import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startTestEngine, type TestEngine } from "./support/engine.ts";

const wheels = process.env.PYODIDE_EXPRESS_WHEELS ?? "";
const documentation = readFileSync(new URL("../docs/conversion.md", import.meta.url), "utf8");

/** The rows of one section's table. */
function documented(section: string): [expression: string, result: unknown][] {
  const [, text = ""] = documentation.split(`\n## ${section}\n`);
  const table = text.split("\n## ")[0] as string;
  return Array.from(table.matchAll(/^\| `(.*)` \| `(.*)` \|$/gm), ([, expression = "", result = ""]) => [
    expression,
    JSON.parse(result),
  ]);
}

const RUNNER = fileURLToPath(new URL("../src/guest/python", import.meta.url));
const SCRIPT = fileURLToPath(new URL("support/native-python.py", import.meta.url));
const PYTHON = "/usr/bin/python3";
const hasNative = (module: string) => spawnSync(PYTHON, ["-c", `import ${module}`]).status === 0;

function native(call: string, argument: unknown): unknown {
  const input = JSON.stringify({ call, argument });
  return JSON.parse(execFileSync(PYTHON, [SCRIPT, RUNNER], { input, encoding: "utf8" }));
}

let tested: TestEngine;
beforeAll(async () => {
  tested = await startTestEngine(wheels === "" ? {} : { PYODIDE_PACKAGES: "numpy", PACKAGE_DIR: wheels });
});
afterAll(async () => await tested?.stop());

test("the documentation has a table for each", () => {
  for (const section of ["Python", "numpy", "pandas"]) expect(documented(section).length).toBeGreaterThan(20);
});

test.each(documented("Python"))("%s", async (expression, expected) => {
  const { result, error } = await tested.run(expression);
  expect({ result, error }).toEqual({ result: expected, error: null });
});

describe.skipIf(wheels === "")("numpy", () => {
  test.each(documented("numpy"))("%s", async (expression, expected) => {
    const { result, error, stderr } = await tested.run(expression);
    expect({ result, error, stderr }).toEqual({ result: expected, error: null, stderr: "" });
  });

  test("a huge array is cut before it is converted", async () => {
    for (const [expression, first] of [
      ["np.arange(20_000_000)", 2],
      ["np.zeros((2, 10_000_000), dtype=np.int8)", [0, 0]],
      ["np.zeros((10_000_000, 2), dtype=np.int8)", [0, 0]],
    ] as const) {
      const { result, truncated, error } = await tested.run(expression, { timeoutMs: 60_000 });
      expect({ truncated, error }).toEqual({ truncated: true, error: null });
      const rows = result as (number | number[])[];
      expect(typeof first === "number" ? rows[2] : (rows[0] as number[]).slice(0, 2)).toEqual(first);
      expect(JSON.stringify(rows).length).toBeLessThan(11 * 1024 * 1024);
    }
  });
});

test.skipIf(!hasNative("pandas"))("pandas, and numpy, as an ordinary Python has them", () => {
  // Of this Python's numpy, which may be older: texts that differ between its versions are the sandbox's affair.
  const rows = [...documented("pandas"), ...documented("numpy")];
  const results = native(
    "conversions",
    rows.map(([expression]) => expression),
  ) as [unknown, boolean][];
  expect(rows.map(([expression], index) => [expression, results[index]])).toEqual(
    rows.map(([expression, expected]) => [expression, [expected, false]]),
  );
});

describe.skipIf(!hasNative("matplotlib"))("figures", () => {
  const png = expect.objectContaining({ "image/png": "iVBORw0KGgoA" });

  test("each open one is sent, in order, and closed", () => {
    const code = "plt.plot([1, 2])\nplt.figure()\nplt.bar([1], [2])";
    expect(native("figures", code)).toEqual({
      sent: [
        ["display", png],
        ["display", png],
      ],
      open: [],
      error: null,
    });
  });

  test("one that cannot be drawn is an error, and closed all the same", () => {
    const code = 'plt.plot([1])\nplt.figure()\nplt.title(r"$\\frac$")\nplt.figure()';
    expect(native("figures", code)).toMatchObject({ sent: [["display", png]], open: [], error: "ValueError" });
  });
});
