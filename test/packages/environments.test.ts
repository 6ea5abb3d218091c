import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadDefinitions } from "../../src/environments/definitions.ts";
import { PackageServer } from "../../src/packages/testing/package-server.ts";
import { type MadeWheel, makeWheel, type WheelRecipe } from "../../src/packages/testing/wheels.ts";
import { StartupError } from "../../src/shared/errors.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { TEST_CACHE_DIR, testConfig } from "../support/config.ts";
import { py, startTestEngine } from "../support/engine.ts";
import { cacheFolder, openTestEnvironments } from "../support/environments.ts";
import { startTestSandbox } from "../support/sandbox.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const CLI = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));

const RECIPES = {
  good: { name: "good", version: "1.0", license: "MIT" },
  good2: { name: "good", version: "2.0", license: "MIT" },
  user: {
    name: "good-user",
    version: "1.0",
    requires: ["good<2"],
    files: { "good_user.py": "import good\nV = good.VERSION" },
  },
  broken: { name: "broken", version: "1.0", files: { "broken.py": 'raise RuntimeError("broken on purpose")' } },
  deadly: { name: "deadly", version: "1.0", files: { "deadly.py": "import ctypes\nctypes.memset(1, 255, 2**24)" } },
  exiting: { name: "exiting", version: "1.0", files: { "exiting.py": "raise SystemExit(3)" } },
  // The name counts: this package has an alias.
  seaborn: { name: "seaborn", version: "0.13", files: { "seaborn/__init__.py": "V = 13", "seaborn/data.txt": "data" } },
  orphan: { name: "orphan", version: "1.0", requires: ["nowhere-to-be-found"] },
  chicken: { name: "chicken", version: "1.0", requires: ["egg"], files: { "chicken.py": "import egg" } },
  egg: { name: "egg", version: "1.0", requires: ["chicken"], files: { "egg.py": "" } },
  wrongAbi: { name: "wrong-abi", version: "1.0", tag: "cp39-cp39-manylinux_2_17_x86_64" },
  wrongPython: { name: "wrong-python", version: "1.0", requiresPython: "<3" },
  truncated: { name: "truncated", version: "1.0" },
  wrongHash: { name: "wrong-hash", version: "1.0" },
  changed: {
    name: "changed",
    version: "1.0",
    record: (record: string) => record.replace(/sha256=..../, "sha256=AAAA"),
  },
} satisfies Record<string, WheelRecipe>;

let wheels: Record<keyof typeof RECIPES, MadeWheel>;
let folder: string;
let index: PackageServer;

beforeAll(async () => {
  const made = Object.entries(RECIPES).map(async ([key, recipe]) => [key, await makeWheel(recipe)] as const);
  wheels = Object.fromEntries(await Promise.all(made)) as typeof wheels;
  folder = temporaryFolder("pyodide-express-wheels");
  index = await PackageServer.start();
  for (const [key, wheel] of Object.entries(wheels)) {
    const bytes = key === "truncated" ? wheel.bytes.subarray(0, wheel.bytes.length / 2) : wheel.bytes;
    await writeFile(path.join(folder, wheel.filename), bytes);
    index.add(wheel, (file) => (key === "wrongHash" ? { ...file, hashes: { sha256: "0".repeat(64) } } : file));
    if (key === "truncated") index.on(`/files/${wheel.filename}`, (_request, response) => response.end(bytes));
  }
});
afterAll(async () => {
  await index?.close();
  await rm(folder, { recursive: true, force: true });
});

async function definitionsFile(content: string | object): Promise<string> {
  const file = path.join(await mkdtemp(path.join(folder, "definitions-")), "environments.json");
  await writeFile(file, typeof content === "string" ? content : JSON.stringify(content));
  return file;
}

