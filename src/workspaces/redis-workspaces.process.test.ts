import { createHash } from "node:crypto";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { hasRedis, startRedis, type TestRedis } from "../../test/support/redis.ts";
import { RedisConnection } from "../shared/redis-connection.ts";
import { RedisWorkspaces, type RedisWorkspacesOptions } from "./redis-workspaces.ts";
import { apply, bytes, describeWorkspaces, filesOf, MIB, startedIn, text } from "./testing/workspace-contract.ts";

if (!hasRedis) console.warn("There is no redis-server on this machine: its tests are skipped.");

describe.skipIf(!hasRedis)("workspaces in Redis", () => {
  let redis: TestRedis;
  let direct: Redis;
  let connections: RedisConnection[];

  beforeAll(async () => {
    redis = await startRedis();
    direct = new Redis(redis.url);
    connections = [new RedisConnection({ url: redis.url }), new RedisConnection({ url: redis.url })];
  });

  afterAll(async () => {
    for (const connection of connections ?? []) connection.close();
    direct?.disconnect();
    await redis?.stop();
  });

  /** @param server which of two; each has a connection of its own. */
  function open(server: 0 | 1, options: Partial<RedisWorkspacesOptions> = {}): RedisWorkspaces {
    const connection = connections[server] as RedisConnection;
    return new RedisWorkspaces({ connection, maxBytes: MIB, maxFiles: 50, ...options });
  }

  const keys = async () => (await direct.keys("*")).sort();
  const contents = async () => (await keys()).filter((key) => key.includes(":content:"));
  const clean = async () => void (await direct.flushall());
  const key = (rest: string) =>
    `pyodide-express:workspace:${createHash("sha256").update("alice").digest("hex")}${rest}`;

  describe("as everywhere", () => {
    describeWorkspaces({ open: (options) => open(0, options), stored: keys, clean });
  });

  describe("of two servers", () => {
    let a: RedisWorkspaces;
    let b: RedisWorkspaces;

    beforeEach(() => {
      [a, b] = [open(0), open(1)];
    });

    afterEach(async () => {
      await Promise.all([a.close(), b.close()]);
      await clean();
    });

    test("are the same ones", async () => {
      const upload = { filename: "a.csv", originalName: "A.csv" };
      await a.of("alice").upload(bytes("from a"), upload);
      expect(await text(b.of("alice"), "/home/pyodide/a.csv")).toBe("from a");
      expect(await b.of("alice").uploads()).toMatchObject([upload]);
      await b.of("alice").removeUpload("a.csv");
      await b.of("alice").put("/home/pyodide/a.csv", bytes("from b"));
      expect(await text(a.of("alice"), "/home/pyodide/a.csv")).toBe("from b");
      expect(await a.of("alice").uploads()).toEqual([]);
      expect(await filesOf(b.of("bob"))).toEqual([]);
    });

    test("changed on both at once lose nothing", async () => {
      const changes = Array.from({ length: 40 }, (_, i) => {
        const execution = (i % 2 ? a : b).of("alice").forExecution();
        return apply(execution, { [`/tmp/${i}`]: `${i}` });
      });
      await Promise.all(changes);
      for (const store of [a, b]) {
        expect(await filesOf(store.of("alice"))).toHaveLength(40);
        for (let i = 0; i < 40; i++) expect(await text(store.of("alice"), `/tmp/${i}`)).toBe(`${i}`);
      }
    });

    test("have one quota", async () => {
      const put = (store: RedisWorkspaces, name: string) => store.of("alice").put(name, bytes(name.repeat(MIB / 10)));
      const ends = await Promise.allSettled([put(a, "/tmp/1"), put(b, "/tmp/2")]);
      expect(ends.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
      expect(ends.find((end) => end.status === "rejected")?.reason).toMatchObject({ code: "workspace_full" });
      expect(await contents()).toHaveLength(1);
      expect((await keys()).filter((name) => name.includes(":incoming:"))).toEqual([]);
    });

    test("an execution reads what was there when it began, though another server removed it", async () => {
      await a.of("alice").put("/tmp/a", bytes("of its start"));
      const execution = await startedIn(a.of("alice"));
      await b.of("alice").clear();
      await b.of("alice").put("/tmp/a", bytes("later"));
      expect(await text(execution, "/tmp/a")).toBe("of its start");
      expect(await text(a.of("alice"), "/tmp/a")).toBe("later");
    });
  });

  describe("contents", () => {
    let store: RedisWorkspaces;

    beforeEach(() => {
      store = open(0, { maxBytes: 8 * MIB });
    });

    afterEach(async () => {
      await store.close();
      await clean();
    });

    test("are stored once, in pieces, and stay for good while a file needs them", async () => {
      const content = Buffer.alloc(2.5 * MIB, "x").fill("y", MIB);
      await store.of("alice").put("/tmp/a", content);
      await apply(store.of("alice").forExecution(), { "/tmp/b": content.toString() });
      expect(Buffer.compare(await store.of("alice").read("/tmp/b"), content)).toBe(0);
      const name = key(`:content:${createHash("sha256").update(content).digest("hex")}`);
      expect(await keys()).toEqual([key(""), name]);
      expect(await direct.hlen(name)).toBe(3);
      expect([await direct.ttl(key("")), await direct.ttl(name)]).toEqual([-1, -1]);
    });

    test("without a reference expire, unless they are needed again before", async () => {
      await store.of("alice").put("/tmp/a", bytes("one"));
      await store.of("alice").put("/tmp/b", bytes("two"));
      await store.of("alice").remove("/tmp/a");
      await store.of("alice").remove("/tmp/b");
      await store.of("alice").put("/tmp/c", bytes("two"));
      const ttl = (content: string) =>
        direct.pttl(key(`:content:${createHash("sha256").update(content).digest("hex")}`));
      expect(await ttl("one")).toBeGreaterThan(0);
      expect(await ttl("two")).toBe(-1);
    });

    test("without a reference never take more than a workspace may", async () => {
      for (let i = 0; i < 10; i++) await store.of("alice").put("/tmp/a", Buffer.alloc(3 * MIB, `${i}`));
      // The file, and what fits into 8 MiB of those before.
      expect(await contents()).toHaveLength(3);
      expect(Buffer.compare(await store.of("alice").read("/tmp/a"), Buffer.alloc(3 * MIB, "9"))).toBe(0);
    });

    test("that are gone or cut short are an error, not another content", async () => {
      const content = Buffer.alloc(1.5 * MIB, "x");
      await store.of("alice").put("/tmp/a", content);
      const name = key(`:content:${createHash("sha256").update(content).digest("hex")}`);
      await direct.hset(name, "1", "short");
      await expect(store.of("alice").read("/tmp/a")).rejects.toThrow();
      await direct.del(name);
      await expect(store.of("alice").read("/tmp/a")).rejects.toMatchObject({ code: "content_gone" });
    });

    test("a damaged index is not mistaken for an empty workspace", async () => {
      await store.of("alice").put("/tmp/a", bytes("kept"));
      const index = (await direct.hget(key(""), "index")) as string;
      await direct.hset(key(""), "index", index.slice(0, 50), "revision", "other");
      await expect(store.of("alice").list()).rejects.toThrow("is damaged");
      await expect(store.of("alice").put("/tmp/b", bytes("b"))).rejects.toThrow("is damaged");
      await direct.hset(key(""), "index", index);
      expect(await text(store.of("alice"), "/tmp/a")).toBe("kept");
    });

    test("a Redis that is full refuses what would add, and lets files be deleted", async () => {
      await store.of("alice").put("/tmp/a", Buffer.alloc(MIB));
      await direct.config("SET", "maxmemory", "1");
      try {
        const refused = { status: 507, code: "storage_full" };
        await expect(store.of("alice").put("/tmp/b", bytes("b"))).rejects.toMatchObject(refused);
        await expect(apply(store.of("alice").forExecution(), { "/tmp/b": "b" })).rejects.toMatchObject(refused);
        expect(await filesOf(store.of("alice"))).toEqual(["/tmp/a"]);
        await store.of("alice").remove("/tmp/a");
        expect(await filesOf(store.of("alice"))).toEqual([]);
      } finally {
        await direct.config("SET", "maxmemory", "0");
      }
      await store.of("alice").put("/tmp/b", bytes("b"));
    });
  });

  test("a change whose answer is lost is made once", async () => {
    const store = open(0);
    const eager = connections[0] as RedisConnection;
    const run = eager.run.bind(eager);
    // What ioredis does when a connection breaks after the command was sent.
    eager.run = async (...call) => {
      await run(...call);
      return await run(...call);
    };
    try {
      await store.of("alice").put("/tmp/a", bytes("1"));
      // Planned anew, it would find nothing to remove.
      await store.of("alice").remove("/tmp/a");
      expect(await filesOf(store.of("alice"))).toEqual([]);
    } finally {
      eager.run = run;
      await store.close();
      await clean();
    }
  });

  test("a server's clock that jumps changes nothing", async () => {
    const store = open(0);
    const { now } = Date;
    try {
      for (const jumpMs of [-3_600_000, 3_600_000]) {
        Date.now = () => now() + jumpMs;
        await store.of("alice").put("/tmp/a", bytes(String(jumpMs)));
        expect(await text(open(1).of("alice"), "/tmp/a")).toBe(String(jumpMs));
      }
    } finally {
      Date.now = now;
      await store.close();
      await clean();
    }
  });
});
