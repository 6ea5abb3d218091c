import { createHash } from "node:crypto";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RedisSessions } from "../../src/sessions/redis-store.ts";
import { sharesOf } from "../../src/sessions/shares.ts";
import type { NewSnapshot, SessionRecord, SnapshotRef } from "../../src/sessions/store.ts";
import { RedisConnection } from "../../src/shared/redis-connection.ts";
import { hasRedis, startRedis, type TestRedis } from "../support/redis.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

if (!hasRedis) console.warn("There is no redis-server on this machine: its tests are skipped.");

describe.skipIf(!hasRedis)("sessions in Redis", () => {
  let redis: TestRedis;
  let a: TestServer;
  let b: TestServer;

  beforeAll(async () => {
    redis = await startRedis();
    const settings = { REDIS_URL: redis.url, SESSION_LEASE_MS: "1500", SESSION_DURABILITY: "commit" };
    [a, b] = await Promise.all([startTestServer(settings), startTestServer(settings)]);
  });

  afterAll(async () => {
    await Promise.all([a?.stop(0), b?.stop(0)]);
    await redis?.stop();
  });

  const create = async (on: TestServer): Promise<string> => (await on.post("/api/sessions", {})).body.session.id;
  const run = (on: TestServer, session: string, code: string, more: object = {}) =>
    on.post("/api/execute", { code, session, ...more });

  test("go on from one server to the other and back", async () => {
    const id = await create(a);
    await run(
      a,
      id,
      "def g():\n  n = 0\n  while True:\n    n += 1\n    yield n\nit = g(); next(it); f = open('f', 'w')",
    );
    for (let call = 2; call <= 10; call++) {
      const reply = await run(call % 2 ? a : b, id, `f.write("${call} "); f.flush(); [next(it), open("f").read()]`);
      const written = Array.from({ length: call - 1 }, (_, i) => `${i + 2} `).join("");
      expect(reply.body.result).toEqual([call, written]);
    }
    expect((await b.get("/api/sessions")).body.sessions).toMatchObject([{ id, executions: 10 }]);
  });

  test("one server at a time runs a session", async () => {
    const id = await create(a);
    await run(a, id, "n = 0");
    const code = "m = n\nimport time; time.sleep(0.005)\nn = m + 1\nn";
    const replies = await Promise.all(Array.from({ length: 16 }, (_, i) => run(i % 2 ? a : b, id, code)));
    const numbers = replies.map(({ body }) => body.result).sort((x, y) => x - y);
    expect(numbers).toEqual(Array.from({ length: 16 }, (_, i) => i + 1));
  });

  test("an interrupt finds the server that runs it", async () => {
    const id = await create(a);
    const response = await fetch(`${a.url}/api/execute-stream`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ code: "x = 1; print('begun')\nwhile True: pass", session: id, timeout: 60_000 }),
    });
    let events = "";
    for await (const text of (response.body as ReadableStream).pipeThrough(new TextDecoderStream())) {
      if (!events.includes("begun") && text.includes("begun")) await b.post(`/api/sessions/${id}/interrupt`, {});
      events += text;
    }
    expect(events).toMatch(/"type":"result","success":false.*"type":"Cancelled"/);
    expect((await run(b, id, "x")).body.result).toBe(1);
  });

  test("fork, checkpoints, files and deletion work across servers", async () => {
    const id = await create(a);
    await run(a, id, "x = 1; open('f', 'w').write('1')");
    expect((await b.post(`/api/sessions/${id}/checkpoints`, { name: "one" })).status).toBe(201);
    const fork = (await b.post(`/api/sessions/${id}/fork`, {})).body.session.id;
    await run(b, id, "x = 2; open('f', 'w').write('22')");
    expect((await a.get(`/api/sessions/${id}/files/f`)).body).toBe("22");
    await a.post(`/api/sessions/${id}/checkpoints/one/restore`, {});
    expect((await run(b, id, "[x, open('f').read()]")).body.result).toEqual([1, "1"]);
    expect((await a.delete(`/api/sessions/${id}`)).status).toBe(200);
    expect((await run(b, id, "x")).status).toBe(404);
    expect((await run(a, fork, "[x, open('f').read()]")).body.result).toEqual([1, "1"]);
  });

  test("metadata and numbers of executions are those of all servers", async () => {
    const made = await a.post("/api/sessions", { metadata: { user: "u-17" } });
    const { id } = made.body.session;
    expect((await run(a, id, "1")).body.executionCount).toBe(1);
    expect((await run(b, id, "In[2]")).body).toMatchObject({ executionCount: 2, result: "In[2]" });
    expect((await b.get(`/api/sessions/${id}`)).body.session.metadata).toEqual({ user: "u-17" });
  });

  test("a record has what its session uses alone: one of an earlier version is like that", async () => {
    const id = await create(a);
    await run(a, id, "1");
    const direct = new Redis(redis.url);
    const stored = JSON.parse((await direct.hget(`pyodide-express:session:${id}`, "record")) as string);
    await direct.quit();
    const counts = ["revision", "executions", "reseed", "head", "previous", "checkpoints"];
    const known = ["id", "principal", "environment", "createdAtMs", "lastUsedAtMs", "ttlMs", ...counts];
    expect(Object.keys(stored).sort()).toEqual(known.sort());
    expect(Object.keys(stored.head).sort()).toEqual(["createdAtMs", "executions", "fileBytes", "sha256", "size"]);
    expect((await b.get(`/api/sessions/${id}`)).body.session.metadata).toEqual({});
    expect((await b.get(`/api/sessions/${id}/namespaces`)).body.namespaces).toMatchObject([{ executions: 1 }]);
  });

  test("a server that lost its lease cannot store", async () => {
    const connection = new RedisConnection({ url: redis.url });
    const store = new RedisSessions({ connection, leaseMs: 60_000, shares: sharesOf(2 ** 30, 1) });
    const direct = new Redis(redis.url);
    try {
      const id = await create(a);
      const { principal } = (await store.get(id)) as SessionRecord;
      const first = await store.acquire(id, principal);
      await direct.del(`pyodide-express:lease:${id}`);
      const second = await store.acquire(id, principal);
      if (!first || !second) throw new Error("no lease");
      await expect(first.commit({ ...first.record, revision: 1, executions: 99 })).rejects.toMatchObject({
        status: 409,
        code: "session_moved",
      });
      expect(first.lost.aborted).toBe(true);
      await expect(first.delete()).rejects.toMatchObject({ code: "session_moved" });
      await second.commit({ ...second.record, revision: 1, executions: 7 });
      await first.release();
      expect(await direct.exists(`pyodide-express:lease:${id}`)).toBe(1);
      expect(await store.get(id)).toMatchObject({ executions: 7 });
      await second.release();
    } finally {
      direct.disconnect();
      connection.close();
    }
  });

  test("a last change gives the lease back, and sent again is neither refused nor made twice", async () => {
    const connection = new RedisConnection({ url: redis.url });
    const leaseMs = 400;
    const store = new RedisSessions({ connection, leaseMs, shares: sharesOf(2 ** 30, 1) });
    const direct = new Redis(redis.url);
    try {
      const id = await create(a);
      const { principal } = (await store.get(id)) as SessionRecord;
      const first = await store.acquire(id, principal);
      if (!first) throw new Error("no lease");
      const record = { ...first.record, revision: 1, executions: 5 };
      await first.commit(record, undefined, true);
      expect(await direct.exists(`pyodide-express:lease:${id}`)).toBe(0);
      const second = await store.acquire(id, principal);
      if (!second) throw new Error("no lease");
      expect(second.record).toEqual(record);
      // As after an answer that was lost: it has been made, and another has the session since.
      await first.commit(record, undefined, true);
      await first.release();
      await new Promise((resolve) => setTimeout(resolve, leaseMs / 2));
      const holder = await direct.get(`pyodide-express:lease:${id}`);
      await second.commit({ ...second.record, revision: 2 });
      expect(await direct.get(`pyodide-express:lease:${id}`)).toBe(holder);
      await expect(first.commit({ ...record, executions: 6 }, undefined, true)).rejects.toMatchObject({
        code: "session_moved",
      });
      expect(await store.get(id)).toMatchObject({ revision: 2, executions: 5 });
      await second.release();
      // Nothing renews what was given back.
      await new Promise((resolve) => setTimeout(resolve, leaseMs / 2));
      expect(await direct.exists(`pyodide-express:lease:${id}`)).toBe(0);
    } finally {
      direct.disconnect();
      connection.close();
    }
  });

  describe("shares of principals", () => {
    const SHARE = 100_000;
    let connection: RedisConnection;
    let direct: Redis;
    let store: RedisSessions;

    beforeAll(() => {
      connection = new RedisConnection({ url: redis.url });
      direct = new Redis(redis.url);
      store = new RedisSessions({ connection, shares: sharesOf(2 * SHARE, 2) });
    });
    afterAll(() => {
      direct.disconnect();
      connection.close();
    });

    const record = (id: string, principal: string, more: Partial<SessionRecord> = {}): SessionRecord => {
      const now = Date.now();
      const counts = { createdAtMs: now, lastUsedAtMs: now, ttlMs: 60_000, revision: 0, executions: 0, reseed: true };
      return { id, principal, environment: "stdlib", ...counts, head: null, previous: null, checkpoints: [], ...more };
    };
    const made = async (id: string, principal: string, more: Partial<SessionRecord> = {}) => {
      await store.create(record(id, principal, more), 100);
      const lease = await store.acquire(id, principal);
      if (!lease) throw new Error("no lease");
      return lease;
    };
    const snapshot = (text: string): { ref: SnapshotRef; stored: NewSnapshot } => {
      const bytes = Buffer.from(text);
      const blob = { sha256: createHash("sha256").update(bytes).digest("hex"), size: bytes.length };
      const ref = { ...blob, fileBytes: 0, executions: 0, createdAtMs: 0 };
      return { ref, stored: { blob, bytes, files: [], contents: new Map() } };
    };
    const counted = async (principal: string) => {
      const usage = await direct.hgetall(`pyodide-express:usage:${principal}`);
      const { ".total": total, ...sessions } = usage;
      const sum = Object.values(sessions).reduce((all, bytes) => all + Number(bytes), 0);
      expect(Number(total)).toBe(sum);
      return { total: Number(total), sessions: Object.keys(sessions).sort() };
    };

    test("one fills its own, another stores as if it were alone", async () => {
      const [a, b] = [await made("share-a", "anna"), await made("share-b", "bert")];
      const big = snapshot("a".repeat(90_000));
      await a.commit({ ...a.record, head: big.ref }, big.stored);
      const more = snapshot("b".repeat(30_000));
      const full = { status: 507, code: "store_full", message: expect.stringContaining("your share") };
      await expect(a.commit({ ...a.record, head: more.ref, previous: big.ref }, more.stored)).rejects.toMatchObject(
        full,
      );
      expect((await store.get("share-a"))?.head).toEqual(big.ref);
      // A fork is a copy here.
      await expect(store.create(record("share-fork", "anna", { head: big.ref }), 100, a)).rejects.toMatchObject(full);
      await b.commit({ ...b.record, head: big.ref }, big.stored);
      await a.commit({ ...a.record, head: null });
      await a.commit({ ...a.record, head: more.ref }, more.stored);
      await store.create(record("share-fork", "anna", { head: more.ref }), 100, a);
      expect((await counted("anna")).total).toBeGreaterThan(60_000);
      await a.delete();
      await b.delete();
      expect((await counted("anna")).sessions).toEqual(["share-fork"]);
      expect((await counted("bert")).total).toBe(0);
    });

    test("what has expired is given back", async () => {
      const brief = await made("brief", "cora", { ttlMs: 300 });
      const big = snapshot("c".repeat(90_000));
      await brief.commit({ ...brief.record, head: big.ref }, big.stored);
      const next = await made("next", "cora");
      await eventually(async () => (await store.get("brief")) === undefined);
      await next.commit({ ...next.record, head: big.ref }, big.stored);
      expect((await counted("cora")).sessions).toEqual(["next"]);
    });

    test("what servers stored and deleted that did not count yet is found", async () => {
      const [old, gone] = [await made("old", "dora"), await made("gone", "dora")];
      const big = snapshot("d".repeat(60_000));
      await old.commit({ ...old.record, head: big.ref }, big.stored);
      await direct.del("pyodide-express:usage:dora");
      const other = snapshot("e".repeat(60_000));
      await expect(gone.commit({ ...gone.record, head: other.ref }, other.stored)).rejects.toMatchObject({
        status: 507,
      });
      await gone.commit({ ...gone.record, revision: 1 });
      expect((await counted("dora")).total).toBeGreaterThan(60_000);
      // As the version before deletes.
      await direct.del("pyodide-express:session:old");
      await direct.zrem("pyodide-express:principal:dora", "old");
      await gone.commit({ ...gone.record, head: other.ref }, other.stored);
      expect((await counted("dora")).sessions).toEqual(["gone"]);
    });
  });

  test("Redis away: a clear error, nothing wrong, and recovery without a restart", { timeout: 120_000 }, async () => {
    const id = await create(a);
    await run(a, id, "n = 1");
    await redis.kill();
    const away = await run(a, id, "n = n + 1; n");
    expect(away).toMatchObject({ status: 503, body: { success: false, code: "store_unavailable" } });
    expect(Number(away.headers.get("retry-after"))).toBeGreaterThan(0);
    expect((await a.get("/api/health")).status).toBe(200);
    await redis.start();
    await eventually(async () => (await run(a, id, "n")).status === 200);
    await eventually(async () => (await run(b, id, "n")).status === 200);
    expect((await run(b, id, "n")).body.result).toBe(1);
  });

  test("Redis stuck in the middle of an execution: what was answered holds", { timeout: 120_000 }, async () => {
    const id = await create(a);
    await run(a, id, "n = 1");
    const running = run(a, id, "import time; time.sleep(0.5); n = 2; n");
    await eventually(async () => (await a.get(`/api/sessions/${id}`)).body.session.state === "running");
    redis.signal("SIGSTOP");
    const reply = await running;
    redis.signal("SIGCONT");
    expect(reply.status === 200 || reply.status === 503).toBe(true);
    await eventually(async () => (await run(b, id, "n")).status === 200);
    // A change that was given up on is not made when Redis goes on.
    expect((await run(b, id, "n")).body.result).toBe(reply.status === 200 && reply.body.success ? 2 : 1);
  });
});

async function eventually(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 50));
}
