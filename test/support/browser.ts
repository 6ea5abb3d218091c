import { existsSync } from "node:fs";
import { type Browser, type BrowserContext, type BrowserContextOptions, chromium, type Page } from "playwright-core";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";

/** Tests of pages need a real browser. Without one they are skipped, and this says so. */
export const hasChromium = existsSync(EXECUTABLE);
if (!hasChromium) console.warn(`${EXECUTABLE} is not there: tests in a browser are skipped. CHROMIUM names another.`);

export async function launchChromium(): Promise<Browser> {
  return await chromium.launch({
    executablePath: EXECUTABLE,
    // No sandbox, since tests may run as root; the rest keeps it from calling home.
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

export interface WatchedPage extends AsyncDisposable {
  readonly page: Page;
  /** What went wrong in the page: exceptions, errors in the console, violations of the Content-Security-Policy. */
  readonly problems: string[];
  /** Every request of the page to another origin than the server's, but for those that the policy stopped before they left. */
  readonly foreignRequests: string[];
}

/** A page in a profile of its own. */
export async function openPage(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<WatchedPage> {
  const context: BrowserContext = await browser.newContext({ acceptDownloads: true, ...options });
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  const problems: string[] = [];
  const foreignRequests: string[] = [];
  page.on("pageerror", (error) => problems.push(`exception: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" || message.type() === "warning") problems.push(message.text());
  });
  page.on("request", (request) => {
    const { protocol, origin } = new URL(request.url());
    if (protocol.startsWith("http") && origin !== new URL(url).origin) foreignRequests.push(request.url());
  });
  page.on("requestfailed", (request) => {
    const index = foreignRequests.indexOf(request.url());
    if (request.failure()?.errorText === "csp" && index >= 0) foreignRequests.splice(index, 1);
  });
  await page.exposeFunction("reportViolation", (text: string) => problems.push(text));
  await page.addInitScript(`addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
    reportViolation("violates " + violatedDirective + ": " + blockedURI))`);
  await page.goto(url);
  return { page, problems, foreignRequests, [Symbol.asyncDispose]: async () => await context.close() };
}
