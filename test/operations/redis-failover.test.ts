import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Redis } from "ioredis";
import { afterEach, describe, expect, test } from "vitest";
import { RedisSessions } from "../../src/sessions/redis-store.ts";
import { sharesOf } from "../../src/sessions/shares.ts";
import { RedisConnection } from "../../src/shared/redis-connection.ts";
import { parseRedisUrl } from "../../src/shared/redis-url.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { RedisWorkspaces } from "../../src/workspaces/redis-workspaces.ts";
import { freePort, hasRedis } from "../support/redis.ts";
import { startTestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

if (!hasRedis) console.warn("There is no redis-server on this machine: its tests are skipped.");

const CONNECTION = fileURLToPath(new URL("../../src/shared/redis-connection.ts", import.meta.url));

/** How long a failover may be felt, ms; twice what is promised, for a machine that does much else. */
const HEALED_MS = 10_000;

const endings: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

/** A Redis of one test. @param settings `--no-wait` is ours: do not wait until it has loaded its data. */
async function redisServer(...all: string[]): Promise<{ port: number; direct: Redis; kill: () => Promise<void> }> {
  const port = await freePort();
  const dir = temporaryFolder("redis");
  const common = [
    "--port",
    String(port),
    "--bind",
    "127.0.0.1",
    "--dir",
    dir,
    "--save",
    "",
    "--repl-diskless-sync-delay",
    "0",
  ];
  const settings = all.filter((setting) => setting !== "--no-wait");
  const isReady = settings.length < all.length ? "Server initialized" : "Ready to accept connections";
  const child = spawn("redis-server", [...common, ...settings], { stdio: ["ignore", "pipe", "inherit"] });
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  await until(() => output.includes(isReady));
  const direct = new Redis(port, "127.0.0.1", {
    lazyConnect: true,
    maxRetriesPerRequest: 1,
    enableReadyCheck: false,
  });
  direct.on("error", () => {});
  const kill = async () => {
    direct.disconnect();
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  };
  endings.push(async () => {
    await kill();
    rmSync(dir, { recursive: true, force: true });
  });
  return { port, direct, kill };
}

async function replicaOf(port: number, ...settings: string[]) {
  const replica = await redisServer("--replicaof", "127.0.0.1", String(port), ...settings);
  await until(async () => (await replica.direct.info("replication")).includes("master_link_status:up"));
  return replica;
}

/** A name for the master that moves, as a virtual address or a load balancer is one. */
async function address(port: number) {
  const sockets = new Set<Socket>();
  let isSilent = false;
  let target = port;
  const server: Server = createServer((client) => {
    const upstream = connect(target, "127.0.0.1");
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      const lost = isSilent;
      from.on("data", (bytes) => {
        if (!(lost || silenced.has(from))) to.write(bytes);
      });
      from.on("close", () => to.destroy());
      from.on("error", () => to.destroy());
    }
  }).listen(0, "127.0.0.1");
  const silenced = new Set<Socket>();
  await once(server, "listening");
  endings.push(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port: own } = server.address() as { port: number };
  return {
    url: `redis://127.0.0.1:${own}`,
    /** From now on connections lead there; those that are open go on. */
    moveTo: (next: number) => {
      target = next;
    },
    reset: () => {
      for (const socket of sockets) socket.resetAndDestroy();
    },
    /** As of a machine that is gone: nothing comes, and nothing is closed. */
    silence: () => {
      for (const socket of sockets) silenced.add(socket);
      isSilent = false;
    },
  };
}

function connected(url: string, options: { readonly promisedBytes?: number } = {}) {
  const told: (string | null)[] = [];
  const warnings: string[] = [];
  const connection = new RedisConnection({
    ...options,
    url,
    onConnection: (trouble) => told.push(trouble),
    onWarning: (message) => warnings.push(message),
  });
  endings.push(() => connection.close());
  const workspaces = new RedisWorkspaces({ connection, maxBytes: 2 ** 20, maxFiles: 100 });
  const store = new RedisSessions({ connection, shares: sharesOf(2 ** 30, 1) });
  return { connection, told, warnings, store, files: workspaces.of("alice") };
}

