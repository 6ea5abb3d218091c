import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { hasRedis, startRedis, type TestRedis } from "../../test/support/redis.ts";
import { RedisConnection } from "../shared/redis-connection.ts";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { parseArchive } from "../wire/archive-format.ts";
import { HttpFetcher } from "./fetcher.ts";
import { DiskPackageRecords, type PackageRecords } from "./package-records.ts";
import { PackageSetBuilder } from "./package-set.ts";
import { type BaseEnvironment, PackageStore } from "./package-store.ts";
import { RedisPackageRecords } from "./redis-package-records.ts";
import { loadPyodideLock } from "./sources/pyodide-lock.ts";
import { createPackageSources } from "./sources/sources.ts";
import { PackageServer, serveBytes } from "./testing/package-server.ts";
import { makeWheel, type WheelRecipe } from "./testing/wheels.ts";
import { WheelStore } from "./wheel-store.ts";

const lock = await loadPyodideLock();
const STDLIB: BaseEnvironment = { name: "stdlib", packages: [] };
let server: PackageServer;
let remote: HttpFetcher;
let data: string;

beforeEach(async () => {
  server = await PackageServer.start();
  remote = new HttpFetcher({ retryDelayMs: 1 });
  data = temporaryFolder();
});

afterEach(async () => {
  await remote.close();
  await server.close();
});

interface StartOptions {
  readonly PACKAGE_INDEX_URL?: string;
  readonly PACKAGE_DIR?: string;
  readonly folder?: string;
  readonly records?: PackageRecords;
}

/** As a server that just started on `folder`. */
async function start({
  PACKAGE_INDEX_URL = server.indexUrl,
  PACKAGE_DIR = "",
  folder = data,
  records = new DiskPackageRecords(path.join(folder, "packages", "principals")),
}: StartOptions = {}): Promise<PackageStore> {
  const wheels = new WheelStore(path.join(folder, "packages"), remote);
  const settings = { PACKAGE_DIR, PYODIDE_INDEX_URL: temporaryFolder(), PACKAGE_INDEX_URL };
  return new PackageStore({
    records,
    sources: await createPackageSources(settings, { lock, remote, store: wheels }),
    python: lock.python,
    wheels,
    sets: new PackageSetBuilder(path.join(folder, "cache"), { store: wheels, lock }),
  });
}

async function offer(...recipes: readonly WheelRecipe[]) {
  for (const recipe of recipes) server.add(await makeWheel(recipe));
}

const names = (packages: readonly { name: string; version: string }[]) =>
  packages.map(({ name, version }) => `${name} ${version}`);
const failing = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

test("a package and what it needs are downloaded, archived, listed, and there after a restart", async () => {
  await offer(
    { name: "Top-Level", version: "1.0", requires: ["helper>=1", "nt-only; os_name == 'nt'"], license: "MIT" },
    { name: "helper", version: "1.5" },
  );
  const store = await start();
  const { added, set, warnings } = await store.install("alice", "top-level", STDLIB);
  expect(names(added)).toEqual(["helper 1.5", "Top-Level 1.0"]);
  expect(warnings).toEqual([]);
  expect(set.packages[1]).toMatchObject({
    name: "Top-Level",
    source: expect.stringMatching(/^index 127\.0\.0\.1:\d+$/),
    license: "MIT",
    compiled: false,
    lockStatus: "not-listed",
    imports: ["Top_Level"],
    dependsOn: ["helper"],
  });
  const archive = parseArchive(await readFile(set.archive.path));
  expect(archive.entries.map((entry) => entry.path)).toContain("site-packages/helper.py");
  expect(archive.entries).toHaveLength(set.archive.files);

  await server.close();
  const restarted = await start({ PACKAGE_INDEX_URL: "http://127.0.0.1:1/simple" });
  expect(names(await restarted.list("alice", STDLIB))).toEqual(["helper 1.5", "Top-Level 1.0"]);
  expect((await restarted.list("alice", STDLIB)).map(({ requested }) => requested)).toEqual([false, true]);
  expect(await restarted.get("alice", STDLIB)).toEqual(set);
  server = await PackageServer.start();
});

