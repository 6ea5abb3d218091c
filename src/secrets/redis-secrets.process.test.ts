import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasRedis, startRedis, type TestRedis } from "../../test/support/redis.ts";
import { RedisConnection } from "../shared/redis-connection.ts";
import { RedisSecrets } from "./redis-secrets.ts";
import { Seal } from "./seal.ts";
import { Secrets } from "./secrets.ts";
import { describeRecords, KEY } from "./testing/records-contract.ts";

if (!hasRedis) console.warn("There is no redis-server on this machine: its tests are skipped.");

describe.skipIf(!hasRedis)("in Redis", () => {
  let redis: TestRedis;
  let connections: RedisConnection[];
  let next = 0;

  beforeAll(async () => {
    redis = await startRedis();
    connections = [new RedisConnection({ url: redis.url }), new RedisConnection({ url: redis.url })];
  });
  afterAll(async () => {
    for (const connection of connections ?? []) connection.close();
    await redis?.stop();
  });

  // Each is another server's.
  const open = () => new RedisSecrets(connections[next++ % 2] as RedisConnection);
  describeRecords(open);

  test("no value is there in plain text", async () => {
    const secrets = new Secrets({ operator: new Map(), records: open(), seal: new Seal(KEY) });
    await secrets.put("alice", "PLAIN", "findable-text", null);
    const direct = new Redis(redis.url);
    const keys = await direct.keys("*");
    expect(keys.length).toBeGreaterThan(0);
    const all = JSON.stringify(await Promise.all(keys.map((key) => direct.hgetall(key))));
    direct.disconnect();
    expect(all).toContain("PLAIN");
    expect(all).not.toContain("findable-text");
    expect(all).not.toContain(Buffer.from("findable-text").toString("base64"));
  });
});
