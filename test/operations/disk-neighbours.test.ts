import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { PackageServer } from "../../src/packages/testing/package-server.ts";
import { makeWheel } from "../../src/packages/testing/wheels.ts";
import { verifySecurityLog } from "../../src/security-log/verify.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { canMount, type SmallDisk, smallDisk } from "../support/small-disk.ts";
import { until } from "../support/until.ts";

if (!canMount) console.warn("This process may not mount file systems: tests of full and read-only disks are skipped.");

const UNAVAILABLE = { status: 503, code: "store_unavailable" };
const FULL = { status: 507, code: "storage_full" };

const endings: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of endings.splice(0).reverse()) await end();
});

function disk(mib = 12): SmallDisk {
  const made = smallDisk("ext4", mib);
  endings.push(() => made.unmount());
  return made;
}

async function serverWith(settings: Record<string, string>): Promise<TestServer> {
  const server = await startTestServer(settings);
  endings.push(async () => await server.stop(0));
  return server;
}

const outcome = ({ status, body }: { status: number; body: { code?: string } }) => ({ status, code: body.code });

describe.skipIf(!canMount)("a full disk of the logs alone", () => {
  test("code runs, its line waits in memory, and is in the log when there is room again", async () => {
    const logs = disk(4);
    const server = await serverWith({ LOG_DIR: `${logs.path}/logs` });
    await server.post("/api/execute", { code: "'before'" });
    logs.fill();
    // More than what is left of the file's last block.
    for (let i = 0; i < 20; i++) {
      expect(await server.post("/api/execute", { code: `${i}` })).toMatchObject({ status: 200, body: { result: i } });
    }
    const { status, body } = await server.get("/ready");
    expect({ status, ready: body.ready, state: body.status }).toEqual({ status: 200, ready: true, state: "degraded" });
    expect(body.reasons).toEqual([expect.stringMatching(/^The security log cannot be written: .*(full|ENOSPC)/)]);
    expect(JSON.stringify(body)).not.toContain(logs.path);
    logs.unfill();
    await until(async () => (await server.get("/ready")).body.status === undefined);
    expect(await readSecurityLog(server.config)).toHaveLength(21);
    expect(await verifySecurityLog(server.config.LOG_DIR)).toMatchObject({ ok: true });
  });

  test("with AUDIT_REQUIRED what ran without a line is answered 503, and nothing runs after it until there is room", async () => {
    const logs = disk(4);
    const server = await serverWith({ LOG_DIR: `${logs.path}/logs`, AUDIT_REQUIRED: "true" });
    logs.fill();
    const AUDIT = { status: 503, code: "audit_unavailable" };
    let ran = 0;
    await until(async () => {
      const { status, body } = await server.post("/api/execute", { code: "open('ran', 'a').write('x')" });
      if (status === 200) ran++;
      else expect(outcome({ status, body })).toEqual(AUDIT);
      return status !== 200;
    });
    const written = (await server.get("/api/files/ran")).body;
    expect(written.length).toBe(ran + 1);
    expect(outcome(await server.post("/api/execute", { code: "open('ran', 'a').write('x')" }))).toEqual(AUDIT);
    expect((await server.get("/api/files/ran")).body).toBe(written);
    logs.unfill();
    await until(async () => (await server.post("/api/execute", { code: "1" })).status === 200);
    // The one that ran without a line has its line now.
    const lines = (await readSecurityLog(server.config)) as { event: string }[];
    expect(lines.filter(({ event }) => event === "code_execution")).toHaveLength(ran + 2);
    expect(await verifySecurityLog(server.config.LOG_DIR)).toMatchObject({ ok: true });
  });
});

describe.skipIf(!canMount)("a full disk of the logs, and many at a time", () => {
  test("with AUDIT_REQUIRED each reply of a write that failed is 503, and each 200 has its line", async () => {
    const logs = disk(4);
    const server = await serverWith({ LOG_DIR: `${logs.path}/logs`, AUDIT_REQUIRED: "true", POOL_SIZE: "4" });
    logs.fill();
    let answered = 0;
    let refused = 0;
    await until(async () => {
      const replies = await Promise.all(Array.from({ length: 12 }, () => server.post("/api/execute", { code: "1" })));
      for (const { status, body } of replies) {
        if (status === 200) answered++;
        else expect(outcome({ status, body })).toEqual({ status: 503, code: "audit_unavailable" });
        if (status !== 200) refused++;
      }
      const lines = (await readSecurityLog(server.config)) as { event: string }[];
      expect(lines.filter(({ event }) => event === "code_execution").length).toBeGreaterThanOrEqual(answered);
      return refused > 0;
    });
    logs.unfill();
    await until(async () => (await server.post("/api/execute", { code: "1" })).status === 200);
    expect(await verifySecurityLog(server.config.LOG_DIR)).toMatchObject({ ok: true });
  });
});

