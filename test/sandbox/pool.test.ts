import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { truncate } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import type { SandboxPool } from "../../src/executor/pool.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { copyBuilt } from "../support/built.ts";
import { TEST_CACHE_DIR } from "../support/config.ts";
import { startTestEngine, type TestEngine } from "../support/engine.ts";
import { commandOf, descendantsOf, isRunning } from "../support/processes.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const CLI = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));

describe("a queue that is full", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer({ POOL_SIZE: "1", QUEUE_LIMIT: "2" });
  });
  afterAll(() => server.stop(0));

  test("is 429 with Retry-After, and those in it are served", async () => {
    const pool = server.executor.pool;
    const nap = { code: "import time; time.sleep(0.5); 'slept'" };
    const first = server.post("/api/execute", nap);
    await until(() => pool.status().busy === 1);
    const waiting = [server.post("/api/execute", nap), server.post("/api/execute", nap)];
    await until(() => pool.status().queued === 2);
    const refused = await server.post("/api/execute", { code: "1" });
    expect(refused.status).toBe(429);
    expect(refused.body).toMatchObject({ success: false, error: "The server is busy. Try again later." });
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThanOrEqual(1);
    for (const reply of await Promise.all([first, ...waiting])) expect(reply.body).toMatchObject({ result: "slept" });
    expect((await server.post("/api/execute", { code: "1" })).body).toMatchObject({ result: 1 });
  });

  test("a client that goes away gives its place up", async () => {
    const pool = server.executor.pool;
    const first = server.post("/api/execute", { code: "import time; time.sleep(0.5)" });
    await until(() => pool.status().busy === 1);
    const controller = new AbortController();
    const gone = fetch(`${server.url}/api/execute`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ code: "1" }),
      signal: controller.signal,
    });
    await until(() => pool.status().queued === 1);
    const { executions } = pool.status();
    controller.abort();
    await expect(gone).rejects.toThrow();
    await until(() => pool.status().queued === 0);
    await first;
    expect(pool.status().executions).toBe(executions);
  });

  test("a client that goes away stops its execution", async () => {
    const pool = server.executor.pool;
    const controller = new AbortController();
    const gone = fetch(`${server.url}/api/execute`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ code: "while True: pass", timeout: 300_000 }),
      signal: controller.signal,
    });
    await until(() => pool.status().busy === 1);
    controller.abort();
    await expect(gone).rejects.toThrow();
    await until(() => pool.status().idle === 1);
    expect((await server.post("/api/execute", { code: "2" })).body).toMatchObject({ result: 2 });
  });
});

describe("turns", () => {
  let tested: TestEngine;
  beforeAll(async () => {
    tested = await startTestEngine({ POOL_SIZE: "1" });
  });
  afterAll(() => tested.stop());

  test("one who sends many executions delays another by one", async () => {
    const order: string[] = [];
    const send = async (principal: string) => {
      await tested.run("1", { principal });
      order.push(principal);
    };
    const many = Array.from({ length: 10 }, () => send("greedy"));
    await Promise.all([...many, send("modest")]);
    expect(order.indexOf("modest")).toBeLessThanOrEqual(2);
  });

  test("an execution that is given up before its turn never runs", async () => {
    const controller = new AbortController();
    const before = tested.executor.pool.status().executions;
    const first = tested.run("import time; time.sleep(0.2)");
    const second = tested.run("1", { signal: controller.signal });
    controller.abort(new Error("given up"));
    await expect(second).rejects.toThrow("given up");
    await first;
    expect(tested.executor.pool.status().executions).toBe(before + 1);
    await expect(tested.run("1", { signal: controller.signal })).rejects.toThrow("given up");
  });
});

