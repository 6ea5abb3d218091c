import express from "express";
import { afterEach, beforeEach, expect, test } from "vitest";
import { temporaryFolder } from "../../shared/testing/temporary-folder.ts";
import { DiskStatistics } from "../../statistics/disk-store.ts";
import { Statistics } from "../../statistics/statistics.ts";
import { authenticate, principalOf, requireScope } from "../middleware/authentication.ts";
import { serve } from "../testing/serve.ts";
import { visibleTo } from "./statistics.ts";
import { type StatisticsStreamOptions, streamStatistics } from "./stats-stream.ts";

const API_KEYS = "ana:a-key-of-sixteen, root:r-key-of-sixteen:stats+admin, runner:x-key-of-sixteen:execute";
let dir: string;
let statistics: Statistics;

beforeEach(() => {
  dir = temporaryFolder("stats-stream");
  statistics = new Statistics({ store: new DiskStatistics(dir) });
});

afterEach(async () => {
  await statistics.close();
});

function start(options: Partial<StatisticsStreamOptions> = {}) {
  const app = express();
  app.use(authenticate({ API_KEYS, API_KEY: "" }));
  app.get("/api/dashboard/stats/stream", requireScope("stats"), (_request, response) =>
    streamStatistics({
      statistics,
      response,
      principal: principalOf(response).id,
      visible: visibleTo(response),
      minIntervalMs: 0,
      ...options,
    }),
  );
  return serve(app);
}

function record(principal: string): void {
  statistics.record({
    type: "execution",
    principal,
    ip: "192.0.2.1",
    userAgent: "test",
    success: true,
    errorType: null,
    executionTimeMs: 5,
  });
}

interface Stream extends AsyncDisposable {
  readonly response: Response;
  /** The `totalExecutions` of the next event. */
  next(): Promise<number>;
}

async function open(origin: string, key: string): Promise<Stream> {
  const controller = new AbortController();
  const response = await fetch(`${origin}/api/dashboard/stats/stream`, {
    headers: { authorization: `Bearer ${key}` },
    signal: controller.signal,
  });
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  return {
    response,
    async next() {
      for (;;) {
        const end = text.indexOf("\n\n");
        if (end >= 0) {
          const event = text.slice(0, end);
          text = text.slice(end + 2);
          expect(event).toMatch(/^data: \{"success":true,"stats":\{/);
          return JSON.parse(event.slice("data: ".length)).stats.overview.totalExecutions;
        }
        const { value, done } = await reader.read();
        if (done) throw new Error("the stream ended");
        text += value;
      }
    },
    [Symbol.asyncDispose]: async () => controller.abort(),
  };
}

test("sends the numbers at once, and again after each change", async () => {
  await using server = await start();
  record("ana");
  await using stream = await open(server.origin, "a-key-of-sixteen");
  expect(stream.response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
  expect(await stream.next()).toBe(1);
  record("ana");
  expect(await stream.next()).toBe(2);
  await statistics.clear("ana");
  expect(await stream.next()).toBe(0);
});

test("puts many changes into one event", async () => {
  await using server = await start({ minIntervalMs: 100 });
  await using stream = await open(server.origin, "a-key-of-sixteen");
  expect(await stream.next()).toBe(0);
  for (let i = 0; i < 500; i++) record("ana");
  expect(await stream.next()).toBe(500);
});

test("sends without a change too, so that the connection is kept", async () => {
  await using server = await start({ heartbeatMs: 10 });
  await using stream = await open(server.origin, "a-key-of-sixteen");
  for (let i = 0; i < 3; i++) expect(await stream.next()).toBe(0);
});

test("shows a principal its own numbers, and an administrator everybody's", async () => {
  await using server = await start();
  record("ana");
  record("another principal");
  await using own = await open(server.origin, "a-key-of-sixteen");
  await using all = await open(server.origin, "r-key-of-sixteen");
  expect([await own.next(), await all.next()]).toEqual([1, 2]);
});

test("does not tell a principal by an event that another did something", async () => {
  await using server = await start();
  await using own = await open(server.origin, "a-key-of-sixteen");
  await using all = await open(server.origin, "r-key-of-sixteen");
  expect([await own.next(), await all.next()]).toEqual([0, 0]);
  record("another principal");
  expect(await all.next()).toBe(1);
  record("ana");
  expect(await own.next()).toBe(1);
});

test("wants the scope `stats`", async () => {
  await using server = await start();
  const replies = await Promise.all(
    ["x-key-of-sixteen", "no such key"].map((key) =>
      fetch(`${server.origin}/api/dashboard/stats/stream`, { headers: { authorization: `Bearer ${key}` } }),
    ),
  );
  expect(replies.map(({ status }) => status)).toEqual([403, 401]);
  expect(statistics.listenerCount("change")).toBe(0);
});

test("refuses more streams than it may have, and forgets those that were closed", async () => {
  await using server = await start({ maxStreams: 1 });
  {
    await using first = await open(server.origin, "a-key-of-sixteen");
    await first.next();
    await using second = await open(server.origin, "a-key-of-sixteen");
    expect(second.response.status).toBe(429);
    expect(second.response.headers.get("retry-after")).toBe("10");
  }
  await expect.poll(() => statistics.listenerCount("change")).toBe(0);
  await using third = await open(server.origin, "a-key-of-sixteen");
  expect(third.response.status).toBe(200);
});
