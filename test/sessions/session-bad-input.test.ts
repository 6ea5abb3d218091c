import { randomInt } from "node:crypto";
import fs from "node:fs/promises";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { createClient, type Reply, type TestClient } from "../support/client.ts";
import { testSettings } from "../support/config.ts";
import { hasRedis, startRedis, type TestRedis } from "../support/redis.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

if (!hasRedis) console.warn("There is no redis-server on this machine: its tests are skipped.");

const KEYS = { alice: "a".repeat(20), bob: "b".repeat(20) };
const SETTINGS = {
  API_KEYS: Object.entries(KEYS)
    .map(([name, key]) => `${name}:${key}:execute+files`)
    .join(","),
  SESSION_DURABILITY: "commit",
};
const DAY_MS = 86_400_000;
/** Sessions that one principal makes at once; `SESSION_FLOOD=10000` takes most of a minute for each store. */
const FLOOD = Number(process.env.SESSION_FLOOD ?? 500);

const create = async (on: TestClient): Promise<string> => (await on.post("/api/sessions", {})).body.session.id;
const run = (on: TestClient, session: string, code: string): Promise<Reply> =>
  on.post("/api/execute", { code, session });
/** Takes the sandbox from whichever session it still holds, so that the next one has to be read. */
const evict = (on: TestClient) => on.post("/api/execute", { code: "1", files: "none" });

const { now } = Date;
afterEach(() => {
  Date.now = now;
});

/** One or two servers, and a way to damage what they store. */
interface Fixture {
  /** The same caller on each server. */
  as(name: keyof typeof KEYS): TestClient[];
  /** What is stored now of states and files, by name. */
  stored(session: string): Promise<string[]>;
  /** Changes stored bytes; null: they are gone. */
  damage(session: string, name: string, change: (bytes: Buffer) => Buffer | null): Promise<void>;
}