describe("a server with environments", () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startTestServer({
      PYODIDE_PACKAGES: "good-user,seaborn,broken,nowhere-to-be-found",
      PACKAGE_DIR: folder,
      PACKAGE_INDEX_URL: index.indexUrl,
      ENVIRONMENTS_FILE: await definitionsFile({
        newest: { packages: ["good"], imports: [] },
        bare: { packages: [] },
        cycle: { packages: ["chicken"] },
      }),
    });
  });
  afterAll(async () => await server?.stop(0));

  const value = async (code: string, environment?: string) => {
    const { body } = await server.post("/api/execute", { code, environment });
    expect(body.error ?? null).toBe(null);
    return body.result;
  };

  test("lists them, with what is in each and where it came from", async () => {
    const { body } = await server.get("/api/environments");
    expect(body.default).toBe("default");
    const byName = Object.fromEntries(body.environments.map((item: { name: string }) => [item.name, item]));
    expect(Object.keys(byName)).toEqual(["stdlib", "default", "newest", "bare", "cycle"]);
    expect(
      byName.default.packages.map(({ name, version }: { name: string; version: string }) => [name, version]),
    ).toEqual([
      ["broken", "1.0"],
      ["good", "1.0"],
      ["good-user", "1.0"],
      ["seaborn", "0.13"],
    ]);
    expect(byName.default.packages[1]).toMatchObject({
      license: "MIT",
      sha256: wheels.good.sha256,
      source: "the package folder",
      lockStatus: "not-listed",
      compiled: false,
    });
    for (const { imageBytes, builtAt, pythonVersion } of body.environments) {
      expect(imageBytes).toBeGreaterThan(1_000_000);
      expect([builtAt, pythonVersion]).toEqual([
        expect.stringMatching(/^\d{4}-.*Z$/),
        expect.stringMatching(/^3\.\d+\./),
      ]);
    }
  });

  test("warns of a package that cannot be had, and of one that cannot be imported, by name", async () => {
    const { body } = await server.get("/api/environments");
    const { warnings } = body.environments[1];
    expect(warnings).toEqual([
      expect.stringMatching(/^The environment "default" goes without nowhere-to-be-found: /),
      'In the environment "default" broken cannot be imported: RuntimeError: broken on purpose',
    ]);
  });

  test("has packages imported before code begins, and under their usual names", async () => {
    const code =
      'import sys\n[sns.V, seaborn.V, "good_user" in sys.modules, "good" in sys.modules, "broken" in sys.modules]';
    expect(await value(code)).toEqual([13, 13, true, true, false]);
    expect(await value("import good_user, good\n[good_user.V, good.VERSION]")).toEqual(["1.0", "1.0"]);
  });

  test("runs code in the one that is asked for", async () => {
    const code = 'import sys\n["good" in sys.modules, __import__("good").VERSION, "sns" in globals()]';
    expect(await value(code, "newest")).toEqual([false, "2.0", false]);
    expect(await value("import chicken, egg\nchicken.egg is egg", "cycle")).toBe(true);
    for (const name of ["stdlib", "bare"]) {
      const { body } = await server.post("/api/execute", { code: "import good", environment: name });
      expect(body.errorInfo.type).toBe("ModuleNotFoundError");
    }
  });

  test("says what there is when asked for another", async () => {
    const error = 'Unknown environment "nope". Available: stdlib, default, newest, bare, cycle.';
    for (const reply of [
      await server.post("/api/execute", { code: "1", environment: "nope" }),
      await server.post("/api/install-package", { package: "good", environment: "nope" }),
      await server.get("/api/packages?environment=nope"),
    ]) {
      expect(reply).toMatchObject({ status: 400, body: { success: false, error } });
    }
  });

  test("what others made by installing has no name that can be asked for", async () => {
    for (const reply of [
      await server.post("/api/execute", { code: "1", environment: "default+0123456789abcdef" }),
      await server.post("/api/sessions", { environment: "default+0123456789abcdef" }),
      await server.post("/api/install-package", { package: "good", environment: "default+0123456789abcdef" }),
      await server.get("/api/packages?environment=default%2B0123456789abcdef"),
    ]) {
      expect(reply).toMatchObject({ status: 400, body: { error: "Invalid environment name." } });
    }
  });

  test("nothing in it can be changed by user code", async () => {
    const code = py`
      import os, seaborn
      folder = os.path.dirname(seaborn.__file__)
      def attempt(what):
          try:
              what()
              return "done"
          except OSError as error:
              return type(error).__name__
      tries = [lambda: open(folder + "/data.txt", "w"), lambda: open(folder + "/new.py", "w"), lambda: os.remove(folder + "/data.txt"),
               lambda: os.chmod(folder, 0o777), lambda: os.rename(folder, "/tmp/x"), lambda: os.mkdir(folder + "/d"),
               lambda: os.symlink("/tmp", folder + "/link"), lambda: os.truncate(folder + "/data.txt", 0)]
      [[attempt(what) for what in tries], open(folder + "/data.txt").read()]`;
    const [outcomes, content] = await value(code);
    expect(content).toBe("data");
    expect(outcomes).not.toContain("done");
  });

  test("a patch of a package is gone with its execution", async () => {
    await value('seaborn.V = "patched"\nimport good\ngood.VERSION = "patched"\n1');
    expect(await value("import good\n[seaborn.V, good.VERSION]")).toEqual([13, "1.0"]);
  });
});

