import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TEST_WHEELS } from "../support/config.ts";
import { py } from "../support/engine.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/** Where to put the pictures, for eyes to look at; empty: nowhere. */
const PICTURES = process.env.FIGURES_FOLDER ?? "";

/** Draws each of them to bytes, in each format. */
const DRAW = py`
  import hashlib, io
  plt.rcParams["svg.hashsalt"] = "salt"
  def digests(draw):
      found = {}
      for kind, metadata in (("png", None), ("svg", {"Date": None}), ("pdf", {"CreationDate": None})):
          figure = plt.figure()
          draw(figure)
          out = io.BytesIO()
          figure.savefig(out, format=kind, metadata=metadata)
          plt.close(figure)
          found[kind] = [len(out.getvalue()), hashlib.sha256(out.getvalue()).hexdigest()]
      return found
  `;
/** Compares what is sent of `figure` with what matplotlib makes of it: drawn as it is where that was done, else by savefig. */
const CROPS = py`
  import base64, io
  import sandbox_runner.figures as figures
  sent = figures.to_png(figure)
  once = figures._drawn_once(figure) is not None
  whole, tight = io.BytesIO(), io.BytesIO()
  figure.savefig(tight, format="png", bbox_inches="tight")
  figure.savefig(whole, format="png", bbox_inches=None)
  sent_pixels, whole, tight_pixels = (plt.imread(io.BytesIO(data)) for data in (sent, whole.getvalue(), tight.getvalue()))
  if once:
      box, dpi = figure.get_tightbbox(), figure.dpi
      pad = plt.rcParams["savefig.pad_inches"] * dpi
      height, width = whole.shape[:2]
      left, top = int(np.floor(box.x0 * dpi - pad)), int(height - np.ceil(box.y1 * dpi + pad))
      padded = np.ones((height + 200, width + 200, 4), whole.dtype)
      padded[..., :3] = figure.get_facecolor()[:3]
      padded[100:100 + height, 100:100 + width] = whole
      rows, columns = sent_pixels.shape[:2]
      same = np.array_equal(sent_pixels, padded[100 + top:100 + top + rows, 100 + left:100 + left + columns])
  else:
      same = sent == tight.getvalue()
  near = [abs(a - b) <= 2 for a, b in zip(sent_pixels.shape, tight_pixels.shape)]
  plt.close("all"); plt.rcdefaults()
  {"once": once, "same": bool(same), "high": near[0], "wide": near[1]}`;
const FIGURES: Readonly<Record<string, string>> = {
  plain:
    "axes = figure.add_subplot(); axes.plot([1, 2, 3]); axes.set_title('A title'); axes.set_xlabel('x label'); axes.legend(['line'])",
  bold: "figure.add_subplot().set_title('Bold title', fontweight='bold')\n    figure.text(0.2, 0.5, 'italic', style='italic')",
  mathtext:
    "figure.text(0.1, 0.5, r'$\\sum_{i=0}^\\infty \\frac{x_i}{\\sqrt{2\\pi}} = \\alpha\\hat{\\beta}$', fontsize=20)",
  monospace:
    "figure.text(0.1, 0.5, 'monospace 0123', family='monospace'); figure.text(0.1, 0.2, 'serif', family='serif')",
  unicode: "figure.text(0.1, 0.5, 'Grüße, Ω ≈ 3 · čeština')",
  polar: "axes = figure.add_subplot(projection='polar'); axes.plot(np.linspace(0, 6, 50), np.linspace(0, 1, 50))",
  seaborn:
    "import seaborn as sns; sns.set_theme(); sns.barplot(x=['a', 'b', 'c'], y=[1, 3, 2], ax=figure.add_subplot()); sns.reset_orig(); plt.rcParams['svg.hashsalt'] = 'salt'",
  pandas: "pd.DataFrame({'a': [1, 3, 2], 'b': [2, 2, 5]}, index=['p', 'q', 'r']).plot(ax=figure.add_subplot())",
};