describe.skipIf(!canMount)("a disk that becomes read-only under a server", () => {
  test("is read from, refuses the rest as unavailable, and has lost nothing when it is repaired", async () => {
    const data = disk(32);
    const settings = {
      DATA_DIR: `${data.path}/data`,
      UPLOAD_DIR: `${data.path}/uploads`,
      LOG_DIR: `${data.path}/logs`,
    };
    let server = await startTestServer(settings);
    endings.push(async () => await server.stop(0));
    const run = (code: string, more: object = {}) => server.post("/api/execute", { code, ...more });
    const { id } = (await server.post("/api/sessions", {})).body.session;
    await run("x = 1", { session: id });
    await server.put("/api/files/kept.txt", "kept");
    data.break();
    expect((await run("1 + 1")).body).toMatchObject({ success: true, result: 2 });
    expect((await run("open('kept.txt').read()")).body).toMatchObject({ success: true, result: "kept" });
    const wrote = await run("open('new', 'w').write('new')");
    expect(outcome(wrote)).toEqual(UNAVAILABLE);
    expect(wrote.body).toMatchObject({ success: false, result: 3, errorInfo: { type: "WorkspaceError" } });
    const inSession = await run("x += 1; x", { session: id });
    expect(outcome(inSession)).toEqual(UNAVAILABLE);
    expect(inSession.body).toMatchObject({ result: 2, session: { restored: true } });
    for (const refused of [
      await server.put("/api/files/new.txt", "new"),
      await server.delete("/api/files/kept.txt"),
      await server.post("/api/clear-all-files", {}),
      await server.upload("table.csv", "a,b\n1,2\n"),
      await server.post("/api/sessions", {}),
      await server.delete(`/api/sessions/${id}`),
    ]) {
      expect(outcome(refused)).toEqual(UNAVAILABLE);
      expect(JSON.stringify(refused.body)).not.toContain(data.path);
    }
    expect((await server.get("/api/files")).body.files).toHaveLength(1);
    expect((await server.get("/api/dashboard/stats")).status).toBe(200);
    expect((await server.get("/ready")).body).toMatchObject({ ready: true, status: "degraded" });
    await server.stop(0);
    data.repair();
    server = await startTestServer(settings);
    expect((await run("x += 1; x", { session: id })).body.result).toBe(2);
    expect((await server.upload("table.csv", "a,b\n1,2\n")).status).toBe(200);
    expect((await server.delete("/api/files/kept.txt")).status).toBe(200);
    expect((await server.get("/ready")).body.status).toBe(undefined);
    expect(await verifySecurityLog(server.config.LOG_DIR)).toMatchObject({ ok: true });
  });
});

describe.skipIf(!canMount)("uploads", () => {
  test("to a folder whose disk is full or read-only are refused, and are taken again", async () => {
    const uploads = disk(4);
    uploads.fill();
    const server = await serverWith({ UPLOAD_DIR: `${uploads.path}/uploads` });
    const table = `a,b\n${"1,2\n".repeat(10_000)}`;
    expect(outcome(await server.upload("table.csv", table))).toEqual(FULL);
    uploads.unfill();
    expect((await server.upload("table.csv", table)).status).toBe(200);
    uploads.readOnly(true);
    expect(outcome(await server.upload("table.csv", table))).toEqual(UNAVAILABLE);
    uploads.readOnly(false);
    expect((await server.upload("table.csv", table)).status).toBe(200);
  });

  test("to a folder that cannot be made are no start, with the reason", async () => {
    const uploads = disk(4);
    uploads.readOnly(true);
    const folder = `${uploads.path}/uploads`;
    await expect(startTestServer({ UPLOAD_DIR: folder })).rejects.toMatchObject({
      name: "StartupError",
      message: expect.stringMatching(/uploads cannot be used: .* may not write there/),
    });
    await expect(startTestServer({ LOG_DIR: `${uploads.path}/logs` })).rejects.toMatchObject({
      name: "StartupError",
      message: expect.stringMatching(/logs cannot be used: .* may not write there/),
    });
  });
});

describe.skipIf(!canMount)("packages and statistics", () => {
  let index: PackageServer;
  beforeAll(async () => {
    index = await PackageServer.start();
    for (const name of ["first", "second"]) {
      index.add(
        await makeWheel({
          name,
          version: "1",
          files: { [`${name}.py`]: `big = ${JSON.stringify("x".repeat(200_000))}` },
        }),
      );
    }
  });
  afterAll(async () => await index.close());

  test("on a full disk: packages that are there go on, none is added, and nothing is counted wrong", async () => {
    const data = disk(16);
    const server = await serverWith({ DATA_DIR: `${data.path}/data`, PACKAGE_INDEX_URL: index.indexUrl });
    const install = async (name: string) => (await server.post("/api/install-package", { package: name })).body;
    expect(await install("first")).toMatchObject({ success: true });
    const counted = async () => (await server.get("/api/dashboard/stats")).body.stats.overview.totalExecutions;
    expect((await server.post("/api/execute", { code: "import first; len(first.big)" })).body.result).toBe(200_000);
    expect(await counted()).toBe(1);
    data.fill();
    const refused = await install("second");
    expect(refused).toMatchObject({ success: false, code: "package_storage" });
    expect(JSON.stringify(refused)).toContain("disk is full");
    expect(JSON.stringify(refused)).not.toContain(data.path);
    for (let i = 0; i < 30; i++) {
      expect((await server.post("/api/execute", { code: "import first; len(first.big)" })).body.result).toBe(200_000);
    }
    expect((await server.get("/api/dashboard/stats")).status).toBe(200);
    data.unfill();
    await until(async () => (await counted()) === 31);
    expect(await install("second")).toMatchObject({ success: true });
    expect((await server.post("/api/execute", { code: "import second; len(second.big)" })).body.result).toBe(200_000);
  });
});