describe("definitions", () => {
  const load = async (content: string | object, packages = "none") =>
    await loadDefinitions(
      testConfig({ ENVIRONMENTS_FILE: await definitionsFile(content), PYODIDE_PACKAGES: packages }),
    );

  test("of the file come after, or in the place of, the default", async () => {
    expect(await load({ default: { packages: ["a"] }, x: { packages: ["b"], imports: ["c"] } }, "z")).toEqual([
      { name: "default", packages: ["a"] },
      { name: "x", packages: ["b"], imports: ["c"] },
    ]);
  });

  test.each([
    ["text that is no JSON", "{", "cannot be read as JSON"],
    ["a list", [], "expected record"],
    ["the built-in name", { stdlib: { packages: [] } }, '"stdlib" is built in'],
    ["a name of strange characters", { "../x": { packages: [] } }, "a name has lower-case letters"],
    ["a name as derived ones have", { "a+b": { packages: [] } }, "a name has lower-case letters"],
    ["no packages", { x: {} }, "packages"],
    ["a misspelt key", { x: { packages: [], import: [] } }, "import"],
  ])("%s stops the start, saying why", async (_what, content, message) => {
    await expect(load(content)).rejects.toThrow(StartupError);
    await expect(load(content)).rejects.toThrow(message);
  });

  test("a file that is not there", async () => {
    const config = testConfig({ ENVIRONMENTS_FILE: "/nowhere.json" });
    await expect(loadDefinitions(config)).rejects.toThrow(/ENVIRONMENTS_FILE: .*ENOENT/);
  });
});

