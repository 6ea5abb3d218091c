import { readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { COMPILED_TAG, EXTENSION_SUFFIX, extensionModule } from "../../src/packages/testing/shared-libraries.ts";
import { makeWheel } from "../../src/packages/testing/wheels.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { testConfig } from "../support/config.ts";
import { cacheFolder, openTestEnvironments } from "../support/environments.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const ALICE = { "x-api-key": "alice-key-0123456789abcdef" };
const BOB = { "x-api-key": "bob-key-0123456789abcdef000" };

/** Packages that no environment can hold: a module each. */
const UNUSABLE = {
  huge: "DATA = bytearray(100 * 2**20)",
  deadly: "import ctypes\nctypes.string_at(2**31, 1)\nctypes.memset(1, 255, 2**24)",
};

let folder: string;
let settings: Record<string, string>;
let server: TestServer;

beforeAll(async () => {
  folder = temporaryFolder("pyodide-express-wheels");
  const wheels = [
    await makeWheel({ name: "plain", version: "1.0" }),
    ...(await Promise.all(
      [1, 2].map(
        async (major) =>
          await makeWheel({
            name: "fast",
            version: `${major}.0`,
            tag: COMPILED_TAG,
            files: {
              "fast/__init__.py": "from ._fast import value\n",
              [`fast/_fast${EXTENSION_SUFFIX}`]: extensionModule({ name: "_fast", value: major }),
            },
          }),
      ),
    )),
  ];
  for (const [name, init] of Object.entries(UNUSABLE)) {
    const library = { [`${name}/_x${EXTENSION_SUFFIX}`]: extensionModule({ name: "_x" }) };
    const files = { [`${name}/__init__.py`]: init, ...library };
    wheels.push(await makeWheel({ name, version: "1.0", tag: COMPILED_TAG, files }));
  }
  for (const { filename, bytes } of wheels) await writeFile(path.join(folder, filename), bytes);
  settings = {
    DATA_DIR: testConfig().DATA_DIR,
    CACHE_DIR: await cacheFolder(),
    PYODIDE_PACKAGES: "plain",
    PACKAGE_DIR: folder,
    SANDBOX_MEMORY_MB: "96",
    API_KEYS: `alice:${ALICE["x-api-key"]},bob:${BOB["x-api-key"]}`,
  };
  server = await startTestServer(settings);
});
afterAll(async () => {
  await server?.stop(0);
  for (const place of [folder, settings.DATA_DIR as string, settings.CACHE_DIR as string]) {
    await rm(place, { recursive: true, force: true });
  }
});

// Several builds of images each.
vi.setConfig({ testTimeout: 180_000 });

type Body = Awaited<ReturnType<TestServer["post"]>>["body"];

const run = async (
  code: string,
  { headers = ALICE, session }: { headers?: typeof ALICE; session?: string } = {},
): Promise<Body> => (await server.post("/api/execute", { code, session }, headers)).body;
const install = async (requirement: string, headers = ALICE): Promise<Body> =>
  (await server.post("/api/install-package", { package: requirement }, headers)).body;
const reset = async (body: object = {}) => await server.post("/api/reset", body, ALICE);

async function newSession(): Promise<string> {
  const { body } = await server.post("/api/sessions", {}, ALICE);
  return body.session.id;
}

const USE = "import fast\nfast.value";
const MISSING = { success: false, errorInfo: { type: "ModuleNotFoundError" } };

describe("a package with compiled code", () => {
  test("that one caller installs is that caller's, while others go on", async () => {
    expect(await run(USE)).toMatchObject(MISSING);
    const installing = install("fast==1.0");
    expect(await run("1 + 1", { headers: BOB })).toMatchObject({ result: 2 });
    expect(await installing).toMatchObject({ success: true, installed: [{ name: "fast", version: "1.0" }] });
    expect(await run(`import plain\n${USE}`)).toMatchObject({ result: 1 });
    expect(await run(USE, { headers: BOB })).toMatchObject(MISSING);
    const { body } = await server.get("/api/environments", ALICE);
    expect(body.environments.map(({ name }: { name: string }) => name)).toEqual(["stdlib", "default"]);
    await reset();
    expect(await run(USE)).toMatchObject(MISSING);
  });

  test("that running code installs is there when the code is run again", async () => {
    const code = `import micropip\nawait micropip.install("fast==1.0")\n${USE}`;
    const { error } = await run(code);
    expect(error).toMatch(/^fast has compiled code, .*run this code again\.$/);
    // Where the failed installation is passed over, the import says the same.
    await reset();
    const passed = "import micropip\ntry: await micropip.install('fast==1.0')\nexcept ValueError: pass\nimport fast";
    expect((await run(passed)).error).toMatch(/the package fast is installed, .*run this code again/);
    await reset();
    expect((await run(code)).error).toMatch(/^fast has compiled code/);
    const again = await run(code);
    expect(again).toMatchObject({ error: null, success: true, result: 1 });
    // One in Python alone is not told that others have compiled code.
    const { error: other } = await run('import micropip\nawait micropip.install("plain")');
    expect(other ?? "").not.toContain("fast");
    await reset();
  });
});

test.each([
  ["huge", /^Its packages take \d+ MiB of memory .* sandboxes have 96/],
  [
    "deadly",
    /^deadly cannot be used here: in deadly, importing it ends the interpreter: memory access out of bounds\.$/,
  ],
])("one that no environment can hold (%s) is not installed, and changes nothing", async (name, reason) => {
  await install("fast==1.0");
  expect(await install(name)).toMatchObject({ success: false, error: expect.stringMatching(reason) });
  expect(await run(USE)).toMatchObject({ result: 1 });
  expect(await run(`import ${name}`)).toMatchObject(MISSING);
  await reset();
});

describe("a session", () => {
  test("without a state has what was installed since it was made", async () => {
    const session = await newSession();
    await install("fast==1.0");
    expect(await run(`x = 5\n${USE}`, { session })).toMatchObject({ result: 1 });
    // The only sandbox is given to somebody else, and the session wakes.
    await run("1", { headers: BOB });
    expect(await run("[x, fast.value]", { session })).toMatchObject({ result: [5, 1] });
    await reset();
  });

  test("with a state keeps it, says so, and has the package once it is reset", async () => {
    const session = await newSession();
    await run("x = 5", { session });
    const { error } = await run('import micropip\nawait micropip.install("fast==1.0")', { session });
    expect(error).toMatch(/^fast has compiled code, .*new sessions, and this one once it is reset\.$/);
    expect(await run("x", { session })).toMatchObject({ result: 5 });
    expect(await run(USE, { session })).toMatchObject({ success: false });
    expect(await run(USE, { session: await newSession() })).toMatchObject({ result: 1 });
    await reset({ session });
    expect(await run(USE, { session })).toMatchObject({ result: 1 });
    await reset();
  });

  test("goes on with what it began with, whatever its owner installs, and whenever the server starts", async () => {
    await install("fast==1.0");
    const session = await newSession();
    await run(`x = 5\n${USE}`, { session });
    await install("fast==2.0");
    expect(await run(USE)).toMatchObject({ result: 2 });
    expect(await run("import fast\n[x, fast.value]", { session })).toMatchObject({ result: [5, 1] });
    await reset();
    await server.stop(0);
    server = await startTestServer(settings);
    expect(await run("[x, fast.value]", { session })).toMatchObject({ result: [5, 1] });
    expect(await run(USE)).toMatchObject(MISSING);
  });

  test("whose packages are gone from cache and store is told so, and its files can be read", async () => {
    await install("fast==1.0");
    const session = await newSession();
    await run(`open("kept.txt", "w").write("kept")\n${USE}`, { session });
    await reset();
    await server.stop(5000);
    const cache = settings.CACHE_DIR as string;
    for (const name of await readdir(cache)) if (name.includes("+")) await rm(path.join(cache, name));
    server = await startTestServer(settings);
    const reply = await server.post("/api/execute", { code: "1", session }, ALICE);
    expect(reply).toMatchObject({ status: 409, body: { code: "session_environment_gone" } });
    expect((await server.get(`/api/sessions/${session}/files/kept.txt`, ALICE)).body).toBe("kept");
    await install("fast==1.0");
    expect(await run('[fast.value, open("kept.txt").read()]', { session })).toMatchObject({ result: [1, "kept"] });
  });
});

test("environments that nobody uses any more go from the cache, and are built again when they are asked for", async () => {
  const CACHE_DIR = await cacheFolder();
  await using opened = await openTestEnvironments({ PYODIDE_PACKAGES: "plain", PACKAGE_DIR: folder, CACHE_DIR });
  const { environments, store, keeper } = opened;
  await environments.prepare();
  const { set } = await store.install("alice", "fast==1.0", environments.base("default"));
  const name = await environments.derive("default", set);
  const { image, files } = environments.get(name);
  const inAMonthMs = Date.now() + 31 * 86_400_000;
  // It was used since the last sweep, and counts as used now.
  expect((await keeper.sweep(inAMonthMs)).has(image.path)).toBe(false);
  const removed = await keeper.sweep(inAMonthMs + 31 * 86_400_000);
  const shared = environments.get("default").files;
  expect(files.filter((file) => !removed.has(file))).toEqual(shared.filter((file) => files.includes(file)));
  expect(shared.filter((file) => removed.has(file))).toEqual([]);
  expect(await environments.recall(name)).toBe(false);
  // From the wheel, which is needed as long as it is installed.
  const again = await store.get("alice", environments.base("default"));
  expect(await environments.derive("default", again ?? set)).toBe(name);
  expect(environments.get(name).image).toMatchObject({ sha256: image.sha256, path: image.path });
  expect(await readdir(CACHE_DIR)).toContain(path.basename(image.path));
  await rm(CACHE_DIR, { recursive: true });
}, 120_000);
