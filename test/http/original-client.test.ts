import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PackageServer } from "../../src/packages/testing/package-server.ts";
import { makeWheel } from "../../src/packages/testing/wheels.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { testSettings } from "../support/config.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";

const SCRIPT = new URL("../../examples/original-client.ts", import.meta.url).pathname;

let dataDir: string;
let index: PackageServer;
let server: ServerProcess;
beforeAll(async () => {
  dataDir = temporaryFolder("pyodide-express-client");
  index = await PackageServer.start();
  index.add(await makeWheel({ name: "greeting", version: "1.0" }));
  server = await startServerProcess(dataDir, {
    ...testSettings({ DATA_DIR: dataDir }),
    PACKAGE_INDEX_URL: index.indexUrl,
    LOG_LEVEL: "info",
  });
});
afterAll(async () => {
  await server.kill();
  await index.close();
});

const client = (...args: string[]) =>
  promisify(execFile)(process.execPath, [SCRIPT, ...args])
    .then(({ stdout, stderr }) => ({ code: 0, stdout, stderr }))
    .catch(({ code, stdout, stderr }) => ({ code: code as number, stdout, stderr }));

const EXPECTED = `health: Python execution is working correctly
upload: [4,3]
execute: {"Köln":2510.5,"Bonn":1343}
files: ["sales_2026.csv","uploaded_file.csv"]
uploaded files: ["sales_2026.csv"]
file info: sales_2026.csv
plots: ["/plots/matplotlib/revenue.svg"]
install: Package installed successfully
use: true
error: division by zero
statistics: {"totalExecutions":3,"successRate":"66.7"}
delete: File sales_2026.csv deleted successfully
clear: {"uploaded_files":0,"pyodide_files":3}
clear statistics: Statistics cleared successfully
reset: Pyodide environment reset successfully
after: [false,[]]
`;

test("a client of the original server runs from start to end, and again", async () => {
  for (let run = 0; run < 2; run++) {
    expect(await client(server.url, "greeting")).toEqual({ code: 0, stdout: EXPECTED, stderr: "" });
  }
});

test("it fails at the first step that does, and says which", async () => {
  const { code, stderr } = await client(server.url, "no-such-package");
  expect(code).toBe(1);
  expect(stderr).toMatch(/^install: .*no source has this package/);
});