describe("a package that cannot be had is a warning that says why, and the rest is there", () => {
  const fromFolder = () => ({ PACKAGE_DIR: folder });
  const fromIndex = () => ({ PACKAGE_INDEX_URL: index.indexUrl });
  const fromMirror = (path: string) => () => ({ PACKAGE_DIR: folder, PYODIDE_INDEX_URL: `${index.origin}${path}` });

  beforeAll(() => {
    index.on("/broken/pyodide-lock.json", (_request, response) => response.end("{not json"));
    index.on("/html/pyodide-lock.json", (_request, response) => {
      response.writeHead(200, { "content-type": "text/html" }).end("<h1>Please log in</h1>");
    });
    index.on("/failing/pyodide-lock.json", (_request, response) => response.writeHead(500).end());
    index.on("/lost/pyodide-lock.json", (_request, response) => response.writeHead(404).end());
  });

  test.each<[what: string, wanted: string, settings: () => Record<string, string>, reason: RegExp]>([
    ["in no source", "nowhere-to-be-found", fromIndex, /nowhere-to-be-found/],
    ["in no version that was asked for", "good>=3", fromIndex, /good.*(1\.0|2\.0)/],
    ["for another ABI", "wrong-abi", fromFolder, /wheels for other platforms \(manylinux\)/],
    ["for another Python", "wrong-python", fromIndex, /wrong-python.*<3/],
    ["cut off, in a folder", "truncated", fromFolder, /truncated/],
    ["cut off, on an index", "truncated", fromIndex, /truncated/],
    ["of another hash than the index says", "wrong-hash", fromIndex, /wrong-hash|wrong_hash/],
    ["whose files are not what RECORD says", "changed", fromFolder, /changed/],
    ["that needs what is nowhere", "orphan", fromIndex, /nowhere-to-be-found.*orphan|orphan.*nowhere-to-be-found/],
    ["no requirement at all", "not a requirement!", fromIndex, /not a requirement!/],
    ["on a mirror whose lock file is no JSON", "six", fromMirror("/broken/"), /six|lock file/],
    ["on a mirror that sends a web page", "six", fromMirror("/html/"), /web page/],
    ["on a mirror that fails", "six", fromMirror("/failing/"), /500/],
    ["on a mirror that has the file no more", "six", fromMirror("/lost/"), /404|six/],
  ])(
    "%s",
    async (_what, wanted, settings, reason) => {
      await using opened = await openTestEnvironments({ PYODIDE_PACKAGES: `good==1.0,${wanted}`, ...settings() });
      await opened.environments.prepare();
      expect(opened.warnings).toEqual([expect.stringMatching(reason)]);
      expect(opened.warnings[0]).toContain(wanted);
      expect(opened.warnings[0]).not.toContain(folder);
      expect(opened.environments.get("default").packages.map(({ filename }) => filename)).toEqual([
        wheels.good.filename,
      ]);
    },
    120_000,
  );

  test("one that needs what is damaged, saying which file, who needs it, and what other sources have of it", async () => {
    const own = temporaryFolder("pyodide-express-wheels");
    try {
      const damaged = await makeWheel({
        name: "part",
        version: "2.0",
        record: (text) => text.replace(/sha256=..../, "sha256=AAAA"),
      });
      const whole = await makeWheel({ name: "whole", version: "1.0", requires: ["part>=2,<3"] });
      const other = await makeWheel({ name: "part", version: "1.5" });
      for (const { filename, bytes } of [damaged, whole]) await writeFile(path.join(own, filename), bytes);
      const local = await PackageServer.start();
      try {
        local.add(other);
        await using opened = await openTestEnvironments({
          PYODIDE_PACKAGES: "whole",
          PACKAGE_DIR: own,
          PACKAGE_INDEX_URL: local.indexUrl,
        });
        await opened.environments.prepare();
        expect(opened.warnings).toEqual([
          expect.stringMatching(
            /^The environment "default" goes without whole: whole 1.0 needs part>=2,<3; part 2.0 \(part-2.0-py3-none-any.whl, from the package folder\) cannot be used: .*; index [\w.:]+ has part 1.5\.$/,
          ),
        ]);
        expect(opened.environments.get("default").missing).toEqual({ whole: expect.stringMatching(/needs part/) });
      } finally {
        await local.close();
      }
    } finally {
      await rm(own, { recursive: true });
    }
  }, 120_000);

  test("with ENVIRONMENT_STRICT it is an error", async () => {
    const settings = { PYODIDE_PACKAGES: "good==1.0,orphan", PACKAGE_DIR: folder, ENVIRONMENT_STRICT: "true" };
    await using opened = await openTestEnvironments(settings);
    const prepared = opened.environments.prepare();
    await expect(prepared).rejects.toThrow(StartupError);
    await expect(prepared).rejects.toThrow(/"default" cannot be built: .*nowhere-to-be-found/);
  });

  test("a package whose import ends the interpreter is left out of the image, and the rest is in it", async () => {
    const PYODIDE_PACKAGES = "good==1.0,deadly,exiting,seaborn,good-user";
    await using opened = await openTestEnvironments({ PYODIDE_PACKAGES, PACKAGE_DIR: folder });
    await opened.environments.prepare();
    expect(opened.warnings).toEqual([
      'In the environment "default" exiting cannot be imported: SystemExit: 3',
      'The image of the environment "default" goes without deadly: importing it ends the interpreter: memory access out of bounds',
    ]);
    const { guest, packages } = opened.environments.get("default");
    expect([guest?.imports, packages.length]).toEqual([["deadly", "exiting", "good", "good_user", "seaborn"], 5]);
  }, 180_000);

  test("if there is none at all, code runs on the standard library", async () => {
    await using opened = await openTestEnvironments({ PYODIDE_PACKAGES: "nowhere-to-be-found", PACKAGE_DIR: folder });
    await opened.environments.prepare();
    expect([opened.environments.defaultName, opened.environments.get("default").packages]).toEqual(["stdlib", []]);
  });
});

