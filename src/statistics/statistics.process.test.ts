import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { hasRedis, startRedis, type TestRedis } from "../../test/support/redis.ts";
import { until } from "../../test/support/until.ts";
import { StartupError } from "../shared/errors.ts";
import { RedisConnection } from "../shared/redis-connection.ts";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { DiskStatistics } from "./disk-store.ts";
import { RedisStatistics } from "./redis-store.ts";
import { formatUptime } from "./snapshot.ts";
import { type ExecutionRecord, Statistics } from "./statistics.ts";
import type { StatisticsStore } from "./store.ts";

vi.setConfig({ testTimeout: 60_000 });

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;

let dir: string;
let nowMs: number;
const opened: Statistics[] = [];

beforeEach(() => {
  dir = temporaryFolder("statistics");
  nowMs = Date.UTC(2026, 0, 2, 12, 30);
});

afterEach(async () => {
  for (const statistics of opened.splice(0)) await statistics.close();
});

function open(store: StatisticsStore = new DiskStatistics(dir)): Statistics {
  const statistics = new Statistics({ store, now: () => nowMs });
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

let redis: TestRedis | undefined;
let connection: RedisConnection;

beforeAll(async () => {
  if (!hasRedis) return;
  redis = await startRedis();
  connection = new RedisConnection({ url: redis.url });
});

afterAll(async () => {
  connection?.close();
  await redis?.stop();
});

beforeEach(async () => {
  if (redis) await connection.attempt((redis) => redis.flushall());
});

const inRedis = (folder = dir) => new RedisStatistics({ connection, dir: folder });

const STORES: [name: string, make: () => StatisticsStore][] = [["on disk", () => new DiskStatistics(dir)]];
if (hasRedis) STORES.push(["in Redis", () => inRedis()]);
else console.warn("There is no redis-server on this machine: its tests are skipped.");

describe.each(STORES)("statistics %s", (_name, makeStore) => {
  test("with nothing recorded, everything is there and zero", async () => {
    expect(await open(makeStore()).snapshot()).toEqual({
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

  test("after a scripted mix every number is exact", async () => {
    const statistics = open(makeStore());
    statistics.record(execution({ executionTimeMs: 10 }));
    statistics.record(execution({ executionTimeMs: 20, ip: "192.0.2.2" }));
    nowMs += 1000;
    statistics.record(failure("ZeroDivisionError", { executionTimeMs: 60, userAgent: "python-requests/2.32" }));
    statistics.recordPackage("alice");
    statistics.recordUpload("alice");
    statistics.recordUpload("alice");
    nowMs += 66_000;

    const { stats, executionStats } = await statistics.snapshot();
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
    test("the trend holds clock hours, the current one last, and forgets after 24", async () => {
      const statistics = open(makeStore());
      statistics.record(execution());
      nowMs += HOUR_MS;
      statistics.record(execution());
      statistics.record(execution());
      expect((await statistics.snapshot()).stats.hourlyTrend.slice(-3)).toEqual([0, 1, 2]);
      nowMs += 22 * HOUR_MS;
      expect((await statistics.snapshot()).stats.hourlyTrend.slice(0, 3)).toEqual([1, 2, 0]);
      nowMs += 30 * MINUTE_MS;
      statistics.record(execution());
      expect((await statistics.snapshot()).stats.hourlyTrend).toEqual([2, ...Array(22).fill(0), 1]);
      expect((await statistics.snapshot()).stats.overview.totalExecutions).toBe(4);
    });

    test("the last hour slides by minutes", async () => {
      const statistics = open(makeStore());
      statistics.record(failure("ValueError"));
      nowMs += 30 * MINUTE_MS;
      statistics.record(execution());
      expect((await statistics.snapshot()).stats.recent).toMatchObject({
        lastHourExecutions: 2,
        recentSuccessRate: "50.0",
      });
      nowMs += 30 * MINUTE_MS;
      expect((await statistics.snapshot()).stats.recent).toMatchObject({
        lastHourExecutions: 1,
        recentSuccessRate: "100.0",
      });
      nowMs += 30 * MINUTE_MS;
      expect((await statistics.snapshot()).stats.recent).toMatchObject({ lastHourExecutions: 0, recentSuccessRate: 0 });
    });

    test.each([
      [0, "0s"],
      [67, "1m 7s"],
      [3600, "1h 0m 0s"],
      [90_061, "1d 1h 1m 1s"],
    ])("an uptime of %d s reads %s", (uptimeSeconds, text) => expect(formatUptime(uptimeSeconds)).toBe(text));
  });

  describe("principals", () => {
    test("see their own, and without a principal everybody's", async () => {
      const statistics = open(makeStore());
      statistics.record(execution({ principal: "alice", ip: "192.0.2.1" }));
      statistics.record(failure("KeyError", { principal: "bob", ip: "192.0.2.2" }));
      statistics.recordUpload("bob");
      const alice = await statistics.snapshot("alice");
      expect(alice.executionStats).toMatchObject({ totalExecutions: 1, successRate: 1, errorCategories: {} });
      expect(JSON.stringify(alice)).not.toMatch(/bob|192\.0\.2\.2|KeyError/);
      expect((await statistics.snapshot("bob")).stats).toMatchObject({
        overview: { totalExecutions: 1, successRate: "0.0" },
        recent: { filesUploaded: 1 },
      });
      expect((await statistics.snapshot("unknown")).stats.overview.totalExecutions).toBe(0);
      expect((await statistics.snapshot()).stats).toMatchObject({
        overview: { totalExecutions: 2 },
        recent: { filesUploaded: 1 },
      });
      expect((await statistics.snapshot()).stats.recentExecutions.map(({ principal }) => principal)).toEqual([
        "bob",
        "alice",
      ]);
    });

    test("clear their own only; without a principal all is cleared, and counting goes on", async () => {
      const statistics = open(makeStore());
      statistics.record(execution({ principal: "alice" }));
      statistics.record(execution({ principal: "bob" }));
      await statistics.clear("alice");
      expect((await statistics.snapshot("alice")).stats).toMatchObject({
        overview: { totalExecutions: 0 },
        recentExecutions: [],
      });
      expect((await statistics.snapshot("bob")).stats.overview.totalExecutions).toBe(1);
      expect((await statistics.snapshot()).stats.overview.totalExecutions).toBe(2);
      expect((await statistics.snapshot()).stats.recentExecutions).toHaveLength(2);
      statistics.record(execution({ principal: "alice" }));
      expect((await statistics.snapshot("alice")).stats.recentExecutions).toHaveLength(1);

      await statistics.clear();
      expect((await statistics.snapshot()).stats).toMatchObject({
        overview: { totalExecutions: 0 },
        hourlyTrend: Array(24).fill(0),
        recentExecutions: [],
      });
      statistics.record(execution());
      expect((await statistics.snapshot()).stats.overview.totalExecutions).toBe(1);
    });
  });

  test("any name and number a client can cause is taken", async () => {
    const statistics = open(makeStore());
    statistics.record(failure("__proto__", { executionTimeMs: Number.NaN, userAgent: "x".repeat(100_000) }));
    statistics.record(failure("a\n\u001b[2J\u202e\0\ud800b", { executionTimeMs: Number.POSITIVE_INFINITY }));
    const { stats, executionStats } = await statistics.snapshot();
    expect(statistics.waitingEvents).toBe(0);
    expect(Object.entries(executionStats.errorCategories)).toEqual([
      ["__proto__", 1],
      ["a\ufffd\ufffd[2J\ufffd\ufffd\ufffdb", 1],
    ]);
    expect(stats.userAgents.map(({ agent }) => agent.length)).toContain(256);
    expect(stats.overview.averageExecutionTime).toBe(0);
  });

  test("listeners hear of every record and of clearing", async () => {
    const statistics = open(makeStore());
    const listener = vi.fn();
    statistics.on("change", listener);
    statistics.record(execution());
    statistics.recordUpload("alice");
    await statistics.clear();
    expect(listener).toHaveBeenCalledTimes(3);
    statistics.off("change", listener);
    statistics.record(execution());
    expect(listener).toHaveBeenCalledTimes(3);
  });
});

describe("bounds", () => {
  test("names that clients choose are folded, the frequent ones stay, and the sum is right", async () => {
    const statistics = open();
    for (let i = 0; i < 20; i++) statistics.record(failure("ValueError", { ip: "192.0.2.9", userAgent: "regular" }));
    for (let i = 0; i < 2500; i++) {
      statistics.record(failure(`Error${i}`, { ip: `10.0.${i >> 8}.${i & 255}`, userAgent: `agent ${i}` }));
      if (i % 100 === 0) await statistics.snapshot();
    }
    const { stats, executionStats } = await statistics.snapshot();
    expect(stats.topIPs[0]).toEqual({ ip: "192.0.2.9", count: 20 });
    expect(stats.topErrors[0]).toEqual({ error: "ValueError", count: 20 });
    expect(stats.userAgents[0]).toEqual({ agent: "regular", count: 20 });
    for (const top of [stats.topIPs, stats.topErrors, stats.userAgents]) expect(top).toHaveLength(10);
    const categories = Object.values(executionStats.errorCategories);
    expect(categories.length).toBeLessThanOrEqual(51);
    expect(categories.reduce((sum, count) => sum + count, 0)).toBe(2520);
    await statistics.close();
    const database = new DatabaseSync(path.join(dir, "statistics.sqlite"));
    const rows = (table: string) => (database.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n;
    expect(rows("counters")).toBeLessThan(2 * (3 * 1001 + 100));
    expect(rows("events")).toBe(1000);
    database.close();
  });
});

describe("durability", () => {
  test("a restart loses nothing", async () => {
    const first = open();
    first.record(execution());
    first.record(failure("KeyError"));
    first.recordPackage("alice");
    await first.close();
    const after = await open().snapshot();
    expect(after.executionStats).toMatchObject({
      totalExecutions: 2,
      errorCategories: { KeyError: 1 },
      recent: { packagesInstalled: 1 },
    });
  });

  test("SIGKILL loses nothing that was written, and nothing counts twice", async () => {
    const source = `
      import { DiskStatistics } from ${JSON.stringify(path.join(import.meta.dirname, "disk-store.ts"))};
      import { Statistics } from ${JSON.stringify(path.join(import.meta.dirname, "statistics.ts"))};
      const statistics = new Statistics({ store: new DiskStatistics(${JSON.stringify(dir)}), foldEveryMs: 1 });
      for (let i = 1; ; i++) {
        statistics.record(${JSON.stringify(execution())});
        if (i % 7 > 0) continue;
        await statistics.snapshot();
        process.stdout.write(i + "\\n");
      }`;
    const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", source], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = once(child, "exit");
    let reported = 0;
    for await (const line of createInterface({ input: child.stdout })) {
      reported = Number(line);
      if (reported === 301) child.kill("SIGKILL");
    }
    await exited;
    const { totalExecutions } = (await open().snapshot()).executionStats;
    // The last ones may have been written without the time to report it.
    expect(totalExecutions).toBeGreaterThanOrEqual(reported);
    expect(totalExecutions).toBeLessThanOrEqual(reported + 7);
  });

  test("a batch is one transaction: all of its events are written, or none", async () => {
    const store = new DiskStatistics(dir);
    const [good] = [{ atMs: 1, type: "execution", principal: "alice", ip: "", agent: "", error: null } as const];
    const of = (timeMs: number) => ({ ...good, success: true, timeMs });
    expect(() => store.insert([of(1), of(2), of(Symbol() as unknown as number)])).toThrow();
    store.fold(1);
    expect(store.countersOf("alice").size).toBe(0);
    store.insert([of(1), of(2)]);
    store.fold(1);
    expect(store.countersOf("alice").get("total")?.get("executions")).toBe(2);
    store.close();
  });

  test("while the database refuses, events wait, and nothing throws", async () => {
    const statistics = open();
    const other = new DatabaseSync(path.join(dir, "statistics.sqlite"));
    other.exec("BEGIN IMMEDIATE");
    statistics.record(execution());
    statistics.record(execution());
    expect(statistics.waitingEvents).toBe(2);
    expect((await statistics.snapshot()).stats.overview.totalExecutions).toBe(0);
    other.exec("ROLLBACK");
    other.close();
    expect((await statistics.snapshot()).stats.overview.totalExecutions).toBe(2);
    expect(statistics.waitingEvents).toBe(0);
  });

  test("a file that is no database stops the start, and says what to do", async () => {
    fs.writeFileSync(path.join(dir, "statistics.sqlite"), "not a database".repeat(100));
    expect(open).toThrow(StartupError);
    expect(open).toThrow(/Move the file away/);
  });
});

describe.skipIf(!hasRedis)("two servers that share Redis", () => {
  /** A server's own folder. */
  const folder = (name: string) => path.join(dir, name);
  const openOn = (name: string) => open(inRedis(folder(name)));

  test("show and clear the sum over both", async () => {
    const [a, b] = [openOn("a"), openOn("b")];
    a.record(execution({ executionTimeMs: 10 }));
    nowMs += 1000;
    b.record(failure("KeyError", { principal: "bob", executionTimeMs: 30 }));
    b.recordUpload("alice");
    await a.snapshot();
    await b.snapshot();
    for (const statistics of [a, b]) {
      expect((await statistics.snapshot()).stats).toMatchObject({
        overview: { totalExecutions: 2, successRate: "50.0", averageExecutionTime: 20 },
        recent: { lastHourExecutions: 2, filesUploaded: 1 },
        recentExecutions: [{ principal: "bob" }, { principal: "alice" }],
      });
      expect((await statistics.snapshot("alice")).stats.overview.totalExecutions).toBe(1);
    }
    await a.clear("bob");
    expect((await b.snapshot("bob")).stats).toMatchObject({ overview: { totalExecutions: 0 }, recentExecutions: [] });
    expect((await b.snapshot()).stats.overview.totalExecutions).toBe(2);
    await b.clear();
    expect((await a.snapshot()).stats.overview.totalExecutions).toBe(0);
    const keys = await connection.attempt((redis) => redis.keys("*"));
    expect(keys.filter((key) => !key.includes(":batch:"))).toEqual([]);
  });

  test("names that clients choose are folded, the frequent ones stay, and the sum is right", async () => {
    const [a, b] = [openOn("a"), openOn("b")];
    for (let i = 0; i < 20; i++) a.record(failure("ValueError"));
    for (let i = 0; i < 2500; i++) (i % 2 ? a : b).record(failure(`Error${i}`, { ip: `10.0.${i >> 8}.${i & 255}` }));
    await a.snapshot();
    const { stats, executionStats } = await b.snapshot();
    expect(stats.topErrors[0]).toEqual({ error: "ValueError", count: 20 });
    expect(Object.values(executionStats.errorCategories).reduce((sum, count) => sum + count, 0)).toBe(2520);
    for (const kind of ["error", "ip"]) {
      const names = await connection.attempt((redis) => redis.hlen(`pyodide-express:statistics:${kind}:`));
      expect(names).toBeLessThanOrEqual(1001);
    }
  });

  test("what was recorded while Redis was away is in the sum when it is back, also after a restart", async () => {
    const b = openOn("b");
    b.record(execution());
    await b.snapshot();
    await redis?.kill();
    const before = openOn("a");
    for (let i = 0; i < 3; i++) before.record(execution());
    await expect(before.snapshot()).rejects.toMatchObject({ status: 503, code: "store_unavailable" });
    await before.close();
    await redis?.start();
    const after = openOn("a");
    after.record(execution());
    await until(async () => (await after.snapshot().catch(() => null)) !== null);
    expect((await b.snapshot()).stats.overview.totalExecutions).toBe(5);
  });

  /** Three events that Redis has, and a server that was killed before it heard so. */
  async function dieInTheMiddle(): Promise<void> {
    const store = inRedis(folder("a"));
    const event = { type: "execution", principal: "alice", ip: "", agent: "", success: true, error: null } as const;
    store.insert(Array.from({ length: 3 }, () => ({ ...event, atMs: nowMs, timeMs: 1 })));
    const { finishBatch } = DiskStatistics.prototype;
    DiskStatistics.prototype.finishBatch = () => {
      throw new Error("killed");
    };
    try {
      await expect(store.fold(nowMs)).rejects.toThrow("killed");
    } finally {
      DiskStatistics.prototype.finishBatch = finishBatch;
      store.close();
    }
  }

  const total = async (statistics: Statistics) => (await statistics.snapshot()).stats.overview.totalExecutions;

  test("a batch counts once, also when the server was killed before it heard that it was counted", async () => {
    await dieInTheMiddle();
    const after = openOn("a");
    after.record(execution());
    expect(await total(after)).toBe(4);
    after.record(execution());
    expect(await total(after)).toBe(5);
  });

  test("what a server counts while it is in no fleet stays its own", async () => {
    await dieInTheMiddle();
    const alone = open(new DiskStatistics(folder("a")));
    alone.record(execution());
    expect(await total(alone)).toBe(4);
    await alone.close();
    const back = openOn("a");
    expect(await total(back)).toBe(3);
    back.record(execution());
    expect(await total(back)).toBe(4);
  });
});
