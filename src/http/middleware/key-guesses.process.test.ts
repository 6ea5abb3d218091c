import express from "express";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasRedis, startRedis, type TestRedis } from "../../../test/support/redis.ts";
import { RedisConnection } from "../../shared/redis-connection.ts";
import { serve, type TestServer } from "../testing/serve.ts";
import { authenticate } from "./authentication.ts";
import { KeyGuesses } from "./key-guesses.ts";
import { trustProxy } from "./trust-proxy.ts";

const ALICE = "a-key-of-alice-alone";
const BOB = "a-key-of-bob-alone";
const CONFIG = { API_KEYS: `alice:${ALICE},bob:${BOB}`, API_KEY: "" };

function guarded(guesses: KeyGuesses): Promise<TestServer> {
  const app = express();
  app.set("trust proxy", trustProxy({ TRUST_PROXY: "1" }));
  app.use(authenticate(CONFIG, guesses));
  app.get("/", (_request, response) => void response.json({ success: true }));
  return serve(app);
}

async function get(server: TestServer, key: string, ip = "192.0.2.1") {
  const headers = { ...(key && { "X-API-Key": key }), "X-Forwarded-For": ip };
  const response = await fetch(server.origin, { headers });
  return { status: response.status, retryAfter: Number(response.headers.get("Retry-After")) };
}

const guess = (i: number) => `a-wrong-key-number-${i}`;

test("after too many wrong keys no key is looked at, longer each time", async () => {
  let nowMs = 0;
  await using server = await guarded(new KeyGuesses({ maxFailures: 5, redis: null, now: () => nowMs }));
  for (const waitS of [30, 60, 120, 240]) {
    for (let i = 0; i < 5; i++) expect((await get(server, guess(i))).status).toBe(401);
    expect(await get(server, guess(5))).toEqual({ status: 429, retryAfter: waitS });
    // The right one, too: else the answer to a guess would still tell.
    expect(await get(server, ALICE)).toEqual({ status: 429, retryAfter: waitS });
    nowMs += (waitS - 1) * 1000;
    expect(await get(server, ALICE)).toEqual({ status: 429, retryAfter: 1 });
    nowMs += 1000;
  }
  expect((await get(server, ALICE)).status).toBe(200);
});

test("the longest wait is an hour", async () => {
  let nowMs = 0;
  await using server = await guarded(new KeyGuesses({ maxFailures: 1, redis: null, now: () => nowMs }));
  let waitS = 0;
  for (let round = 0; round < 12; round++) {
    for (let status = 0; status !== 429; ) ({ status, retryAfter: waitS } = await get(server, guess(round)));
    nowMs += waitS * 1000;
  }
  expect(waitS).toBe(3600);
});

test("what is known of one key is forgotten by no use of another, from however many networks", async () => {
  const guesses = new KeyGuesses({ maxFailures: 1, redis: null });
  const [alice, mallory, stranger] = ["alice", "mallory", "stranger"].map((name) => Buffer.from(name.padEnd(32, "-")));
  guesses.succeeded("192.0.2.1", alice as Buffer);
  guesses.succeeded("192.0.2.2", mallory as Buffer);
  for (let i = 0; i < 20_000; i++) guesses.succeeded(`2001:db8:${i.toString(16)}::1`, mallory as Buffer);
  for (const ip of ["192.0.2.1", "192.0.2.2"]) {
    await guesses.failed(ip);
    await expect(guesses.failed(ip)).rejects.toMatchObject({ code: "too_many_wrong_keys" });
  }
  const accepts = (ip: string, digest: Buffer | undefined) => {
    try {
      guesses.check(ip, digest as Buffer);
      return true;
    } catch {
      return false;
    }
  };
  expect(accepts("192.0.2.1", alice)).toBe(true);
  expect(accepts("192.0.2.1", stranger)).toBe(false);
  // Its own are bounded.
  expect(accepts("192.0.2.2", mallory)).toBe(false);
});

test("200 guesses at once: no more than the limit are looked at", async () => {
  await using server = await guarded(new KeyGuesses({ maxFailures: 5, redis: null }));
  const replies = await Promise.all(Array.from({ length: 200 }, (_, i) => get(server, i === 199 ? ALICE : guess(i))));
  expect(replies.filter(({ status }) => status === 401)).toHaveLength(5);
  expect(replies.filter(({ status }) => status === 429).length).toBeGreaterThanOrEqual(194);
});

test("a key that was used from there before goes on, another does not, and other addresses are not concerned", async () => {
  await using server = await guarded(new KeyGuesses({ maxFailures: 5, redis: null }));
  expect((await get(server, ALICE)).status).toBe(200);
  for (let i = 0; i < 20; i++) await get(server, guess(i));
  expect((await get(server, ALICE)).status).toBe(200);
  expect((await get(server, BOB)).status).toBe(429);
  expect((await get(server, BOB, "192.0.2.2")).status).toBe(200);
  expect((await get(server, BOB, "2001:db8:0:1::1")).status).toBe(200);
  for (let i = 0; i < 20; i++) await get(server, guess(i), `2001:db8:0:2::${i}`);
  expect((await get(server, BOB, "2001:db8:0:2::ffff")).status).toBe(429);
});

test("requests without a key are no guesses", async () => {
  await using server = await guarded(new KeyGuesses({ maxFailures: 5, redis: null }));
  for (let i = 0; i < 50; i++) expect((await get(server, "")).status).toBe(401);
  expect((await get(server, ALICE)).status).toBe(200);
});

test("0 is no limit", async () => {
  await using server = await guarded(new KeyGuesses({ maxFailures: 0, redis: null }));
  for (let i = 0; i < 50; i++) expect((await get(server, guess(i))).status).toBe(401);
  expect((await get(server, ALICE)).status).toBe(200);
});

test("what is remembered is bounded, however many networks guess", async () => {
  const guesses = new KeyGuesses({ maxFailures: 1, redis: null });
  const before = process.memoryUsage().heapUsed;
  for (let i = 0; i < 60_000; i++) {
    const ip = `2001:db8:${(i >>> 16).toString(16)}:${(i & 0xffff).toString(16)}::1`;
    await guesses.failed(ip).catch(() => {});
  }
  globalThis.gc?.();
  // 10,000 networks of about 1 kB, timers included, and what the collector has not looked at.
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(60 * 2 ** 20);
});

describe.skipIf(!hasRedis)("servers that share Redis", () => {
  let redis: TestRedis;
  let connection: RedisConnection;
  beforeAll(async () => {
    redis = await startRedis();
    connection = new RedisConnection({ url: redis.url });
  });
  afterAll(async () => {
    connection?.close();
    await redis?.stop();
  });

  test("count together, and one that Redis has left counts for itself", async () => {
    const guesses = () => new KeyGuesses({ maxFailures: 5, redis: connection });
    await using first = await guarded(guesses());
    await using second = await guarded(guesses());
    // The connection that counts is there when a count is.
    await expect.poll(async () => (await get(first, guess(0), "198.51.100.1")).status, { timeout: 10_000 }).toBe(429);
    const statuses: number[] = [];
    for (let i = 0; i < 12; i++) statuses.push((await get(i % 2 ? first : second, guess(i))).status);
    expect(statuses.filter((status) => status === 401)).toHaveLength(5);
    await redis.kill();
    for (let i = 0; i < 6; i++) await get(first, guess(i), "198.51.100.7");
    expect((await get(first, guess(9), "198.51.100.7")).status).toBe(429);
  });
});
