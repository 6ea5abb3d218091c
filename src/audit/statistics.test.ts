import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { StartupError } from "../errors.ts";
import { type ExecutionRecord, Statistics } from "./statistics.ts";
import { formatUptime } from "./statistics-snapshot.ts";

vi.setConfig({ testTimeout: 60_000 });

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;

let dir: string;
let nowMs: number;
const opened: Statistics[] = [];

beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), "statistics-"));
  nowMs = Date.UTC(2026, 0, 2, 12, 30);
});

afterEach(() => {
  for (const statistics of opened.splice(0)) statistics.close();
  fs.rmSync(dir, { recursive: true, force: true });
});

function open(): Statistics {
  const statistics = new Statistics({ dir, now: () => nowMs });
  opened.push(statistics);
  return statistics;
}

const execution = (changes: Partial<ExecutionRecord> = {}): ExecutionRecord => ({
  type: "execution",
  principal: "alice",
  ip: "192.0.2.1",
  userAgent: "curl/8.9",
  success: true,
  errorType: null,
  executionTimeMs: 10,
  ...changes,
});

const failure = (errorType: string, changes: Partial<ExecutionRecord> = {}) =>
  execution({ success: false, errorType, ...changes });

test("with nothing recorded, everything is there and zero", () => {
  expect(open().snapshot()).toEqual({
    stats: expect.objectContaining({
      overview: {
        totalExecutions: 0,
        successRate: 0,
        averageExecutionTime: 0,
        executionTimePercentiles: { p50: 0, p95: 0, p99: 0 },
        uptimeSeconds: 0,
        uptimeHuman: "0s",
      },
      recent: { lastHourExecutions: 0, recentSuccessRate: 0, packagesInstalled: 0, filesUploaded: 0 },
      topIPs: [],
      topErrors: [],
      userAgents: [],
      hourlyTrend: Array(24).fill(0),
      recentExecutions: [],
    }),
    executionStats: expect.objectContaining({
      totalExecutions: 0,
      successRate: 0,
      averageExecutionTime: 0,
      errorCategories: {},
      hourlyTrend: Array(24).fill(0),
    }),
  });
});

test("after a scripted mix every number is exact", () => {
  const statistics = open();
  statistics.record(execution({ executionTimeMs: 10 }));
  statistics.record(execution({ executionTimeMs: 20, ip: "192.0.2.2" }));
  nowMs += 1000;
  statistics.record(failure("ZeroDivisionError", { executionTimeMs: 60, userAgent: "python-requests/2.32" }));
  statistics.recordPackage("alice");
  statistics.recordUpload("alice");
  statistics.recordUpload("alice");
  nowMs += 66_000;

  const { stats, executionStats } = statistics.snapshot();
  expect(stats).toEqual({
    overview: {
      totalExecutions: 3,
      successRate: "66.7",
      averageExecutionTime: 30,
      executionTimePercentiles: {
        p50: expect.closeTo(20, 0),
        p95: expect.closeTo(60, -1),
        p99: expect.closeTo(60, -1),
      },
      uptimeSeconds: 67,
      uptimeHuman: "1m 7s",
    },
    recent: { lastHourExecutions: 3, recentSuccessRate: "66.7", packagesInstalled: 1, filesUploaded: 2 },
    topIPs: [
      { ip: "192.0.2.1", count: 2 },
      { ip: "192.0.2.2", count: 1 },
    ],
    topErrors: [{ error: "ZeroDivisionError", count: 1 }],
    userAgents: [
      { agent: "curl/8.9", count: 2 },
      { agent: "python-requests/2.32", count: 1 },
    ],
    hourlyTrend: [...Array(23).fill(0), 3],
    recentExecutions: [
      {
        timestamp: "2026-01-02T12:30:01.000Z",
        principal: "alice",
        success: false,
        error: "ZeroDivisionError",
        executionTime: 60,
      },
      { timestamp: "2026-01-02T12:30:00.000Z", principal: "alice", success: true, error: null, executionTime: 20 },
      { timestamp: "2026-01-02T12:30:00.000Z", principal: "alice", success: true, error: null, executionTime: 10 },
    ],
  });
  expect(executionStats).toEqual({
    ...stats,
    totalExecutions: 3,
    successRate: 2 / 3,
    averageExecutionTime: 30,
    errorCategories: { ZeroDivisionError: 1 },
  });
});

