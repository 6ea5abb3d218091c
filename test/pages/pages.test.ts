import { once } from "node:events";
import { readFile } from "node:fs/promises";
import http from "node:http";
import type { Browser, Locator, Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { hasChromium, launchChromium, openPage } from "../support/browser.ts";
import { lowContrastTexts } from "../support/contrast.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const DASHBOARD = "/api/dashboard/stats/dashboard";
const PAGES = ["/", DASHBOARD, "/docs"];
/** Sets a mark if a browser ever takes it for markup. */
const HOSTILE = `<img src=x onerror="globalThis.pwned=1"><script>globalThis.pwned=1</script>`;

let server: TestServer;
let browser: Browser;

beforeAll(async () => {
  // Code that waits for its page leaves a sandbox to others.
  server = await startTestServer({ POOL_SIZE: "2" });
  if (hasChromium) browser = await launchChromium();
});
afterAll(async () => {
  await browser?.close();
  await server.stop(0);
});

describe("what is served", () => {
  test.for(PAGES)("%s is a page under a policy without exceptions but for styles of HTML outputs", async (path) => {
    const { status, headers, body } = await server.get(path);
    expect(status).toBe(200);
    expect(headers.get("content-type")).toBe("text/html; charset=utf-8");
    const policy = headers.get("content-security-policy");
    expect(policy).toContain("default-src 'self'");
    const strict = path === "/" ? policy?.replace("style-src 'self' 'unsafe-inline'", "") : policy;
    expect(strict).not.toMatch(/unsafe|https?:/);
    expect(policy).not.toContain("script-src");
    expect(body).not.toMatch(/<script(?![^>]* src="\/assets\/)|<style|\sstyle=|\son\w+=|https?:\/\//);
  });

  test("the dashboard is what clients of the original look for", async () => {
    const { body } = await server.get(DASHBOARD);
    expect(body).toMatch(/<title>[^<]*Pyodide Express Server Dashboard/);
    expect(body).toContain("<canvas");
    expect(body).toContain("/assets/chart.js");
  });

  test("assets are asked for again only if they changed", async () => {
    for (const path of ["/assets/chart.js", "/assets/playground.js", "/assets/style.css", "/"]) {
      const first = await server.get(path);
      expect(first.status).toBe(200);
      // Not fetch, which tells the server to disregard the very header that is tested.
      const again = http.get(server.url + path, { headers: { "if-none-match": first.headers.get("etag") ?? "" } });
      const [{ statusCode, headers }] = (await once(again, "response")) as [http.IncomingMessage];
      again.destroy();
      expect([statusCode, headers["cache-control"]]).toEqual([304, "public, no-cache"]);
    }
  });

  test.for(["README.md", "playground.html", "..%2Fpackage.json", "%2e%2e/package.json", "none.js", ""])(
    "/assets/%s is not served",
    async (name) => {
      const { status, body } = await server.get(`/assets/${name}`);
      expect([status, body.error]).toEqual([404, "Endpoint not found"]);
    },
  );
});

describe.skipIf(!hasChromium)("the playground", () => {
  beforeEach(async () => {
    await server.post("/api/clear-all-files", {});
  });

  test("runs code, shows its output while it runs, and stops it", async () => {
    await using opened = await openPage(browser, server.url);
    const { page, problems } = opened;
    await write(page, 'import time\nprint("first")\ntime.sleep(300)');
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByRole("log").getByText("first").waitFor();
    expect(await statusOf(page)).toBe("Running…");
    await page.getByRole("button", { name: "Stop" }).click();
    await page.getByText("Stopped", { exact: true }).waitFor();

    await write(page, 'input("Name? ")');
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByText("Waiting for your answer", { exact: true }).waitFor();
    const form = page.getByRole("form", { name: "The code asks for input" });
    expect(await form.count()).toBe(1);
    await page.getByRole("button", { name: "Stop" }).click();
    await page.getByText("Stopped", { exact: true }).waitFor();
    expect(await form.count()).toBe(0);

    await write(page, 'print("out")\nimport sys\nprint("err", file=sys.stderr)\n{"sum": (None, 1 + 1), 3: "x"}');
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByText(/^Finished in/).waitFor();
    const log = page.getByRole("log");
    expect(await log.locator("pre").allTextContents()).toEqual(["out\n", "err\n", "{'sum': (None, 2), 3: 'x'}"]);
    expect(problems).toEqual([]);
  });

  test("asks for what input() waits for, and sends it on", async () => {
    await using opened = await openPage(browser, server.url);
    const { page, problems } = opened;
    await write(page, `import getpass\nname = input("Name? ")\n[name, len(getpass.getpass("Secret: "))]`);
    await page.getByRole("button", { name: "Run" }).click();
    const name = page.getByRole("textbox", { name: "Name?" });
    await page.getByText("Waiting for your answer", { exact: true }).waitFor();
    await name.fill(HOSTILE);
    await name.press("Enter");
    const secret = page.getByLabel("Secret:");
    expect(await secret.getAttribute("type")).toBe("password");
    await secret.fill("hunter2");
    await page.getByRole("button", { name: "Send" }).click();
    await page.getByText(/^Finished in/).waitFor();
    const texts = await page.getByRole("log").locator("pre").allTextContents();
    expect(texts).toEqual([`Name? ${HOSTILE}`, "Secret: •••••••", `['${HOSTILE}', 7]`]);
    await write(page, "try: input()\nexcept EOFError: print('the end')");
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByRole("button", { name: "End of input" }).click();
    await page.getByText(/^Finished in/).waitFor();
    await page.getByRole("log").getByText("the end").waitFor();
    expect(await page.evaluate("globalThis.pwned")).toBeUndefined();
    expect(problems).toEqual([]);
  });

  test("has calls of tools answered by hand", async () => {
    await using opened = await openPage(browser, server.url);
    const { page, problems } = opened;
    await page.getByRole("textbox", { name: "Tools" }).fill('[{"name": "look-up"}]');
    const code = `import tools\nprint(look_up(word="a")["n"])\ntry: look_up(word="b")\nexcept tools.ToolError as e: print("failed:", e)`;
    await write(page, code);
    await page.getByRole("button", { name: "Run" }).click();
    const first = page.getByRole("form", { name: "Call of look-up" });
    await first.getByRole("textbox").fill("no JSON");
    await first.getByRole("button", { name: "Answer" }).click();
    await first.getByText("This is no JSON.").waitFor();
    await first.getByRole("textbox").fill('{"n": 7}');
    await first.getByRole("button", { name: "Answer" }).click();
    await page.getByRole("log").getByText("7", { exact: true }).waitFor();
    const second = page.getByRole("form", { name: "Call of look-up" });
    await second.getByRole("textbox").fill("not found");
    await second.getByRole("button", { name: "Fail" }).click();
    await page.getByText("failed: not found").waitFor();
    await page.getByText(/^Finished in/).waitFor();
    expect(problems).toEqual([]);
  });

  test("says what went wrong, and goes to the line", async () => {
    await using opened = await openPage(browser, server.url);
    const { page, problems } = opened;
    await write(page, "a = 1\nb = 0\na / b\n");
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByText(/^ZeroDivisionError on line 3, after/).waitFor();
    const failure = page.getByRole("region", { name: "Error" });
    expect(await failure.getByRole("paragraph").textContent()).toBe("division by zero");
    await failure.getByRole("button", { name: "Go to line 3" }).click();
    expect(await page.evaluate("getSelection().toString()")).toBe("a / b");
    expect(problems).toEqual([]);
  });

  test("shows pictures, and HTML in a frame that can do nothing", async () => {
    await using opened = await openPage(browser, server.url);
    const { page, problems } = opened;
    await write(
      page,
      `class Table:
    def _repr_html_(self):
        return """<style>td { color: rgb(1, 2, 3) }</style><table border="1" style="background: rgb(4, 5, 6)">
<tr onclick="top.pwned=1"><td>cell</td></tr></table><audio controls><source src="data:audio/wav;base64,UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQIAAACAgA=="></audio>"""

class Square:
    def _repr_svg_(self):
        return '<svg xmlns="http://www.w3.org/2000/svg" width="30" height="20"><rect width="30" height="20"/></svg>'

display(Table(), Square())`,
    );
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByText(/^Finished in/).waitFor();
    const frame = page.getByTitle("HTML output");
    expect(await frame.getAttribute("sandbox")).toBe("");
    const cell = frame.contentFrame().getByRole("cell", { name: "cell" });
    expect(await style(cell, "color")).toBe("rgb(1, 2, 3)");
    const table = frame.contentFrame().getByRole("table");
    expect(await style(table, "background-color")).toBe("rgb(4, 5, 6)");
    expect(await style(table, "border-left-width")).toBe("0px");
    const audio = frame.contentFrame().locator("audio");
    await expect.poll(() => audio.evaluate((node) => (node as unknown as { readyState: number }).readyState)).toBe(4);
    const image = page.getByRole("log").getByRole("img");
    await expect
      .poll(() => image.evaluate((node) => (node as unknown as { naturalWidth: number }).naturalWidth))
      .toBe(30);
    expect(problems).toEqual([]);
  });

  test("updates what has a name, clears, and shows a last value as a notebook does", async () => {
    await using opened = await openPage(browser, server.url);
    const { page, problems } = opened;
    await write(
      page,
      `from IPython.display import clear_output, HTML
print("gone")
display("gone")
gone = display("gone", display_id="g")
clear_output()
gone.update("still gone")
bar = display("1 of 2", display_id="bar")
print("kept")
bar.update("2 of 2")
HTML("<p>the value</p>")`,
    );
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByText(/^Finished in/).waitFor();
    const texts = await page.getByRole("log").locator("pre").allTextContents();
    expect(texts).toEqual(["'2 of 2'", "kept\n"]);
    await page.getByTitle("HTML output").contentFrame().getByText("the value").waitFor();
    expect(problems).toEqual([]);
  });

  test("shows the source of what it has no renderer for", async () => {
    await using opened = await openPage(browser, server.url);
    const { page, problems } = opened;
    await write(
      page,
      `from IPython.display import JSON, Latex, Markdown\ndisplay(Markdown("# A\\n*b*"), Latex("$x^2$"), JSON({"a": [1]}))`,
    );
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByText(/^Finished in/).waitFor();
    const texts = await page.getByRole("log").locator("pre").allTextContents();
    expect(texts).toEqual(["# A\n*b*", "$x^2$", expect.stringMatching(/^\{\s*"a":\s*\[\s*1\s*\]\s*\}$/)]);
    expect(problems).toEqual([]);
  });

  test("uploads, lists, saves and deletes files that code can use", async () => {
    await using opened = await openPage(browser, server.url);
    const { page, problems } = opened;
    const files = page.getByRole("list", { name: "Files" });
    await files.getByText("No files yet.").waitFor();
    await page
      .getByLabel("Upload a file")
      .setInputFiles({ name: "one.csv", mimeType: "text/csv", buffer: Buffer.from("a,b\n1,2\n") });
    await page.getByRole("button", { name: "Upload", exact: true }).click();
    await page.getByText("one.csv uploaded: 1 row, 2 columns").waitFor();
    await page
      .getByLabel("Upload a file")
      .setInputFiles({ name: "my data.csv", mimeType: "text/csv", buffer: Buffer.from("a,b\n1,2\n3,4\n") });
    await page.getByRole("button", { name: "Upload", exact: true }).click();
    await page.getByText("my_data.csv uploaded: 2 rows, 2 columns").waitFor();
    await page
      .getByLabel("Upload a file")
      .setInputFiles({ name: "my book.xlsx", mimeType: "application/zip", buffer: Buffer.from("PK") });
    await page.getByRole("button", { name: "Upload", exact: true }).click();
    await page.getByText("my book.xlsx uploaded").waitFor();
    await files.getByText("my book.xlsx").waitFor();
    await write(page, 'open("made.txt", "w").write(open("my_data.csv").read().upper())');
    await page.getByRole("button", { name: "Run" }).click();
    await files.getByText("made.txt").waitFor();

    const downloading = page.waitForEvent("download");
    await page.getByRole("button", { name: "Save made.txt" }).click();
    const download = await downloading;
    expect(download.suggestedFilename()).toBe("made.txt");
    expect(await readFile(await download.path(), "utf8")).toBe("A,B\n1,2\n3,4\n");

    await page.getByRole("button", { name: "Delete made.txt" }).click();
    await page.getByText("made.txt deleted").waitFor();
    expect(await files.getByText("made.txt").count()).toBe(0);
    expect(problems).toEqual([]);
  });

  test("tells why an upload or a package is refused, and asks before a reset", async () => {
    await using opened = await openPage(browser, server.url);
    const { page } = opened;
    await page
      .getByLabel("Upload a file")
      .setInputFiles({ name: "large.bin", mimeType: "application/octet-stream", buffer: Buffer.alloc(11 * 1024 ** 2) });
    await page.getByRole("button", { name: "Upload", exact: true }).click();
    await page.locator("#files-status[data-state=bad]").filter({ hasText: "too large" }).waitFor();

    await page.getByLabel("Install a package").fill("subprocess");
    await page.getByRole("button", { name: "Install" }).click();
    await page.getByText('Package "subprocess" is not allowed for security reasons.').waitFor();

    await page.getByRole("button", { name: "Reset environment" }).click();
    await page.getByRole("dialog", { name: "Reset the environment?" }).getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Reset environment" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Reset" }).click();
    await page.getByText("Pyodide environment reset successfully").waitFor();
  });

  test("is used with the keyboard alone, and Tab traps nobody", async () => {
    await using opened = await openPage(browser, server.url);
    const { page, problems } = opened;
    await page.keyboard.press("Tab");
    expect(await focused(page)).toBe("Skip to the code");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    const editor = page.getByRole("textbox", { name: "Python code" });
    if (!(await editor.evaluate((node) => node.matches(":focus")))) await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Control+a");
    await page.keyboard.type("if True:\nprint(6 * 7)");
    expect(await editor.inputValue()).toBe("if True:\n    print(6 * 7)");
    await page.keyboard.press("Tab");
    expect(await editor.inputValue()).toBe("if True:\n    print(6 * 7)    ");
    await page.keyboard.press("Control+z");
    await page.keyboard.press("Control+Enter");
    await page.getByRole("log").getByText("42").waitFor();
    await page.getByText(/^Finished in/).waitFor();

    await page.keyboard.press("Escape");
    await page.keyboard.press("Tab");
    expect(await focused(page)).toBe("Run");
    await page.keyboard.press("Enter");
    await page.getByText(/^Finished in/).waitFor();
    expect(await focused(page)).toBe("Run");
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("Escape");
    await page.keyboard.press("Shift+Tab");
    expect(await focused(page)).toBe("Load");
    expect(problems).toEqual([]);
  });

  test("takes nothing that Python says for markup", async () => {
    await using opened = await openPage(browser, server.url);
    const { page, problems } = opened;
    await write(
      page,
      `hostile = ${JSON.stringify(HOSTILE)}
open("<img src=x onerror=globalThis.pwned=1>", "w").close()
print(hostile)
class Hostile(Exception): pass
Hostile.__name__ = Hostile.__qualname__ = hostile
raise Hostile(hostile)`,
    );
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByRole("region", { name: "Error" }).waitFor();
    await page.getByRole("list", { name: "Files" }).getByText("<img src=x onerror=globalThis.pwned=1>").waitFor();
    await write(page, JSON.stringify(HOSTILE));
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByRole("region", { name: "Result" }).getByText(HOSTILE).waitFor();
    expect(await page.locator("img[src=x], script:not([src])").count()).toBe(0);
    expect(await page.evaluate("globalThis.pwned")).toBeUndefined();
    expect(problems).toEqual([]);
  });

  test("gives HTML that Python displays no way out of its frame", async () => {
    await using opened = await openPage(browser, server.url);
    const { page, foreignRequests } = opened;
    const html = `<p>shown</p><script>top.pwned=1</script><img/src=x onerror=top.pwned=1><svg onload=top.pwned=1></svg>
<a href="javascript:top.pwned=1" id=link>link</a><iframe src="javascript:top.pwned=1"></iframe>
<meta http-equiv=refresh content="0;url=http://192.0.2.1/"><img src="http://192.0.2.1/leak.png">
<link rel=stylesheet href="http://192.0.2.1/leak.css"><style>@import "http://192.0.2.1/leak.css";
p { background: url(http://192.0.2.1/leak.png) } a { background: url(SERVER/api/status) } @font-face { font-family: f; src: url(http://192.0.2.1/f) } p { font-family: f }</style>
<p style="background: url(http://192.0.2.1/leak.png); background-image: url(SERVER/api/status)">styled</p><form action="http://192.0.2.1/"><button id=send>send</button></form>
<a href="http://192.0.2.1/" target=_top id=top>top</a>`;
    const ownRequests: string[] = [];
    page.on("request", (request) => void (/status/.test(request.url()) && ownRequests.push(request.url())));
    page.on("requestfailed", (request) => {
      if (request.failure()?.errorText === "csp") ownRequests.splice(ownRequests.indexOf(request.url()), 1);
    });
    const bundle = `{"text/html": ${JSON.stringify(html.replaceAll("SERVER", server.url))}, "image/svg+xml": None, "type": "result"}`;
    await write(
      page,
      `class Html:\n    def _repr_html_(self):\n        return ${bundle}["text/html"]\ndisplay(Html())`,
    );
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByText(/^Finished in/).waitFor();
    const frame = page.getByTitle("HTML output").contentFrame();
    await frame.getByText("shown").waitFor();
    for (const id of ["#link", "#send", "#top"]) await frame.locator(id).click();
    await write(page, "'still here'");
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByRole("region", { name: "Result" }).getByText("still here").waitFor();
    expect(new URL(page.url()).pathname).toBe("/");
    expect(await page.evaluate("globalThis.pwned")).toBeUndefined();
    expect(foreignRequests).toEqual([]);
    expect(ownRequests).toEqual([]);
  });
});

describe.skipIf(!hasChromium)("the dashboard", () => {
  beforeEach(async () => {
    await server.post("/api/dashboard/stats/clear", {});
  });

  test("shows executions as they happen, and nothing a client sent as markup", async () => {
    await using opened = await openPage(browser, server.url + DASHBOARD);
    const { page, problems } = opened;
    await page.getByText("Live", { exact: true }).waitFor();
    expect(await tile(page, "Executions")).toBe("0");
    await server.post("/api/execute", { code: "1" });
    await expect.poll(() => tile(page, "Executions")).toBe("1");
    const agent = "<img src=x onerror=globalThis.pwned=1>";
    const code = `class E(Exception): pass\nE.__name__ = E.__qualname__ = ${JSON.stringify(agent)}\nraise E`;
    await server.post("/api/execute", { code }, { "user-agent": agent });
    await page.getByRole("table", { name: "User agents" }).getByText(agent).waitFor();
    await page.getByRole("table", { name: "Top errors" }).getByText(agent).waitFor();
    expect(await tile(page, "Success rate")).toBe("50.0 %");
    expect(await page.getByRole("img", { name: /^Doughnut/ }).getAttribute("aria-label")).toBe(
      "Doughnut chart: 50 % succeeded, 50 % failed.",
    );
    expect(await page.getByRole("img", { name: /^Bar chart/ }).getAttribute("aria-label")).toMatch(/2 in this hour/);
    expect(await page.getByRole("table", { name: "Recent executions" }).getByRole("row").count()).toBe(3);
    expect(await page.locator("img[src=x]").count()).toBe(0);
    expect(await page.evaluate("globalThis.pwned")).toBeUndefined();
    expect(problems).toEqual([]);
  });

  test("draws the charts", async () => {
    await server.post("/api/execute", { code: "1" });
    await using opened = await openPage(browser, server.url + DASHBOARD);
    const { page } = opened;
    await page.getByText("Live", { exact: true }).waitFor();
    for (const id of ["trend-chart", "outcome-chart"]) {
      const colours = await page.locator(`#${id}`).evaluate((node) => {
        const canvas = node as unknown as {
          width: number;
          height: number;
          getContext(type: "2d"): { getImageData(...box: number[]): { data: Uint8ClampedArray } };
        };
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size;
      });
      expect(colours).toBeGreaterThan(10);
    }
  });

  test("is read and used with the keyboard alone", async () => {
    await server.post("/api/execute", { code: "1" });
    await using opened = await openPage(browser, server.url + DASHBOARD);
    const { page, problems } = opened;
    await expect.poll(() => tile(page, "Executions")).toBe("1");
    await tabTo(page, "Executions per hour as a table");
    await page.keyboard.press("Enter");
    expect(await page.locator("#trend-rows").getByRole("row").count()).toBe(24);

    await tabTo(page, "Clear statistics", "Shift+Tab");
    await page.keyboard.press("Enter");
    await page.getByRole("dialog", { name: "Clear the statistics?" }).waitFor();
    expect(await focused(page)).toBe("Cancel");
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    expect(await focused(page)).toBe("Clear statistics");
    expect(await tile(page, "Executions")).toBe("1");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await expect.poll(() => tile(page, "Executions")).toBe("0");
    expect(problems).toEqual([]);
  });

  test("pauses and resumes", async () => {
    await using opened = await openPage(browser, server.url + DASHBOARD);
    const { page } = opened;
    await page.getByText("Live", { exact: true }).waitFor();
    const pause = page.getByRole("button", { name: "Pause" });
    await pause.click();
    await page.getByText("Paused", { exact: true }).waitFor();
    await server.post("/api/execute", { code: "1" });
    expect(await tile(page, "Executions")).toBe("0");
    await page.getByRole("button", { name: "Resume" }).click();
    await expect.poll(() => tile(page, "Executions")).toBe("1");
  });
});

describe.skipIf(!hasChromium)("the documentation", () => {
  test("lists every endpoint of the document", async () => {
    const { body } = await server.get("/docs.json");
    const expected = Object.entries(body.paths as Record<string, object>).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()}${path}`),
    );
    await using opened = await openPage(browser, `${server.url}/docs`);
    const { page, problems } = opened;
    await page.getByRole("heading", { name: "Pyodide Express API" }).waitFor();
    const shown = await page.getByRole("article").getByRole("heading", { level: 3 }).allTextContents();
    expect(shown.sort()).toEqual(expected.sort());
    const execute = page.getByRole("article", { name: "POST /api/execute", exact: true });
    expect(await execute.getByRole("listitem").filter({ hasText: "timeout" }).first().textContent()).toContain("ms");
    const code = execute.getByRole("listitem").filter({ hasText: "Python source." }).first();
    expect(await code.locator("code").allTextContents()).toEqual(
      expect.arrayContaining(["```", "%pip install", "%matplotlib inline", "%time", "!", "/mnt/data"]),
    );
    // A backtick that is left over is one that had no other: what stands after it is told apart the wrong way round.
    const text = await page.locator("main").evaluate((main) => {
      for (const code of main.querySelectorAll("code, pre")) code.remove();
      return main.textContent ?? "";
    });
    expect(text).not.toContain("`");
    expect(problems).toEqual([]);
  });
});