describe.skipIf(TEST_WHEELS === "")("figures of real matplotlib", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer({
      PYODIDE_PACKAGES: "numpy,pandas,matplotlib,seaborn",
      PACKAGE_DIR: TEST_WHEELS,
      POOL_SIZE: "2",
      SESSION_DURABILITY: "commit",
    });
  });
  afterAll(async () => await server?.stop(0));

  const execute = async (code: string, session?: string) => {
    const { body } = await server.post("/api/execute", { code, session });
    expect({ error: body.error, stderr: body.stderr }).toEqual({ error: null, stderr: "" });
    if (session !== undefined) expect(body.session).toEqual({ id: session });
    return body;
  };

  test("is built without a warning", async () => {
    const { body } = await server.get("/api/environments");
    expect(body.environments.find(({ name }: { name: string }) => name === "default").warnings).toEqual([]);
  });

  test.each(Object.entries(FIGURES))(
    "%s: drawn with the image's fonts and with fonts opened anew are equal, byte for byte",
    async (_, draw) => {
      const code = py`
      ${"DRAW"}
      def draw(figure):
          ${"BODY"}
      import matplotlib.font_manager as fm
      before = digests(draw)
      fm._get_font.cache_clear()
      [before, digests(draw)]`
        .replace("DRAW", () => DRAW)
        .replace("BODY", () => draw);
      const { result } = await execute(code);
      const [image, anew] = result;
      expect(Object.values(image as Record<string, [number, string]>).every(([bytes]) => bytes > 1000)).toBe(true);
      expect(image).toEqual(anew);
      // And again after a rewind.
      expect((await execute(code)).result).toEqual(result);
    },
  );

  test("plt.show() sends a picture of readable text", async () => {
    for (const [name, draw] of Object.entries(FIGURES)) {
      const { outputs } = await execute(`figure = plt.figure()\n${draw.replaceAll("\n    ", "\n")}\nplt.show()`);
      expect(outputs).toHaveLength(1);
      const png = Buffer.from(outputs[0]["image/png"], "base64");
      expect(png.subarray(1, 4).toString()).toBe("PNG");
      if (PICTURES !== "") {
        mkdirSync(PICTURES, { recursive: true });
        writeFileSync(path.join(PICTURES, `${name}.png`), png);
      }
    }
  });

  test("what is sent is drawn once: the pixels of the figure as it is, cropped to what is drawn", async () => {
    for (const [name, draw] of Object.entries(FIGURES)) {
      const code = `figure = plt.figure()\n${draw.replaceAll("\n    ", "\n")}\n${CROPS}`;
      const { result } = await execute(code);
      expect(result, name).toEqual({ once: true, same: true, wide: true, high: true });
    }
  });

  test.each([
    ["text beyond the edge", "figure.text(1.1, 0.5, 'beyond')"],
    ["a legend beside the axes", "axes.plot([1], label='a'); axes.legend(loc='upper left', bbox_to_anchor=(1.2, 1))"],
    ["a background that is seen through", "figure.set_facecolor((1, 0, 0, 0.5))"],
    ["no background", "figure.patch.set_visible(False)"],
    ["a frame", "figure.patch.set_linewidth(4); figure.patch.set_edgecolor('red')"],
    ["dots per inch of its own", "plt.rcParams['savefig.dpi'] = 50"],
    ["a color of its own", "plt.rcParams['savefig.facecolor'] = 'yellow'"],
    ["transparency", "plt.rcParams['savefig.transparent'] = True"],
  ])("with %s it is what savefig makes", async (_, change) => {
    const code = `figure = plt.figure()\naxes = figure.add_subplot()\n${change}\n${CROPS}`;
    expect((await execute(code)).result).toMatchObject({ once: false, same: true });
  });

  test("text has its width", async () => {
    const code = py`
      import matplotlib.pyplot as plt
      t = plt.text(0, 0, 'MMMM')
      plt.gcf().canvas.draw()
      w = t.get_window_extent().width
      plt.close('all')
      round(w)`;
    expect((await execute(code)).result).toBe(48);
  });

  test("sessions that have drawn keep what they have, four on two sandboxes", async () => {
    const ids = await Promise.all(
      [1, 2, 3, 4].map(async () => (await server.post("/api/sessions", {})).body.session.id as string),
    );
    const first = "x = 1\nplt.plot([1, 2]); plt.title('t', fontweight='bold'); plt.show()";
    await Promise.all(ids.map((id) => execute(first, id)));
    expect(await Promise.all(ids.map(async (id) => (await execute("x", id)).result))).toEqual([1, 1, 1, 1]);
    const sandboxes = server.executor.pool.sandboxes();
    for (const { pid } of sandboxes) process.kill(pid, "SIGKILL");
    await Promise.all(sandboxes.map(({ ended }) => ended));
    const width =
      "t = plt.text(0, 0, 'MMMM', fontweight='bold'); plt.gcf().canvas.draw(); w = round(t.get_window_extent().width); plt.close('all'); [x, w]";
    for (const id of ids) expect((await execute(width, id)).result).toEqual([1, 55]);
  });
});
