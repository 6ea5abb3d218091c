import { execFile } from "node:child_process";
import { readdir } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { PackageServer } from "../../src/packages/testing/package-server.ts";
import { makeWheel } from "../../src/packages/testing/wheels.ts";
import { verifySecurityLog } from "../../src/security-log/verify.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { createClient } from "../support/client.ts";
import { testSettings } from "../support/config.ts";
import { openRawRequest } from "../support/raw-request.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { startServerProcess } from "../support/server-process.ts";
import { until } from "../support/until.ts";

const CLI = new URL("../../src/cli/main.ts", import.meta.url).pathname;
const LINES = 2000;

let index: PackageServer;
let dataDir: string;
beforeAll(async () => {
  index = await PackageServer.start();
  for (let i = 0; i < 100; i++) index.add(await makeWheel({ name: `package-${i}`, version: "1" }));
  dataDir = temporaryFolder("pyodide-express-restart");
});
afterAll(async () => {
  await index.close();
});

const start = async () => {
  const settings = { POOL_SIZE: "2", PACKAGE_INDEX_URL: index.indexUrl, LOG_LEVEL: "info" };
  const server = await startServerProcess(dataDir, { ...testSettings({ DATA_DIR: dataDir }), ...settings });
  return { ...server, client: createClient(server.url) };
};

/** Long enough that a kill can hit the middle of it, and different for each. */
const contentOf = (name: string) => `name\n${`${name}\n`.repeat(LINES)}`;
const temporaryFiles = () => readdir(path.join(dataDir, "uploads"));

test("a server that is killed in the middle of everything loses nothing that it has answered", async () => {
  const answered = { uploads: [] as string[], executions: [] as string[], packages: [] as string[] };
  /** What the statistics have shown. Counts of the last 100 ms may go with a server that is killed; those that were shown do not. */
  let shown = { executions: 0, uploads: 0, packages: 0 };
  const readStatistics = async (client: ReturnType<typeof createClient>) => {
    const { overview, recent } = (await client.get("/api/dashboard/stats")).body.stats;
    const { totalExecutions: executions } = overview;
    return { executions, uploads: recent.filesUploaded, packages: recent.packagesInstalled };
  };
  let sent = 0;
  for (let round = 0; round < 3; round++) {
    const server = await start();
    const { client } = server;
    let killed = false;
    const before = Object.values(answered).flat().length;
    const done = () => ({
      executions: answered.executions.length,
      uploads: answered.uploads.length,
      packages: answered.packages.length,
    });
    const atStart = done();
    /** Does one after another, and notes what was answered, until the server is gone. */
    const keepOn = async (kind: keyof typeof answered, send: (name: string) => Promise<boolean>) => {
      for (let i = 0; !killed; i++) {
        const name = `${kind}-${round}-${i}`;
        sent++;
        // After the kill there is no answer, only an error.
        const isDone = await send(name).catch(() => false);
        if (isDone) answered[kind].push(name);
        else expect(killed).toBe(true);
      }
    };
    const working = [
      keepOn("uploads", async (name) => (await client.upload(`${name}.csv`, contentOf(name))).body.success),
      keepOn("executions", async (name) => {
        const code = `open("${name}.txt", "w").write("name\\n" + "${name}\\n" * ${LINES})`;
        return (await client.post("/api/execute", { code }, { "x-request-id": name })).body.success;
      }),
      keepOn("packages", async (name) => {
        const installed = await client.post("/api/install-package", { package: packageOf(name) });
        return installed.body.success;
      }),
    ];
    const isEnough = () => Object.values(answered).flat().length >= before + 12;
    await until(isEnough);
    const cut = await openRawRequest(server.url, [
      "POST /api/upload HTTP/1.1",
      "Content-Type: multipart/form-data; boundary=x",
      "Content-Length: 1000000",
    ]);
    await cut.send('--x\r\nContent-Disposition: form-data; name="csvFile"; filename="cut.csv"\r\n\r\nnot all of it');
    await until(async () => (await temporaryFiles()).length > 0);
    const atReading = done();
    const counted = await readStatistics(client);
    for (const kind of ["executions", "uploads", "packages"] as const)
      expect(counted[kind], kind).toBeGreaterThanOrEqual(shown[kind] + atReading[kind] - atStart[kind]);
    shown = counted;
    killed = true;
    await server.kill();
    await Promise.all(working);
    cut.socket.destroy();
    expect((await temporaryFiles()).length).toBeGreaterThan(0);
  }

  const server = await start();
  const { client } = server;
  try {
    expect(await temporaryFiles()).toEqual([]);
    const { files } = (await client.get("/api/uploaded-files")).body;
    const uploaded = new Set(files.map(({ filename }: { filename: string }) => filename));
    expect(answered.uploads.filter((name) => !uploaded.has(`${name}.csv`))).toEqual([]);
    expect(uploaded.has("cut.csv")).toBe(false);
    const { result } = await client
      .post("/api/execute", { code: "import os; {n: open(n).read() for n in os.listdir('.') if n[0] in 'ue'}" })
      .then(({ body }) => body);
    for (const name of answered.uploads) expect(result[`${name}.csv`]).toBe(contentOf(name));
    for (const name of answered.executions) expect(result[`${name}.txt`]).toBe(contentOf(name));
    // What was not answered may be there or not, but never in part.
    for (const [file, content] of Object.entries(result)) {
      if (file !== "uploaded_file.csv") expect(content).toBe(contentOf(path.parse(file).name));
    }

    const installed = (await client.get("/api/packages")).body.result.installed_packages;
    for (const name of answered.packages) expect(installed).toContain(packageOf(name));

    const { executions, uploads, packages } = await readStatistics(client);
    expect(uploads).toBeGreaterThanOrEqual(shown.uploads);
    expect(packages).toBeGreaterThanOrEqual(shown.packages);
    // The one that asked for the files counts, too.
    expect(executions).toBeGreaterThan(shown.executions);
    expect(executions + uploads + packages).toBeLessThanOrEqual(sent + 1);

    const log = { LOG_DIR: path.join(dataDir, "logs") };
    const lines = await readSecurityLog(log);
    const executed = new Set(lines.filter(({ event }) => event === "code_execution").map(({ requestId }) => requestId));
    expect(answered.executions.filter((name) => !executed.has(name))).toEqual([]);
    expect(await verifySecurityLog(log.LOG_DIR)).toMatchObject({ ok: true });
    const { stdout } = await promisify(execFile)(process.execPath, [CLI, "audit", "verify", log.LOG_DIR]);
    expect(stdout).toMatch(/^ok: \d+ lines in 1 files$/m);
    expect(stdout).not.toContain("[object Object]");
  } finally {
    await server.kill();
  }
}, 120_000);

function packageOf(name: string): string {
  const [, round = "0", i = "0"] = name.split("-");
  return `package-${(Number(round) * 30 + Number(i)) % 100}`;
}
