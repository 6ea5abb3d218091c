import express from "express";
import { Redis } from "ioredis";
import { RateLimiterMemory } from "rate-limiter-flexible";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasRedis, startRedis, type TestRedis } from "../../../test/support/redis.ts";
import { until } from "../../../test/support/until.ts";
import { StartupError } from "../../shared/errors.ts";
import { RedisConnection } from "../../shared/redis-connection.ts";
import { serve, type TestServer } from "../testing/serve.ts";
import { authenticate } from "./authentication.ts";
import { rateLimit, requestLimiter } from "./rate-limit.ts";
import { trustProxy } from "./trust-proxy.ts";

const keyOf = (letter: string) => letter.repeat(16);
const KEYS = { API_KEYS: `alice:${keyOf("a")},bob:${keyOf("b")}`, API_KEY: "" };
const HOUR_MS = 3_600_000;

function limited(options: {
  max: number;
  trust?: string;
  limiter?: RateLimiterMemory;
  redis?: RedisConnection;
}): Promise<TestServer> {
  const app = express();
  app.set("trust proxy", trustProxy({ TRUST_PROXY: options.trust ?? "" }));
  const settings = { RATE_LIMIT_MAX_REQUESTS: options.max, RATE_LIMIT_WINDOW_MS: HOUR_MS };
  app.use(authenticate(KEYS), rateLimit(options.limiter ?? requestLimiter(settings, options.redis ?? null)));
  app.get("/", (_request, response) => void response.json({ success: true }));
  return serve(app);
}

async function get(server: TestServer, key: string, forwardedFor?: string) {
  const headers = {
    "X-API-Key": keyOf(key),
    ...(forwardedFor === undefined ? {} : { "X-Forwarded-For": forwardedFor }),
  };
  const response = await fetch(server.origin, { headers });
  return { status: response.status, headers: response.headers, body: await response.json() };
}

test("says what is left, then refuses with 429 and when to come again", async () => {
  await using server = await limited({ max: 3 });
  for (const remaining of ["2", "1", "0"]) {
    const { status, headers } = await get(server, "a");
    expect(status).toBe(200);
    expect(headers.get("RateLimit-Limit")).toBe("3");
    expect(headers.get("RateLimit-Remaining")).toBe(remaining);
    expect(headers.get("RateLimit-Policy")).toBe("3;w=3600");
    expectSeconds(headers.get("RateLimit-Reset"));
    expect(headers.get("Retry-After")).toBe(null);
  }
  for (let i = 0; i < 3; i++) {
    const { status, headers, body } = await get(server, "a");
    expect(status).toBe(429);
    expect(body).toEqual({ success: false, error: "Too many requests", timestamp: expect.any(String) });
    expect(headers.get("RateLimit-Remaining")).toBe("0");
    expect(headers.get("Retry-After")).toBe(headers.get("RateLimit-Reset"));
    expectSeconds(headers.get("Retry-After"));
  }
});

test("lets exactly as many pass when all come at once", async () => {
  await using server = await limited({ max: 10 });
  const replies = await Promise.all(Array.from({ length: 25 }, () => get(server, "a")));
  expect(replies.filter(({ status }) => status === 200)).toHaveLength(10);
  expect(replies.filter(({ status }) => status === 429)).toHaveLength(15);
});

test("counts each principal apart", async () => {
  await using server = await limited({ max: 1 });
  expect((await get(server, "a")).status).toBe(200);
  expect((await get(server, "b")).status).toBe(200);
  expect((await get(server, "a")).status).toBe(429);
});

test("is not fooled by a forged X-Forwarded-For while no proxy is trusted", async () => {
  await using server = await limited({ max: 1 });
  expect((await get(server, "a", "198.51.100.1")).status).toBe(200);
  expect((await get(server, "a", "198.51.100.2")).status).toBe(429);
});

test("counts each address apart behind a trusted proxy, and only the address that the proxy saw", async () => {
  await using server = await limited({ max: 1, trust: "1" });
  expect((await get(server, "a", "198.51.100.1")).status).toBe(200);
  expect((await get(server, "a", "198.51.100.2")).status).toBe(200);
  expect((await get(server, "a", "203.0.113.9, 198.51.100.1")).status).toBe(429);
  expect((await get(server, "a", "::ffff:198.51.100.1")).status).toBe(429);
});

