import { createHash } from "node:crypto";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { PackageServer } from "../../../src/packages/testing/package-server.ts";
import { makeWheel, type WheelRecipe, type ZipEntry } from "../../../src/packages/testing/wheels.ts";
import { record } from "./scoreboard.ts";
import { Target } from "./target.ts";

/** What a wheel may hold besides modules: code that would run by itself, and names that lead elsewhere. */
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const ALICE = "alices-own-key-here";
/** Printed by whatever of a package runs without having been imported. */
const RUN = "print('HOOK-RAN'); import builtins; builtins.hooked = True\n";

/** Runs before any code, where the interpreter looks for it. */
const HOOKS: Readonly<Record<string, WheelRecipe["files"]>> = {
  pth: {
    "hook.pth": `import sys; exec(${JSON.stringify(RUN)})\n`,
    "distutils-precedence.pth": `import os; exec(${JSON.stringify(RUN)})\n`,
  },
  "pth-of-purelib": { "pth_of_purelib-1.0.data/purelib/hook.pth": `import sys; exec(${JSON.stringify(RUN)})\n` },
  "pth-of-paths": { "paths.pth": "/home/pyodide\n/tmp\n../../..\n" },
  sitecustomize: { "sitecustomize.py": RUN, "sitecustomize/__init__.py": RUN },
  usercustomize: { "usercustomize.py": RUN },
  "site-of-prefix": { "site_of_prefix-1.0.data/data/lib/python3.14/site-packages/sitecustomize.py": RUN },
  "stdlib-modules": {
    "os.py": RUN,
    "json/__init__.py": RUN,
    "encodings/__init__.py": RUN,
    "site.py": RUN,
    "codecs.py": RUN,
  },
  "own-modules": {
    "sandbox_runner/__init__.py": RUN,
    "sandbox_runner/execution.py": RUN,
    "pyodide/__init__.py": RUN,
    "_pyodide/__init__.py": RUN,
    "js.py": RUN,
  },
  bytecode: { "__pycache__/json.cpython-314.pyc": "x".repeat(100), "json.pyc": "x", "os.cpython-314.pyc": "x" },
  namespace: { "json/evil.py": RUN, "importlib/evil.py": RUN },
  "entry-points": {
    "entry_points-1.0.dist-info/entry_points.txt":
      "[console_scripts]\npython = hook:main\n[pytest11]\nx = hook\n[pyodide]\nx = hook\n[codecs]\nx = hook\n",
    "hook.py": RUN,
  },
  scripts: { "scripts-1.0.data/scripts/python": `#!python\n${RUN}`, "scripts-1.0.data/scripts/activate_this.py": RUN },
  headers: { "headers-1.0.data/headers/Python.h": "x" },
  "matplotlib-style": { matplotlibrc: "backend: module://hook\n", "hook.py": RUN, "pyvenv.cfg": "home = /tmp\n" },
};

const HOOK = `import sys; exec(${JSON.stringify(RUN)})\n`;
const entry = (name: string, data = HOOK, mode?: number): ZipEntry => ({ name, data, ...(mode && { mode }) });

/** Entries that are listed in RECORD, as an honest tool would list them, so that nothing but their names is wrong. */
const NAMES: Readonly<Record<string, readonly ZipEntry[]>> = {
  "data-climbs": [entry("data_climbs-1.0.data/data/../../evil.pth")],
  "data-climbs-far": [entry("data_climbs_far-1.0.data/data/../../../../lib/python314.zip/os.py")],
  "purelib-climbs": [entry("purelib_climbs-1.0.data/purelib/../../../lib/evil.py")],
  "data-absolute": [entry("/lib/python314.zip/sitecustomize.py")],
  "data-absolute-inside": [entry("data_absolute_inside-1.0.data/data//lib/evil.py")],
  dots: [entry("dots/./evil.py")],
  backslashes: [entry("backslashes-1.0.data\\data\\..\\..\\evil.py")],
  drive: [entry("drive/..\\..\\C:\\evil.py")],
  nul: [entry("nul/evil.py\0.txt")],
  newline: [entry("newline/evil\n.py")],
  link: [entry("link/lib", "/lib", 0o120777)],
  "link-to-file": [entry("link_to_file.py", "../../../../../etc/passwd", 0o120777)],
  "link-and-through": [entry("through/lib", "/lib", 0o120777), entry("through/lib/evil.py")],
  "file-and-folder": [entry("both", "x"), entry("both/evil.py")],
  twice: [entry("twice/evil.py"), entry("twice/evil.py", "other")],
};