function describeBadInput(fixture: () => Fixture): void {
  test("names that cannot be, and another environment, have codes of their own", async () => {
    const [alice] = fixture().as("alice") as [TestClient];
    const codeOf = async (path: string, body: object) => {
      const reply = await alice.post(path, body);
      return [reply.status, reply.body.code];
    };
    const id = await create(alice);
    for (const name of ["my/session", "../one", ".hidden", "x".repeat(65), "", "a b"]) {
      expect(await codeOf("/api/sessions", { id: name })).toEqual([400, "invalid_session_id"]);
      expect(await codeOf(`/api/sessions/${id}/checkpoints`, { name })).toEqual([400, "invalid_checkpoint_name"]);
    }
    expect(await codeOf("/api/sessions", { id: 1 })).toEqual([400, "invalid_request"]);
    const other = { code: "1", session: id, environment: "another" };
    expect(await codeOf("/api/execute", other)).toEqual([400, "other_environment"]);
  });

  test("ids that are guessed, forged or somebody else's are all the same 404, on every server", async () => {
    const { as } = fixture();
    const id = await create(as("alice")[0] as TestClient);
    const forged = ["A".repeat(22), `${id}x`, id.slice(1), "*", "..%2Fprincipal", "principal:alice", "%00", "é"];
    for (const bob of as("bob")) {
      for (const guess of [id, ...forged]) {
        const { status, body } = await bob.get(`/api/sessions/${guess}`);
        expect({ guess, status, error: body.error }).toEqual({ guess, status: 404, error: "Session not found" });
        expect((await run(bob, guess, "1")).status).toBe(404);
      }
      expect((await bob.post("/api/sessions", { id })).status).toBe(409);
      expect((await bob.delete(`/api/sessions/${id}`)).status).toBe(404);
    }
    for (const alice of as("alice")) expect((await run(alice, id, "'still here'")).body.result).toBe("still here");
  });

  test("fork and restore wait for an execution, wherever that runs", async () => {
    const [first, second = first] = fixture().as("alice") as [TestClient, TestClient?];
    const id = await create(first);
    await run(first, id, "x = 0");
    await first.post(`/api/sessions/${id}/checkpoints`, { name: "zero" });
    const running = run(first, id, "x = 1; import time; time.sleep(0.5); x");
    await until(async () => (await first.get(`/api/sessions/${id}`)).body.session.state === "running");
    const fork = await second.post(`/api/sessions/${id}/fork`, {});
    expect((await running).body.result).toBe(1);
    expect((await run(second, fork.body.session.id, "x")).body.result).toBe(1);
    const again = run(first, id, "x = 2; import time; time.sleep(0.5); x");
    await until(async () => (await first.get(`/api/sessions/${id}`)).body.session.state === "running");
    expect((await second.post(`/api/sessions/${id}/checkpoints/zero/restore`, {})).status).toBe(200);
    expect((await again).body.result).toBe(2);
    expect((await run(first, id, "x")).body.result).toBe(0);
  });

  const DAMAGES: [what: string, change: (bytes: Buffer) => Buffer | null][] = [
    ["the first byte is another", (bytes) => Buffer.concat([Buffer.of(bytes.readUInt8(0) ^ 1), bytes.subarray(1)])],
    [
      "a bit somewhere is another",
      (bytes) => {
        const at = randomInt(bytes.length);
        bytes.writeUInt8(bytes.readUInt8(at) ^ 0x10, at);
        return bytes;
      },
    ],
    ["the end is missing", (bytes) => bytes.subarray(0, bytes.length - 1)],
    ["nothing is left", () => Buffer.alloc(0)],
    ["it is gone", () => null],
    ["it is something else", (bytes) => Buffer.alloc(bytes.length, "x")],
  ];

  test.each(DAMAGES)("a state is refused, and the one before it is offered, where %s", async (_what, change) => {
    const { as, stored, damage } = fixture();
    const [alice] = as("alice") as [TestClient];
    const id = await create(alice);
    await run(alice, id, "x = 1");
    const before = await stored(id);
    await run(alice, id, "x = 2");
    const newest = (await stored(id)).filter((name) => !before.includes(name));
    expect(newest).not.toEqual([]);
    for (const name of newest) await damage(id, name, change);
    for (const client of as("alice")) {
      await evict(client);
      const { status, body } = await run(client, id, "x");
      expect({ status, code: body.code }).toEqual({ status: 409, code: "session_damaged" });
      expect(body.error).toContain("@previous");
      expect(body.error).not.toMatch(/\/(tmp|work|home)\//);
    }
    expect((await alice.post(`/api/sessions/${id}/checkpoints/@previous/restore`, {})).status).toBe(200);
    for (const client of as("alice")) expect((await run(client, id, "x")).body.result).toBe(1);
  });

  test("a server's clock that jumps neither ends a session for good nor stops it", async () => {
    const clients = fixture().as("alice");
    const [alice] = clients as [TestClient];
    const id = await create(alice);
    await run(alice, id, "n = 0");
    let executions = 0;
    for (const jumpMs of [-3 * DAY_MS, 3_600_000, -3_600_000, 0]) {
      Date.now = () => now() + jumpMs;
      for (const client of clients) {
        expect((await run(client, id, "n += 1; n")).body.result).toBe(++executions);
        await evict(client);
      }
      Date.now = now;
    }
    // By that clock the session's time is over, and others are made and used meanwhile.
    Date.now = () => now() + 3 * DAY_MS;
    await run(alice, await create(alice), "1");
    Date.now = now;
    expect((await alice.get("/api/sessions")).body.sessions.map((session: { id: string }) => session.id)).toContain(id);
    for (const client of clients) expect((await run(client, id, "n += 1; n")).body.result).toBe(++executions);
  });

  test("a flood of sessions: each is there, and one more is refused", { timeout: 60_000 + FLOOD * 20 }, async () => {
    const clients = fixture().as("bob");
    const made: string[] = [];
    let left = FLOOD;
    const maker = async (client: TestClient) => {
      while (left-- > 0) made.push(await create(client));
    };
    await Promise.all(Array.from({ length: 20 }, (_, i) => maker(clients[i % clients.length] as TestClient)));
    expect(new Set(made).size).toBe(FLOOD);
    for (const client of clients) {
      const refused = await client.post("/api/sessions", {});
      expect({ status: refused.status, code: refused.body.code }).toEqual({ status: 429, code: "session_limit" });
      expect((await client.get("/api/sessions")).body.count).toBe(FLOOD);
      expect((await run(client, made[randomInt(FLOOD)] as string, "'works'")).body.result).toBe("works");
    }
    await clients[0]?.delete(`/api/sessions/${made[0]}`);
    expect((await clients.at(-1)?.post("/api/sessions", {}))?.status).toBe(201);
  });
}

describe("sessions on disk", () => {
  const settings = testSettings({ ...SETTINGS, SESSION_STORE_MAX_MB: "64", SESSIONS_PER_PRINCIPAL: String(FLOOD) });
  const folder = path.join(settings.DATA_DIR as string, "sessions");
  let server: TestServer;

  beforeAll(async () => {
    server = await startTestServer(settings);
  });

  afterAll(async () => {
    await server?.stop(0);
    await fs.rm(settings.DATA_DIR as string, { recursive: true, force: true });
  });

  const as = (name: keyof typeof KEYS) => [createClient(server.url, { "x-api-key": KEYS[name] })];

  describeBadInput(() => ({
    as,
    stored: async (session) =>
      inDatabase((database) => {
        const rows = database.prepare("SELECT DISTINCT content FROM uses WHERE session = ?").all(session);
        return (rows as { content: number }[]).map(({ content }) => String(content));
      }),
    damage: async (_session, name, change) => {
      inDatabase((database) => {
        const { bytes } = database.prepare("SELECT bytes FROM contents WHERE id = ?").get(name) as {
          bytes: Uint8Array;
        };
        const changed = change(Buffer.from(bytes));
        if (changed) database.prepare("UPDATE contents SET bytes = ? WHERE id = ?").run(changed, name);
        else database.prepare("DELETE FROM contents WHERE id = ?").run(name);
      });
    },
  }));

  /** Opens the server's database as an operator may. */
  function inDatabase<T>(action: (database: DatabaseSync) => T): T {
    const database = new DatabaseSync(path.join(folder, "index.sqlite"), { timeout: 5000 });
    try {
      return action(database);
    } finally {
      database.close();
    }
  }

  test("a store that cannot be written refuses, says so, and is used again as soon as it can be", async () => {
    const [alice] = as("alice") as [TestClient];
    const id = await create(alice);
    await run(alice, id, "x = 1");
    const incoming = path.join(folder, "incoming");
    await fs.rename(incoming, `${incoming}-away`);
    await fs.writeFile(incoming, "no folder");
    const blocker = new DatabaseSync(path.join(folder, "index.sqlite"), { timeout: 5000 });
    try {
      // What goes to a file, then what goes to the database.
      for (const code of ["import os; x = os.urandom(1_000_000); len(x)", "x = 2; x"]) {
        if (code.startsWith("x")) blocker.exec("BEGIN IMMEDIATE");
        const { status, body, headers } = await run(alice, id, code);
        expect({ status, code: body.code }).toEqual({ status: 503, code: "store_unavailable" });
        expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
        expect(body.error).not.toContain(folder);
      }
      expect((await alice.post("/api/execute", { code: "1 + 1" })).body.result).toBe(2);
    } finally {
      blocker.close();
      await fs.rm(incoming);
      await fs.rename(`${incoming}-away`, incoming);
    }
    expect((await run(alice, id, "x")).body.result).toBe(1);
  });

  test("a store that is full refuses, changes nothing, and has room again after deletions", async () => {
    const [alice] = as("alice") as [TestClient];
    const id = await create(alice);
    await run(alice, id, "import os; x = 1");
    const hoard: string[] = [];
    for (let full = false; !full; ) {
      const other = await create(alice);
      hoard.push(other);
      const { status, body } = await run(alice, other, "import os; kept = os.urandom(20_000_000); len(kept)");
      full = !body.success;
      if (full) expect({ status, code: body.code }).toEqual({ status: 507, code: "store_full" });
    }
    // Each refusal is like the first: what was refused takes no room, and gives none back.
    for (let attempt = 0; attempt < 3; attempt++) {
      expect((await run(alice, id, "big = os.urandom(20_000_000)")).status).toBe(507);
    }
    // Another principal has its share all the same, to the last of it.
    const [bob] = as("bob") as [TestClient];
    const bobs = (await bob.get("/api/sessions")).body.sessions[0].id;
    expect((await run(bob, bobs, "import os; kept = os.urandom(20_000_000); len(kept)")).body.result).toBe(20_000_000);
    expect((await bob.delete(`/api/sessions/${bobs}`)).status).toBe(200);
    expect((await alice.post("/api/execute", { code: "1 + 1" })).body.result).toBe(2);
    for (const other of hoard) expect((await alice.delete(`/api/sessions/${other}`)).status).toBe(200);
    expect((await run(alice, id, "x = x + 1; ['big' in globals(), x]")).body.result).toEqual([false, 2]);
  });
});

describe.skipIf(!hasRedis)("sessions in Redis", () => {
  let redis: TestRedis;
  let direct: Redis;
  let servers: TestServer[];

  beforeAll(async () => {
    redis = await startRedis();
    direct = new Redis(redis.url);
    const settings = { ...SETTINGS, REDIS_URL: redis.url, SESSIONS_PER_PRINCIPAL: String(FLOOD) };
    servers = [await startTestServer(settings), await startTestServer(settings)];
  });

  afterAll(async () => {
    for (const server of servers ?? []) await server.stop(0);
    direct?.disconnect();
    await redis?.stop();
  });

  const as = (name: keyof typeof KEYS) => servers.map(({ url }) => createClient(url, { "x-api-key": KEYS[name] }));
  const keyOf = (session: string) => `pyodide-express:session:${session}`;

  describeBadInput(() => ({
    as,
    stored: async (session) =>
      (await direct.hkeys(keyOf(session))).filter((field) => /[0-9a-f]{64}$/.test(field) && !field.startsWith("f:")),
    damage: async (session, field, change) => {
      const bytes = change((await direct.hgetBuffer(keyOf(session), field)) as Buffer);
      await (bytes === null ? direct.hdel(keyOf(session), field) : direct.hset(keyOf(session), field, bytes));
    },
  }));

  test("a Redis that is full refuses, changes nothing, and lets sessions be deleted", async () => {
    const [a, b] = as("alice") as [TestClient, TestClient];
    const id = await create(a);
    await run(a, id, "x = 1");
    const other = await create(a);
    await direct.config("SET", "maxmemory", "1");
    try {
      expect(await run(b, id, "x = 2; x")).toMatchObject({ status: 507, body: { code: "storage_full", result: 2 } });
      expect((await a.post("/api/sessions", {})).status).toBe(507);
      expect((await a.delete(`/api/sessions/${other}`)).status).toBe(200);
    } finally {
      await direct.config("SET", "maxmemory", "0");
    }
    for (const client of [a, b]) expect((await run(client, id, "x")).body.result).toBe(1);
  });

  test("a Redis that may only be read refuses what would change it, and recovers", async () => {
    const [a, b] = as("alice") as [TestClient, TestClient];
    const id = await create(a);
    await run(a, id, "x = 1");
    await direct.replicaof("127.0.0.1", "1");
    try {
      for (const refused of [await run(a, id, "x = 2"), await b.post("/api/sessions", {})]) {
        expect({ status: refused.status, code: refused.body.code }).toEqual({ status: 503, code: "store_unavailable" });
        expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
      }
      expect((await b.get(`/api/sessions/${id}`)).body.session.executions).toBe(1);
    } finally {
      await direct.replicaof("NO", "ONE");
    }
    for (const client of [a, b]) expect((await run(client, id, "x")).body.result).toBe(1);
  });

  test("sessions made by a server whose clock is wrong have their time all the same", async () => {
    for (const jumpMs of [-3 * DAY_MS, 3 * DAY_MS]) {
      Date.now = () => now() + jumpMs;
      const id = await create(as("alice")[0] as TestClient);
      Date.now = now;
      const leftMs = await direct.pttl(keyOf(id));
      expect(leftMs).toBeGreaterThan(DAY_MS - 60_000);
      expect(leftMs).toBeLessThanOrEqual(DAY_MS);
      for (const alice of as("alice")) expect((await run(alice, id, "1")).body.result).toBe(1);
    }
  });

  test("a Redis that is slow is waited for", async () => {
    const [a, b] = as("alice") as [TestClient, TestClient];
    const id = await create(a);
    await direct.client("PAUSE", 700, "WRITE");
    expect((await run(a, id, "x = 1; x")).body.result).toBe(1);
    await direct.client("PAUSE", 700, "ALL");
    expect((await run(b, id, "x + 1")).body.result).toBe(2);
  });

  test("a record that is none costs that session only, and shows nothing of the server", async () => {
    const [a] = as("alice") as [TestClient];
    const [broken, whole] = [await create(a), await create(a)];
    await direct.hset(keyOf(broken), "record", "{");
    const { status, body } = await run(a, broken, "1");
    expect(status).toBe(500);
    expect(body.error).toBe("Internal server error");
    expect((await run(a, whole, "'works'")).body.result).toBe("works");
  });
});