describe("sandboxes are replaced", () => {
  const pidsOf = (pool: SandboxPool<Sandbox>) => pool.sandboxes().map((sandbox) => sandbox.pid);
  let tested: TestEngine | undefined;
  afterEach(() => tested?.stop());

  test("after so many executions", async () => {
    tested = await startTestEngine({ SANDBOX_MAX_EXECUTIONS: "3" });
    const pids = new Set<number>();
    for (let i = 0; i < 7; i++) {
      await until(() => tested?.executor.pool.status().idle === 1);
      for (const pid of pidsOf(tested.executor.pool)) pids.add(pid);
      expect(await tested.run("1")).toMatchObject({ result: 1 });
    }
    expect(pids.size).toBe(3);
    expect(tested.executor.pool.status().discarded).toEqual({ "served its executions": 2 });
  });

  test("after so much time", async () => {
    tested = await startTestEngine({ SANDBOX_MAX_AGE_MS: "1000" });
    const [pid] = pidsOf(tested.executor.pool);
    await tested.run("import time; time.sleep(1.1)");
    expect(await tested.run("1")).toMatchObject({ result: 1 });
    expect(pidsOf(tested.executor.pool)).not.toContain(pid);
    expect(tested.executor.pool.status().discarded).toEqual({ "served its time": expect.any(Number) });
    expect(isRunning(pid as number)).toBe(false);
  });

  test("above so much heap", async () => {
    tested = await startTestEngine({ SANDBOX_MAX_HEAP_MB: "64" });
    expect(await tested.run("x = bytearray(10 * 2**20)")).toMatchObject({ success: true });
    expect(tested.executor.pool.status().discarded).toEqual({});
    expect(await tested.run("x = bytearray(60 * 2**20)")).toMatchObject({ success: true });
    expect(await tested.run("1")).toMatchObject({ result: 1 });
    expect(tested.executor.pool.status().discarded).toEqual({ "heap over its limit": 1 });
  });

  test("whenever the heap has grown, where the next is not to see that", async () => {
    tested = await startTestEngine({ SANDBOX_MAX_HEAP_MB: "0" });
    const { executor, run } = tested;
    const { pool } = executor;
    const heapBytes = () => run("import ctypes\nctypes.CDLL(None).emscripten_get_heap_size()");
    const { result } = await heapBytes();
    await run("x = bytearray(1000)");
    expect(pool.status().discarded).toEqual({});
    await run("x = bytearray(10 * 2**20)");
    expect(await heapBytes()).toMatchObject({ result });
    expect(pool.status().discarded).toEqual({ "heap over its limit": 1 });
  });

  test("when one is killed while idle, and while its execution's files are put away", async () => {
    tested = await startTestEngine();
    const { pool } = tested.executor;
    process.kill(pidsOf(pool)[0] as number, "SIGKILL");
    await until(() => pool.status().started === 2 && pool.status().idle === 1);
    expect(await tested.run("1")).toMatchObject({ result: 1 });

    const files = {
      list: async () => [],
      quota: async () => ({ bytes: 2 ** 20, files: 10 }),
      read: async () => new Uint8Array(),
    };
    const apply = async () => {
      const [sandbox] = pool.sandboxes();
      process.kill(sandbox?.pid as number, "SIGKILL");
      await sandbox?.ended;
    };
    expect(await tested.run("2", { workspace: { ...files, apply } })).toMatchObject({ result: 2 });
    expect(await tested.run("3")).toMatchObject({ success: true, result: 3 });
  });

  test("a workspace that cannot be read costs no sandbox", async () => {
    tested = await startTestEngine();
    const fail = () => Promise.reject(new Error("disk"));
    const workspace = { list: fail, quota: fail, read: fail, apply: fail };
    await expect(tested.run("1", { workspace })).rejects.toThrow("disk");
    expect(await tested.run("1")).toMatchObject({ result: 1 });
    expect(tested.executor.pool.status().started).toBe(1);
  });

  test("killed at random under load: only what was on them fails, and capacity comes back", {
    timeout: 120_000,
  }, async () => {
    tested = await startTestEngine({ POOL_SIZE: "2", QUEUE_LIMIT: "1000" });
    const { pool } = tested.executor;
    const { run } = tested;
    const kills = fc.sample(fc.record({ afterMs: fc.nat(400), which: fc.nat(1) }), 8);
    let working = true;
    let killed = 0;
    const killer = async () => {
      for (const { afterMs, which } of kills) {
        await new Promise((resolve) => setTimeout(resolve, afterMs));
        const victims = pool.sandboxes();
        const victim = victims[which % Math.max(1, victims.length)];
        if (!victim || victim.endReason !== null) continue;
        try {
          process.kill(victim.pid, "SIGKILL");
          killed++;
        } catch {
          // It has just ended; nobody has been told yet.
        }
      }
      working = false;
    };
    let failed = 0;
    let succeeded = 0;
    const client = async (principal: string) => {
      for (let n = 0; working || n < 5; n++) {
        const { success, result, errorInfo } = await run(`import time; time.sleep(0.01); ${n} * 2`, { principal });
        if (success) {
          expect(result).toBe(n * 2);
          succeeded++;
        } else {
          expect(errorInfo?.type).toBe("SandboxDied");
          failed++;
        }
      }
    };
    await Promise.all([killer(), ...["a", "b", "c", "d"].map(client)]);
    expect(killed).toBeGreaterThan(0);
    expect(failed).toBeLessThanOrEqual(killed);
    expect(succeeded).toBeGreaterThan(0);
    await until(() => pool.status().idle === 2);
    expect(await Promise.all(["5", "6"].map((code) => run(code)))).toMatchObject([{ result: 5 }, { result: 6 }]);
  });

  test("stopping refuses what waits, lets what runs end, and leaves no process", async () => {
    tested = await startTestEngine({ POOL_SIZE: "2", SANDBOX_MAX_EXECUTIONS: "1" });
    const { pool } = tested.executor;
    await until(() => pool.status().idle === 2);
    const pids = pidsOf(pool);
    // One more is being started when it stops: the first has served its execution.
    await tested.run("1");
    const running = [tested.run("import time; time.sleep(0.5); 'ended'"), tested.run("import time; time.sleep(60)")];
    const waiting = tested.run("2");
    const stopped = pool.stop(1500);
    await expect(waiting).rejects.toMatchObject({ status: 503 });
    await expect(tested.run("3")).rejects.toMatchObject({ status: 503 });
    const results = await Promise.allSettled(running);
    await stopped;
    for (const result of results) {
      if (result.status === "fulfilled")
        expect(result.value.result ?? result.value.errorInfo?.type).toMatch(/^(ended|SandboxDied)$/);
      else expect(result.reason).toMatchObject({ status: 503 });
    }
    for (const pid of pids) expect(isRunning(pid)).toBe(false);
    expect(
      descendantsOf(process.pid).filter((pid) => commandOf(pid).includes("guest/main.ts") && isRunning(pid)),
    ).toEqual([]);
  });
});