test("principals and environments have nothing of each other", async () => {
  await offer({ name: "demo", version: "1" });
  const store = await start();
  await store.install("alice", "demo", STDLIB);
  expect(await store.get("bob", STDLIB)).toBeNull();
  expect(await store.list("alice", { name: "default", packages: [] })).toEqual([]);
  expect(await store.get("alice", { name: "default", packages: [] })).toBeNull();
});

test("equal sets of two principals share one archive", async () => {
  await offer({ name: "demo", version: "1" });
  const store = await start();
  const [a, b] = await Promise.all([store.install("alice", "demo", STDLIB), store.install("bob", "demo", STDLIB)]);
  expect(a.set.archive).toEqual(b.set.archive);
  expect((await readdir(path.join(data, "cache"))).filter((file) => file.endsWith(".pkgs"))).toHaveLength(1);
});

test("installs of one principal at the same time are all kept", async () => {
  const letters = ["a", "b", "c", "d", "e"];
  await offer(...letters.map((name) => ({ name, version: "1" })));
  const store = await start();
  await Promise.all(letters.map(async (name) => await store.install("alice", name, STDLIB)));
  expect(names((await store.get("alice", STDLIB))?.packages ?? [])).toEqual(letters.map((name) => `${name} 1`));
});

describe("versions", () => {
  test("what is there and fits stays; naming another version replaces it", async () => {
    await offer({ name: "demo", version: "1" });
    const store = await start();
    await store.install("alice", "demo", STDLIB);
    await offer({ name: "demo", version: "2" });
    expect((await store.install("alice", "demo", STDLIB)).added).toEqual([]);
    const fresh = await start();
    expect(names((await fresh.install("alice", "demo==2", STDLIB)).added)).toEqual(["demo 2"]);
    expect(names(await fresh.list("alice", STDLIB))).toEqual(["demo 2"]);
  });

  test("a dependency that is no longer needed goes", async () => {
    await offer(
      { name: "demo", version: "1", requires: ["old"] },
      { name: "old", version: "1" },
      { name: "demo", version: "2" },
    );
    const store = await start();
    await store.install("alice", "demo==1", STDLIB);
    expect(names(await store.list("alice", STDLIB))).toEqual(["demo 1", "old 1"]);
    await store.install("alice", "demo==2", STDLIB);
    expect(names(await store.list("alice", STDLIB))).toEqual(["demo 2"]);
  });

  test("what the environment has is used, and never replaced", async () => {
    await offer(
      { name: "demo", version: "1", requires: ["numpy>=2"] },
      { name: "new", version: "1", requires: ["numpy>=99"] },
    );
    const base = { name: "default", packages: [{ name: "numpy", version: "2.4.3" }] };
    const store = await start();
    expect(names((await store.install("alice", "demo", base)).set.packages)).toEqual(["demo 1"]);
    await expect(store.install("alice", "new", base)).rejects.toThrow(
      failing("package_conflict", /new 1 needs "numpy>=99", but this environment has numpy 2\.4\.3/),
    );
  });
});

describe("removing", () => {
  test("takes what was there only for the package", async () => {
    await offer(
      { name: "a", version: "1", requires: ["shared", "mine"] },
      { name: "b", version: "1", requires: ["shared"] },
      { name: "shared", version: "1" },
      { name: "mine", version: "1" },
    );
    const store = await start();
    await store.install("alice", "a", STDLIB);
    await store.install("alice", "b", STDLIB);
    await expect(store.remove("alice", "shared", STDLIB)).rejects.toThrow(failing("package_in_use", /a needs it/));
    expect(await store.remove("alice", "A", STDLIB)).toEqual(["a", "mine"]);
    expect(await store.remove("alice", "a", STDLIB)).toEqual([]);
    expect(names((await store.get("alice", STDLIB))?.packages ?? [])).toEqual(["b 1", "shared 1"]);
  });

  test("clearing takes everything", async () => {
    await offer({ name: "a", version: "1" });
    const store = await start();
    await store.install("alice", "a", STDLIB);
    expect(await store.get("alice", STDLIB)).not.toBeNull();
    await store.clear("alice", STDLIB.name);
    expect(await store.get("alice", STDLIB)).toBeNull();
    expect(await store.list("alice", STDLIB)).toEqual([]);
  });
});

