/** Debian's Jupyter Notebook in a real browser, with `--gateway-url`: what its user does with cells. */
import { writeFileSync } from "node:fs";
import path from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasChromium, launchChromium } from "../support/browser.ts";
import { hasNotebook, type JupyterServer, startJupyterServer } from "../support/jupyter-server.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

if (!hasNotebook) console.warn("There is no jupyter-notebook on this machine: it is not used in a browser.");

const CELLS = [
  "x = 41\nprint('printed')",
  "x + 1",
  "1 / 0",
  "print(input('who? ').upper())",
  "from IPython.display import HTML\nHTML('<b id=\"bold\">bold</b>')",
];

const PATIENCE = { timeout: 30_000 };

describe.skipIf(!hasNotebook || !hasChromium)("Notebook in a browser", () => {
  const key = "a-key-of-the-notebook-tests";
  let server: TestServer;
  let jupyter: JupyterServer;
  let browser: Browser;
  let page: Page;

  beforeAll(async () => {
    server = await startTestServer({ API_KEYS: `alice:${key}`, POOL_SIZE: "2" });
    jupyter = await startJupyterServer(
      [`--gateway-url=${server.url}`],
      { JUPYTER_GATEWAY_AUTH_TOKEN: key },
      "notebook",
    );
    const notebook = {
      cells: CELLS.map((source) => ({ cell_type: "code", source, metadata: {}, outputs: [], execution_count: null })),
      metadata: { kernelspec: { name: "python3", display_name: "Python 3", language: "python" } },
      nbformat: 4,
      nbformat_minor: 4,
    };
    writeFileSync(path.join(jupyter.folder, "n.ipynb"), JSON.stringify(notebook));
    browser = await launchChromium();
    page = await browser.newPage();
    page.setDefaultTimeout(30_000);
    await page.goto(`${jupyter.url}/notebooks/n.ipynb?token=${jupyter.token}`);
    await page.locator(".kernel_idle_icon").waitFor();
  }, 120_000);
  afterAll(async () => {
    await browser?.close();
    await jupyter?.stop();
    await server?.stop(0);
  });

  const cell = (number: number) => page.locator(".cell.code_cell").nth(number);
  const run = async (number: number) => {
    await cell(number).locator(".CodeMirror").click();
    await page.keyboard.press("Control+Enter");
  };
  const outputOf = async (number: number) => {
    await cell(number).locator(".output_subarea").first().waitFor();
    return (await cell(number).locator(".output").textContent())?.trim();
  };

  test("runs cells, and shows output, values, errors and HTML", { timeout: 120_000 }, async () => {
    await run(0);
    expect(await outputOf(0)).toBe("printed");
    await run(1);
    expect(await outputOf(1)).toMatch(/Out\[2\]:\s*42/);
    await run(2);
    expect(await outputOf(2)).toContain("ZeroDivisionError: division by zero");
    await run(4);
    await page.locator("#bold").waitFor();
    expect(await cell(1).locator(".input_prompt").textContent()).toMatch(/In\s*\[2\]:/);
  });

  test("asks what code asks", { timeout: 60_000 }, async () => {
    await run(3);
    const input = cell(3).locator("input.raw_input");
    await input.fill("ada");
    await input.press("Enter");
    await expect.poll(async () => await cell(3).locator(".output").textContent(), PATIENCE).toContain("ADA");
  });

  test("completes by Tab, and shows documentation by Shift+Tab", { timeout: 60_000 }, async () => {
    await cell(1).locator(".CodeMirror").click();
    await page.keyboard.press("Control+A");
    await page.keyboard.type("x.bit_c");
    const text = cell(1).locator(".CodeMirror-code");
    // A question that a busy machine answers too late has no answer, and is asked again.
    const askedAgain = { ...PATIENCE, interval: 3000 };
    await expect
      .poll(async () => {
        if (!(await text.textContent())?.includes("bit_count")) await page.keyboard.press("Tab");
        return await text.textContent();
      }, askedAgain)
      .toContain("x.bit_count");
    await page.keyboard.press("Control+A");
    await page.keyboard.type("print(");
    const shown = page.locator(".tooltiptext").getByText("sep");
    await expect
      .poll(async () => {
        if ((await shown.count()) === 0) await page.keyboard.press("Shift+Tab");
        return await shown.count();
      }, askedAgain)
      .toBeGreaterThan(0);
    await page.keyboard.press("Escape");
  });

  test("restarts its kernel", { timeout: 60_000 }, async () => {
    await page.evaluate("Jupyter.notebook.restart_kernel({ confirm: false })");
    await expect
      .poll(
        async () => (await server.get("/api/kernels", { authorization: `token ${key}` })).body[0]?.execution_state,
        PATIENCE,
      )
      .toBe("idle");
    await page.locator(".kernel_idle_icon").waitFor();
    await cell(1).locator(".CodeMirror").click();
    await page.keyboard.press("Control+A");
    await page.keyboard.type("x");
    await page.keyboard.press("Control+Enter");
    await expect.poll(async () => await outputOf(1), PATIENCE).toContain("name 'x' is not defined");
  });
});
