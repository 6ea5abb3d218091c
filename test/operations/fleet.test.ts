import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeWheel } from "../../src/packages/testing/wheels.ts";
import { createClient, type TestClient } from "../support/client.ts";
import { testSettings } from "../support/config.ts";
import { hasRedis, startRedis, type TestRedis } from "../support/redis.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

if (!hasRedis) console.warn("There is no redis-server on this machine: its tests are skipped.");

const KEYS = { alice: "a".repeat(20), bob: "b".repeat(20), root: "r".repeat(20) };
const ALL_SCOPES = "execute+files+packages+stats";

/** Two servers with a folder each, and nothing in common but Redis. */
interface Fleet extends AsyncDisposable {
  readonly redis: TestRedis;
  readonly servers: readonly [TestServer, TestServer];
  /** The same key on both servers. */
  as(name: keyof typeof KEYS): [TestClient, TestClient];
}

async function startFleet(settings: Record<string, string> = {}): Promise<Fleet> {
  const redis = await startRedis();
  const start = () =>
    startTestServer({
      REDIS_URL: redis.url,
      API_KEYS: `alice:${KEYS.alice}:${ALL_SCOPES},bob:${KEYS.bob}:${ALL_SCOPES},root:${KEYS.root}:stats+admin`,
      ...settings,
    });
  const servers = [await start(), await start()] as const;
  return {
    redis,
    servers,
    as: (name) => servers.map(({ url }) => createClient(url, { "x-api-key": KEYS[name] })) as [TestClient, TestClient],
    [Symbol.asyncDispose]: async () => {
      await Promise.all(servers.map((server) => server.stop(0)));
      await redis.stop();
    },
  };
}

/**
 * Runs alice's code on the first server.
 *
 * @param onBegun called when it has printed `begun`.
 * @returns all events as they came.
 */
async function streamed(fleet: Fleet, code: string, onBegun: () => Promise<unknown>): Promise<string> {
  const response = await fetch(`${fleet.servers[0].url}/api/execute-stream`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": KEYS.alice },
    body: JSON.stringify({ code }),
  });
  let events = "";
  for await (const text of (response.body as ReadableStream).pipeThrough(new TextDecoderStream())) {
    if (!events.includes("begun") && text.includes("begun")) await onBegun();
    events += text;
  }
  return events;
}

const run = async (on: TestClient, code: string) => (await on.post("/api/execute", { code })).body;

