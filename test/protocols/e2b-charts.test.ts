import type { Sandbox } from "@e2b/code-interpreter";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TEST_WHEELS } from "../support/config.ts";
import { py } from "../support/engine.ts";
import { ALICE, type E2bServer, startE2bServer } from "./e2b-sdk.ts";

describe.skipIf(TEST_WHEELS === "")("E2B's SDK reads charts and tables", () => {
  let server: E2bServer;
  let sandbox: Sandbox;
  beforeAll(async () => {
    server = await startE2bServer({
      PYODIDE_PACKAGES: "numpy,pandas,matplotlib",
      PACKAGE_DIR: TEST_WHEELS,
      POOL_SIZE: "2",
    });
    sandbox = await server.sandbox();
  });
  afterAll(async () => await server?.stop(0));

  test("a figure of several charts that is shown", async () => {
    const { results, error } = await sandbox.runCode(py`
      figure, axes = plt.subplots(1, 2)
      figure.suptitle("Two")
      axes[0].bar(["a", "b"], [1, 2], label="sold")
      axes[1].plot([1, 2], [3, 4]); axes[1].set_xlabel("Time (s)")
      plt.show()`);
    expect(error).toBeUndefined();
    expect(results).toHaveLength(1);
    expect(results[0]).toMatchObject({ png: expect.stringMatching(/^iVBOR/), isMainResult: false });
    expect(results[0]?.chart).toMatchObject({
      type: "superchart",
      title: "Two",
      elements: [
        {
          type: "bar",
          elements: [
            { label: "a", group: "sold", value: 1 },
            { label: "b", group: "sold", value: 2 },
          ],
        },
        { type: "line", x_unit: "s", x_scale: "linear", elements: [{ label: "Line 0" }] },
      ],
    });
  });

  test("a figure that is the last value comes once, as the main result", async () => {
    const { results } = await sandbox.runCode("figure, axes = plt.subplots()\naxes.pie([1, 3])\nfigure");
    expect(results).toHaveLength(1);
    expect(results[0]).toMatchObject({ png: expect.any(String), isMainResult: true });
    expect(results[0]?.chart?.elements).toMatchObject([{ angle: 90 }, { angle: 270 }]);
  });

  test("an image is shown when it is saved to a path, as in E2B's sandboxes", async () => {
    const code = py`
      import io
      from PIL import Image
      image = Image.new("RGB", (2, 3), "red")
      image.save(io.BytesIO(), "PNG")
      image.save("red.png")
      Image.open("red.png").size`;
    const { results, error } = await sandbox.runCode(code);
    expect(error).toBeUndefined();
    expect(results.map(({ png, text }) => [png?.slice(0, 5), text])).toEqual([
      ["iVBOR", expect.stringContaining("PIL.Image")],
      [undefined, "(2, 3)"],
    ]);
    const context = await sandbox.createCodeContext();
    expect((await sandbox.runCode(code, { context })).results).toHaveLength(2);
    const session = (await server.post("/api/sessions", {}, { "x-api-key": ALICE })).body.session.id;
    const elsewhere = await server.post("/api/execute", { code, session }, { "x-api-key": ALICE });
    expect(elsewhere.body).toMatchObject({ status: "completed", result: [2, 3], outputs: [] });
  });

  test("columns of a DataFrame", async () => {
    const { results } = await sandbox.runCode(
      "pd.DataFrame({'a': [1, 2], 'when': pd.to_datetime(['2020-01-01', None])})",
    );
    expect(results[0]).toMatchObject({
      isMainResult: true,
      html: expect.stringContaining("<table"),
      data: { a: [1, 2], when: ["2020-01-01T00:00:00", null] },
    });
  });
});
