import { readFile } from "node:fs/promises";
import path from "node:path";
import type { Browser, Locator } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasChromium, launchChromium, openPage } from "../support/browser.ts";
import { createClient, type TestClient } from "../support/client.ts";
import { hasHaproxy, runHaproxy } from "../support/haproxy.ts";
import { hasNginx, runNginx } from "../support/nginx.ts";
import { freePort } from "../support/redis.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

if (!hasNginx) console.warn("There is no nginx on this machine: its recipe is not tested.");
if (!hasHaproxy) console.warn("There is no HAProxy on this machine: its recipe is not tested.");

const OPERATIONS = await readFile(new URL("../../docs/operations.md", import.meta.url), "utf8");
/** What docs/operations.md says to write, and nothing else. */
const recipe = (language: string) => {
  const text = OPERATIONS.split(`\`\`\`${language}\n`)[1]?.split("```")[0];
  if (text === undefined) throw new Error(`docs/operations.md has no recipe for ${language}`);
  return text;
};
/** But for addresses, which the test chooses. */
function replaced(text: string, what: string, by: string): string {
  if (!text.includes(what)) throw new Error(`the recipe has no ${JSON.stringify(what)}`);
  return text.replaceAll(what, by);
}

type Balancer = AsyncDisposable & { readonly url: string };
type Settings = Record<string, string>;
const RECIPES: readonly [name: string, has: boolean, settings: Settings, start: (server: URL) => Promise<Balancer>][] =
  [
    [
      "nginx",
      hasNginx,
      { BASE_PATH: "/py" },
      async (server) => {
        const port = await freePort();
        const text = replaced(recipe("nginx"), "listen 8080;", `listen 127.0.0.1:${port};`);
        return await runNginx(replaced(text, "127.0.0.1:3000", server.host), `http://127.0.0.1:${port}`, "/py/health");
      },
    ],
    [
      "nginx that takes the path off",
      hasNginx,
      {},
      async (server) => {
        const port = await freePort();
        let text = replaced(recipe("nginx"), "listen 8080;", `listen 127.0.0.1:${port};`);
        text = replaced(text, "proxy_pass http://pyodide_express;", "proxy_pass http://pyodide_express/;");
        text = replaced(text, 'X-Forwarded-Prefix "";', "X-Forwarded-Prefix /py;");
        return await runNginx(replaced(text, "127.0.0.1:3000", server.host), `http://127.0.0.1:${port}`, "/py/health");
      },
    ],
    [
      "HAProxy",
      hasHaproxy,
      {},
      async (server) => {
        const port = await freePort();
        const text = replaced(recipe("haproxy"), "127.0.0.1:8080", `127.0.0.1:${port}`);
        return await runHaproxy(
          replaced(text, "127.0.0.1:3000", server.host),
          `http://127.0.0.1:${port}`,
          "/py/health",
        );
      },
    ],
  ];

let browser: Browser | null = null;
beforeAll(async () => {
  if (hasChromium) browser = await launchChromium();
});
afterAll(async () => await browser?.close());

