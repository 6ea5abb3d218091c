import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CpuClock } from "../../src/isolation/process-facts.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const MESSAGE = "Execution timed out: it used all the CPU time it may have";
/** Far more than the tests take: what ends before it was ended by something else. */
const TIMEOUT_MS = 120_000;

// Elsewhere the system does not tell; docs/operations.md says so.
describe.skipIf(new CpuClock(process.pid).readMs() === null)("EXECUTION_CPU_MS", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer({ EXECUTION_CPU_MS: "300", SESSION_DURABILITY: "commit" });
  });
  afterAll(() => server.stop(0));

  const run = async (code: string, more: object = {}) =>
    (await server.post("/api/execute", { code, timeout: TIMEOUT_MS, ...more })).body;

  test("ends code that computes, with an interrupt, and keeps its sandbox", async () => {
    const before = (await server.get("/api/status")).body.pool.discarded;
    expect(await run("print('so far')\nwhile True: pass")).toMatchObject({
      success: false,
      error: MESSAGE,
      errorInfo: { type: "Timeout", message: MESSAGE, line: 2 },
      stdout: "so far\n",
      cpuTime: expect.toSatisfy((ms) => ms >= 300),
    });
    expect((await server.get("/api/status")).body.pool.discarded).toEqual(before);
  });

  test("kills what ignores the interrupt", async () => {
    const { errorInfo, cpuTime } = await run("while True:\n  try:\n    while True: pass\n  except BaseException: pass");
    expect(errorInfo).toMatchObject({
      type: "Timeout",
      message: expect.stringMatching(/^Execution timed out: it used .* killed \d+ ms later/),
    });
    expect(cpuTime).toBeGreaterThanOrEqual(300);
    expect(await run("6 * 7")).toMatchObject({ result: 42 });
  });

  test("does not count waiting", async () => {
    const { success, executionTime, cpuTime } = await run("import time\ntime.sleep(0.6)");
    expect(success).toBe(true);
    expect(executionTime).toBeGreaterThanOrEqual(600);
    expect(cpuTime).toBeLessThan(300);
  });

  test("counts each execution of a sandbox, and of a session, anew", async () => {
    await server.post("/api/sessions", { id: "counted" });
    // At most as much CPU time as this takes by the clock.
    const work = "import time\nend = time.monotonic() + 0.12\nwhile time.monotonic() < end: pass";
    for (const session of [undefined, "counted"]) {
      for (let i = 0; i < 5; i++) expect(await run(work, { session })).toMatchObject({ success: true });
    }
    expect(await run("x = 1\nwhile True: pass", { session: "counted" })).toMatchObject({ error: MESSAGE });
    // The interrupt leaves the session as the code had it.
    expect(await run("x", { session: "counted" })).toMatchObject({ result: 1 });
  });

  test("is in the security log, and in the principal's share", async () => {
    const lines = await readSecurityLog(server.config);
    const details = lines.filter(({ event }) => event.startsWith("code_execution")).map(({ details }) => details);
    expect(details[0]).toMatchObject({ outcome: "cpu_limit", cpuTime: expect.toSatisfy((ms) => ms >= 300) });
    const { body } = await server.get("/metrics");
    const [, seconds] = /pyodide_execution_cpu_seconds_total\{principal="anonymous"\} ([\d.]+)/.exec(body) ?? [];
    const sum = details.reduce((total, { cpuTime }) => total + Number(cpuTime), 0);
    expect(Number(seconds)).toBeCloseTo(sum / 1000, 6);
  });
});
