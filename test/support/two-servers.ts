import { afterAll, beforeAll } from "vitest";
import { startRedis, type TestRedis } from "./redis.ts";
import { startTestServer, type TestServer } from "./server.ts";

/** Has two servers with a Redis of their own run while the tests of a suite do. */
export function twoServers(settings: Record<string, string>): () => readonly [TestServer, TestServer] {
  let redis: TestRedis | undefined;
  let servers: readonly [TestServer, TestServer];
  beforeAll(async () => {
    redis = await startRedis();
    const all = { ...settings, REDIS_URL: redis.url };
    servers = await Promise.all([startTestServer(all), startTestServer(all)]);
  });
  afterAll(async () => {
    await Promise.all(servers?.map((server) => server.stop(0)) ?? []);
    await redis?.stop();
  });
  return () => servers;
}
