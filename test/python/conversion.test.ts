import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startTestEngine, type TestEngine } from "../support/engine.ts";
import { hasNative, native } from "../support/native-python.ts";

const wheels = process.env.PYODIDE_EXPRESS_WHEELS ?? "";
const hasPandas = wheels !== "" && readdirSync(wheels).some((name) => name.startsWith("pandas-"));
const documentation = readFileSync(new URL("../../docs/conversion.md", import.meta.url), "utf8");

/** The rows of one section's table. */
function documented(section: string): [expression: string, result: unknown][] {
  const [, text = ""] = documentation.split(`\n## ${section}\n`);
  const table = text.split("\n## ")[0] as string;
  return Array.from(table.matchAll(/^\| `(.*)` \| `(.*)` \|$/gm), ([, expression = "", result = ""]) => [
    expression,
    JSON.parse(result),
  ]);
}

let tested: TestEngine;
beforeAll(async () => {
  const packages = hasPandas ? "numpy,pandas" : "numpy";
  tested = await startTestEngine(wheels === "" ? {} : { PYODIDE_PACKAGES: packages, PACKAGE_DIR: wheels });
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

describe("a mock", () => {
  const LOOK = "import unittest.mock\nm = unittest.mock.MagicMock(name='m')\n";

  test("is shown by its repr, and has no call of ours", async () => {
    const { result } = await tested.run(`${LOOK}m`);
    expect(result).toMatch(/^<MagicMock name='m' id='\d+'>$/);
    const code = `${LOOK}import sandbox_runner.convert as c\nshown = [c.to_json_data(x)[0] for x in (m, [m], {"m": m}, m.a)]\nshown, len(m.mock_calls), [n for n in vars(m)["_mock_children"]]`;
    const [shown, calls, children] = (await tested.run(code)).result as [unknown[], number, string[]];
    const text = expect.stringMatching(/^<MagicMock name='m' id='\d+'>$/);
    expect(shown).toEqual([text, [text], { m: text }, expect.stringMatching(/^<MagicMock name='m.a'/)]);
    expect([calls, children]).toEqual([0, ["a"]]);
  });

  test.each([
    "Mock()",
    "NonCallableMock()",
    "AsyncMock()",
    "Mock(spec=dict)",
    "create_autospec(dict)",
    "MagicMock(name='x').a.b",
  ])("%s", async (made) => {
    const { result, error } = await tested.run(`from unittest.mock import *\n${made}`);
    expect(error).toBe(null);
    expect(result).toMatch(/^<\w*Mock .*id='\d+'>$/);
  });

  test("displayed is text alone", async () => {
    const { outputs } = await tested.run(`${LOOK}display(m)\nassert not m.mock_calls`);
    expect(outputs).toEqual([{ "text/plain": expect.stringMatching(/^<MagicMock name='m'/) }]);
  });
});

test("an object whose keys become the same string is cut as others are", async () => {
  const { result, truncated } = await tested.run('{str(i): "x" * 10 for i in range(10**4)} | {7: "seven", "x": None}');
  const rows = result as [unknown, unknown][];
  expect(truncated).toBe(false);
  expect(rows.slice(-2)).toEqual([
    [7, "seven"],
    ["x", null],
  ]);
  const long = await tested.run('{0: 1, "0": 2} | {str(i): "x" * 1000 for i in range(1, 20_000)}');
  expect(long.truncated).toBe(true);
  expect((long.result as unknown[][]).slice(0, 3)).toEqual([
    [0, 1],
    ["0", 2],
    ["1", "x".repeat(1000)],
  ]);
  expect(JSON.stringify(long.result).length).toBeLessThan(11 * 2 ** 20);
});

describe.skipIf(!hasPandas)("pandas", () => {
  test.each(documented("pandas"))("%s", async (expression, expected) => {
    const { result, error, stderr } = await tested.run(expression);
    expect({ result, error, stderr }).toEqual({ result: expected, error: null, stderr: "" });
  });

  test("a table that is too large, whose labels come more than once, is cut by rows", async () => {
    const code = 'pd.DataFrame({"a": np.arange(500_000), "b": 1.5, "c": "text"}, index=[0] * 500_000)';
    const { result, truncated } = await tested.run(code, { timeoutMs: 60_000 });
    expect(truncated).toBe(true);
    const lengths = Object.values(result as Record<string, unknown[]>).map((column) => column.length);
    expect(lengths.length).toBe(3);
    expect(Math.min(...lengths) / Math.max(...lengths)).toBeGreaterThan(0.9);
    expect(JSON.stringify(result).length).toBeGreaterThan(4 * 2 ** 20);
    expect(JSON.stringify(result).length).toBeLessThan(14 * 2 ** 20);
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

test.skipIf(!hasNative("pandas"))(
  "of a table that is too large as many rows are shown as fit, with all their columns",
  () => {
    const tables: Record<string, number> = {
      'pd.DataFrame({"a": np.arange(1_000_000), "b": 1.5, "c": "text"})': 3,
      'pd.DataFrame({"a": ["x" * 100] * 300_000})': 1,
      'pd.DataFrame(np.zeros((600_000, 2)), index=pd.date_range("2000-01-01", periods=600_000, freq="min"))': 2,
    };
    const cuts = native("cuts", Object.keys(tables)) as {
      truncated: boolean;
      columns: number;
      rows: [number, number];
      bytes: number;
    }[];
    for (const [index, columns] of Object.values(tables).entries()) {
      const { rows, bytes, ...cut } = cuts[index] as (typeof cuts)[number];
      expect(cut).toEqual({ truncated: true, columns });
      expect(rows[0] / rows[1]).toBeGreaterThan(0.9);
      expect(bytes).toBeGreaterThan(5 * 2 ** 20);
      expect(bytes).toBeLessThan(14 * 2 ** 20);
    }
  },
);

test.skipIf(!hasNative("pandas"))(
  "series and indexes that are too large are cut, and a wide table is not taken apart by column",
  () => {
    const expressions = [
      "pd.Series(np.arange(3_000_000))",
      'pd.date_range("2000-01-01", periods=2_000_000, freq="min")',
      "pd.MultiIndex.from_product([range(2000), range(2000)])",
      "pd.DataFrame(np.zeros((2, 3_000_000)))",
    ];
    for (const { truncated, bytes } of native("cuts", expressions) as { truncated: boolean; bytes: number }[]) {
      expect(truncated).toBe(true);
      expect(bytes).toBeGreaterThan(5 * 2 ** 20);
      expect(bytes).toBeLessThan(14 * 2 ** 20);
    }
  },
);

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
      failure: "",
    });
  });

  test("`plt.show()` sends what is open so far, and each figure once", () => {
    const code = "plt.plot([1])\nplt.show()\nshown = len(sent)\nassert shown == 1\nplt.figure()\nplt.show(block=False)";
    expect(native("figures", code)).toMatchObject({
      sent: [
        ["display", png],
        ["display", png],
      ],
      open: [],
      error: null,
    });
  });

  test("`savefig` writes where it is told, and the figure is sent all the same", () => {
    const code =
      'import tempfile, os\nplt.plot([1])\npath = tempfile.mkdtemp() + "/a.png"\nplt.savefig(path)\nassert os.path.getsize(path) > 1000';
    expect(native("figures", code)).toMatchObject({ sent: [["display", png]], open: [], error: null });
  });

  test("code that closes its figures has shown none", () => {
    expect(native("figures", 'plt.plot([1])\nplt.close("all")')).toMatchObject({ sent: [], open: [], error: null });
  });

  test("what failed code drew is sent, and none of it is left for the next execution of a session", () => {
    for (const [raised, error] of [
      ["1 / 0", "ZeroDivisionError"],
      ["raise SystemExit(0)", "SystemExit"],
    ]) {
      expect(native("figures", `plt.plot([1])\n${raised}`)).toMatchObject({
        sent: [["display", png]],
        open: [],
        error,
      });
    }
    const undrawable = 'plt.title(r"$\\frac$")\n1 / 0';
    expect(native("figures", undrawable)).toMatchObject({ sent: [], open: [], error: "ZeroDivisionError" });
  });

  test("a timeout leaves no time to draw, and no figure", () => {
    const outcome = native("figures", "plt.plot([1])\nraise KeyboardInterrupt");
    expect(outcome).toMatchObject({ sent: [], open: [], error: "KeyboardInterrupt" });
  });

  test("one that cannot be drawn is an error, and closed all the same", () => {
    const code = 'plt.plot([1])\nplt.figure()\nplt.title(r"$\\frac$")\nplt.figure()';
    expect(native("figures", code)).toMatchObject({ sent: [["display", png]], open: [], error: "ValueError" });
  });
});