describe.skipIf(!hasRedis)("two servers that share Redis", () => {
  let fleet: Fleet;
  let a: TestClient;
  let b: TestClient;

  beforeAll(async () => {
    fleet = await startFleet();
    [a, b] = fleet.as("alice");
  });

  afterAll(async () => await fleet?.[Symbol.asyncDispose]());

  describe("files", () => {
    test("an upload to one is there for code on the other, with its record", async () => {
      expect((await a.upload("data.csv", "x,y\n1,2\n")).status).toBe(200);
      expect((await run(b, "open('/home/pyodide/data.csv').read()")).result).toBe("x,y\n1,2\n");
      expect((await b.get("/api/uploaded-files")).body).toMatchObject({ count: 1, files: [{ filename: "data.csv" }] });
      await run(
        b,
        "open('/home/pyodide/data.csv', 'w').write('from b'); open('/plots/matplotlib/p.png', 'w').write('p')",
      );
      expect((await a.get("/api/pyodide-files/data.csv")).body).toBe("from b");
      expect((await a.post("/api/extract-plots", {})).body.extracted_files).toEqual(["/plots/matplotlib/p.png"]);
      expect((await b.delete("/api/uploaded-files/data.csv")).status).toBe(200);
      expect((await a.get("/api/uploaded-files")).body.count).toBe(0);
      expect((await a.delete("/api/pyodide-files/data.csv")).status).toBe(200);
      expect((await run(b, "import os; os.path.exists('data.csv')")).result).toBe(false);
    });

    test("are the caller's own on every server", async () => {
      await a.upload("mine.txt", "alice's");
      const [, bob] = fleet.as("bob");
      expect((await run(bob, "import os; os.listdir('/home/pyodide')")).result).toEqual([]);
      expect((await bob.get("/api/pyodide-files/mine.txt")).status).toBe(404);
    });

    test("changed on both at once lose nothing", async () => {
      await a.post("/api/clear-all-files", {});
      const names = Array.from({ length: 16 }, (_, i) => `f${i}.txt`);
      await Promise.all(names.map((name, i) => run(i % 2 ? a : b, `open("${name}", "w").write("${name}")`)));
      for (const server of [a, b]) {
        const code = "import os; {name: open(name).read() for name in sorted(os.listdir('.'))}";
        expect((await run(server, code)).result).toEqual(Object.fromEntries(names.map((name) => [name, name])));
      }
      await b.post("/api/clear-all-files", {});
      expect((await a.get("/api/pyodide-files")).body.result.count).toBe(0);
    });
  });

  test("code that reads a file whose content has expired meanwhile gets an OSError, and goes on", async () => {
    await a.upload("old.txt", "old");
    const code = `
print("begun")
import time; time.sleep(0.5)
try: open("old.txt").read()
except OSError: print("refused")`;
    const direct = new Redis(fleet.redis.url);
    const events = await streamed(fleet, code, async () => {
      // Ten minutes later.
      for (const key of await direct.keys("*:content:*")) await direct.del(key);
    });
    direct.disconnect();
    expect(events).toContain("refused");
    await b.post("/api/clear-all-files", {});
  });

  test("statistics are the sum, seen and cleared from either", async () => {
    const [rootA, rootB] = fleet.as("root");
    // What a server has recorded is in the sum when it is asked, or a moment later.
    for (const server of [a, b]) await server.get("/api/stats");
    await rootA.post("/api/dashboard/stats/clear", {});
    await run(a, "1");
    await run(b, "1 / 0");
    await b.upload("s.txt", "s");
    for (const server of [a, b, rootA, rootB]) {
      await until(async () => {
        const { totalExecutions, recent } = (await server.get("/api/stats")).body.executionStats;
        return totalExecutions === 2 && recent.filesUploaded === 1;
      });
      expect((await server.get("/api/stats")).body.executionStats).toMatchObject({
        successRate: 0.5,
        errorCategories: { ZeroDivisionError: 1 },
        recent: { filesUploaded: 1 },
      });
    }
    expect((await fleet.as("bob")[0].get("/api/dashboard/stats")).body.stats.overview.totalExecutions).toBe(0);
    await rootB.post("/api/dashboard/stats/clear", {});
    expect((await a.get("/api/dashboard/stats")).body.stats.overview.totalExecutions).toBe(0);
  });

  test("a Redis that is cut off: refusals that say so, nothing wrong, and all is there when it is back", async () => {
    await a.post("/api/clear-all-files", {});
    for (const server of [a, b]) await server.get("/api/stats");
    await fleet.as("root")[0].post("/api/dashboard/stats/clear", {});
    await a.upload("kept.txt", "before");
    // Runs when the connection goes; what it writes has nowhere to go to.
    const events = await streamed(
      fleet,
      "open('kept.txt', 'w').write('lost'); print('begun'); import time; time.sleep(0.5)",
      () => fleet.redis.kill(),
    );
    expect(events).toMatch(/"type":"result","success":false.*The execution's files were not kept.*WorkspaceError/);
    const requests: [string, () => ReturnType<TestClient["get"]>][] = [
      ["an execution", () => b.post("/api/execute", { code: "1 + 1" })],
      ["an execution without files", () => b.post("/api/execute", { code: "1 + 1", files: "none" })],
      ["a stream", () => b.post("/api/execute-stream", { code: "1 + 1" })],
      ["an upload", () => a.upload("new.txt", "new")],
      ["a listing", () => b.get("/api/pyodide-files")],
      ["clearing", () => b.post("/api/clear-all-files", {})],
      ["packages", () => b.post("/api/reset", {})],
      ["sessions", () => b.post("/api/sessions", {})],
      ["statistics", () => b.get("/api/stats")],
    ];
    for (const [what, request] of requests) {
      const { status, body, headers } = await request();
      expect({ what, status, code: body.code }).toEqual({ what, status: 503, code: "store_unavailable" });
      expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
    }
    for (const probe of ["/ready", "/health", "/api/health", "/api/status"]) {
      expect((await b.get(probe)).status, probe).toBe(200);
    }
    await fleet.redis.start();
    for (const server of [a, b]) {
      await until(async () => (await server.get("/api/pyodide-files")).status === 200);
      expect((await run(server, "open('kept.txt').read()")).result).toBe("before");
    }
    expect((await b.get("/api/uploaded-files")).body.count).toBe(1);
    // The one that was running, which ended while Redis was away, and the two since.
    await until(async () => (await b.get("/api/stats")).body.executionStats.totalExecutions === 3);
  });
});

test.skipIf(!hasRedis)("what a caller installs on one server is there on the other, from its own sources", async () => {
  const { DATA_DIR = "" } = testSettings();
  const wheels = path.join(DATA_DIR, "wheels");
  await mkdir(wheels);
  const add = async (name: string) => {
    const { filename, bytes } = await makeWheel({ name, version: "1", files: { [`${name}.py`]: `NAME = "${name}"` } });
    await writeFile(path.join(wheels, filename), bytes);
    return path.join(wheels, filename);
  };
  await add("first_package");
  const second = await add("second_package");
  await using fleet = await startFleet({ PACKAGE_DIR: wheels });
  const [a, b] = fleet.as("alice");
  expect((await a.post("/api/install-package", { package: "first_package" })).body).toMatchObject({ success: true });
  expect((await run(b, "import first_package; first_package.NAME")).result).toBe("first_package");
  expect((await run(fleet.as("bob")[1], "import first_package")).errorInfo.type).toBe("ModuleNotFoundError");
  // Both have it now. The next one is gone before the other server has asked for it.
  expect((await a.post("/api/install-package", { package: "second_package" })).body).toMatchObject({ success: true });
  await rm(second);
  expect((await run(a, "import second_package; second_package.NAME")).result).toBe("second_package");
  expect(await b.post("/api/execute", { code: "1" })).toMatchObject({
    status: 422,
    body: { code: "package_not_found", error: expect.stringMatching(/^second_package-1-.* is gone: neither/) },
  });
  await b.post("/api/reset", {});
  expect((await run(a, "import first_package")).errorInfo.type).toBe("ModuleNotFoundError");
  expect((await run(b, "1 + 1")).result).toBe(2);
  await rm(DATA_DIR, { recursive: true });
});

test.skipIf(!hasRedis)("a rate limit is the fleet's; while Redis is away, each server's", async () => {
  await using fleet = await startFleet({ RATE_LIMIT_MAX_REQUESTS: "20" });
  const [a, b] = fleet.as("alice");
  const direct = new Redis(fleet.redis.url);
  for (const bob of fleet.as("bob")) {
    // Until a server has its connection it counts for itself.
    await until(
      async () => (await bob.get("/api/status")) && (await direct.del(`pyodide-express:requests:bob|127.0.0.1`)) > 0,
    );
  }
  direct.disconnect();
  const statuses = async () => {
    const replies = Array.from({ length: 60 }, (_, i) => (i % 2 ? a : b).get("/api/status"));
    return (await Promise.all(replies)).map(({ status }) => status);
  };
  const passed = async () => (await statuses()).filter((status) => status === 200).length;
  expect(await passed()).toBe(20);
  await fleet.redis.kill();
  expect(await passed()).toBe(40);
});
