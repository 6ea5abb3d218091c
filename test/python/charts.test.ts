import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TEST_WHEELS } from "../support/config.ts";
import { py, startTestEngine, type TestEngine } from "../support/engine.ts";

const CHART = "application/vnd.pyodide-express.chart+json";
const TABLE = "application/vnd.pyodide-express.table+json";
const SCHEMA = "application/vnd.dataresource+json";
const PNG = expect.stringMatching(/^iVBORw0KGgo/);

/** What a chart has of one axis that nothing was said of. */
const plain = (prefix: "x" | "y") => ({ [`${prefix}_label`]: null, [`${prefix}_unit`]: null });

describe.skipIf(TEST_WHEELS === "")("figures and tables of real packages, as data", () => {
  let tested: TestEngine;
  beforeAll(async () => {
    tested = await startTestEngine({
      POOL_SIZE: "1",
      PYODIDE_PACKAGES: "numpy,pandas,matplotlib,seaborn",
      PACKAGE_DIR: TEST_WHEELS,
    });
  });
  afterAll(async () => await tested?.stop());

  const run = async (code: string, display: "on" | "after-outputs" | null = "on") => {
    const result = await tested.run(code, { display: display ?? undefined });
    expect({ error: result.error, stderr: result.stderr }).toEqual({ error: null, stderr: "" });
    return result;
  };
  /** Of the figures that code leaves open. */
  const charts = async (code: string) => {
    const { outputs } = await run(`${code}\nNone`);
    return outputs.map((bundle) => {
      expect(bundle).toMatchObject({ "image/png": PNG, "text/plain": expect.stringMatching(/^<Figure size/) });
      return bundle[CHART] === undefined ? null : JSON.parse(bundle[CHART]);
    });
  };
  const chart = async (code: string) => {
    const all = await charts(code);
    expect(all).toHaveLength(1);
    return all[0];
  };
  const table = async (code: string) => {
    const { display } = await run(code);
    return JSON.parse(display?.[TABLE] ?? "null");
  };

  describe("a figure that is the last value", () => {
    const code = "figure, axes = plt.subplots()\naxes.plot([1, 2])\nfigure";

    test("and open is shown once: as the value where that is asked for, else as ever", async () => {
      const asked = await run(code);
      expect(asked.outputs).toEqual([]);
      expect(asked.display).toMatchObject({ "image/png": PNG, "text/plain": expect.stringMatching(/^<Figure/) });
      expect(JSON.parse(asked.display?.[CHART] ?? "null")).toMatchObject({ type: "line" });
      const followed = await run(code, "after-outputs");
      expect(followed.outputs).toMatchObject([{ "image/png": PNG, [CHART]: expect.any(String) }]);
      expect(followed.display).toEqual({ "text/plain": expect.stringMatching(/^<Figure/) });
      const neither = await run(code, null);
      expect(neither.outputs).toEqual([{ "image/png": PNG, "text/plain": expect.stringMatching(/^<Figure/) }]);
      expect(neither).not.toHaveProperty("display");
    });

    test("does not take other open figures along", async () => {
      const { outputs, display } = await run(`other = plt.figure()\nother.text(0.5, 0.5, "x")\n${code}`);
      expect([outputs.length, display?.["image/png"]]).toEqual([1, PNG]);
    });

    test("and closed is the value in any case", async () => {
      for (const display of ["on", "after-outputs"] as const) {
        const closed = await run(code.replace("\nfigure", '\nplt.close("all")\nfigure'), display);
        expect([closed.outputs, closed.display?.["image/png"]]).toEqual([[], PNG]);
      }
    });

    test("and cannot be drawn is an error, and closed all the same", async () => {
      const undrawable = code.replace("\nfigure", '\naxes.set_title(r"$\\frac$")\nfigure');
      const { success, errorInfo } = await tested.run(undrawable, { display: "on" });
      expect([success, errorInfo?.type]).toEqual([false, "ValueError"]);
    });

    test("is drawn once without a word on stderr, with `display()` too", async () => {
      const { outputs } = await run(`${code.replace("\nfigure", "")}\ndisplay(figure)\nplt.close()`);
      expect(outputs).toMatchObject([{ "image/png": PNG, [CHART]: expect.any(String) }]);
    });
  });

  describe("charts", () => {
    test("lines over dates, with titles, units and ticks; limits and grids are none", async () => {
      const code = py`
        import datetime
        dates = [datetime.date(2023, 9, 1) + datetime.timedelta(days=i) for i in range(3)]
        plt.plot(dates, [1, 2.5, 4], label="sin(x)")
        plt.plot(dates, [3, 2, float("nan")])
        plt.axhline(3); plt.axvspan(dates[0], dates[1]); plt.grid(True); plt.legend()
        plt.xlabel("Time (s)"); plt.ylabel("Amplitude [Hz]"); plt.title("Two lines")`;
      const { x_ticks, x_tick_labels, y_ticks, y_tick_labels, ...rest } = await chart(code);
      expect(rest).toEqual({
        type: "line",
        title: "Two lines",
        x_label: "Time (s)",
        x_unit: "s",
        x_scale: "datetime",
        y_label: "Amplitude [Hz]",
        y_unit: "Hz",
        y_scale: "linear",
        elements: [
          {
            label: "sin(x)",
            points: [
              ["2023-09-01", 1],
              ["2023-09-02", 2.5],
              ["2023-09-03", 4],
            ],
          },
          {
            label: "Line 1",
            points: [
              ["2023-09-01", 3],
              ["2023-09-02", 2],
              ["2023-09-03", null],
            ],
          },
        ],
      });
      expect(x_ticks.every((tick: string) => tick.startsWith("2023-09-0"))).toBe(true);
      expect([x_ticks.length, y_ticks.length]).toEqual([x_tick_labels.length, y_tick_labels.length]);
      expect(y_ticks.map(String)).toEqual(y_tick_labels.map((label: string) => String(Number(label))));
    });

    test("scales: logarithmic, of categories, of pandas' periods", async () => {
      const log = await chart("plt.plot([1, 2], [10, 1e5]); plt.yscale('log'); plt.ylabel('Y (log scale)')");
      expect(log).toMatchObject({ x_scale: "linear", y_scale: "log", y_unit: "log scale" });
      expect(log.y_ticks).toEqual(expect.arrayContaining([10, 100, 1000]));
      const categories = await chart("plt.plot([1, 2, 3], ['A', 'B', 'C'])");
      expect(categories).toMatchObject({ x_scale: "linear", y_scale: "categorical", y_tick_labels: ["A", "B", "C"] });
      expect(categories.elements[0].points).toEqual([
        [1, "A"],
        [2, "B"],
        [3, "C"],
      ]);
      const series = "pd.Series([1, 2, 3], index=pd.date_range('2020-01-01', periods=3, freq='MS'), name='s').plot()";
      const periods = await chart(series);
      expect(periods).toMatchObject({ type: "line", x_scale: "datetime", elements: [{ label: "s" }] });
      expect(periods.x_ticks[0]).toBe("2020-01-01T00:00:00");
      expect(periods.elements[0].points[2]).toEqual(["2020-03-01T00:00:00", 3]);
    });

    test("points of several sets; a color bar is no chart", async () => {
      const code = py`
        plt.scatter([1.5, 2], [4, 5], label="First")
        plt.scatter([1], [float("nan")])
        plt.scatter([3], [4], c=[1]); plt.colorbar()
        plt.axhline(4)`;
      expect(await chart(code)).toMatchObject({
        type: "scatter",
        elements: [
          {
            label: "First",
            points: [
              [1.5, 4],
              [2, 5],
            ],
          },
          { label: "Dataset 1", points: [] },
          { label: "Dataset 2", points: [[3, 4]] },
        ],
      });
      const dates = await chart("plt.scatter(np.array(['2020-01-01'], dtype='datetime64[D]'), ['a'])");
      expect(dates).toMatchObject({ x_scale: "datetime", y_scale: "categorical" });
      expect(dates.elements[0].points).toEqual([["2020-01-01T00:00:00", "a"]]);
    });

    test("bars: upright, lying, grouped, stacked, of numbers and dates, with error bars", async () => {
      const books = py`
        plt.bar(["Author A", "Author B"], [100, 200], label="Books Sold", yerr=[1, 2], capsize=3)
        plt.xlabel("Authors"); plt.ylabel("Number of Books Sold (pieces)")`;
      expect(await chart(books)).toEqual({
        type: "bar",
        title: null,
        x_label: "Authors",
        x_unit: null,
        y_label: "Number of Books Sold (pieces)",
        y_unit: "pieces",
        elements: [
          { label: "Author A", group: "Books Sold", value: 100 },
          { label: "Author B", group: "Books Sold", value: 200 },
        ],
      });
      // As if they were upright: E2B's clients read `x` as what is counted.
      const lying = await chart("plt.barh(['a', 'b'], [5, 5], height=0.3); plt.xlabel('Sales [$]'); plt.ylabel('Who')");
      expect(lying).toMatchObject({ x_label: "Who", y_label: "Sales [$]", y_unit: "$" });
      expect(lying.elements).toEqual([
        { label: "a", group: "Group 0", value: 5 },
        { label: "b", group: "Group 0", value: 5 },
      ]);
      const elements = async (code: string) => {
        const { type, elements } = await chart(code);
        expect(type).toBe("bar");
        return elements.map(({ label, group, value }: Record<string, unknown>) => [label, group, value]);
      };
      expect(await elements("pd.DataFrame({'a': [1, 2], 'b': [3, 4]}, index=['p', 'q']).plot.bar()")).toEqual([
        ["p", "a", 1],
        ["q", "a", 2],
        ["p", "b", 3],
        ["q", "b", 4],
      ]);
      const stacked = "plt.bar(['a'], [1], label='x'); plt.bar(['a'], [3], bottom=[1], label='y'); plt.legend()";
      expect(await elements(stacked)).toEqual([
        ["a", "x", 1],
        ["a", "y", 3],
      ]);
      expect(await elements("plt.bar([2019, 2020, 123456789], [1, float('nan'), 0])")).toEqual([
        ["2019", "Group 0", 1],
        ["2020", "Group 0", null],
        ["123456789", "Group 0", 0],
      ]);
      expect(await elements("plt.bar(pd.date_range('2020-01-01', periods=2), [1, 2])")).toEqual([
        ["2020-01-01T00:00:00", "Group 0", 1],
        ["2020-01-02T00:00:00", "Group 0", 2],
      ]);
      expect(await elements("plt.hist([1, 2, 2, 3, 3, 3, 3], bins=4, range=(0, 4))")).toEqual([
        ["0 – 1", "Group 0", 0],
        ["1 – 2", "Group 0", 1],
        ["2 – 3", "Group 0", 2],
        ["3 – 4", "Group 0", 4],
      ]);
      const seaborn = py`
        import seaborn as sns
        sns.barplot(pd.DataFrame({"g": ["a", "a", "b", "b"], "v": [1, 2, 3, 5], "h": ["x", "y"] * 2}), x="g", y="v", hue="h")`;
      expect((await elements(seaborn)).map(([label, , value]: unknown[]) => [label, value])).toEqual([
        ["a", 1],
        ["b", 3],
        ["a", 2],
        ["b", 5],
      ]);
    });

    test("slices", async () => {
      const code = py`
        plt.pie([90, 10], labels=["No", "No, in blue"], autopct="%1.1f%%", startangle=90, shadow=True)
        plt.title("Will I wake up early tomorrow?")`;
      expect(await chart(code)).toEqual({
        type: "pie",
        title: "Will I wake up early tomorrow?",
        elements: [
          { label: "No", angle: 324, radius: 1 },
          { label: "No, in blue", angle: 36, radius: 1 },
        ],
      });
      expect(await chart("plt.pie([1, 1], radius=2, wedgeprops={'width': 0.4})")).toMatchObject({
        elements: [
          { label: "Slice 0", angle: 180, radius: 2 },
          { label: "Slice 1", angle: 180, radius: 2 },
        ],
      });
    });

    test("boxes: filled or not, upright or lying, with notches, means and outliers", async () => {
      const scores =
        "data = {'Class A': [85, 90, 78, 92, 88], 'Class B': [95, 89, 76, 91, 84, 87], 'Class C': [75, 82, 88, 79, 86]}";
      const boxes = [
        ["Class A", 78, 85, 88, 90, 92, []],
        ["Class B", 84, 84.75, 88, 90.5, 95, [76]],
        ["Class C", 75, 79, 82, 86, 88, []],
      ].map(([label, min, first_quartile, median, third_quartile, max, outliers]) => ({
        ...{ label, min, first_quartile, median, third_quartile, max, outliers },
      }));
      for (const options of [
        "patch_artist=True",
        "patch_artist=False",
        "notch=True",
        "notch=True, patch_artist=True, orientation='horizontal'",
        "orientation='horizontal', showmeans=True",
      ]) {
        const code = `${scores}\nplt.boxplot(data.values(), tick_labels=data.keys(), ${options})\nplt.title('Exam Scores')`;
        const want = { type: "box_and_whisker", title: "Exam Scores", ...plain("x"), ...plain("y"), elements: boxes };
        expect({ options, ...(await chart(code)) }).toEqual({ options, ...want });
      }
      const labels = "plt.xlabel('Score'); plt.ylabel('Class')";
      const lying = `${scores}\nplt.boxplot(data.values(), orientation='horizontal')\n${labels}`;
      expect(await chart(lying)).toMatchObject({ x_label: "Class", y_label: "Score" });
      const equal = await chart("plt.boxplot([[1, 1, 1], [1, 2, 3]])");
      expect(equal.elements).toMatchObject([
        { label: "1", min: 1, median: 1, max: 1 },
        { label: "2", min: 1, median: 2, max: 3 },
      ]);
      const seaborn = py`
        import seaborn as sns
        table = pd.DataFrame({"g": ["a", "a", "a", "b", "b", "b"] * 2, "v": [1, 2, 3, 4, 5, 16] * 2, "h": ["x", "y"] * 6})
        sns.boxplot(table, x="g", y="v", hue="h")`;
      const { type, elements } = await chart(seaborn);
      expect([type, elements.map(({ label, median }: Record<string, unknown>) => [label, median])]).toEqual([
        "box_and_whisker",
        [
          ["a", 2],
          ["b", 5],
          ["a", 2],
          ["b", 10],
        ],
      ]);
    });

    test("several in one figure", async () => {
      const code = py`
        figure, axes = plt.subplots(1, 3)
        figure.suptitle("Multiple Charts")
        axes[0].plot([1, 2], [3, 4]); axes[0].set_title("Sine"); axes[0].grid(True)
        axes[1].scatter([1], [2])`;
      expect(await chart(code)).toMatchObject({
        type: "superchart",
        title: "Multiple Charts",
        elements: [
          {
            type: "line",
            title: "Sine",
            elements: [
              {
                label: "Line 0",
                points: [
                  [1, 3],
                  [2, 4],
                ],
              },
            ],
          },
          { type: "scatter", title: null },
          { type: "unknown", elements: [] },
        ],
      });
    });

    test("error bars, bands and stems are lines by the name that they have", async () => {
      const bars =
        "plt.errorbar([1, 2], [4, 5], yerr=1, label='e', capsize=3); plt.fill_between([1, 2], [3, 4], [5, 6])";
      expect(await chart(bars)).toMatchObject({
        type: "line",
        elements: [
          {
            label: "e",
            points: [
              [1, 4],
              [2, 5],
            ],
          },
        ],
      });
      expect(await chart("plt.stem([1, 2], [3, 4], label='s')")).toMatchObject({
        elements: [
          {
            label: "s",
            points: [
              [1, 3],
              [2, 4],
            ],
          },
        ],
      });
    });

    test.each([
      ["circles", "plt.gca().add_artist(plt.Circle((0, 0), 1)); plt.title('t')"],
      ["an image", "plt.imshow(np.eye(3)); plt.colorbar(); plt.title('t')"],
      ["three dimensions", "plt.figure().add_subplot(projection='3d').plot([1], [2], [3]); plt.title('t')"],
      ["points and a line", "plt.scatter([1], [2]); plt.plot([1, 2, 3]); plt.title('t')"],
    ])("of %s nothing but the title is told", async (_, code) => {
      expect(await chart(code)).toEqual({ type: "unknown", title: "t", elements: [] });
    });

    test("where nothing is drawn there is none", async () => {
      expect(await charts("plt.figure()\nplt.subplots()")).toEqual([null, null]);
    });

    test("many points are thinned out, and that is said", async () => {
      const { truncated, elements } = await chart("plt.plot(np.arange(25_000), label='l'); plt.plot([1, 2])");
      const [long, short] = elements;
      expect([truncated, long.total, long.points.length, "total" in short, short.points.length]).toEqual([
        true,
        25_000,
        5000,
        false,
        2,
      ]);
      expect(long.points.slice(0, 2)).toEqual([
        [0, 0],
        [5, 5],
      ]);
      const bars = await chart("plt.bar(range(11_000), 1); plt.xlim(0, 5)");
      expect([bars.truncated, bars.elements.length]).toEqual([true, 10_000]);
    });

    test("what code has made of its artists is no error of it", async () => {
      const code = py`
        line, = plt.plot([1, 2])
        class Bad:
          def __len__(self): raise RuntimeError
        line.get_xdata = lambda *_: Bad()`;
      expect(await charts(code)).toEqual([null]);
    });
  });

  describe("tables", () => {
    test("columns with their values, the index, types and the number of rows", async () => {
      const code = py`
        pd.DataFrame({
            "a": [1, 2, 2**60], "b": [1.5, float("nan"), float("inf")], "c": ["x", None, "ü"],
            "d": pd.to_datetime(["2020-01-01", "2020-01-02T03:04:05.123456789", None], format="mixed"),
            "e": pd.Categorical(["p", "q", "p"]), "f": [True, False, None], "g": pd.array([1, None, 3], dtype="Int64"),
        }, index=pd.date_range("2020", periods=3))`;
      const { display } = await run(code);
      expect(Object.keys(display ?? {}).sort()).toEqual([SCHEMA, TABLE, "text/html", "text/plain"]);
      expect(JSON.parse(display?.[TABLE] ?? "null")).toEqual({
        columns: {
          a: [1, 2, "1152921504606846976"],
          b: [1.5, null, null],
          c: ["x", null, "ü"],
          d: ["2020-01-01T00:00:00", "2020-01-02T03:04:05.123456789", null],
          e: ["p", "q", "p"],
          f: [true, false, null],
          g: [1, null, 3],
        },
        index: ["2020-01-01T00:00:00", "2020-01-02T00:00:00", "2020-01-03T00:00:00"],
        types: { a: "int64", b: "float64", c: "str", d: "datetime64[ns]", e: "category", f: "object", g: "Int64" },
        rows: 3,
        truncated: false,
      });
      const { schema, data } = JSON.parse(display?.[SCHEMA] ?? "null");
      expect(schema.fields[1]).toEqual({ name: "a", type: "integer" });
      expect(data).toHaveLength(3);
    });

    test("names and labels that come twice, or have parts", async () => {
      expect(await table("pd.DataFrame([[1, 2, 3]], columns=['a', 'a', 'a.1'])")).toMatchObject({
        columns: { a: [1], "a.1": [2], "a.1.1": [3] },
      });
      const parts = "pd.DataFrame({('x', 'y'): [1]}, index=pd.MultiIndex.from_tuples([('k', pd.Timestamp('2020'))]))";
      expect(await table(parts)).toMatchObject({
        columns: { "('x', 'y')": [1] },
        index: [["k", "2020-01-01T00:00:00"]],
      });
    });

    test("a series is a table of one column", async () => {
      expect(await table("pd.Series([1, 2], name='s', index=['a', 'b'])")).toEqual({
        columns: { s: [1, 2] },
        index: ["a", "b"],
        types: { s: "int64" },
        rows: 2,
        truncated: false,
      });
      expect(await table("pd.Series(pd.period_range('2020-01', periods=1, freq='M'))")).toMatchObject({
        columns: { "0": ["2020-01"] },
      });
      expect(await table("pd.DataFrame()")).toEqual({ columns: {}, index: [], types: {}, rows: 0, truncated: false });
    });

    test("one that is large is cut, and that is said", async () => {
      const shape = async (code: string) => {
        const { columns, index, rows, truncated } = await table(code);
        return { columns: Object.keys(columns).length, index: index.length, rows, truncated };
      };
      const all = await Promise.all([
        shape("pd.DataFrame(np.zeros((50_000, 2)))"),
        shape("pd.DataFrame(np.zeros((20_000, 100), np.int8))"),
        shape("pd.DataFrame(np.zeros((3, 5_000)))"),
        shape("pd.Series(['x' * 100_000] * 100)"),
      ]);
      expect(all).toEqual([
        { columns: 2, index: 10_000, rows: 50_000, truncated: true },
        { columns: 100, index: 1000, rows: 20_000, truncated: true },
        { columns: 1000, index: 3, rows: 3, truncated: true },
        { columns: 1, index: expect.any(Number), rows: 100, truncated: true },
      ]);
      expect((all[3]?.index ?? 0) > 10).toBe(true);
      // One cell that is too large leaves the table without its data.
      expect(await table("pd.Series(['x' * 3_000_000])")).toBeNull();
    });

    test("`display()` has it where values are asked for as bundles, and not elsewhere", async () => {
      const code = "display(pd.DataFrame({'a': [1]}))";
      expect((await run(code)).outputs[0]).toHaveProperty([TABLE]);
      expect((await run(code, null)).outputs).toEqual([
        { "text/html": expect.any(String), "text/plain": expect.any(String) },
      ]);
    });
  });
});