test("the same packages give the same archive and the same image, wherever they come from", async () => {
  const built = [];
  for (const settings of [{ PACKAGE_DIR: folder }, { PACKAGE_INDEX_URL: index.indexUrl }] as Record<string, string>[]) {
    const CACHE_DIR = await cacheFolder();
    await using opened = await openTestEnvironments({ PYODIDE_PACKAGES: "good-user,seaborn", CACHE_DIR, ...settings });
    await opened.environments.prepare();
    const { guest, image } = opened.environments.get("default");
    const isFetched = settings.PACKAGE_INDEX_URL !== undefined;
    expect(opened.messages.some((message) => /^Downloading \S+: [\d.]+ of [\d.]+ MiB$/.test(message))).toBe(isFetched);
    built.push([path.basename(guest?.archivePath ?? ""), path.basename(image.path), image.sha256]);
    // It becomes every tenant's memory, which is no place for what this machine is like.
    const bytes = await readFile(image.path);
    for (const secret of [CACHE_DIR, folder, process.cwd()]) expect(bytes.includes(secret), secret).toBe(false);
  }
  expect(built[1]).toEqual(built[0]);
}, 180_000);

/** A folder with a package that takes 80 MiB of memory. */
async function folderOfLarge(): Promise<string> {
  const place = await mkdtemp(path.join(folder, "large-"));
  const large = await makeWheel({
    name: "large",
    version: "1.0",
    files: { "large.py": "DATA = bytearray(80 * 2**20)" },
  });
  await writeFile(path.join(place, large.filename), large.bytes);
  return place;
}

test("sandboxes of a large environment are rewound, and discarded only when code has added much to it", async () => {
  const tested = await startTestEngine({
    PYODIDE_PACKAGES: "large",
    PACKAGE_DIR: await folderOfLarge(),
    SANDBOX_MAX_HEAP_MB: "64",
  });
  try {
    const { pool } = tested.executor;
    for (let i = 0; i < 3; i++) expect(await tested.run("len(large.DATA)\n1")).toMatchObject({ success: false });
    expect(await tested.run("import large\nx = bytearray(10 * 2**20)\nlen(large.DATA)")).toMatchObject({
      result: 80 * 2 ** 20,
    });
    expect(await tested.run("1")).toMatchObject({ result: 1 });
    // The standard library is served while an environment is being built: its sandbox makes place.
    const { environment: _, ...before } = pool.status().discarded;
    expect(before).toEqual({});
    await tested.run("x = bytearray(100 * 2**20)");
    expect(await tested.run("1")).toMatchObject({ result: 1 });
    expect(pool.status().discarded).toMatchObject({ "heap over its limit": 1 });
  } finally {
    await tested.stop();
  }
}, 120_000);