/** What is no regular file is one, or is refused: nothing of its kind is made. */
const KINDS: Readonly<Record<string, readonly ZipEntry[]>> = {
  device: [entry("device/null", "x", 0o020666)],
  pipe: [entry("pipe/p", "x", 0o010666)],
  setuid: [entry("setuid/run", "x", 0o104777)],
};

let index: PackageServer;
let target: Target;

beforeAll(async () => {
  index = await PackageServer.start();
  for (const [name, files] of Object.entries(HOOKS)) {
    index.add(await makeWheel({ name, version: "1.0", files: { [`${name.replaceAll("-", "_")}_.py`]: "", ...files } }));
  }
  for (const [name, entries] of Object.entries({ ...NAMES, ...KINDS })) {
    const lines = entries.map(({ name: path, data }) => {
      const hash = createHash("sha256").update(data).digest("base64url");
      return `"${path}",sha256=${hash},${Buffer.byteLength(data)}\n`;
    });
    const recordLines = (text: string) => lines.join("") + text;
    index.add(await makeWheel({ name, version: "1.0", unlisted: entries, record: recordLines }));
  }
  target = await Target.start({ settings: { PACKAGE_INDEX_URL: index.indexUrl } });
  await target.rememberNormal();
});
afterAll(async () => {
  await target?.stop();
  await index?.close();
});

const post = async (where: string, body: object = {}) =>
  (
    await target.send(where, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    })
  ).body;

const LOOK = `import os, sys, json, builtins
found = [hasattr(builtins, "hooked"), "HOOK-RAN" in repr(sys.modules)]
for top in ("/lib", "/home/pyodide", "/tmp", "/etc", "/dev"):
  for folder, names, files in os.walk(top) if os.path.isdir(top) else ():
    if folder.startswith(("/lib/packages", "/lib/python314.zip")): names.clear(); continue
    found += [folder + "/" + name for name in files + names if "evil" in name or "hook" in name]
sum(1 for item in found if item)`;

/** Whether anything of the package ran, or stands where it should not; of one who installed it, and of another. */
async function effects(): Promise<string[]> {
  const effects: string[] = [];
  for (const key of ["mallorys-own-key-here", ALICE]) {
    const { body } = await target.run(LOOK, {}, key);
    if (body.success !== true || body.result !== 0 || body.stdout !== "" || body.stderr !== "")
      effects.push(JSON.stringify(body).slice(0, 500));
  }
  return effects;
}

test.each(Object.keys(HOOKS))("code that would run by itself does not: %s", async (name) => {
  const body = await post("/api/install-package", { package: name });
  const found = await effects();
  record("contents of packages", "all", { attacks: { [name]: "" }, succeeded: found.length > 0 ? [name] : [] });
  expect(body).toMatchObject({ success: true });
  expect(found).toEqual([]);
  await post("/api/reset");
});

test.each(Object.keys(NAMES))("a name that leads elsewhere is refused: %s", async (name) => {
  const body = await post("/api/install-package", { package: name });
  const found = await effects();
  const succeeded = body.success === true || found.length > 0 ? [name] : [];
  record("contents of packages", "all", { attacks: { [name]: "" }, succeeded });
  expect(body, JSON.stringify(body)).toMatchObject({ success: false });
  expect(found).toEqual([]);
});

test.each(Object.keys(KINDS))("no file of another kind is made: %s", async (name) => {
  const body = await post("/api/install-package", { package: name });
  const { body: looked } = await target.run(`import os, stat
odd = [f for folder, _, files in os.walk("/lib/packages") for f in files if not stat.S_ISREG(os.lstat(folder + "/" + f).st_mode) or os.lstat(folder + "/" + f).st_mode & 0o7222]
odd`);
  record("contents of packages", "all", {
    attacks: { [name]: "" },
    succeeded: looked.result?.length === 0 ? [] : [name],
  });
  expect(looked, JSON.stringify([body, looked])).toMatchObject({ result: [] });
  await post("/api/reset");
});
