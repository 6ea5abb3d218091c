import { execFile, spawn } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import path from "node:path";
import { promisify } from "node:util";
import { pino } from "pino";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { startServer } from "../../src/compose/server.ts";
import { PackageServer } from "../../src/packages/testing/package-server.ts";
import { type MadeWheel, makeWheel } from "../../src/packages/testing/wheels.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { createClient } from "../support/client.ts";
import { TEST_CACHE_DIR, testConfig } from "../support/config.ts";
import { commandOf, descendantsOf } from "../support/processes.ts";

/** A server from the moment it listens: what it answers while environments are being built, and without a network. */
const run = promisify(execFile);
const CLI = path.resolve("src/cli/main.ts");

interface LogLine {
  readonly level: number;
  readonly msg: string;
}
const WARN = 40;

const stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

async function listen(settings: Record<string, string>) {
  const config = testConfig(settings);
  const lines: LogLine[] = [];
  const logger = pino({ level: "info" }, { write: (line: string) => lines.push(JSON.parse(line)) });
  const server = await startServer(config, logger);
  stops.push(async () => await server.stop(0));
  return { server, config, ...createClient(server.url), warnings: () => lines.filter(({ level }) => level === WARN) };
}

/** Accepts connections and never says anything. */
async function startSilent(): Promise<{ origin: string; connections: () => number; server: Server }> {
  let connections = 0;
  const server = createServer((socket) => {
    connections++;
    socket.on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  stops.push(async () => {
    server.close();
  });
  const { port } = server.address() as { port: number };
  return { origin: `http://127.0.0.1:${port}`, connections: () => connections, server };
}

describe("while an environment is being built", () => {
  let index: PackageServer;
  let tiny: MadeWheel;
  let release: () => void;
  let asked: Promise<void>;
  let folder: string;
  beforeAll(async () => {
    index = await PackageServer.start();
    tiny = await makeWheel({ name: "tiny", version: "1.0", files: { "tiny/__init__.py": "VALUE = 7\n" } });
    index.add(tiny);
    folder = temporaryFolder("starting");
  });
  afterAll(async () => {
    await index?.close();
  });

  /** The index answers when `release` is called. @returns a server that waits for it. */
  async function listenHeld(name: string, settings: Record<string, string> = {}) {
    const held = await PackageServer.start();
    stops.push(async () => await held.close());
    const { promise, resolve } = Promise.withResolvers<void>();
    const isAsked = Promise.withResolvers<void>();
    release = resolve;
    asked = isAsked.promise;
    held.on("/simple/tiny/", async (_request, response) => {
      isAsked.resolve();
      await promise;
      const { filename, sha256 } = tiny;
      const file = { filename, url: `${index.origin}/files/${filename}`, hashes: { sha256 } };
      response.writeHead(200, { "content-type": "application/vnd.pypi.simple.v1+json" });
      response.end(JSON.stringify({ meta: { "api-version": "1.1" }, name: "tiny", files: [file] }));
    });
    return await listen({
      DATA_DIR: path.join(folder, name),
      CACHE_DIR: TEST_CACHE_DIR,
      PYODIDE_PACKAGES: "tiny",
      PACKAGE_INDEX_URL: `${held.origin}/simple/`,
      ...settings,
    });
  }

  async function untilStdlibRuns(post: ReturnType<typeof createClient>["post"]) {
    await expect
      .poll(async () => (await post("/api/execute", { code: "1 + 1", environment: "stdlib" })).body.result, {
        timeout: 60_000,
      })
      .toBe(2);
  }

  test("the standard library's is served, and the other is 503 `starting`", async () => {
    const { server, get, post } = await listenHeld("served");
    await untilStdlibRuns(post);
    await asked;

    const refused = await post("/api/execute", { code: "1 + 1" });
    expect(refused).toMatchObject({ status: 503, body: { success: false, code: "starting" } });
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await post("/api/execute", { code: "1 + 1", environment: "default" })).toMatchObject({ status: 503 });
    expect(await post("/api/sessions", {})).toMatchObject({ status: 503, body: { code: "starting" } });
    expect(await post("/api/install-package", { package: "tiny" })).toMatchObject({
      status: 503,
      body: { code: "starting" },
    });
    expect(await post("/api/execute", { code: "1", environment: "nowhere" })).toMatchObject({ status: 400 });

    const session = await post("/api/sessions", { environment: "stdlib" });
    expect(session.status).toBe(201);
    const { id } = session.body.session;
    expect((await post("/api/execute", { code: "x = 5; x", session: id })).body).toMatchObject({ result: 5 });

    expect(await get("/health")).toMatchObject({ status: 200, body: { status: "ok", pyodide: { isReady: false } } });
    expect((await get("/api/status")).body).toMatchObject({ isReady: false, defaultEnvironment: "default" });
    expect((await get("/api/health")).status).toBe(503);
    const ready = await get("/ready");
    expect(ready.status).toBe(503);
    expect(Number(ready.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(ready.body).toMatchObject({
      ready: false,
      code: "starting",
      step: "environments",
      environments: [
        { name: "stdlib", state: "ready" },
        { name: "default", state: "building", step: "packages", seconds: expect.any(Number) },
      ],
    });
    expect((await get("/api/environments")).body.environments).toMatchObject([{ name: "stdlib" }]);

    release();
    await server.ready;
    expect(await get("/ready")).toMatchObject({ status: 200, body: { ready: true } });
    expect((await post("/api/execute", { code: "import tiny; tiny.VALUE" })).body).toMatchObject({ result: 7 });
    expect((await post("/api/execute", { code: "x + 1", session: id })).body).toMatchObject({ result: 6 });
    expect((await get("/api/health")).status).toBe(200);
  });

  test("files are kept and given out, and a table is taken although it cannot be looked at", async () => {
    const { get, upload } = await listenHeld("files");
    await asked;
    const uploaded = await upload("table.csv", "a,b\n1,2\n");
    expect(uploaded).toMatchObject({ status: 200, body: { success: true, analysis: { success: false } } });
    expect(uploaded.body.analysis.error).toContain("starting");
    expect(await get("/api/uploaded-files")).toMatchObject({ status: 200, body: { count: 1 } });
    release();
  });

  test("a session of it is 503, keeps its state, and goes on", async () => {
    const settings = {
      PACKAGE_INDEX_URL: index.indexUrl,
      DATA_DIR: path.join(folder, "session"),
      PYODIDE_PACKAGES: "tiny",
    };
    const first = await listen(settings);
    await first.server.ready;
    const { id } = (await first.post("/api/sessions", {})).body.session;
    await first.post("/api/execute", { code: "import tiny; kept = tiny.VALUE", session: id });
    await first.server.stop(0);
    // Another address of the index, so that what was built before does not count.
    const second = await listenHeld("session");
    await untilStdlibRuns(second.post);
    expect(await second.post("/api/execute", { code: "kept", session: id })).toMatchObject({
      status: 503,
      body: { code: "starting" },
    });
    expect((await second.get(`/api/sessions/${id}`)).status).toBe(200);
    release();
    await second.server.ready;
    expect((await second.post("/api/execute", { code: "kept", session: id })).body).toMatchObject({ result: 7 });
  });

  test("what callers installed in it is forgotten when they ask for it", async () => {
    const data = path.join(folder, "reset");
    const settings = { PACKAGE_INDEX_URL: index.indexUrl, DATA_DIR: data, PYODIDE_PACKAGES: "none", PACKAGE_DIR: "" };
    const file = path.join(folder, "reset.json");
    writeFileSync(file, JSON.stringify({ other: { packages: ["tiny"] } }));
    index.add(await makeWheel({ name: "small", version: "1.0", files: { "small.py": "VALUE = 8\n" } }));
    const first = await listen({ ...settings, ENVIRONMENTS_FILE: file });
    await first.server.ready;
    const installed = await first.post("/api/install-package", { package: "small", environment: "other" });
    expect(installed.body).toMatchObject({ success: true });
    await first.server.stop(0);
    const second = await listenHeld("reset", { PYODIDE_PACKAGES: "none", ENVIRONMENTS_FILE: file });
    // The default environment is the standard library's here.
    await expect
      .poll(async () => (await second.post("/api/execute", { code: "3" })).body.result, { timeout: 60_000 })
      .toBe(3);
    await asked;
    expect(await second.post("/api/execute", { code: "3", environment: "other" })).toMatchObject({ status: 503 });
    expect((await second.post("/api/reset", {})).status).toBe(200);
    release();
    await second.server.ready;
    const code = "import importlib.util as u\nu.find_spec('small') is None";
    expect((await second.post("/api/execute", { code, environment: "other" })).body).toMatchObject({ result: true });
  });

  test("the server stops at once, and leaves no process", async () => {
    const { server, post } = await listenHeld("stopped");
    await untilStdlibRuns(post);
    await asked;
    await server.stop(0);
    await expect(server.ready).rejects.toThrow();
    expect(sandboxes()).toEqual([]);
  });
});

/** Processes of Deno below this one. */
function sandboxes(): string[] {
  return descendantsOf(process.pid)
    .map(commandOf)
    .filter((command) => command.includes("deno"));
}

test("before any image is built it listens, says how far it is, and what cannot be served is 503", async () => {
  const cache = temporaryFolder("starting-cache");
  stops.push(async () => rmSync(cache, { recursive: true, force: true }));
  const { server, get, post } = await listen({ CACHE_DIR: cache });
  expect(await get("/health")).toMatchObject({ status: 200, body: { status: "ok" } });
  const environments = [{ name: "stdlib", state: "building", step: "image" }];
  expect(await get("/ready")).toMatchObject({ status: 503, body: { ready: false, code: "starting", environments } });
  const refused = await post("/api/execute", { code: "1 + 1" });
  expect(refused).toMatchObject({ status: 503, body: { code: "starting" } });
  expect(refused.headers.get("retry-after")).toMatch(/^\d+$/);
  expect((await fetch(`${server.url}/`)).status).toBe(200);
  await server.ready;
  expect((await post("/api/execute", { code: "1 + 1" })).body).toMatchObject({ result: 2 });
}, 240_000);

test("a start that fails in the background is told with its reason", async () => {
  const silent = await startSilent();
  silent.server.close();
  const { server } = await listen({
    PYODIDE_PACKAGES: "tiny",
    PACKAGE_INDEX_URL: `${silent.origin}/simple/`,
    ENVIRONMENT_STRICT: "true",
  });
  await expect(server.ready).rejects.toThrow(/"default" cannot be built: .*cannot be reached/);
});

describe("sources that cannot be asked are named in one warning", () => {
  const PACKAGES = "numpy,pandas,matplotlib,requests,seaborn";
  const expectOne = (warnings: readonly LogLine[], sources: readonly string[]) => {
    const about = warnings.filter(({ msg }) => /goes without|could not be asked/.test(msg));
    expect(about).toHaveLength(1);
    for (const source of sources) expect(about[0]?.msg.split(source)).toHaveLength(2);
    for (const name of PACKAGES.split(",")) expect(about[0]?.msg).toContain(name);
    return about[0]?.msg ?? "";
  };

  test("one that accepts connections and says nothing, for all environments together", async () => {
    const silent = await startSilent();
    const file = path.join(testConfig().DATA_DIR, "environments.json");
    writeFileSync(file, JSON.stringify({ plots: { packages: ["pillow", "contourpy"] } }));
    const startedAt = performance.now();
    const { server, get, post, warnings } = await listen({
      PYODIDE_PACKAGES: PACKAGES,
      PACKAGE_INDEX_URL: `${silent.origin}/simple/`,
      ENVIRONMENTS_FILE: file,
    });
    await server.ready;
    // Each package that waits for the source in turn would take 10 s more.
    expect(performance.now() - startedAt).toBeLessThan(40_000);
    const message = expectOne(warnings(), [`${new URL(silent.origin).host} does not answer`]);
    expect(message).toContain('"plots" goes without pillow, contourpy');
    expect(message).toContain("PACKAGE_DIR");
    expect((await post("/api/execute", { code: "1 + 1" })).body).toMatchObject({ result: 2 });
    const { environments } = (await get("/api/environments")).body;
    const { warnings: told } = environments.find(({ name }: { name: string }) => name === "default");
    expect(told).toHaveLength(1);
    expect(told[0]).toContain("goes without numpy, pandas, matplotlib, requests, seaborn: ");
  });

  test("those at addresses that nothing listens on, or that have no address", async () => {
    const closed = await startSilent();
    await new Promise((resolve) => closed.server.close(resolve));
    const { server, warnings } = await listen({
      PYODIDE_PACKAGES: PACKAGES,
      PYODIDE_INDEX_URL: `${closed.origin}/mirror/`,
      PACKAGE_INDEX_URL: "https://no-such-host.invalid/simple/",
    });
    await server.ready;
    expectOne(warnings(), [`${new URL(closed.origin).host} cannot be reached`, "no-such-host.invalid "]);
  });

  test("files on another host than their index", async () => {
    const silent = await startSilent();
    const index = await PackageServer.start();
    stops.push(async () => await index.close());
    const names = ["one", "two", "three"];
    for (const name of names) {
      const file = { filename: `${name}-1.0-py3-none-any.whl`, url: `${silent.origin}/${name}-1.0-py3-none-any.whl` };
      const page = { meta: { "api-version": "1.0" }, name, files: [{ ...file, hashes: { sha256: "0".repeat(64) } }] };
      index.on(`/simple/${name}/`, (_request, response) => {
        response.writeHead(200, { "content-type": "application/vnd.pypi.simple.v1+json" }).end(JSON.stringify(page));
      });
    }
    const { server, warnings } = await listen({ PYODIDE_PACKAGES: names.join(","), PACKAGE_INDEX_URL: index.indexUrl });
    await server.ready;
    const about = warnings().filter(({ msg }) => msg.includes("goes without"));
    expect(about).toHaveLength(1);
    expect(about[0]?.msg).toContain("goes without one, two, three");
  });

  test("a package that no source has is told of by itself, with its own reason", async () => {
    const silent = await startSilent();
    await new Promise((resolve) => silent.server.close(resolve));
    const index = await PackageServer.start();
    stops.push(async () => await index.close());
    index.add(await makeWheel({ name: "tiny", version: "1.0", files: { "tiny.py": "" } }));
    const { server, warnings } = await listen({
      PYODIDE_PACKAGES: "tiny>=2,absent",
      PYODIDE_INDEX_URL: `${silent.origin}/mirror/`,
      PACKAGE_INDEX_URL: index.indexUrl,
    });
    await server.ready;
    const about = warnings().map(({ msg }) => msg);
    expect(about.filter((msg) => msg.includes("there is 1.0, but >=2 is needed"))).toHaveLength(1);
    expect(about.filter((msg) => msg.includes("could not be asked"))).toEqual([
      expect.stringContaining('"default" goes without absent.'),
    ]);
  });
});

describe("a network namespace without any interface", async () => {
  const canUnshare = await run("unshare", ["-rn", "true"]).then(
    () => true,
    () => false,
  );
  const settings = (dataDir: string) => ({
    PATH: process.env.PATH,
    DATA_DIR: dataDir,
    CACHE_DIR: TEST_CACHE_DIR,
    LOG_DIR: path.join(dataDir, "logs"),
    PORT: "0",
    POOL_SIZE: "1",
  });
  let folder: string;
  beforeAll(() => {
    folder = temporaryFolder("namespace");
  });

  test.skipIf(!canUnshare)("`run` works with the default settings, and warns once", async () => {
    const child = spawn("unshare", ["-rn", process.execPath, CLI, "run", "-"], { env: settings(folder) });
    child.stdin.end("print(6 * 7)");
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk) => {
      stdout += chunk;
    });
    child.stderr.on("data", (chunk) => {
      stderr += chunk;
    });
    const code = await new Promise((resolve) => child.once("close", resolve));
    expect({ code, stdout }).toEqual({ code: 0, stdout: "42\n" });
    const warned = stderr.split("\n").filter((line) => line.includes('"level":"warn"'));
    expect(warned).toHaveLength(1);
    expect(warned[0]).toMatch(/cdn\.jsdelivr\.net cannot.* goes without numpy, pandas,/);
  });

  test.skipIf(!canUnshare)("the server is ready with the default settings", async () => {
    const script = `
      const { spawn } = await import("node:child_process");
      const server = spawn(process.execPath, [${JSON.stringify(CLI)}, "serve"], { stdio: ["ignore", "pipe", "inherit"] });
      let said = "";
      for await (const chunk of server.stdout) {
        said += chunk;
        if (said.includes("Ready on")) break;
      }
      const url = /Ready on (http:[^"\\s]+)/.exec(said)?.[1];
      const ready = (await fetch(url + "/ready")).status;
      const headers = { "content-type": "application/json" };
      const run = async (code) => {
        const reply = await fetch(url + "/api/execute", { method: "POST", headers, body: JSON.stringify({ code }) });
        return await reply.json();
      };
      const { result } = await run("1 + 1");
      const errors = [];
      for (const code of ["import numpy", "import scipy", "import micropip; await micropip.install('numpy')"])
        errors.push((await run(code)).error);
      server.kill();
      console.log(JSON.stringify({ ready, result, errors, warnings: said.split("\\n").filter((line) => line.includes('"level":"warn"')).length }));
    `;
    const command = `ip link set lo up && exec ${process.execPath} --input-type=module -e "$SCRIPT"`;
    const env = { ...settings(folder), SCRIPT: script };
    const { stdout } = await run("unshare", ["-rn", "sh", "-c", command], { env });
    // The other warning is that there are no keys.
    expect(JSON.parse(stdout)).toEqual({
      ready: 200,
      result: 2,
      warnings: 2,
      errors: [
        expect.stringMatching(
          /^No module named 'numpy': the environment "default" goes without: .*cdn\.jsdelivr\.net cannot/,
        ),
        expect.stringMatching(
          /^No module named 'scipy': .*if sources answer again: when the server started, cdn\.jsdelivr\.net/,
        ),
        expect.stringMatching(/^"numpy" cannot be installed: cdn\.jsdelivr\.net cannot/),
      ],
    });
  });
});