for (const [name, has, settings, start] of RECIPES) {
  describe.skipIf(!has)(`behind ${name}, by its recipe`, () => {
    let server: TestServer;
    let balancer: Balancer;
    let client: TestClient;
    beforeAll(async () => {
      server = await startTestServer({ TRUST_PROXY: "127.0.0.1", STREAM_HEARTBEAT_S: "1", ...settings });
      balancer = await start(new URL(server.url));
      client = createClient(`${balancer.url}/py`);
    });
    afterAll(async () => {
      await balancer?.[Symbol.asyncDispose]();
      await server?.stop(0);
    });

    test("code runs, files come and go, and probes answer", async () => {
      expect((await client.post("/api/execute", { code: "6 * 7" })).body.result).toBe(42);
      const content = "x".repeat(9 * 2 ** 20);
      expect((await client.put("/api/files/large.txt", content)).status).toBe(200);
      expect((await client.get("/api/files/large.txt")).body).toHaveLength(content.length);
      for (const probe of ["/health", "/ready", "/metrics", "//ready"])
        expect((await client.get(probe)).status).toBe(200);
      expect((await client.get("/docs.json")).body.servers).toEqual([{ url: "/py" }]);
    });

    test("what a client claims of addresses and prefixes is not believed", async () => {
      await client.post(
        "/api/execute",
        { code: "1" },
        { "x-forwarded-for": "192.0.2.66", "x-forwarded-prefix": "/evil" },
      );
      const { stats } = (await client.get("/api/dashboard/stats")).body;
      expect(stats.topIPs.map(({ ip }: { ip: string }) => ip)).toEqual(["127.0.0.1"]);
      const { body } = await client.get("/docs.json", { "x-forwarded-prefix": "/evil" });
      expect(body.servers).toEqual([{ url: "/py" }]);
    });

    test("the page's address without its slash leads to it", async () => {
      const response = await fetch(`${balancer.url}/py`);
      expect(response.url).toMatch(/\/py\/$/);
      expect(await response.text()).toContain('src="/py/assets/playground.js"');
    });

    test("events come as they happen, and heartbeats between them", { timeout: 60_000 }, async () => {
      const controller = new AbortController();
      const response = await fetch(`${balancer.url}/py/api/execute-stream`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ code: "print('begun', flush=True)\nimport time\ntime.sleep(250)", timeout: 280_000 }),
        signal: controller.signal,
      });
      let text = "";
      for await (const chunk of response.body as ReadableStream<Uint8Array>) {
        text += new TextDecoder().decode(chunk);
        if (text.split(": \n\n").length > 3) break;
      }
      expect(text).toContain("begun");
      controller.abort();
    });

    test("a balancer's connections are used again and again without an error", async () => {
      for (let round = 0; round < 20; round++) {
        const replies = await Promise.all(Array.from({ length: 5 }, () => client.get("/ready")));
        expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
      }
    });

    test.skipIf(!hasChromium)("the pages work in a browser", { timeout: 90_000 }, async () => {
      const code =
        "print('hello from', 6 * 7)\nfrom IPython.display import HTML\ndisplay(HTML('<table><tr><th>a</th></tr><tr><td>1</td></tr></table>'))";
      await using playground = await openPage(browser as Browser, `${balancer.url}/py/`);
      const { page } = playground;
      await page.getByLabel("Python code").fill(code);
      await page.getByRole("button", { name: "Run", exact: true }).click();
      await page.getByText("hello from 42").waitFor();
      const frame = page.getByTitle("HTML output").contentFrame();
      await frame.getByRole("cell", { name: "1" }).waitFor();
      // Its style sheet has been loaded: browsers' own margin is 8 pixels.
      const leftOf = async (element: Locator) => (await element.boundingBox())?.x ?? 0;
      const margin = async () =>
        (await leftOf(frame.getByRole("table"))) - (await leftOf(page.getByTitle("HTML output")));
      await expect.poll(margin).toBeGreaterThan(9);
      const shot = process.env.BALANCER_SCREENSHOTS;
      if (shot)
        await page.screenshot({ path: path.join(shot, `playground-${name.replaceAll(" ", "-")}.png`), fullPage: true });
      await page.getByRole("link", { name: "Dashboard" }).click();
      await page.getByText("Live").waitFor();
      expect(page.url()).toBe(`${balancer.url}/py/api/dashboard/stats/dashboard`);
      await page.getByRole("link", { name: "API docs" }).click();
      await page.getByRole("heading", { name: "Running code" }).waitFor();
      expect(page.url()).toBe(`${balancer.url}/py/docs`);
      await expect(page.locator(".example").first().textContent()).resolves.toContain(`${balancer.url}/py/api/execute`);
      if (shot) await page.screenshot({ path: path.join(shot, `docs-${name.replaceAll(" ", "-")}.png`) });
      expect([playground.problems, playground.foreignRequests]).toEqual([[], []]);
    });
  });
}

test("KEEP_ALIVE_S is above what every recipe lets connections be idle", () => {
  const idle = [
    /keepalive_timeout (\d+)s/.exec(recipe("nginx"))?.[1],
    /timeout http-keep-alive (\d+)s/.exec(recipe("haproxy"))?.[1],
    /idleConnTimeout: (\d+)s/.exec(recipe("yaml"))?.[1],
  ];
  for (const seconds of idle) expect(Number(seconds)).toBeLessThan(65);
});
