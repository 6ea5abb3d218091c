import { afterEach, describe, expect, test } from "vitest";
import { createClient } from "../support/client.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

describe("a server whose sandboxes are not shared", () => {
  const KEYS = { alice: "a".repeat(20), bob: "b".repeat(20), carol: "c".repeat(20) };
  let server: TestServer | undefined;
  afterEach(async () => await server?.stop(0));

  async function start(settings: Record<string, string> = {}) {
    const started = await startTestServer({ SANDBOX_SHARING: "principal", POOL_SIZE: "2", ...settings });
    server = started;
    const tenants = new Map<number, Set<string>>();
    const { pool } = started.executor;
    const use = pool.use.bind(pool);
    pool.use = async (options, work) =>
      await use(options, async (sandbox, checkout) => {
        tenants.set(sandbox.pid, (tenants.get(sandbox.pid) ?? new Set()).add(options.principal));
        return await work(sandbox, checkout);
      });
    const as = (name: keyof typeof KEYS) => createClient(started.url, { "x-api-key": KEYS[name] });
    return { server: started, tenants, as };
  }

  const keyed = {
    API_KEYS: Object.entries(KEYS)
      .map(([name, key]) => `${name}:${key}`)
      .join(","),
  };

  test("gives each process to one principal, in and out of sessions, and health checks are nobody's", {
    timeout: 60_000,
  }, async () => {
    const { tenants, as } = await start(keyed);
    const sessions = new Map<string, string>();
    for (const name of ["alice", "bob", "carol"] as const) {
      sessions.set(name, (await as(name).post("/api/sessions", {})).body.session.id);
    }
    for (let round = 1; round <= 4; round++) {
      const replies = (["alice", "bob", "carol"] as const).map(async (name) => {
        const session = sessions.get(name) as string;
        const code = `n = globals().get('n', 0) + 1; ['${name}', n]`;
        expect((await as(name).post("/api/execute", { code, session })).body.result).toEqual([name, round]);
        expect((await as(name).post("/api/execute", { code })).body.result).toEqual([name, 1]);
      });
      await Promise.all(replies);
    }
    expect((await as("alice").get("/api/health")).status).toBe(200);
    expect(tenants.size).toBeGreaterThan(2);
    for (const principals of tenants.values()) expect([...principals]).toHaveLength(1);
  });

  test("without keys all who call are one principal, and share", async () => {
    const { server, tenants } = await start();
    for (let i = 0; i < 6; i++) expect((await server.post("/api/execute", { code: "1 + 1" })).body.result).toBe(2);
    expect(tenants.size).toBe(1);
    await until(async () => server.executor.pool.status().idle === 3);
    expect(server.executor.pool.status()).toMatchObject({ size: 2, started: 3 });
  });
});