/** Writes until it succeeds. @returns ms that it took. */
async function healed(files: ReturnType<typeof connected>["files"], name: string): Promise<number> {
  const startMs = performance.now();
  for (;;) {
    try {
      await files.put(`/home/pyodide/${name}`, Buffer.from(name));
      return performance.now() - startMs;
    } catch (error) {
      expect(error).toMatchObject({ status: 503, code: "store_unavailable" });
      if (performance.now() - startMs > 3 * HEALED_MS) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

const names = async (files: ReturnType<typeof connected>["files"]) =>
  (await files.list()).filter(({ kind }) => kind === "file").map(({ path }) => path.split("/").pop());

describe.skipIf(!hasRedis)("a failover", { timeout: 120_000 }, () => {
  test("to a replica behind the same address, whose old master goes on as a replica", async () => {
    const first = await redisServer();
    const second = await replicaOf(first.port);
    const name = await address(first.port);
    const { files, told } = connected(name.url);
    await files.put("/home/pyodide/before", Buffer.from("1"));
    await until(() => told.length === 1);
    await until(async () => (await second.direct.dbsize()) > 0);
    await second.direct.replicaof("NO", "ONE");
    await first.direct.replicaof("127.0.0.1", String(second.port));
    name.moveTo(second.port);
    // The connection is open, and leads to what may only be read now.
    expect(await healed(files, "after")).toBeLessThan(HEALED_MS);
    expect(await names(files)).toEqual(["after", "before"]);
    await until(() => told.length === 3);
    expect(told).toEqual([null, "it is a replica, and cannot be written to", null]);
  });

  test("to a replica that becomes the master some time later", async () => {
    const first = await redisServer();
    const second = await replicaOf(first.port);
    const name = await address(first.port);
    const { files, told, connection } = connected(name.url);
    await files.put("/home/pyodide/before", Buffer.from("1"));
    await until(async () => (await second.direct.dbsize()) > 0);
    await first.kill();
    name.moveTo(second.port);
    await until(() => connection.trouble === "it is a replica, and cannot be written to");
    await expect(files.put("/home/pyodide/x", Buffer.from("x"))).rejects.toMatchObject({ status: 503 });
    await second.direct.replicaof("NO", "ONE");
    expect(await healed(files, "after")).toBeLessThan(HEALED_MS);
    expect(await names(files)).toEqual(["after", "before"]);
    await until(() => told.length === 3);
    expect(told.map((trouble) => trouble === null)).toEqual([true, false, true]);
  });

  test("from a machine that is gone without closing anything", async () => {
    const first = await redisServer();
    const second = await replicaOf(first.port);
    const name = await address(first.port);
    const { files, told, store } = connected(name.url);
    const heard: string[] = [];
    store.onInterrupt = (id) => heard.push(id);
    await files.put("/home/pyodide/before", Buffer.from("1"));
    await until(async () => (await second.direct.dbsize()) > 0);
    await second.direct.replicaof("NO", "ONE");
    name.moveTo(second.port);
    name.silence();
    expect(await healed(files, "after")).toBeLessThan(HEALED_MS);
    expect(await names(files)).toEqual(["after", "before"]);
    await until(() => told.length === 3);
    expect(told).toEqual([null, "it does not answer", null]);
    // Also what other servers announce is heard again.
    const { store: other } = connected(name.url);
    await until(async () => {
      await other.announceInterrupt("session", "running");
      return heard.length > 0;
    });
  });

  test("connections that are reset, and scripts that are forgotten, are not noticed by a caller", async () => {
    const redis = await redisServer();
    const name = await address(redis.port);
    const { files } = connected(name.url);
    for (let i = 0; i < 5; i++) {
      if (i % 2) name.reset();
      else await redis.direct.script("FLUSH");
      await files.put(`/home/pyodide/${i}`, Buffer.from("x"));
    }
    expect(await names(files)).toHaveLength(5);
  });

  test("a replica that has lost its master is waited for", async () => {
    const first = await redisServer();
    const second = await replicaOf(first.port, "--replica-serve-stale-data", "no");
    const { files, told, connection } = connected(`redis://127.0.0.1:${second.port}`);
    await first.kill();
    await until(() => told.length > 0);
    await expect(second.direct.get("x")).rejects.toThrow(/^MASTERDOWN/);
    await expect(files.list()).rejects.toMatchObject({ status: 503, code: "store_unavailable" });
    expect(connection.trouble).toMatch(/^it is a replica/);
    await second.direct.replicaof("NO", "ONE");
    expect(await healed(files, "after")).toBeLessThan(HEALED_MS);
    await until(() => told.length === 2);
    expect(told[1]).toBe(null);
  });

  test("a Redis that is loading its data is waited for, and loses nothing", async () => {
    const dir = temporaryFolder("redis-data");
    endings.push(() => rmSync(dir, { recursive: true, force: true }));
    const before = await redisServer("--dir", dir, "--appendonly", "yes", "--appendfsync", "always");
    const name = await address(before.port);
    const { files, told } = connected(name.url);
    await files.put("/home/pyodide/before", Buffer.from("1"));
    const others = before.direct.pipeline();
    for (let i = 0; i < 4000; i++) others.set(`other:${i}`, "");
    await others.exec();
    await before.kill();
    // Half a millisecond for each change: it loads for seconds.
    const slow = ["--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024"];
    const after = await redisServer("--dir", dir, "--appendonly", "yes", ...slow, "--no-wait");
    name.moveTo(after.port);
    await until(async () => /^loading:1/m.test(await after.direct.info("persistence").catch(() => "")));
    await expect(after.direct.get("x")).rejects.toThrow(/^LOADING/);
    await until(async () => /^loading:0/m.test(await after.direct.info("persistence")));
    expect(await healed(files, "after")).toBeLessThan(HEALED_MS);
    expect(await names(files)).toEqual(["after", "before"]);
    await until(() => told.length === 3);
    expect([told[0], told[2]]).toEqual([null, null]);
  });

  test("is noticed by a server that nothing is asked of, and told of once each", async () => {
    const first = await redisServer();
    const second = await replicaOf(first.port);
    const name = await address(first.port);
    const { told, connection } = connected(name.url);
    await until(() => told.length === 1);
    await second.direct.replicaof("NO", "ONE");
    await first.direct.replicaof("127.0.0.1", String(second.port));
    await until(() => told.length === 2);
    // The reason stays while it is connected to again and again.
    const reasons = new Set<string | null>();
    const connectionsOf = async () =>
      Number(/total_connections_received:(\d+)/.exec(await first.direct.info("stats"))?.[1]);
    const known = await connectionsOf();
    await until(async () => {
      reasons.add(connection.trouble);
      return (await connectionsOf()) > known + 9;
    });
    expect([...reasons]).toEqual(["it is a replica, and cannot be written to"]);
    name.moveTo(second.port);
    await until(() => told.length === 3);
    expect(told).toEqual([null, "it is a replica, and cannot be written to", null]);
  });

  test("that leaves too few replicas, or a disk that fails, is told of once, however much is asked", async () => {
    const redis = await redisServer("--enable-protected-configs", "yes");
    const { files, told } = connected(`redis://127.0.0.1:${redis.port}`);
    await files.put("/home/pyodide/before", Buffer.from("1"));
    const dir = temporaryFolder("redis-gone");
    for (const [lose, regain, trouble] of [
      [
        () => redis.direct.config("SET", "min-replicas-to-write", "1"),
        () => redis.direct.config("SET", "min-replicas-to-write", "0"),
        "it has fewer replicas than it needs to be written to",
      ],
      [
        async () => {
          await redis.direct.config("SET", "dir", dir);
          rmSync(dir, { recursive: true });
          await redis.direct.config("SET", "save", "3600 1");
          await redis.direct.bgsave();
          await until(async () => /^rdb_last_bgsave_status:err/m.test(await redis.direct.info("persistence")));
        },
        () => redis.direct.config("SET", "save", ""),
        "it cannot write to its own disk",
      ],
    ] as const) {
      told.length = 0;
      await lose();
      for (let i = 0; i < 3; i++) {
        await expect(files.put(`/home/pyodide/${i}`, Buffer.from("x"))).rejects.toMatchObject({ status: 503 });
      }
      expect(told).toEqual([trouble]);
      await regain();
      expect(await healed(files, "after")).toBeLessThan(HEALED_MS);
      await until(() => told.length === 2);
      expect(told[1]).toBe(null);
    }
    expect(await names(files)).toEqual(["after", "before"]);
  });

  test("by Sentinel", async () => {
    const first = await redisServer();
    const second = await replicaOf(first.port);
    const sentinels: number[] = [];
    for (let i = 0; i < 3; i++) {
      const port = await freePort();
      const dir = temporaryFolder("sentinel");
      const file = path.join(dir, "sentinel.conf");
      writeFileSync(
        file,
        `port ${port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 ${first.port} 2\n` +
          "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n",
      );
      const child = spawn("redis-server", [file, "--sentinel"], { stdio: "ignore" });
      endings.push(async () => {
        const exited = once(child, "exit");
        child.kill("SIGKILL");
        await exited;
        rmSync(dir, { recursive: true, force: true });
      });
      sentinels.push(port);
    }
    const sentinel = new Redis(sentinels[0] as number, { maxRetriesPerRequest: 20 });
    sentinel.on("error", () => {});
    endings.push(() => sentinel.disconnect());
    const info = async (field: string) => {
      const facts = ((await sentinel.call("SENTINEL", "MASTER", "main").catch(() => [])) as string[]) ?? [];
      return facts[facts.indexOf(field) + 1];
    };
    await until(async () => (await info("num-slaves")) === "1" && (await info("num-other-sentinels")) === "2");
    const url = `redis+sentinel://${sentinels.map((port) => `127.0.0.1:${port}`).join(",")}/main/0`;
    const { files } = connected(url);
    await files.put("/home/pyodide/before", Buffer.from("1"));
    await until(async () => (await second.direct.dbsize()) > 0);
    await first.kill();
    await until(async () => (await info("port")) === String(second.port));
    await until(async () => (await second.direct.info("replication")).includes("role:master"));
    expect(await healed(files, "after")).toBeLessThan(HEALED_MS);
    expect(await names(files)).toEqual(["after", "before"]);
  });
});

describe.skipIf(!hasRedis)("what is said of Redis", { timeout: 120_000 }, () => {
  test("/ready is degraded while it is away", async () => {
    const redis = await redisServer();
    const server = await startTestServer({ REDIS_URL: `redis://127.0.0.1:${redis.port}` });
    endings.push(async () => await server.stop(0));
    await until(async () => (await server.get("/ready")).body.status === undefined);
    await redis.kill();
    await until(async () => (await server.get("/ready")).body.status === "degraded");
    const { status, body } = await server.get("/ready");
    expect({ status, ready: body.ready }).toEqual({ status: 200, ready: true });
    expect(body.reasons).toEqual([expect.stringMatching(/^Redis cannot be used: .*\.$/)]);
    expect(JSON.stringify(body)).not.toMatch(/127\.0\.0\.1|:\d{4,5}"/);
  });

  test("an eviction policy that loses sessions is warned of, and none that loses nothing", async () => {
    for (const [policy, count] of [
      ["allkeys-lru", 1],
      ["volatile-ttl", 1],
      ["noeviction", 0],
    ] as const) {
      const redis = await redisServer("--maxmemory-policy", policy);
      const { warnings, told } = connected(`redis://127.0.0.1:${redis.port}`);
      await until(() => told.length > 0);
      expect(warnings).toHaveLength(count);
      if (count) expect(warnings[0]).toContain(`maxmemory-policy ${policy}`);
    }
  });

  test("less memory than what stores promise is warned of, and as much is not", async () => {
    const redis = await redisServer("--maxmemory", "64mb");
    for (const [promisedMib, count] of [
      [65, 1],
      [64, 0],
    ] as const) {
      const { warnings, told } = connected(`redis://127.0.0.1:${redis.port}`, { promisedBytes: promisedMib * 2 ** 20 });
      await until(() => told.length > 0);
      expect(warnings).toHaveLength(count);
      if (count) expect(warnings[0]).toContain("maxmemory 64 MiB");
    }
  });

  test("a node of a cluster is named as what it is", async () => {
    const redis = await redisServer("--cluster-enabled", "yes");
    const { told } = connected(`redis://127.0.0.1:${redis.port}`);
    await until(() => told.length > 0);
    expect(told[0]).toContain("Cluster, which is not supported");
  });

  test("a wrong password is named, and the right one of an ACL user is taken, whatever characters it has", async () => {
    const password = "p@ss/w:rd%?#é";
    const redis = await redisServer();
    await redis.direct.call(
      "ACL",
      "SETUSER",
      "server",
      "on",
      `>${password}`,
      "~pyodide-express:*",
      "&pyodide-express:*",
      "+@all",
      "-@dangerous",
      "+info",
    );
    await redis.direct.call("ACL", "SETUSER", "default", "off");
    const at = `127.0.0.1:${redis.port}`;
    const right = connected(`redis://server:${encodeURIComponent(password)}@${at}`);
    await right.files.put("/home/pyodide/f", Buffer.from("x"));
    expect(right.told).toEqual([null]);
    const wrong = connected(`redis://server:wrong@${at}`);
    await until(() => wrong.told.length > 0);
    expect(wrong.told[0]).toBe("it refuses the user or the password of REDIS_URL");
  });

  test("TLS is spoken with an authority of one's own", async () => {
    const dir = temporaryFolder("redis-tls");
    endings.push(() => rmSync(dir, { recursive: true, force: true }));
    const openssl = (...parameters: string[]) => execFileSync("openssl", parameters, { cwd: dir, stdio: "pipe" });
    openssl(
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-days",
      "2",
      "-subj",
      "/CN=authority",
      "-keyout",
      "ca.key",
      "-out",
      "ca.crt",
    );
    openssl(
      "req",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-subj",
      "/CN=localhost",
      "-keyout",
      "redis.key",
      "-out",
      "redis.csr",
    );
    writeFileSync(path.join(dir, "names"), "subjectAltName=DNS:localhost,IP:127.0.0.1");
    openssl(
      "x509",
      "-req",
      "-in",
      "redis.csr",
      "-CA",
      "ca.crt",
      "-CAkey",
      "ca.key",
      "-CAcreateserial",
      "-days",
      "2",
      "-extfile",
      "names",
      "-out",
      "redis.crt",
    );
    expect(readFileSync(path.join(dir, "redis.crt"), "utf8")).toContain("BEGIN CERTIFICATE");
    const tlsPort = await freePort();
    await redisServer(
      ...["--tls-port", String(tlsPort), "--tls-cert-file", path.join(dir, "redis.crt")],
      ...[
        "--tls-key-file",
        path.join(dir, "redis.key"),
        "--tls-ca-cert-file",
        path.join(dir, "ca.crt"),
        "--tls-auth-clients",
        "no",
      ],
    );
    const code = `import { RedisConnection } from ${JSON.stringify(CONNECTION)};
      const connection = new RedisConnection({ url: "rediss://localhost:${tlsPort}", onConnection: (trouble) => { console.log(trouble); process.exit(); } });`;
    const say = (env: Record<string, string>) =>
      spawnSync(process.execPath, ["--input-type=module", "-e", code], {
        encoding: "utf8",
        env: { ...process.env, ...env },
        timeout: 60_000,
      }).stdout.trim();
    expect(say({ NODE_EXTRA_CA_CERTS: path.join(dir, "ca.crt") })).toBe("null");
    expect(say({})).toMatch(/^the connection failed: /);
  });
});

describe("REDIS_URL", () => {
  test.each([
    ["redis://h", { host: "h", port: 6379, db: 0 }],
    ["redis://h:1/2", { host: "h", port: 1, db: 2 }],
    ["redis://:p%40ss%25@h", { host: "h", port: 6379, db: 0, password: "p@ss%" }],
    ["redis://u:p:q@[::1]:7", { host: "::1", port: 7, db: 0, username: "u", password: "p:q" }],
    ["rediss://u:p@h", { host: "h", port: 6379, db: 0, username: "u", password: "p", tls: {} }],
    [
      "redis+sentinel://u:p@a,b:7/main/3?sentinelPassword=s%26t",
      {
        ...{
          sentinels: [
            { host: "a", port: 26379 },
            { host: "b", port: 7 },
          ],
          name: "main",
          db: 3,
        },
        ...{ username: "u", password: "p", sentinelPassword: "s&t" },
      },
    ],
  ])("%s is read", (url, options) => {
    expect(parseRedisUrl(url)).toEqual(options);
  });

  test.each([
    ["http://h", /another form/],
    ["redis://", /no host/],
    ["redis://h:99999", /no host and port/],
    ["redis://h/x", /no number/],
    ["redis://u:secret%@h", /%25/],
    ["redis://u:secret@h,i", /redis\+sentinel/],
    ["redis+sentinel://u:secret@h", /name of the master/],
    ["redis+cluster://u:secret@h", /Cluster is not supported/],
  ])("%s is refused, without its password", (url, reason) => {
    expect(() => parseRedisUrl(url)).toThrow(reason);
    try {
      parseRedisUrl(url);
    } catch (error) {
      expect((error as Error).message).not.toContain("secret");
    }
  });
});