describe.skipIf(!hasChromium).for(PAGES)("%s", (path) => {
  test.for(["light", "dark"] as const)("has names for all controls and contrast enough, %s", async (colorScheme) => {
    await server.post("/api/execute", { code: "1 / 0" });
    await using opened = await openPage(browser, server.url + path, { colorScheme });
    const { page, problems } = opened;
    await settled(page, path);
    const nameless = /^\s*- (?:button|link|textbox|combobox|img|region|table|dialog)(?! ").*$/gm;
    expect((await page.locator("body").ariaSnapshot()).match(nameless)).toBeNull();
    expect(await page.evaluate(lowContrastTexts)).toEqual([]);
    expect(problems).toEqual([]);
  });

  test("fits a screen of 360 pixels", async () => {
    await server.post("/api/execute", { code: "import a_module_that_is_not_there" });
    await using opened = await openPage(browser, server.url + path, { viewport: { width: 360, height: 740 } });
    const { page } = opened;
    await settled(page, path);
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(360);
    // Nor does a part of it scroll sideways without a sign of it.
    const cut =
      "[...document.querySelectorAll('.scroll')].filter((area) => area.scrollWidth > area.clientWidth).length";
    expect(await page.evaluate(cut)).toBe(0);
  });
});

describe.skipIf(!hasChromium)("with API keys", () => {
  let keyed: TestServer;
  beforeAll(async () => {
    keyed = await startTestServer({ API_KEYS: "ana:right-key-of-sixteen" });
  });
  afterAll(async () => await keyed.stop(0));

  test("pages load, ask for the key, and keep it for the tab", async () => {
    await using opened = await openPage(browser, keyed.url);
    const { page } = opened;
    const dialog = page.getByRole("dialog", { name: "API key needed" });
    await dialog.getByText(/^Authentication required/).waitFor();
    await dialog.getByRole("textbox", { name: "API key" }).fill("wrong-key");
    await page.keyboard.press("Enter");
    await dialog.getByText(/^Invalid API key/).waitFor();
    await dialog.getByRole("textbox", { name: "API key" }).fill("right-key-of-sixteen");
    await dialog.getByRole("button", { name: "Use key" }).click();
    await page.getByText("No files yet.").waitFor();
    await write(page, "40 + 2");
    await page.getByRole("button", { name: "Run" }).click();
    await page.getByRole("region", { name: "Result" }).getByText("42").waitFor();

    await page.getByRole("link", { name: "Dashboard" }).click();
    await page.getByText("Live", { exact: true }).waitFor();
    await expect.poll(() => tile(page, "Executions")).toBe("1");
    expect(page.url()).not.toContain("right-key-of-sixteen");
  });

  test("whoever has no key is told so, and can try again", async () => {
    await using opened = await openPage(browser, keyed.url + DASHBOARD);
    const { page } = opened;
    await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
    await page.getByText("Authentication required", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Resume" }).click();
    await page.getByRole("textbox", { name: "API key" }).fill("right-key-of-sixteen");
    await page.keyboard.press("Enter");
    await page.getByText("Live", { exact: true }).waitFor();
  });
});

async function write(page: Page, code: string): Promise<void> {
  await page.getByRole("textbox", { name: "Python code" }).fill(code);
}

async function statusOf(page: Page): Promise<string | null> {
  return await page.getByRole("region", { name: "Output" }).getByRole("status").textContent();
}

/** The number on a tile of the dashboard. */
async function tile(page: Page, name: string): Promise<string | null> {
  const group = page.locator("dl > div").filter({ has: page.getByText(name, { exact: true }) });
  return await group.getByRole("definition").first().textContent();
}

async function focused(page: Page): Promise<string> {
  return await page.evaluate("document.activeElement?.textContent.trim()");
}

async function tabTo(page: Page, name: string, key = "Tab"): Promise<void> {
  for (let i = 0; i < 30; i++) {
    if ((await focused(page)) === name) return;
    await page.keyboard.press(key);
  }
  throw new Error(`${key} never reaches ${name}`);
}

async function settled(page: Page, path: string): Promise<void> {
  if (path === "/") await page.getByRole("list", { name: "Files" }).getByRole("listitem").first().waitFor();
  else if (path === DASHBOARD) await page.getByText("Live", { exact: true }).waitFor();
  else await page.getByRole("article").first().waitFor();
}

async function style(locator: Locator, property: string): Promise<string> {
  const code = (node: unknown, name: string) =>
    (globalThis as unknown as { getComputedStyle(node: unknown): { getPropertyValue(name: string): string } })
      .getComputedStyle(node)
      .getPropertyValue(name);
  return await locator.evaluate(code, property);
}