test("an environment that takes more memory than sandboxes have is not used, and is there when they have it", async () => {
  const PACKAGE_DIR = await mkdtemp(path.join(folder, "large-"));
  const large = await makeWheel({
    name: "large",
    version: "1.0",
    files: { "large.py": "DATA = bytearray(80 * 2**20)" },
  });
  await writeFile(path.join(PACKAGE_DIR, large.filename), large.bytes);
  const CACHE_DIR = await cacheFolder();
  const prepare = async (SANDBOX_MEMORY_MB: string) => {
    const settings = { PYODIDE_PACKAGES: "large", PACKAGE_DIR, CACHE_DIR, SANDBOX_MEMORY_MB };
    await using opened = await openTestEnvironments(settings);
    await opened.environments.prepare();
    return { name: opened.environments.defaultName, warnings: opened.warnings };
  };
  expect(await prepare("96")).toEqual({
    name: "stdlib",
    warnings: [
      expect.stringMatching(
        /^The environment "default" cannot be built: Its packages take 1\d\d MiB of memory .* sandboxes have 96 \(SANDBOX_MEMORY_MB\)\.$/,
      ),
    ],
  });
  expect(await prepare("512")).toEqual({ name: "default", warnings: [] });
}, 120_000);

test.skipIf(spawnSync("bwrap", ["--ro-bind", "/", "/", "true"]).status !== 0)(
  "a cache that cannot be written to is used as it is",
  async () => {
    const cache = await cacheFolder();
    const DATA_DIR = testConfig().DATA_DIR;
    const run = (PYODIDE_PACKAGES: string, ...wrapper: string[]) => {
      const [command = "", ...args] = [...wrapper, process.execPath, CLI, "build", "default"];
      const env = { PYODIDE_PACKAGES, DATA_DIR, CACHE_DIR: cache, PACKAGE_DIR: folder, PYODIDE_INDEX_URL: folder };
      return spawnSync(command, args, {
        encoding: "utf8",
        env: { PATH: process.env.PATH, ISOLATION: "deno", PACKAGE_INDEX_URL: "none", ...env },
      });
    };
    const readOnly = ["bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--bind", DATA_DIR, DATA_DIR];
    expect(run("good,nowhere-to-be-found").status).toBe(0);
    const again = run("good,nowhere-to-be-found", ...readOnly);
    expect({ status: again.status, stdout: again.stdout }).toEqual({
      status: 0,
      stdout: expect.stringMatching(/^default: 1 packages/m),
    });
    const other = run("seaborn", ...readOnly);
    expect({ status: other.status, stdout: other.stdout }).toEqual({
      status: 0,
      stdout: expect.not.stringContaining("default"),
    });
    expect(other.stderr).toMatch(/\\"default\\" cannot be built: The server cannot store packages: .* is read-only/);
  },
  120_000,
);

test("a source that cannot be asked takes nothing away that an environment had before", async () => {
  const CACHE_DIR = await cacheFolder();
  const source = await PackageServer.start();
  source.add(wheels.good);
  const settings = {
    PYODIDE_PACKAGES: "good,nowhere-to-be-found",
    PYODIDE_INDEX_URL: await mkdtemp(path.join(folder, "empty-")),
    PACKAGE_INDEX_URL: source.indexUrl,
    CACHE_DIR,
  };
  const prepare = async () => {
    await using opened = await openTestEnvironments(settings);
    await opened.environments.prepare();
    const { packages, warnings } = opened.environments.get("default");
    return { packages: packages.map(({ filename }) => filename), warnings };
  };
  const first = await prepare();
  expect(first.packages).toEqual([wheels.good.filename]);
  await source.close();
  expect(await prepare()).toEqual({
    packages: first.packages,
    warnings: [expect.stringMatching(/goes without nowhere-to-be-found: 127\.0\.0\.1:\d+ cannot be reached\.$/)],
  });
}, 120_000);