describe("an install that fails leaves everything as it was", () => {
  const cases: Record<string, { arrange: () => Promise<void>; code: string; message: RegExp }> = {
    "a dependency that no source has": {
      arrange: async () => await offer({ name: "bad", version: "1", requires: ["nowhere>=2"] }),
      code: "package_not_found",
      message:
        /^"bad" cannot be installed: bad 1 needs "nowhere>=2", but no source has this package \(asked: .*index 127/,
    },
    "a wrong hash": {
      arrange: async () =>
        server.add(await makeWheel({ name: "bad", version: "1" }), (file) => ({
          ...file,
          hashes: { sha256: "0".repeat(64) },
        })),
      code: "package_damaged",
      message: /its SHA-256 is/,
    },
    "a wheel with an entry that climbs out": {
      arrange: async () => await offer({ name: "bad", version: "1", unlisted: [{ name: "../../evil.py", data: "" }] }),
      code: "package_damaged",
      message: /relative path/,
    },
    "a zip bomb": {
      arrange: async () => await offer({ name: "bad", version: "1", files: { bomb: Buffer.alloc(32 * 1024 * 1024) } }),
      code: "package_damaged",
      message: /zip bomb/,
    },
    "a wheel that is gone": {
      arrange: async () => {
        const wheel = await makeWheel({ name: "bad", version: "1" });
        server.add(wheel);
        server.on(`/files/${wheel.filename}`, (_request, response) => response.writeHead(404).end());
      },
      code: "package_not_found",
      message: /is gone/,
    },
    "a truncated wheel whose hash is right": {
      arrange: async () => {
        const wheel = await makeWheel({ name: "bad", version: "1" });
        const bytes = wheel.bytes.subarray(0, wheel.bytes.length - 30);
        const { createHash } = await import("node:crypto");
        server.add(wheel, (file) => ({
          ...file,
          hashes: { sha256: createHash("sha256").update(bytes).digest("hex") },
        }));
        server.on(`/files/${wheel.filename}`, serveBytes(Buffer.from(bytes)));
      },
      code: "package_damaged",
      message: /truncated/,
    },
    "an index that answers with a web page": {
      arrange: async () =>
        server.on("/simple/bad/", (_request, response) => {
          response.writeHead(200, { "content-type": "text/html" }).end("<html>");
        }),
      code: "package_not_found",
      message: /answered with a web page/,
    },
    "only wheels for other platforms": {
      arrange: async () => await offer({ name: "bad", version: "1", tag: "cp314-cp314-manylinux_2_28_x86_64" }),
      code: "package_not_found",
      message: /all there is are wheels for other platforms \(manylinux\)/,
    },
  };

  test.each(Object.entries(cases))("%s", async (_what, { arrange, code, message }) => {
    await offer({ name: "good", version: "1" });
    const store = await start();
    await store.install("alice", "good", STDLIB);
    const before = await store.get("alice", STDLIB);
    await arrange();
    await expect(store.install("alice", "bad", STDLIB)).rejects.toThrow(failing(code, message));
    expect(await store.get("alice", STDLIB)).toEqual(before);
    const cache = await readdir(path.join(data, "cache"));
    expect(cache.filter((file) => file.endsWith(".tmp"))).toEqual([]);
    expect(cache).toHaveLength(2);
  });
});

describe("the cache", () => {
  test("is rebuilt, byte for byte, when it is gone or damaged", async () => {
    await offer({ name: "demo", version: "1", requires: ["other"] }, { name: "other", version: "1" });
    const { set } = await (await start()).install("alice", "demo", STDLIB);
    const bytes = await readFile(set.archive.path);
    await rm(path.join(data, "cache"), { recursive: true });
    expect(await (await start()).get("alice", STDLIB)).toEqual(set);
    expect(bytes.equals(await readFile(set.archive.path))).toBe(true);
    const damaged = Buffer.from(bytes);
    damaged[damaged.length - 1] = (damaged.at(-1) as number) ^ 1;
    await writeFile(set.archive.path, damaged);
    expect(await (await start()).get("alice", STDLIB)).toEqual(set);
    expect(bytes.equals(await readFile(set.archive.path))).toBe(true);
  });

  test("and the wheels are fetched again, if a source still has the same ones", async () => {
    await offer({ name: "demo", version: "1" });
    const { set } = await (await start()).install("alice", "demo", STDLIB);
    await rm(path.join(data, "cache"), { recursive: true });
    await rm(path.join(data, "packages", `${set.packages[0]?.sha256}.whl`));
    expect(await (await start()).get("alice", STDLIB)).toEqual(set);
    await rm(path.join(data, "cache"), { recursive: true });
    await rm(path.join(data, "packages", `${set.packages[0]?.sha256}.whl`));
    const cutOff = await start({ PACKAGE_INDEX_URL: "" });
    await expect(cutOff.get("alice", STDLIB)).rejects.toThrow(
      failing("package_not_found", /which is installed, is gone/),
    );
  });
});

test("a folder comes before the index", async () => {
  await offer({ name: "demo", version: "2" });
  const PACKAGE_DIR = temporaryFolder();
  const local = await makeWheel({ name: "demo", version: "1" });
  await writeFile(path.join(PACKAGE_DIR, local.filename), local.bytes);
  const { set } = await (await start({ PACKAGE_DIR })).install("alice", "demo", STDLIB);
  expect(names(set.packages)).toEqual(["demo 1"]);
  expect(set.packages[0]?.source).toBe("the package folder");
  expect(server.requests).toEqual([]);
});

describe.skipIf(!hasRedis)("two servers that share Redis", () => {
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

  const startOn = (folder: string, settings: StartOptions = {}) =>
    start({ ...settings, folder, records: new RedisPackageRecords(connection) });

  test("derive the same set, each with files it fetched itself", async () => {
    await offer({ name: "demo", version: "1", requires: ["other"] }, { name: "other", version: "1" });
    const [a, b] = [await startOn(temporaryFolder()), await startOn(temporaryFolder())];
    const { set } = await a.install("derive", "demo", STDLIB);
    // What a newer version would change must not differ between servers.
    await offer({ name: "other", version: "2" });
    const other = await b.get("derive", STDLIB);
    expect(other?.packages).toEqual(set.packages);
    expect(other?.archive.sha256).toBe(set.archive.sha256);
    expect(other?.archive.path).not.toBe(set.archive.path);
    await b.clear("derive", STDLIB.name);
    expect(await a.get("derive", STDLIB)).toBeNull();
  });

  test("keep what both install at once", async () => {
    const letters = ["a", "b", "c", "d"];
    await offer(...letters.map((name) => ({ name, version: "1" })));
    const stores = [await startOn(temporaryFolder()), await startOn(temporaryFolder())];
    await Promise.all(letters.map(async (name, i) => await stores[i % 2]?.install("both", name, STDLIB)));
    for (const store of stores) {
      expect(names((await store.get("both", STDLIB))?.packages ?? [])).toEqual(letters.map((name) => `${name} 1`));
    }
  });

  test("say so where one cannot have the files", async () => {
    await offer({ name: "demo", version: "1" });
    await (await startOn(temporaryFolder())).install("cannot", "demo", STDLIB);
    const cutOff = await startOn(temporaryFolder(), { PACKAGE_INDEX_URL: "" });
    await expect(cutOff.get("cannot", STDLIB)).rejects.toThrow(
      failing("package_not_found", /^demo-1-.*, which is installed, is gone: neither this server nor a source/),
    );
    // Another file under the same name is not what was installed.
    const PACKAGE_DIR = temporaryFolder();
    const forged = await makeWheel({ name: "demo", version: "1", files: { "demo.py": "forged = True" } });
    await writeFile(path.join(PACKAGE_DIR, forged.filename), forged.bytes);
    const misled = await startOn(temporaryFolder(), { PACKAGE_INDEX_URL: "", PACKAGE_DIR });
    await expect(misled.get("cannot", STDLIB)).rejects.toThrow(failing("package_damaged", /demo/));
  });
});
