import { readdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { PackageServer, serveBytes } from "../../src/packages/testing/package-server.ts";
import { makeWheel, type WheelRecipe } from "../../src/packages/testing/wheels.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { createClient, type TestClient } from "../support/client.ts";
import { py } from "../support/engine.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const MIB = 1024 * 1024;
const RECIPES: readonly WheelRecipe[] = [
  {
    name: "greeting",
    version: "1.0",
    files: { "greeting/__init__.py": "", "greeting/words.py": 'HELLO = "hello 1"\n' },
  },
  {
    name: "greeting",
    version: "2.0",
    files: { "greeting/__init__.py": "", "greeting/words.py": 'HELLO = "hello 2"\n' },
  },
  { name: "Needs.Greeting", version: "0.1", requires: ["greeting<2"] },
  { name: "data-files", version: "1", files: { "data_files/__init__.py": "", "data_files/table.csv": "a\n1\n" } },
  {
    name: "shadow",
    version: "1",
    files: {
      "shadow.py": "",
      "json.py": "raise SystemExit",
      "os.py": "raise SystemExit",
      "sitecustomize.py": "raise SystemExit",
      "usercustomize.py": "raise SystemExit",
      "sandbox_runner/__init__.py": "raise SystemExit",
      "evil.pth": "import os; raise SystemExit",
      "pyodide/__init__.py": "raise SystemExit",
    },
  },
  { name: "lacking", version: "1", requires: ["nowhere-to-be-found>=3"] },
  { name: "with-extras", version: "1", requires: ["greeting>=2 ; extra == 'words'"], extras: ["words", "none"] },
  { name: "circle-a", version: "1", requires: ["circle-b"] },
  { name: "circle-b", version: "1", requires: ["circle-a"] },
  { name: "contrary", version: "1", requires: ["greeting>=9"] },
  { name: "old", version: "1", requiresPython: "<3" },
  { name: "native", version: "1", tag: "cp314-cp314-manylinux_2_17_x86_64" },
  { name: "unlisted", version: "1", unlisted: [{ name: "evil.py", data: "" }] },
  { name: "escaping", version: "1", unlisted: [{ name: "../../evil.py", data: "" }] },
  { name: "absolute", version: "1", unlisted: [{ name: "/etc/evil", data: "" }] },
  { name: "backslash", version: "1", unlisted: [{ name: "..\\evil.py", data: "" }] },
  { name: "linked", version: "1", unlisted: [{ name: "evil.py", data: "/etc/passwd", mode: 0o120777 }] },
  { name: "bomb", version: "1", files: { "bomb.py": new Uint8Array(32 * MIB) } },
  { name: "changed", version: "1", record: (text) => text.replace(/sha256=.{8}/, "sha256=AAAAAAAA") },
];

let index: PackageServer;
let server: TestServer;
let ada: TestClient;
let bob: TestClient;
let carol: TestClient;
let runner: TestClient;
let folder: string;
/** Held back until it is called. */
let release: () => void;

beforeAll(async () => {
  index = await PackageServer.start();
  for (const recipe of RECIPES) index.add(await makeWheel(recipe));
  const wrong = await makeWheel({ name: "wrong-hash", version: "1" });
  index.add(wrong, (file) => ({ ...file, hashes: { sha256: "0".repeat(64) } }));
  const truncated = await makeWheel({ name: "truncated", version: "1" });
  const short = truncated.bytes.subarray(0, truncated.bytes.length / 2);
  index.add({ ...truncated, bytes: short });
  index.addFile("source-only", { filename: "source-only-1.tar.gz", url: "x", hashes: { sha256: "0".repeat(64) } });
  index.on("/simple/failing/", (_request, response) => response.writeHead(500).end("/srv/secret/path"));
  index.on("/simple/a-page/", (_request, response) => {
    response.writeHead(200, { "content-type": "text/html" }).end("<html>");
  });
  const slow = await makeWheel({ name: "slow", version: "1" });
  index.add(slow);
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  index.on(`/files/${slow.filename}`, async (request, response) => {
    await released;
    serveBytes(slow.bytes)(request, response);
  });

  folder = temporaryFolder("pyodide-express-wheels");
  const local = await makeWheel({
    name: "local-only",
    version: "3.1",
    files: { "local_only.py": "PLACE = 'folder'\n" },
  });
  await writeFile(path.join(folder, local.filename), local.bytes);

  server = await startTestServer({
    PACKAGE_INDEX_URL: index.indexUrl,
    PACKAGE_DIR: folder,
    // One principal leaves one of them to others.
    POOL_SIZE: "3",
    API_KEYS:
      "ada:ada-key-of-sixteen,bob:bob-key-of-sixteen,carol:carol-key-of-sixteen,runner:runner-key-of-sixteen:execute",
  });
  const clientOf = (key: string) => createClient(server.url, { authorization: `Bearer ${key}` });
  ada = clientOf("ada-key-of-sixteen");
  bob = clientOf("bob-key-of-sixteen");
  carol = clientOf("carol-key-of-sixteen");
  runner = clientOf("runner-key-of-sixteen");
});
afterAll(async () => {
  await server.stop(0);
  await index.close();
});

const install = async (client: TestClient, name: string) =>
  (await client.post("/api/install-package", { package: name })).body;
const run = async (client: TestClient, code: string) => (await client.post("/api/execute", { code })).body;

describe("installing by request", () => {
  test("is there for the caller's later executions, and for nobody else", async () => {
    const use = "from greeting.words import HELLO; HELLO";
    expect(await run(ada, use)).toMatchObject({ success: false, errorInfo: { type: "ModuleNotFoundError" } });
    expect(await install(ada, "greeting==1.0")).toEqual({
      success: true,
      message: "Package installed successfully",
      installed: [{ name: "greeting", version: "1.0" }],
      timestamp: expect.any(String),
    });
    for (let i = 0; i < 4; i++) expect((await run(ada, use)).result).toBe("hello 1");
    expect((await run(bob, use)).errorInfo.type).toBe("ModuleNotFoundError");
    const packages = async (client: TestClient) => (await client.get("/api/packages")).body.result.installed_packages;
    expect(await packages(ada)).toContain("greeting");
    expect(await packages(bob)).not.toContain("greeting");
  });

  test("another version replaces it, and what it needs comes along", async () => {
    await install(ada, "greeting==2.0");
    expect((await run(ada, "import greeting.words as w; w.HELLO")).result).toBe("hello 2");
    expect(await install(bob, "Needs_Greeting")).toMatchObject({
      success: true,
      installed: expect.arrayContaining([
        { name: "Needs.Greeting", version: "0.1" },
        { name: "greeting", version: "1.0" },
      ]),
    });
    expect((await run(bob, "import Needs_Greeting, greeting.words as w; w.HELLO")).result).toBe("hello 1");
  }, 60_000);

  test("comes from the folder of wheels without asking the index", async () => {
    const asked = index.requests.length;
    expect(await install(ada, "local-only")).toMatchObject({ success: true });
    expect((await run(ada, "import local_only; local_only.PLACE")).result).toBe("folder");
    expect(index.requests.slice(asked).filter((request) => request.includes("local-only.whl"))).toEqual([]);
  });

  test("data files and metadata are there", async () => {
    await install(ada, "data-files");
    const { result } = await run(
      ada,
      py`
        import importlib.metadata, importlib.resources, data_files
        [importlib.metadata.version("data-files"), importlib.resources.files(data_files).joinpath("table.csv").read_text()]
      `,
    );
    expect(result).toEqual(["1", "a\n1\n"]);
  });

  test("installing again is no error and fetches nothing", async () => {
    await install(ada, "data-files");
    const asked = index.requests.filter((request) => request.includes("/files/")).length;
    expect(await install(ada, "data-files")).toMatchObject({ success: true, installed: [] });
    expect(await install(bob, "data-files")).toMatchObject({ success: true });
    expect(index.requests.filter((request) => request.includes("/files/"))).toHaveLength(asked);
  });

  test("packages that need each other are both there", async () => {
    expect((await install(bob, "circle-a")).installed).toHaveLength(2);
    expect((await run(bob, "import circle_a, circle_b; circle_b.VERSION")).result).toBe("1");
  });

  test("an unknown environment is the client's error", async () => {
    const { status, body } = await ada.post("/api/install-package", { package: "greeting", environment: "none" });
    expect(status).toBe(400);
    expect(body.error).toMatch(/^Unknown environment "none"/);
  });
});

describe("a package that cannot be had", () => {
  test.each<[string, RegExp]>([
    ["no-such-package", /"no-such-package" .*no source has this package/],
    ["data-files==7", /data-files.*7/],
    ["lacking", /nowhere-to-be-found/],
    ["contrary", /greeting.*9/],
    ["old", /old.*Python/i],
    ["native", /native/],
    ["source-only", /source-only/],
    ["failing", /500/],
    ["a-page", /web page/],
    ["wrong-hash", /hash|sha/i],
    ["truncated", /truncated|length|hash/i],
    ["unlisted", /"evil\.py" is not listed in RECORD/],
    ["escaping", /invalid relative path: \.\.\/\.\.\/evil\.py/],
    ["absolute", /absolute path: \/etc\/evil/],
    ["backslash", /evil\.py/],
    ["linked", /symbolic link/],
    ["bomb", /zip bomb/],
    ["changed", /does not match its hash in RECORD/],
  ])("%s: 200, and why", async (name, reason) => {
    const before = (await run(bob, "import micropip; micropip.list()")).result;
    const { status, body } = await bob.post("/api/install-package", { package: name });
    expect(status).toBe(200);
    expect(body).toMatchObject({ success: false, error: expect.stringMatching(reason), timestamp: expect.any(String) });
    expect(body.error).not.toMatch(/\/(tmp|srv|work|home)\b|node_modules| at /);
    expect((await run(bob, "import micropip; micropip.list()")).result).toEqual(before);
  });

  test("leaves no file behind, and everything else as it was", async () => {
    const names = await readdir(server.config.DATA_DIR, { recursive: true });
    expect(names.filter((name) => /evil|bomb|wrong|trunc/i.test(name))).toEqual([]);
    expect((await run(bob, "import Needs_Greeting; Needs_Greeting.VERSION")).result).toBe("0.1");
  });
});

describe("micropip in user code", () => {
  test("installs the extras that are asked for, or names those that are not there", async () => {
    const ask = async (requirement: string) =>
      await run(
        carol,
        `import micropip\ntry:\n  await micropip.install(${requirement})\n  out = "installed"\nexcept (ValueError, TypeError) as e: out = str(e)\nout, micropip.list().get("greeting")`,
      );
    expect((await ask('"with-extras"')).result).toEqual(["installed", null]);
    expect((await ask('"with-extras[words]"')).result).toEqual(["installed", "2.0"]);
    expect((await ask('"with-extras[wrong]"')).result[0]).toMatch(
      /with-extras 1 has the extras none, words, and not wrong/i,
    );
    expect((await ask('"https://example.com/a.whl"')).result[0]).toMatch(
      /packages come from the sources that the server is set up with/,
    );
    expect((await ask('["greeting", "-r requirements.txt"]')).result[0]).toMatch(/options such as -r/);
    expect((await ask("[5]")).result[0]).toBe("a requirement is text, not int: 5");
  });

  test("installs for this execution and later ones", async () => {
    await ada.post("/api/reset", {});
    const code = py`
      import micropip
      before = "greeting" in micropip.list()
      await micropip.install(["greeting==1.0", "data-files"])
      import greeting.words, data_files
      [before, greeting.words.HELLO, micropip.list()["greeting"]]
    `;
    expect(await run(ada, code)).toMatchObject({ success: true, result: [false, "hello 1", "1.0"] });
    expect((await run(ada, "import data_files, greeting.words as w; w.HELLO")).result).toBe("hello 1");
  });

  test("says what cannot be had, as an exception that code can catch", async () => {
    const code = py`
      import micropip
      reasons = []
      for name in ("no-such-package", "wrong-hash", "x @ https://example.org/x.whl", "../evil", "", "bomb"):
          try:
              await micropip.install(name)
          except ValueError as error:
              reasons.append(str(error))
      reasons
    `;
    const { result } = await run(ada, code);
    expect(result).toHaveLength(6);
    expect(result[0]).toMatch(/no source has this package/);
    expect(result[2]).toMatch(/packages come from the sources/);
    expect(JSON.stringify(result)).not.toMatch(/\/(tmp|srv|work)\b|node_modules/);
  });

  test("needs the scope", async () => {
    const { success, error } = await run(runner, 'import micropip; await micropip.install("greeting")');
    expect({ success, error }).toEqual({ success: false, error: 'This API key lacks the scope "packages"' });
  });

  test("is on record as an installation by request is", async () => {
    const id = "micropip-on-record";
    const installed = async () => (await bob.get("/api/dashboard/stats")).body.stats.recent.packagesInstalled;
    const before = await installed();
    await bob.post(
      "/api/execute",
      {
        code: py`
          import micropip
          await micropip.install("greeting==1.0")
          await micropip.install("no-such-package")
        `,
      },
      { "x-request-id": id },
    );
    expect(await installed()).toBe(before + 1);
    const events = (await readSecurityLog(server.config)).filter(({ requestId }) => requestId === id);
    expect(events).toMatchObject([
      { event: "package_install", principal: "bob", details: { package: "greeting==1.0", success: true, error: null } },
      { event: "package_install", details: { package: "no-such-package", success: false, error: "package_not_found" } },
      { event: "code_execution_error", principal: "bob" },
    ]);
  });
});

describe("what is mounted cannot be changed", () => {
  test("neither files nor folders, by any call", async () => {
    await install(ada, "greeting==1.0");
    const attempts = py`
      import os, shutil, greeting.words, json, sys
      root = os.path.dirname(os.path.dirname(greeting.words.__file__))
      module = greeting.words.__file__
      done = []
      def attempt(name, action):
          try:
              action()
              done.append(name)
          except (OSError, AttributeError):
              pass
      for target in (module, json.__file__, os.__file__, root + "/new.py", root + "/greeting/new.py", "/lib/new.py"):
          attempt(f"write {target}", lambda: open(target, "w"))
          attempt(f"append {target}", lambda: open(target, "a"))
          attempt(f"update {target}", lambda: open(target, "r+b"))
          attempt(f"remove {target}", lambda: os.remove(target))
          attempt(f"chmod {target}", lambda: os.chmod(target, 0o777))
          attempt(f"truncate {target}", lambda: os.truncate(target, 0))
          attempt(f"rename {target}", lambda: os.rename(target, "/tmp/x.py"))
          attempt(f"replace {target}", lambda: (open("/tmp/y.py", "w").close(), os.replace("/tmp/y.py", target)))
          attempt(f"symlink {target}", lambda: os.symlink("/tmp/y.py", target))
          attempt(f"link {target}", lambda: os.link(target, "/tmp/z.py"))
          attempt(f"utime {target}", lambda: os.utime(target, (1, 1)))
      for target in (root, root + "/greeting", "/lib/packages", "/lib"):
          attempt(f"mkdir {target}", lambda: os.mkdir(target + "/made"))
          attempt(f"rmtree {target}", lambda: shutil.rmtree(target))
          attempt(f"rename {target}", lambda: os.rename(target, "/tmp/gone"))
      done
    `;
    const body = await run(ada, attempts);
    expect(body.error).toBe(null);
    expect(body.result).toEqual([]);
    expect((await run(ada, "import greeting.words as w; w.HELLO")).result).toBe("hello 1");
  });

  test("a patch in memory lasts as long as its execution", async () => {
    for (const client of [ada, bob]) await install(client, "greeting==1.0");
    const patch = 'import greeting.words as w, sys, types; w.HELLO = "poisoned"; sys.modules["json"] = None';
    for (let i = 0; i < 3; i++) await run(ada, patch);
    for (const client of [ada, bob, ada, bob]) {
      const { result } = await run(client, "import json, greeting.words as w; [w.HELLO, json.dumps(1)]");
      expect(result).toEqual(["hello 1", "1"]);
    }
  });

  test("a wheel that brings modules of Python's, or hooks, changes nothing", async () => {
    expect(await install(ada, "shadow")).toMatchObject({ success: true });
    expect((await run(ada, "import json, os; [json.dumps([1]), os.getcwd()]")).result).toEqual([
      "[1]",
      "/home/pyodide",
    ]);
    expect((await run(ada, "import greeting.words as w, shadow; w.HELLO")).result).toBe("hello 1");
    expect((await ada.get("/api/packages")).body.success).toBe(true);
    expect((await run(bob, "import json; json.dumps([1])")).result).toBe("[1]");
    await ada.post("/api/reset", {});
  });
});

describe("installing while code runs", () => {
  test("holds up neither other executions nor other callers, and takes nothing away", async () => {
    await install(ada, "greeting==1.0");
    const waiting = run(
      ada,
      'import micropip; await micropip.install("slow"); import slow, greeting.words; slow.VERSION',
    );
    // The download holds one sandbox; everything below is answered meanwhile.
    while (index.count("/files/slow-1-py3-none-any.whl") === 0) await new Promise(setImmediate);
    expect((await run(ada, "import greeting.words as w; w.HELLO")).result).toBe("hello 1");
    expect((await run(ada, "import slow")).errorInfo.type).toBe("ModuleNotFoundError");
    expect(await install(bob, "greeting==1.0")).toMatchObject({ success: true });
    const queued = [install(ada, "data-files"), install(ada, "local-only")];
    release();
    expect(await waiting).toMatchObject({ success: true, result: "1" });
    for (const { success } of await Promise.all(queued)) expect(success).toBe(true);
    expect((await run(ada, "import slow, data_files, local_only, greeting; 1")).success).toBe(true);
  });

  test("many installations and executions of one caller at once", async () => {
    await bob.post("/api/reset", {});
    const names = ["greeting==1.0", "data-files", "circle-a", "local-only", "shadow"];
    const [installs, runs] = await Promise.all([
      Promise.all(names.map((name) => install(bob, name))),
      Promise.all(Array.from({ length: 10 }, () => run(bob, "import json; json.dumps(1)"))),
    ]);
    expect(installs.map(({ success }) => success)).toEqual(names.map(() => true));
    expect(runs.map(({ result }) => result)).toEqual(runs.map(() => "1"));
    expect((await run(bob, "import greeting, data_files, circle_b, local_only, shadow; 1")).success).toBe(true);
  });
});

describe("code that is stopped while it installs", () => {
  let arrived: PromiseWithResolvers<void>;
  beforeAll(async () => {
    for (const name of ["endless-a", "endless-b"]) {
      const wheel = await makeWheel({ name, version: "1" });
      index.add(wheel);
      // Never answered.
      index.on(`/files/${wheel.filename}`, () => arrived.resolve());
    }
  });
  beforeEach(() => {
    arrived = Promise.withResolvers();
  });

  test("is interrupted, and not killed: it says where it was", async () => {
    const code = 'import micropip\nprint("before")\nawait micropip.install(["endless-a", "endless-b", "greeting"])';
    const { body } = await ada.post("/api/execute", { code, timeout: 3000 });
    expect(body).toMatchObject({ success: false, status: "timeout", stdout: "before\n" });
    expect(body.errorInfo.traceback).toContain("line 3, in <module>");
    expect(body.error).not.toContain("killed");
  });

  test("installs no more of what it asked for", async () => {
    await ada.post("/api/reset", {});
    const code = 'import micropip\nawait micropip.install(["endless-b", "greeting", "data-files"])';
    await ada.post("/api/execute", { code, timeout: 3000 });
    // Behind all that is left of it.
    expect((await install(ada, "local-only")).installed).toEqual([{ name: "local-only", version: expect.any(String) }]);
    expect((await run(ada, "import greeting")).errorInfo.type).toBe("ModuleNotFoundError");
  });

  test("also by request: who goes away leaves nothing behind that others wait for", async () => {
    await bob.post("/api/reset", {});
    const gone = new AbortController();
    const asked = bob
      .request("/api/install-package", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ package: "endless-b" }),
        signal: gone.signal,
      })
      .catch(() => null);
    await arrived.promise;
    gone.abort();
    await asked;
    expect(await install(bob, "greeting==1.0")).toMatchObject({ success: true });
  });
});

test("reset takes the caller's packages away, and nobody else's", async () => {
  for (const client of [ada, bob]) await install(client, "data-files");
  expect((await ada.post("/api/reset", {})).body.success).toBe(true);
  expect((await run(ada, "import data_files")).errorInfo.type).toBe("ModuleNotFoundError");
  expect((await run(bob, "import data_files; 1")).result).toBe(1);
  expect((await ada.get("/api/packages")).body.result.installed_packages).not.toContain("data-files");
});