test("counts the addresses of one IPv6 network as one", async () => {
  await using server = await limited({ max: 1, trust: "1" });
  expect((await get(server, "a", "2001:db8:0:1::1")).status).toBe(200);
  expect((await get(server, "a", "2001:db8:0:1:ffff::2")).status).toBe(429);
  expect((await get(server, "a", "2001:db8:0:2::1")).status).toBe(200);
  expect((await get(server, "a", "fe80::1%eth0")).status).toBe(200);
});

test("0 is no limit", async () => {
  await using server = await limited({ max: 0 });
  const { status, headers } = await get(server, "a");
  expect(status).toBe(200);
  expect(headers.get("RateLimit-Limit")).toBe(null);
});

describe.skipIf(!hasRedis)("servers that share Redis", () => {
  let redis: TestRedis;
  let direct: Redis;
  let connection: RedisConnection;

  beforeAll(async () => {
    redis = await startRedis();
    direct = new Redis(redis.url);
    direct.on("error", () => {});
    connection = new RedisConnection({ url: redis.url });
  });

  afterAll(async () => {
    connection?.close();
    direct?.disconnect();
    await redis?.stop();
  });

  /** Until then it counts for itself. */
  async function untilCountedInRedis(server: TestServer): Promise<void> {
    await direct.flushall();
    await until(async () => (await get(server, "b")) && (await direct.keys("*")).length > 0);
    await direct.flushall();
  }

  const passed = async (requests: readonly ReturnType<typeof get>[]) =>
    (await Promise.all(requests)).filter(({ status }) => status === 200).length;

  test("share one count for each caller", async () => {
    await using first = await limited({ max: 10, redis: connection });
    await using second = await limited({ max: 10, redis: connection });
    await untilCountedInRedis(first);
    await untilCountedInRedis(second);
    expect(await passed(Array.from({ length: 30 }, (_, i) => get(i % 2 ? first : second, "a")))).toBe(10);
    const { status, headers } = await get(second, "a");
    expect(status).toBe(429);
    expect(headers.get("Retry-After")).toBe(headers.get("RateLimit-Reset"));
    expectSeconds(headers.get("Retry-After"));
    expect((await get(first, "b")).status).toBe(200);
  });

  test("count each for itself while it is away, and together again when it is back", async () => {
    await using first = await limited({ max: 3, redis: connection });
    await using second = await limited({ max: 3, redis: connection });
    await untilCountedInRedis(first);
    await untilCountedInRedis(second);
    await redis.kill();
    expect(await passed(Array.from({ length: 6 }, () => get(first, "a")))).toBe(3);
    expect(await passed(Array.from({ length: 6 }, () => get(second, "a")))).toBe(3);
    await redis.start();
    await until(() => direct.flushall().then(Boolean, () => false));
    await untilCountedInRedis(first);
    await untilCountedInRedis(second);
    expect(await passed(Array.from({ length: 12 }, (_, i) => get(i % 2 ? first : second, "a")))).toBe(3);
  });

  test("count windows of less than a second as one, which ends", () => {
    const settings = { RATE_LIMIT_MAX_REQUESTS: 1, RATE_LIMIT_WINDOW_MS: 10 };
    expect(requestLimiter(settings, connection)?.duration).toBe(1);
  });
});

test("a limiter that fails is a server fault, not an open door", async () => {
  const limiter = new RateLimiterMemory({ points: 1, duration: 60 });
  limiter.consume = () => Promise.reject(new Error("connect ECONNREFUSED 10.0.0.9:6379"));
  await using server = await limited({ max: 9, limiter });
  const { status, body } = await get(server, "a");
  expect(status).toBe(500);
  expect(JSON.stringify(body)).not.toContain("10.0.0.9");
});

test("refuses a window that no timer can hold", () => {
  const settings = { RATE_LIMIT_MAX_REQUESTS: 1, RATE_LIMIT_WINDOW_MS: 2 ** 31 };
  expect(() => requestLimiter(settings, null)).toThrow(StartupError);
});

function expectSeconds(header: string | null): void {
  expect(header).toMatch(/^\d+$/);
  expect(Number(header)).toBeGreaterThan(0);
  expect(Number(header)).toBeLessThanOrEqual(3600);
}
