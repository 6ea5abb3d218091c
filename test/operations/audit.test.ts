import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { PackageServer } from "../../src/packages/testing/package-server.ts";
import { makeWheel } from "../../src/packages/testing/wheels.ts";
import { verifySecurityLog } from "../../src/security-log/verify.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { createClient, type TestClient } from "../support/client.ts";
import { cpuTime } from "../support/cpu-time.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";
import { SocketClient } from "../support/web-socket.ts";

const CLI = new URL("../../src/cli/main.ts", import.meta.url).pathname;
const sha256 = (bytes: string | Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const sum = (counts: number[]) => counts.reduce((total, count) => total + count, 0);

let index: PackageServer;
beforeAll(async () => {
  index = await PackageServer.start();
  index.add(await makeWheel({ name: "greeting", version: "1.0" }));
});
afterAll(async () => await index.close());

describe("statistics after a scripted mix", () => {
  const keys = "ada:ada-key-of-sixteen,bob:bob-key-of-sixteen,root:root-key-of-sixteen:stats+admin";
  let dataDir: string;
  let server: TestServer;
  const clientOf = (key: string, agent: string): TestClient =>
    createClient(server.url, { authorization: `Bearer ${key}`, "user-agent": agent });
  const statsOf = async (key: string) => (await clientOf(key, "reader").get("/api/dashboard/stats")).body.stats;
  const flatOf = async (key: string) => (await clientOf(key, "reader").get("/api/stats")).body.executionStats;
  const start = async () =>
    await startTestServer({ DATA_DIR: dataDir, API_KEYS: keys, PACKAGE_INDEX_URL: index.indexUrl });

  beforeAll(async () => {
    dataDir = temporaryFolder("pyodide-express-statistics");
    server = await start();
    const ada = clientOf("ada-key-of-sixteen", "ada/1.0");
    const bob = clientOf("bob-key-of-sixteen", "bob/2.0");
    const raw = { "content-type": "text/plain" };
    for (const code of ["1", "2", "3"]) await ada.post("/api/execute", { code });
    await ada.post("/api/execute", { code: "1 / 0" });
    await ada.post("/api/execute", { code: "while True: pass", timeout: 100 });
    await ada.post("/api/execute-raw", "4", raw);
    await ada.post("/api/execute-raw", "undefined_name", raw);
    await ada.post("/api/execute-stream", { code: "5" });
    await ada.post("/api/execute-stream", { code: "int('x')" });
    await ada.upload("a.csv", "a\n1\n");
    await ada.upload("b.txt", "b");
    await ada.post("/api/install-package", { package: "greeting" });
    await ada.post("/api/execute", { code: 'import micropip; await micropip.install("greeting")' });
    await bob.post("/api/execute", { code: "6" });
    await bob.post("/api/execute", { code: "{}['x']" });
    await bob.post("/api/execute", { code: "class Ünïcode(Exception): pass\nraise Ünïcode()" });
    // None of these ran any code, uploaded or installed anything.
    await ada.post("/api/execute", { code: "" });
    await ada.post("/api/execute-stream", { code: 1 });
    await ada.post("/api/execute", "{", { "content-type": "application/json" });
    await ada.post("/api/execute", { code: "1", environment: "nowhere" });
    await ada.upload("c.exe", "MZ");
    await ada.post("/api/install-package", { package: "subprocess" });
    await ada.post("/api/install-package", { package: "no-such-package" });
    await ada.get("/api/packages");
    await ada.get("/api/health");
    await server.get("/api/execute");
    await server.post("/api/execute", { code: "1" }, { authorization: "Bearer wrong" });
  });
  afterAll(async () => {
    await server.stop(0);
  });

  const adas = {
    overview: { totalExecutions: 10, successRate: "60.0" },
    recent: { lastHourExecutions: 10, recentSuccessRate: "60.0", packagesInstalled: 2, filesUploaded: 2 },
    topIPs: [{ ip: "127.0.0.1", count: 10 }],
    topErrors: [
      { error: "NameError", count: 1 },
      { error: "Timeout", count: 1 },
      { error: "ValueError", count: 1 },
      { error: "ZeroDivisionError", count: 1 },
    ],
    userAgents: [{ agent: "ada/1.0", count: 10 }],
  };

  test("each principal's are exact", async () => {
    const ada = await statsOf("ada-key-of-sixteen");
    expect(ada).toMatchObject(adas);
    expect(ada.hourlyTrend).toHaveLength(24);
    expect(sum(ada.hourlyTrend)).toBe(10);
    expect(ada.overview.averageExecutionTime).toBeGreaterThan(10);
    expect(ada.recentExecutions).toHaveLength(10);
    expect(ada.recentExecutions[0]).toMatchObject({ principal: "ada", success: true, error: null });
    const bob = await statsOf("bob-key-of-sixteen");
    expect(bob).toMatchObject({
      overview: { totalExecutions: 3, successRate: "33.3" },
      recent: { lastHourExecutions: 3, recentSuccessRate: "33.3", packagesInstalled: 0, filesUploaded: 0 },
      topErrors: [
        { error: "KeyError", count: 1 },
        { error: "Ünïcode", count: 1 },
      ],
      userAgents: [{ agent: "bob/2.0", count: 3 }],
    });
    expect(JSON.stringify(bob)).not.toMatch(/ada/);
    expect(await flatOf("bob-key-of-sixteen")).toMatchObject({
      totalExecutions: 3,
      successRate: 1 / 3,
      errorCategories: { KeyError: 1, Ünïcode: 1 },
    });
  });

  test("an administrator's are everybody's", async () => {
    expect(await statsOf("root-key-of-sixteen")).toMatchObject({
      overview: { totalExecutions: 13, successRate: "53.8" },
      recent: { lastHourExecutions: 13, recentSuccessRate: "53.8", packagesInstalled: 2, filesUploaded: 2 },
      topIPs: [{ ip: "127.0.0.1", count: 13 }],
      userAgents: [
        { agent: "ada/1.0", count: 10 },
        { agent: "bob/2.0", count: 3 },
      ],
    });
    const flat = await flatOf("root-key-of-sixteen");
    expect(flat.totalExecutions).toBe(13);
    expect(flat.successRate).toBeCloseTo(7 / 13);
    expect(flat.errorCategories).toEqual({
      KeyError: 1,
      NameError: 1,
      Timeout: 1,
      ValueError: 1,
      ZeroDivisionError: 1,
      Ünïcode: 1,
    });
  });

  test("a restart loses nothing", async () => {
    const before = await statsOf("root-key-of-sixteen");
    await server.stop(0);
    server = await start();
    const { overview, ...rest } = await statsOf("root-key-of-sixteen");
    const { overview: overviewBefore, ...restBefore } = before;
    expect(rest).toEqual(restBefore);
    expect(overview).toMatchObject({
      totalExecutions: overviewBefore.totalExecutions,
      successRate: overviewBefore.successRate,
      averageExecutionTime: overviewBefore.averageExecutionTime,
    });
  });

  test("are cleared for who asks, and for all by an administrator", async () => {
    const clear = async (key: string) => (await clientOf(key, "reader").post("/api/dashboard/stats/clear", {})).status;
    expect(await clear("bob-key-of-sixteen")).toBe(200);
    const none = { overview: { totalExecutions: 0, successRate: 0, averageExecutionTime: 0 }, topErrors: [] };
    expect(await statsOf("bob-key-of-sixteen")).toMatchObject(none);
    expect(await statsOf("ada-key-of-sixteen")).toMatchObject(adas);
    expect((await statsOf("root-key-of-sixteen")).overview.totalExecutions).toBe(13);
    expect(await clear("root-key-of-sixteen")).toBe(200);
    for (const key of ["ada-key-of-sixteen", "bob-key-of-sixteen", "root-key-of-sixteen"])
      expect(await statsOf(key)).toMatchObject(none);
    await clientOf("ada-key-of-sixteen", "ada/1.0").post("/api/execute", { code: "1" });
    expect((await statsOf("ada-key-of-sixteen")).overview).toMatchObject({ totalExecutions: 1, successRate: "100.0" });
  });
});

describe("the security log", () => {
  let server: TestServer;
  const linesOf = async (id: string) =>
    (await readSecurityLog(server.config)).filter(({ requestId }) => requestId === id);

  beforeAll(async () => {
    server = await startTestServer({ PACKAGE_INDEX_URL: index.indexUrl });
  });
  afterAll(async () => await server.stop(0));

  test("has one line for each thing that happened, with who and what", async () => {
    const as = (id: string) => ({ "x-request-id": id, "user-agent": "tester/1" });
    const code = 'print("x")\n"four"';
    await server.post("/api/execute", { code }, as("run"));
    await server.post("/api/execute", { code: "1 / 0" }, as("error"));
    await server.upload("a b.csv", "a\n1\n", { headers: as("upload") });
    await server.post("/api/install-package", { package: "greeting" }, as("install"));
    await server.post("/api/install-package", { package: "nowhere" }, as("no-install"));
    await server.post("/api/install-package", { package: "socket" }, as("refused"));
    await server.delete("/api/uploaded-files/a_b.csv", as("delete"));
    await server.delete("/api/pyodide-files/a_b.csv", as("delete-2"));
    await server.post("/api/clear-all-files", {}, as("clear"));
    await server.post("/api/reset", {}, as("reset"));
    await server.post("/api/dashboard/stats/clear", {}, as("clear-stats"));
    const common = {
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      level: "SECURITY",
      ip: "127.0.0.1",
      userAgent: "tester/1",
      principal: "anonymous",
    };
    const [run, ...none] = await linesOf("run");
    expect(none).toEqual([]);
    expect(run).toEqual({
      ...common,
      event: "code_execution",
      requestId: "run",
      seq: expect.any(Number),
      previous: expect.stringMatching(/^[0-9a-f]{64}$/),
      details: {
        success: true,
        outcome: "success",
        codeHash: sha256(code),
        codeLength: code.length,
        environment: "stdlib",
        executionTime: expect.any(Number),
        cpuTime: cpuTime,
        resultLength: '"four"'.length,
        hasOutput: true,
        error: null,
      },
    });
    for (const [id, event, details] of [
      ["error", "code_execution_error", { success: false, outcome: "error", error: "ZeroDivisionError" }],
      [
        "upload",
        "file_upload",
        { success: true, filename: "a_b.csv", originalName: "a b.csv", size: 4, sha256: sha256("a\n1\n") },
      ],
      ["install", "package_install", { package: "greeting", success: true, error: null }],
      ["no-install", "package_install", { package: "nowhere", success: false, error: "package_not_found" }],
      ["refused", "package_install", { package: "socket", success: false, error: "refused" }],
      ["delete", "file_delete", { filename: "a_b.csv" }],
      ["delete-2", "file_delete", { filename: "a_b.csv" }],
      ["clear", "files_clear", { uploaded_files: 0, pyodide_files: 1 }],
      ["reset", "state_reset", {}],
      ["clear-stats", "statistics_clear", {}],
    ] as const) {
      expect(await linesOf(id)).toMatchObject([{ ...common, event, requestId: id, details }]);
    }
  });

  test.each<[string, string]>([
    ["ASCII", "1 + 1"],
    ["every kind of line end and space", "\n\tx = 1\r\n\n  \n\rx\n".trimStart()],
    ["characters of several bytes", '"añ€😀" # \u0000\u2028'],
    ["100,000 characters", `#${"é".repeat(99_997)}\n1`],
  ])("codeHash is SHA-256 of the code's exact bytes: %s", async (name, code) => {
    const id = `hash-${name.replaceAll(/\W/g, "-")}`;
    const headers = { "x-request-id": id };
    await server.post("/api/execute", { code }, headers);
    await server.post("/api/execute-raw", code, { ...headers, "content-type": "text/plain" });
    await server.post("/api/execute-stream", { code }, headers);
    const lines = await linesOf(id);
    expect(lines.map(({ details }) => details.codeHash)).toEqual([sha256(code), sha256(code), sha256(code)]);
    expect(lines.map(({ details }) => details.codeLength)).toEqual([code.length, code.length, code.length]);
    expect(JSON.stringify(lines)).not.toContain("ééééé");
  });

  test("codeHash of a raw body is that of its bytes, whatever their encoding", async () => {
    for (const [id, bytes, type] of [
      ["bom", Buffer.from("\ufeff40 + 2"), "text/plain"],
      ["latin1", Buffer.from('"h\xe9"', "latin1"), "text/plain; charset=iso-8859-1"],
    ] as const) {
      await server.post("/api/execute-raw", bytes, { "content-type": type, "x-request-id": id });
      expect(await linesOf(id)).toMatchObject([{ details: { success: true, codeHash: sha256(bytes) } }]);
    }
  });

  test("holds the code itself only if that is asked for", async () => {
    const secret = "'a password in the code'";
    await server.post("/api/execute", { code: secret });
    expect(await readFile(path.join(server.config.LOG_DIR, "security.log"), "utf8")).not.toContain("password");
    const telling = await startTestServer({ LOG_CODE: "true" });
    try {
      await telling.post("/api/execute", { code: secret });
      expect((await readSecurityLog(telling.config)).at(-1)?.details.code).toBe(secret);
    } finally {
      await telling.stop(0);
    }
  });
});

describe("the chain on disk", () => {
  let dataDir: string;
  beforeEach(async () => {
    dataDir = temporaryFolder("pyodide-express-chain");
  });

  const verify = async (dir: string) =>
    await promisify(execFile)(process.execPath, [CLI, "audit", "verify", dir])
      .then(({ stdout, stderr }) => ({ code: 0, said: stdout + stderr }))
      .catch(({ code, stdout, stderr }) => ({ code, said: stdout + stderr }));

  test("verifies, and after one flipped byte the command names that line", async () => {
    const server = await startTestServer({ DATA_DIR: dataDir });
    for (let i = 0; i < 6; i++) await server.post("/api/execute", { code: String(i) });
    // While it is written to, too.
    expect(await verifySecurityLog(server.config.LOG_DIR)).toMatchObject({ ok: true, lines: 6 });
    await server.stop(0);
    const dir = server.config.LOG_DIR;
    const whole = await verify(dir);
    expect(whole).toEqual({
      code: 0,
      said: expect.stringMatching(/^ok: 6 lines in 1 files\nline 6 has the hash \w{64}\n$/),
    });

    const file = path.join(dir, "security.log");
    const bytes = await readFile(file);
    const starts = [0, ...[...bytes.keys()].filter((i) => bytes[i] === 0x0a).map((i) => i + 1)].slice(0, -1);
    for (const [i, start] of starts.entries()) {
      const flipped = Buffer.from(bytes);
      const at = start + 20;
      flipped[at] = (flipped[at] as number) ^ 1;
      await writeFile(file, flipped);
      expect(await verifySecurityLog(dir)).toMatchObject({ ok: false, file: "security.log", line: i + 1 });
    }
    await writeFile(file, Buffer.from(bytes).fill("8", (starts[3] as number) + 20, (starts[3] as number) + 21));
    expect(await verify(dir)).toEqual({ code: 1, said: expect.stringMatching(/^security\.log:4: /) });
    await writeFile(file, bytes);
    expect((await verify(dir)).code).toBe(0);
  });

  test("goes on across restarts and rotations", async () => {
    for (let start = 0; start < 3; start++) {
      const server = await startTestServer({ DATA_DIR: dataDir, LOG_MAX_SIZE: "2048" });
      for (let i = 0; i < 7; i++) await server.post("/api/execute", { code: String(i) });
      await server.stop(0);
    }
    const result = await verifySecurityLog(path.join(dataDir, "logs"));
    expect(result).toMatchObject({ ok: true, lines: 21, firstSeq: 1, notes: [] });
    expect(result.ok && result.files.length).toBeGreaterThan(3);
  });
});

describe("a log that cannot be written", () => {
  let dataDir: string;
  let server: TestServer;
  /** The tests may run as root, whom permissions do not stop: a file where the folder should be does. */
  const blocked = () => path.join(dataDir, "blocked");
  const start = async (required: string) => {
    dataDir = temporaryFolder("pyodide-express-audit");
    await writeFile(blocked(), "");
    server = await startTestServer({
      DATA_DIR: dataDir,
      LOG_DIR: path.join(blocked(), "logs"),
      AUDIT_REQUIRED: required,
      PACKAGE_INDEX_URL: index.indexUrl,
    });
  };
  afterEach(async () => {
    await server.stop(0);
  });

  test("with AUDIT_REQUIRED no code is run, until it can be written again", async () => {
    await start("true");
    const attempts = [
      () => server.post("/api/execute", { code: 'open("ran", "w")' }),
      () => server.post("/api/execute-raw", 'open("ran", "w")', { "content-type": "text/plain" }),
      () => server.post("/api/execute-stream", { code: 'open("ran", "w")' }),
    ];
    for (const attempt of attempts) {
      const { status, headers, body } = await attempt();
      expect(status).toBe(503);
      expect(headers.get("retry-after")).toMatch(/^\d+$/);
      expect(body).toMatchObject({
        success: false,
        error: "The security log cannot be written, so no code is run.",
        code: "audit_unavailable",
      });
      expect(JSON.stringify(body)).not.toContain(dataDir);
    }
    const socket = await SocketClient.open(server.url);
    expect(await socket.run("a", { code: 'open("ran", "w")' })).toMatchObject({
      type: "error",
      code: "audit_unavailable",
      status: 503,
    });
    await socket.close();
    expect((await server.get("/api/pyodide-files")).body.result.files).toEqual([]);
    const { securityLog } = (await server.get("/api/status")).body;
    expect(securityLog).toMatchObject({ healthy: false, reason: expect.stringMatching(/^ENOTDIR/) });
    await rm(blocked());
    await until(async () => (await server.post("/api/execute", { code: "1" })).status === 200);
    expect(await verifySecurityLog(server.config.LOG_DIR)).toMatchObject({ ok: true });
  });

  test("without it code runs, and the state says what is wrong", async () => {
    await start("false");
    expect((await server.post("/api/execute", { code: "6 * 7" })).body.result).toBe(42);
    expect((await server.get("/api/status")).body.securityLog.healthy).toBe(false);
    expect((await server.get("/metrics")).body).toMatch(/security_log\w* 0$/m);
    await rm(blocked());
    // What waited in memory is written, too.
    await until(async () => (await server.get("/api/status")).body.securityLog.healthy === true);
    expect(await readSecurityLog(server.config)).toMatchObject([
      { event: "code_execution", details: { success: true } },
    ]);
  });
});