describe("the cache", () => {
  const settings = (CACHE_DIR: string) => ({ PYODIDE_PACKAGES: "good", PACKAGE_DIR: folder, CACHE_DIR });
  let cache: string;
  let imagePath: string;
  let imageHash: string;

  /** Prepares as a server does that starts. @returns whether an image was built. */
  async function prepare(): Promise<boolean> {
    await using opened = await openTestEnvironments(settings(cache));
    await opened.environments.prepare();
    const { image } = opened.environments.get("default");
    if (imageHash !== undefined) expect(image.sha256).toBe(imageHash);
    imagePath = image.path;
    imageHash = image.sha256;
    return opened.messages.some((message) => message.startsWith("Building"));
  }

  beforeAll(async () => {
    cache = await cacheFolder();
    expect(await prepare()).toBe(true);
  });

  test("is used at the next start, which asks no source", async () => {
    expect(await prepare()).toBe(false);
  });

  test.each([
    [
      "whose bytes have changed",
      async () => {
        const bytes = await readFile(imagePath);
        bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
        await writeFile(imagePath, bytes);
      },
    ],
    ["with a manifest that is no JSON", async () => await writeFile(`${imagePath}.json`, "{")],
    [
      "of another version",
      async () => {
        const manifest = JSON.parse(await readFile(`${imagePath}.json`, "utf8"));
        await writeFile(`${imagePath}.json`, JSON.stringify({ ...manifest, key: "another" }));
      },
    ],
  ])(
    "an image %s is built anew, and is the same",
    async (_what, damage) => {
      await damage();
      expect(await prepare()).toBe(true);
      expect(await prepare()).toBe(false);
    },
    120_000,
  );

  test("an archive that was changed is made anew", async () => {
    const { environments } = await openTestEnvironments(settings(cache));
    await environments.prepare();
    const archive = environments.get("default").guest?.archivePath as string;
    const bytes = await readFile(archive);
    await writeFile(archive, bytes.fill(0, bytes.length - 10));
    await prepare();
    expect((await readFile(archive)).equals(bytes)).toBe(false);
    expect(await prepare()).toBe(false);
  });

  test("an image that is none, or one of another version, is refused by the sandbox that is to boot it", async () => {
    const image = await readFile(imagePath);
    const file = path.join(cache, "strange.image");
    const { environments } = await openTestEnvironments(settings(cache));
    await environments.prepare();
    const { guest, baseImagePath } = environments.get("default");
    const boot = async (bytes: Uint8Array) => {
      await writeFile(file, bytes);
      const sandbox = await startTestSandbox({ baseImagePath, environment: guest && { ...guest, imagePath: file } });
      sandbox.kill("it should not have started");
    };
    const otherVersion = Buffer.from(image);
    otherVersion[4] = (otherVersion[4] as number) ^ 0xff;
    for (const bytes of [Buffer.from("nonsense"), image.subarray(0, image.length - 100), otherVersion]) {
      await expect(boot(bytes)).rejects.toThrow(/failed to start: .*(image|Image)/);
    }
  });

  const build = (dataDir = testConfig().DATA_DIR) =>
    spawn(process.execPath, [CLI, "build", "default"], {
      stdio: ["ignore", "ignore", "pipe"],
      env: {
        PATH: process.env.PATH,
        DATA_DIR: dataDir,
        PACKAGE_INDEX_URL: "none",
        PYODIDE_INDEX_URL: folder,
        ...settings(cache),
      },
    });

  test.each(["Preparing", "Building", "Built"])(
    "a build that is killed when it says %s leaves nothing that is taken for whole",
    async (when) => {
      cache = await cacheFolder();
      const child = build();
      for await (const line of child.stderr?.setEncoding("utf8") ?? []) if (String(line).includes(when)) break;
      child.kill("SIGKILL");
      await once(child, "close");
      // As it looks when it was the writing that was cut off.
      await writeFile(`${imagePath.replace(/^.*\//, `${cache}/`)}.${os.hostname()}.${child.pid}.tmp`, "half");
      await prepare();
      // Where nothing was left to build, nobody has looked; a server does.
      if (when !== "Built") expect((await readdir(cache)).filter((name) => name.endsWith(".tmp"))).toEqual([]);
      expect(await prepare()).toBe(false);
    },
    120_000,
  );

  test("that is emptied in the middle of a build costs that build at most", async () => {
    cache = await cacheFolder();
    const child = build();
    for await (const line of child.stderr?.setEncoding("utf8") ?? []) {
      if (String(line).includes("Building")) await rm(path.join(cache, "archives"), { recursive: true });
    }
    await prepare();
    expect(await prepare()).toBe(false);
  }, 120_000);

  test("two servers may build in it at once, the standard library too", async () => {
    cache = await cacheFolder({ compiled: false });
    const builds = [build(), build()];
    const closed = await Promise.all(
      builds.map(async (child) => {
        child.stderr?.resume();
        return (await once(child, "close"))[0];
      }),
    );
    expect(closed).toEqual([0, 0]);
    expect(await prepare()).toBe(false);
    expect((await readdir(cache, { recursive: true })).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  }, 120_000);

  test.each(["", "/cache"])("in a place that is no folder (file%s) stops the start, naming it", async (below) => {
    const file = path.join(testConfig().DATA_DIR, "file");
    await writeFile(file, "");
    await expect(openTestEnvironments(settings(file + below))).rejects.toThrow(
      new RegExp(
        `The cache folder ${file + below} cannot be written \\(E\\w+\\)\\. Make it writable, or set CACHE_DIR`,
      ),
    );
  });
});

describe("build", () => {
  async function build(args: string[], env: Record<string, string> = {}, shell = 'exec "$@"') {
    const child = spawn("/bin/sh", ["-c", shell, "sh", process.execPath, CLI, "build", ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        PATH: process.env.PATH,
        DATA_DIR: testConfig().DATA_DIR,
        CACHE_DIR: TEST_CACHE_DIR,
        PACKAGE_INDEX_URL: "none",
        PYODIDE_INDEX_URL: folder,
        PYODIDE_PACKAGES: "good==1.0,nowhere-to-be-found",
        ENVIRONMENTS_FILE: await definitionsFile({ newest: { packages: ["good"] } }),
        ...env,
      },
    });
    const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, "close")]);
    return { code, stdout, stderr };
  }

  test("builds all, tells of each, and warns", async () => {
    const { code, stdout, stderr } = await build([]);
    expect(stdout).toMatch(
      /^stdlib: 0 packages, image of [\d.]+ MiB, .*\ndefault: 1 packages, .*\nnewest: 1 packages, .*\n$/,
    );
    expect(stderr).toContain('The environment \\"default\\" goes without nowhere-to-be-found');
    expect(code).toBe(0);
  });

  test("NAME builds one", async () => {
    expect((await build(["newest"])).stdout).toMatch(/^stdlib: .*\nnewest: .*\n$/);
  });

  test("an unknown one is an error that names those there are", async () => {
    expect(await build(["nope"])).toEqual({
      code: 1,
      stdout: "",
      stderr: 'There is no environment "nope". Defined: stdlib, default, newest.\n',
    });
  });

  test("what cannot be had is an error with ENVIRONMENT_STRICT", async () => {
    const { code, stderr } = await build([], { ENVIRONMENT_STRICT: "true" });
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: expect.stringMatching(/"default" cannot be built: .*nowhere/),
    });
  });

  test.each([
    { what: "its image", compiled: true },
    { what: "the standard library's archive", compiled: false },
  ])(
    "a disk that is full before $what is an error that says so, and nothing half built stays",
    async ({ compiled }) => {
      const CACHE_DIR = await cacheFolder({ compiled });
      const before = await readdir(CACHE_DIR, { recursive: true });
      // The largest file this process may write, in blocks of 512 bytes: an archive of packages fits, an image does not.
      const { code, stderr } = await build(["newest"], { CACHE_DIR }, 'trap "" XFSZ; ulimit -f 2000; exec "$@"');
      expect({ code, stderr }).toEqual({
        code: 1,
        stderr: expect.stringMatching(/The cache folder .* cannot be written \(EFBIG\)/),
      });
      const left = (await readdir(CACHE_DIR, { recursive: true })).filter((name) => !before.includes(name));
      expect(left.filter((name) => !/^archives(\/\w+\.(pkgs|json))?$/.test(name))).toEqual([]);
      for (const name of left) expect((await stat(path.join(CACHE_DIR, name))).size).toBeLessThan(1_000_000);
    },
  );
});