describe("time", () => {
  test("the trend holds clock hours, the current one last, and forgets after 24", () => {
    const statistics = open();
    statistics.record(execution());
    nowMs += HOUR_MS;
    statistics.record(execution());
    statistics.record(execution());
    expect(statistics.snapshot().stats.hourlyTrend.slice(-3)).toEqual([0, 1, 2]);
    nowMs += 22 * HOUR_MS;
    expect(statistics.snapshot().stats.hourlyTrend.slice(0, 3)).toEqual([1, 2, 0]);
    nowMs += 30 * MINUTE_MS;
    statistics.record(execution());
    expect(statistics.snapshot().stats.hourlyTrend).toEqual([2, ...Array(22).fill(0), 1]);
    expect(statistics.snapshot().stats.overview.totalExecutions).toBe(4);
  });

  test("the last hour slides by minutes", () => {
    const statistics = open();
    statistics.record(failure("ValueError"));
    nowMs += 30 * MINUTE_MS;
    statistics.record(execution());
    expect(statistics.snapshot().stats.recent).toMatchObject({ lastHourExecutions: 2, recentSuccessRate: "50.0" });
    nowMs += 30 * MINUTE_MS;
    expect(statistics.snapshot().stats.recent).toMatchObject({ lastHourExecutions: 1, recentSuccessRate: "100.0" });
    nowMs += 30 * MINUTE_MS;
    expect(statistics.snapshot().stats.recent).toMatchObject({ lastHourExecutions: 0, recentSuccessRate: 0 });
  });

  test.each([
    [0, "0s"],
    [67, "1m 7s"],
    [3600, "1h 0m 0s"],
    [90_061, "1d 1h 1m 1s"],
  ])("an uptime of %d s reads %s", (uptimeSeconds, text) => expect(formatUptime(uptimeSeconds)).toBe(text));
});

describe("principals", () => {
  test("see their own, and without a principal everybody's", () => {
    const statistics = open();
    statistics.record(execution({ principal: "alice", ip: "192.0.2.1" }));
    statistics.record(failure("KeyError", { principal: "bob", ip: "192.0.2.2" }));
    statistics.recordUpload("bob");
    const alice = statistics.snapshot("alice");
    expect(alice.executionStats).toMatchObject({ totalExecutions: 1, successRate: 1, errorCategories: {} });
    expect(JSON.stringify(alice)).not.toMatch(/bob|192\.0\.2\.2|KeyError/);
    expect(statistics.snapshot("bob").stats).toMatchObject({
      overview: { totalExecutions: 1, successRate: "0.0" },
      recent: { filesUploaded: 1 },
    });
    expect(statistics.snapshot("nobody").stats.overview.totalExecutions).toBe(0);
    expect(statistics.snapshot().stats).toMatchObject({
      overview: { totalExecutions: 2 },
      recent: { filesUploaded: 1 },
    });
    expect(statistics.snapshot().stats.recentExecutions.map(({ principal }) => principal)).toEqual(["bob", "alice"]);
  });

  test("clear their own only; without a principal all is cleared, and counting goes on", () => {
    const statistics = open();
    statistics.record(execution({ principal: "alice" }));
    statistics.record(execution({ principal: "bob" }));
    statistics.clear("alice");
    expect(statistics.snapshot("alice").stats).toMatchObject({
      overview: { totalExecutions: 0 },
      recentExecutions: [],
    });
    expect(statistics.snapshot("bob").stats.overview.totalExecutions).toBe(1);
    expect(statistics.snapshot().stats.overview.totalExecutions).toBe(2);
    expect(statistics.snapshot().stats.recentExecutions).toHaveLength(2);
    statistics.record(execution({ principal: "alice" }));
    expect(statistics.snapshot("alice").stats.recentExecutions).toHaveLength(1);

    statistics.clear();
    expect(statistics.snapshot().stats).toMatchObject({
      overview: { totalExecutions: 0 },
      hourlyTrend: Array(24).fill(0),
      recentExecutions: [],
    });
    statistics.record(execution());
    expect(statistics.snapshot().stats.overview.totalExecutions).toBe(1);
  });
});

