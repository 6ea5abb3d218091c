import { execFile } from "node:child_process";
import { createRequire } from "node:module";
import { promisify } from "node:util";
import { pino } from "pino";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type RunningServer, startServer } from "../../src/compose/server.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { testConfig } from "../support/config.ts";
import { openWithFixtures } from "../support/mcp-fixtures.ts";

const SUITE = createRequire(import.meta.url).resolve("@modelcontextprotocol/conformance/dist/index.js");
const cwd = temporaryFolder("pyodide-express-conformance");

let server: RunningServer;
beforeAll(async () => {
  server = await startServer(testConfig(), pino({ level: "silent" }), undefined, openWithFixtures);
  await server.ready;
});
afterAll(async () => await server?.stop(0));

test("every scenario for servers passes, those that the suite calls pending too", async () => {
  const args = [SUITE, "server", "--url", `${server.url}/mcp`, "--suite", "all"];
  const run = await promisify(execFile)(process.execPath, args, { cwd, maxBuffer: 64 * 1024 * 1024 }).catch(
    (error: { stdout: string; stderr: string }) => error,
  );
  const summary = run.stdout.slice(run.stdout.indexOf("=== SUMMARY"));
  expect(summary).toMatch(/Total: \d+ passed, 0 failed/);
  // One checks nothing where a server offers no streams to be resumed.
  expect(summary.match(/^✓ .*: [1-9]\d* passed, 0 failed/gm)?.length).toBeGreaterThanOrEqual(31);
});