describe("the command", () => {
  const env = (settings: Record<string, string> = {}) => {
    const folder = temporaryFolder("pyodide-express-serve");
    return {
      PATH: process.env.PATH ?? "",
      DATA_DIR: folder,
      CACHE_DIR: TEST_CACHE_DIR,
      LOG_DIR: "none",
      PORT: "0",
      POOL_SIZE: "2",
      PYODIDE_PACKAGES: "none",
      PACKAGE_INDEX_URL: "none",
      ...settings,
    };
  };
  const start = (args: readonly string[], settings: Record<string, string> = {}) => {
    const child = spawn(process.execPath, [CLI, ...args], { env: env(settings), stdio: ["ignore", "pipe", "pipe"] });
    onTestFinished(() => void child.kill("SIGKILL"));
    return child;
  };
  /** Resolves with the address once the server says that it listens. */
  const listening = async (child: ChildProcess): Promise<string> => {
    const said: string[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream as NodeJS.ReadableStream }).on("line", (line) => said.push(line));
    }
    const address = () => /http:\/\/[\d.]+:\d+/.exec(said.find((line) => line.includes("Ready")) ?? "")?.[0];
    await until(() => address() !== undefined || child.exitCode !== null);
    return address() ?? expect.fail(`it ended with ${child.exitCode}: ${said.join("\n")}`);
  };
  const execute = (url: string, code: string) =>
    fetch(`${url}/api/execute`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ code, timeout: 60_000 }),
    });
  const sandboxesOf = async (child: ChildProcess, count: number) => {
    const found = () => descendantsOf(child.pid as number);
    await until(() => found().length >= count);
    return found();
  };

  /** Waits until so many sandboxes run code. */
  const busy = async (url: string, count: number) => {
    for (;;) {
      const { pool } = (await (await fetch(`${url}/api/status`)).json()) as { pool: { busy: number } };
      if (pool.busy >= count) return;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };

  test("SIGTERM drains and leaves no process behind", { timeout: 120_000 }, async () => {
    const child = start(["serve"]);
    const url = await listening(child);
    const pids = await sandboxesOf(child, 2);
    const running = execute(url, "import time; time.sleep(1); 'ended'");
    await busy(url, 1);
    expect(await (await execute(url, "1")).json()).toMatchObject({ result: 1 });
    child.kill("SIGTERM");
    expect(await (await running).json()).toMatchObject({ success: true, result: "ended" });
    const [code] = await once(child, "exit");
    expect(code).toBe(0);
    expect(pids.filter(isRunning)).toEqual([]);
  });

  test("SIGTERM ends it although an execution does not", { timeout: 120_000 }, async () => {
    const child = start(["serve"]);
    const url = await listening(child);
    const pids = await sandboxesOf(child, 2);
    const running = execute(url, "while True:\n  try:\n    while True: pass\n  except BaseException: pass").catch(
      () => null,
    );
    await busy(url, 1);
    child.kill("SIGTERM");
    const [code] = await once(child, "exit");
    expect(code).toBe(0);
    expect(pids.filter(isRunning)).toEqual([]);
    await running;
  });

  // Without the operating system's layers the sandbox itself has to notice.
  test.each(["auto", "deno"])(
    "killed, it leaves no sandbox behind, ISOLATION=%s: not an idle one, nor one that loops",
    async (ISOLATION) => {
      const child = start(["serve"], { POOL_SIZE: "3", ISOLATION });
      const url = await listening(child);
      const pids = await sandboxesOf(child, 3);
      for (const code of [
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
        "import time; time.sleep(1000)",
      ]) {
        execute(url, code).catch(() => null);
      }
      await busy(url, 2);
      child.kill("SIGKILL");
      await once(child, "exit");
      await until(() => !pids.some(isRunning));
    },
    120_000,
  );

  test("an image that is damaged is built anew", { timeout: 120_000 }, async () => {
    const cache = temporaryFolder("pyodide-express-cache");
    const run = async () => {
      const file = path.join(cache, "answer.py");
      writeFileSync(file, "print(6 * 7)");
      const child = start(["run", file], { CACHE_DIR: cache });
      let out = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => {
        out += text;
      });
      const [code] = await once(child, "close");
      return { code, out };
    };
    copyBuilt(cache);
    const images = readdirSync(cache).filter((file) => file.endsWith(".image"));
    expect(images.length).toBeGreaterThan(0);
    const sizes = () => images.map((name) => readFileSync(path.join(cache, name)).length);
    const before = sizes();
    for (const name of images) await truncate(path.join(cache, name), 1_000_000);
    expect(await run()).toEqual({ code: 0, out: "42\n" });
    // The one that is used now is whole again; those of other versions are nobody's business.
    const whole = sizes().map((size, index) => size === before[index]);
    expect(whole).toContain(true);

    const name = images[whole.indexOf(true)] as string;
    const bytes = readFileSync(path.join(cache, name));
    const middle = bytes.length >> 1;
    bytes[middle] = (bytes[middle] as number) ^ 1;
    writeFileSync(path.join(cache, name), bytes);
    expect(await run()).toEqual({ code: 0, out: "42\n" });
  });

  test("a cache folder that cannot be written: exit code 1, and what to do", { timeout: 120_000 }, async () => {
    // Below a file there can be no folder, whoever one is.
    const file = path.join(temporaryFolder("pyodide-express"), "file");
    writeFileSync(file, "");
    const child = start(["serve"], { CACHE_DIR: path.join(file, "cache") });
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    const [code] = await once(child, "close");
    expect(code).toBe(1);
    expect(said).toMatch(/cannot be written|Make it writable|CACHE_DIR/);
    expect(said).not.toMatch(/\n {4}at /);
  });

  test("a port that is taken: exit code 1, what to do, and no process left", { timeout: 120_000 }, async () => {
    const server = await startTestServer();
    onTestFinished(() => server.stop(0));
    const child = start(["serve"], { PORT: new URL(server.url).port });
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    const [code] = await once(child, "close");
    expect(code).toBe(1);
    expect(said).toMatch(/is taken/);
  });
});