describe("bounds", () => {
  test("names that clients choose are folded, the frequent ones stay, and the sum is right", () => {
    const statistics = open();
    for (let i = 0; i < 20; i++) statistics.record(failure("ValueError", { ip: "192.0.2.9", userAgent: "regular" }));
    for (let i = 0; i < 2500; i++) {
      statistics.record(failure(`Error${i}`, { ip: `10.0.${i >> 8}.${i & 255}`, userAgent: `agent ${i}` }));
      if (i % 100 === 0) statistics.snapshot();
    }
    const { stats, executionStats } = statistics.snapshot();
    expect(stats.topIPs[0]).toEqual({ ip: "192.0.2.9", count: 20 });
    expect(stats.topErrors[0]).toEqual({ error: "ValueError", count: 20 });
    expect(stats.userAgents[0]).toEqual({ agent: "regular", count: 20 });
    for (const top of [stats.topIPs, stats.topErrors, stats.userAgents]) expect(top).toHaveLength(10);
    const categories = Object.values(executionStats.errorCategories);
    expect(categories.length).toBeLessThanOrEqual(51);
    expect(categories.reduce((sum, count) => sum + count, 0)).toBe(2520);
    statistics.close();
    const database = new DatabaseSync(path.join(dir, "statistics.sqlite"));
    const rows = (table: string) => (database.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n;
    expect(rows("counters")).toBeLessThan(2 * (3 * 1001 + 100));
    expect(rows("events")).toBe(1000);
    database.close();
  });

  test("any name and number a client can cause is taken", () => {
    const statistics = open();
    statistics.record(failure("__proto__", { executionTimeMs: Number.NaN, userAgent: "x".repeat(100_000) }));
    statistics.record(failure("a\n\u001b[2J\u202e\0\ud800b", { executionTimeMs: Number.POSITIVE_INFINITY }));
    const { stats, executionStats } = statistics.snapshot();
    expect(statistics.waitingEvents).toBe(0);
    expect(Object.entries(executionStats.errorCategories)).toEqual([
      ["__proto__", 1],
      ["a\ufffd\ufffd[2J\ufffd\ufffd\ufffdb", 1],
    ]);
    expect(stats.userAgents.map(({ agent }) => agent.length)).toContain(256);
    expect(stats.overview.averageExecutionTime).toBe(0);
  });
});

describe("durability", () => {
  test("a restart loses nothing", () => {
    const first = open();
    first.record(execution());
    first.record(failure("KeyError"));
    first.recordPackage("alice");
    first.close();
    const after = open().snapshot();
    expect(after.executionStats).toMatchObject({
      totalExecutions: 2,
      errorCategories: { KeyError: 1 },
      recent: { packagesInstalled: 1 },
    });
  });

  test("SIGKILL loses nothing that was recorded, and nothing counts twice", async () => {
    const source = `
      import { Statistics } from ${JSON.stringify(path.join(import.meta.dirname, "statistics.ts"))};
      const statistics = new Statistics({ dir: ${JSON.stringify(dir)}, foldEveryMs: 1 });
      for (let i = 1; ; i++) {
        statistics.record(${JSON.stringify(execution())});
        process.stdout.write(i + "\\n");
        if (i % 7 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
      }`;
    const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", source], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = once(child, "exit");
    let reported = 0;
    for await (const line of createInterface({ input: child.stdout })) {
      reported = Number(line);
      if (reported === 300) child.kill("SIGKILL");
    }
    await exited;
    const { totalExecutions } = open().snapshot().executionStats;
    // The last record may have been made without the time to report it.
    expect([reported, reported + 1]).toContain(totalExecutions);
  });

  test("while the database refuses, events wait, and nothing throws", () => {
    const statistics = open();
    const other = new DatabaseSync(path.join(dir, "statistics.sqlite"));
    other.exec("BEGIN IMMEDIATE");
    statistics.record(execution());
    statistics.record(execution());
    expect(statistics.waitingEvents).toBe(2);
    expect(statistics.snapshot().stats.overview.totalExecutions).toBe(0);
    other.exec("ROLLBACK");
    other.close();
    expect(statistics.snapshot().stats.overview.totalExecutions).toBe(2);
    expect(statistics.waitingEvents).toBe(0);
  });

  test("a file that is no database stops the start, and says what to do", () => {
    fs.writeFileSync(path.join(dir, "statistics.sqlite"), "not a database".repeat(100));
    expect(open).toThrow(StartupError);
    expect(open).toThrow(/Move the file away/);
  });
});

test("listeners hear of every record and of clearing", () => {
  const statistics = open();
  const listener = vi.fn();
  statistics.on("change", listener);
  statistics.record(execution());
  statistics.recordUpload("alice");
  statistics.clear();
  expect(listener).toHaveBeenCalledTimes(3);
  statistics.off("change", listener);
  statistics.record(execution());
  expect(listener).toHaveBeenCalledTimes(3);
});
