import { rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  COMPILED_TAG,
  EXTENSION_SUFFIX,
  extensionModule,
  sharedLibrary,
} from "../../src/packages/testing/shared-libraries.ts";
import { makeWheel } from "../../src/packages/testing/wheels.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { testConfig } from "../support/config.ts";
import { cacheFolder } from "../support/environments.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const ALICE = { "x-api-key": "alice-key-0123456789abcdef" };
const BOB = { "x-api-key": "bob-key-0123456789abcdef000" };

/**
 * A package whose library traps in every boot from a time on, but not while it is built and tried out: the image's builder and
 * whoever tries the result see a library like any other.
 */
async function trap(name: string, fromS: number) {
  const library = sharedLibrary(`(module
    (import "env" "memory" (memory 1))
    (import "env" "__memory_base" (global $base i32))
    (import "env" "time" (func $time (param i32) (result i64)))
    (func (export "__wasm_call_ctors")
      (if (i64.gt_s (call $time (i32.const 0)) (i64.const ${fromS})) (then (unreachable)))))`);
  return await makeWheel({
    name,
    version: "1.0",
    tag: COMPILED_TAG,
    files: {
      [`${name}/__init__.py`]: `from ._${name} import value\n`,
      [`${name}/_${name}${EXTENSION_SUFFIX}`]: extensionModule({
        name: `_${name}`,
        value: 7,
        needed: ["libclock.so"],
        runtimePaths: [`$ORIGIN/../${name}.libs`],
      }),
      [`${name}.libs/libclock.so`]: library,
    },
  });
}

let folder: string;
let settings: Record<string, string>;
let server: TestServer;

async function put(name: string, fromS: number): Promise<void> {
  const { filename, bytes } = await trap(name, fromS);
  await writeFile(path.join(folder, filename), bytes);
}

beforeAll(async () => {
  folder = temporaryFolder("pyodide-express-wheels");
  await put("plain", 2 ** 40);
  settings = {
    DATA_DIR: testConfig().DATA_DIR,
    CACHE_DIR: await cacheFolder(),
    PACKAGE_DIR: folder,
    POOL_SIZE: "2",
    API_KEYS: `alice:${ALICE["x-api-key"]},bob:${BOB["x-api-key"]},root:root-key-0123456789abcdef0:admin+execute`,
  };
  server = await startTestServer(settings);
}, 120_000);
afterAll(async () => {
  await server?.stop(0);
  for (const place of [folder, settings.DATA_DIR as string, settings.CACHE_DIR as string]) {
    await rm(place, { recursive: true, force: true });
  }
});

test("whose library traps in every boot costs its owner's requests, and nobody else's", {
  timeout: 400_000,
}, async () => {
  const run = async (headers: typeof ALICE, code = "6 * 7", body: object = {}) =>
    await server.post("/api/execute", { code, ...body }, headers);
  const install = (name: string) => server.post("/api/install-package", { package: name }, ALICE);
  // How long this machine takes for one of this kind.
  const beganAt = Date.now();
  expect((await install("plain")).body).toMatchObject({ success: true });
  expect((await run(ALICE, "import plain; plain.value")).body).toMatchObject({ result: 7 });
  await server.post("/api/reset", {}, ALICE);
  const trapsFromMs = Date.now() + 3 * (Date.now() - beganAt) + 5000;
  await put("trap", Math.floor(trapsFromMs / 1000));
  expect((await install("trap")).body).toMatchObject({ success: true });
  expect((await run(ALICE, "import trap; trap.value")).body).toMatchObject({ result: 7 });
  const { session } = (await server.post("/api/sessions", {}, ALICE)).body as { session: { id: string } };
  expect((await run(ALICE, "x = 1", { session: session.id })).body).toMatchObject({ success: true });
  expect(Date.now(), "the machine is too slow for this test").toBeLessThan(trapsFromMs);
  await until(() => Date.now() > trapsFromMs + 2000);

  const { pool } = server.executor;
  for (const sandbox of pool.sandboxes()) process.kill(sandbox.pid, "SIGKILL");
  await until(() => pool.status().idle === 2 && pool.status().started >= 4);
  // Alice asks, and asks again, in both ways; Bob meanwhile is served.
  const startedAt = performance.now();
  const asked = Promise.all([run(ALICE), run(ALICE, "1"), run(ALICE, "x", { session: session.id }), run(ALICE, "2")]);
  for (let round = 0; round < 20; round++) {
    expect((await run(BOB)).body).toMatchObject({ success: true, result: 42 });
    expect((await server.get("/ready")).status).toBe(200);
  }
  for (const { status, body, headers } of await asked) {
    expect(status).toBe(503);
    expect(body).toMatchObject({ success: false, code: "environment_broken" });
    expect(body.error).toMatch(/^The environment "stdlib\+[0-9a-f]{16}" cannot be started: /);
    expect(body.error).toContain("cannot be loaded");
    expect(body.error).not.toMatch(/\/(work|home|tmp|usr|srv)\//);
    expect(Number(headers.get("retry-after"))).toBeGreaterThan(0);
  }
  // From now on at once.
  const before = pool.status().started;
  const refusedAt = performance.now();
  expect((await run(ALICE)).status).toBe(503);
  expect(performance.now() - refusedAt).toBeLessThan(1000 + (refusedAt - startedAt));
  expect(pool.status().started).toBe(before);
  // What she does not need it for still works.
  expect((await run(BOB)).body).toMatchObject({ result: 42 });
  await until(() => pool.status().idle === 2);
  expect(pool.sandboxes()).toHaveLength(2);
  const files = await server.get(`/api/sessions/${session.id}/files`, ALICE);
  expect(files.status).toBe(200);

  // Those who may know are told.
  const problemOf = async (headers: typeof ALICE) =>
    (await server.get("/api/environments", headers)).body as unknown as {
      environments: { name: string; problem: string | null }[];
    };
  expect((await problemOf(ALICE)).environments).toMatchObject([
    { name: "stdlib", problem: expect.stringContaining("cannot be loaded") },
  ]);
  expect((await problemOf(BOB)).environments).toMatchObject([{ name: "stdlib", problem: null }]);
  const asRoot = await server.get("/api/status", { "x-api-key": "root-key-0123456789abcdef0" });
  expect(asRoot.body).toMatchObject({ pool: { broken: [{ reason: expect.stringContaining("cannot be loaded") }] } });
  const health = await server.get("/health");
  expect(health.body).toMatchObject({ pyodide: { isReady: true, brokenEnvironments: [] } });
  expect(JSON.stringify(health.body)).not.toContain("cannot be loaded");

  // She takes it away, and is served again.
  await server.post("/api/reset", {}, ALICE);
  expect((await run(ALICE)).body).toMatchObject({ success: true, result: 42 });
});
