import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { DiskSessions } from "../../src/sessions/disk-store.ts";
import { sharesOf } from "../../src/sessions/shares.ts";
import { steadyClock, steadyNowMs } from "../../src/shared/steady-clock.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { createClient } from "../support/client.ts";
import { hasRedis, startRedis } from "../support/redis.ts";
import { startServerProcess } from "../support/server-process.ts";

const SRC = fileURLToPath(new URL("../../src", import.meta.url));
const LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
const hasFaketime = existsSync(LIBRARY);
if (!hasFaketime) console.warn("There is no libfaketime on this machine: tests of steps of its clock are skipped.");

const HOUR_MS = 3_600_000;
const endings: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

function folder(): string {
  const dir = temporaryFolder("clock-steps");
  endings.push(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** A server whose machine's clock can be set; the monotonic one goes on. */
async function serverWithClock(settings: Record<string, string>) {
  const dir = folder();
  const offset = path.join(dir, "offset");
  const setClock = (hours: number) => writeFileSync(offset, `${hours < 0 ? "-" : "+"}${Math.abs(hours)}h`);
  setClock(0);
  const server = await startServerProcess(path.join(dir, "data"), {
    LD_PRELOAD: LIBRARY,
    FAKETIME_TIMESTAMP_FILE: offset,
    FAKETIME_NO_CACHE: "1",
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
    FAKETIME_SKIP_CMDS: "bwrap,deno,setpriv,prlimit",
    POOL_SIZE: "1",
    LOG_LEVEL: "info",
    ...settings,
  });
  endings.push(async () => await server.kill());
  return { ...createClient(server.url), setClock };
}

describe.skipIf(!hasFaketime).each([["on disk"], ...(hasRedis ? [["in Redis"]] : [])])(
  "steps of the clock by hours, sessions %s",
  (where) => {
    test("end no session, break no lease, and make nothing negative", { timeout: 120_000 }, async () => {
      const settings: Record<string, string> = {};
      if (where === "in Redis") {
        const redis = await startRedis();
        endings.push(async () => await redis.stop());
        settings.REDIS_URL = redis.url;
        settings.SESSION_LEASE_MS = "1500";
      }
      const server = await serverWithClock(settings);
      const run = (session: string, code: string) => server.post("/api/execute", { code, session });
      const { id } = (await server.post("/api/sessions", { ttl: 3600 })).body.session;
      expect((await run(id, "x = 0; x")).body.result).toBe(0);
      let runs = 1;
      for (const hours of [5, -5, 30, 0]) {
        // In the middle of an execution that outlasts the lease's renewals.
        const running = run(id, "import time; time.sleep(2); x += 1; x");
        await new Promise((resolve) => setTimeout(resolve, 500));
        server.setClock(hours);
        const date = Date.parse((await server.get("/ready")).body.timestamp);
        expect(Math.abs(date - Date.now() - hours * HOUR_MS)).toBeLessThan(60_000);
        expect((await running).body).toMatchObject({ success: true, result: runs });
        const { status, body } = await server.get(`/api/sessions/${id}`);
        expect(status).toBe(200);
        // What is shown agrees with the clock that was set.
        expect(Date.parse(body.session.expiresAt) - date).toBeGreaterThan(0.9 * HOUR_MS);
        expect(Date.parse(body.session.expiresAt) - date).toBeLessThan(1.1 * HOUR_MS);
        expect((await server.get("/api/sessions")).body.sessions).toHaveLength(1);
        const { overview, hourlyTrend, recent } =
          (await server.get("/api/stats/overview")).body.stats ?? (await server.get("/api/dashboard/stats")).body.stats;
        expect(overview.uptimeSeconds).toBeGreaterThanOrEqual(0);
        expect(overview.uptimeSeconds).toBeLessThan(600);
        expect(overview.averageExecutionTime).toBeGreaterThanOrEqual(0);
        expect(recent.lastHourExecutions).toBe(++runs);
        expect(Math.min(...hourlyTrend)).toBe(0);
      }
    });
  },
);

test("sessions on disk are moved by a step, so that a server that is started anew ends none", async () => {
  const directory = folder();
  const open = () => DiskSessions.open({ directory, shares: sharesOf(2 ** 30, 1) });
  const store = await open();
  const now = steadyNowMs();
  const counts = { createdAtMs: now, lastUsedAtMs: now, ttlMs: HOUR_MS, revision: 0, executions: 0, reseed: true };
  await store.create(
    { id: "s", principal: "alice", environment: "stdlib", ...counts, head: null, previous: null, checkpoints: [] },
    10,
  );
  const lasting = { ...counts, ttlMs: 30 * HOUR_MS };
  const endsAtMs = now + 20 * HOUR_MS;
  await store.create(
    {
      id: "fixed",
      principal: "alice",
      environment: "stdlib",
      ...lasting,
      endsAtMs,
      head: null,
      previous: null,
      checkpoints: [],
    },
    10,
  );
  for (const stepMs of [5 * HOUR_MS, -5 * HOUR_MS]) {
    const before = (await store.get("s"))?.lastUsedAtMs as number;
    await store.followClock(stepMs);
    expect(steadyNowMs() - Date.now()).toBeCloseTo(Math.max(stepMs, 0), -3);
    expect((await store.get("s"))?.lastUsedAtMs).toBeCloseTo(before + stepMs, -1);
    expect(await store.list("alice")).toHaveLength(2);
    expect((await store.get("fixed"))?.endsAtMs).toBeCloseTo(endsAtMs + Math.max(stepMs, 0), -1);
    expect(await store.ended(steadyNowMs())).toEqual([]);
    expect(await store.ended(steadyNowMs() + HOUR_MS + 1)).toEqual([{ id: "s" }]);
    expect(await store.ended(steadyNowMs() + 20 * HOUR_MS + 1)).toHaveLength(2);
  }
  expect(steadyClock.stepMs()).toBeCloseTo(0, -3);
  await store.close();
});

test("no duration and no deadline is told by the clock that can be set", () => {
  // Times that are stored with files, shown, or signed for another machine; cache-collector compares with times of files, days ago.
  const allowed: Record<string, number> = {
    "sessions/states.ts": 1,
    "security-log/security-log.ts": 1,
    "environments/cache-collector.ts": 1,
    "workspaces/redis-storage.ts": 2,
    "workspaces/addressed-changes.ts": 1,
    "workspaces/workspaces.ts": 4,
    "workspaces/own-files.ts": 1,
    // E2B's signatures have the end that the client's clock says.
    "protocols/e2b/address.ts": 1,
    "protocols/e2b/descriptions.ts": 1,
    "protocols/e2b/filesystem.ts": 2,
    "protocols/jupyter/contents.ts": 1,
    "protocols/jupyter/live-kernel.ts": 2,
    "workspaces/disk-storage.ts": 1,
    "shared/steady-clock.ts": 2,
    "tools/webhook.ts": 1,
  };
  const found: Record<string, number> = {};
  for (const entry of readdirSync(SRC, { recursive: true, encoding: "utf8" })) {
    if (!entry.endsWith(".ts") || entry.endsWith(".test.ts") || entry.startsWith("guest/")) continue;
    const code = readFileSync(path.join(SRC, entry), "utf8").replace(/^\s*(\/\/|\*|\/\*).*$/gm, "");
    const uses = code.match(/\bDate\.now\b/g)?.length ?? 0;
    if (uses > 0) found[entry] = uses;
  }
  expect(found).toEqual(allowed);
});
