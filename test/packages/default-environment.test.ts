import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { normaliseName } from "../../src/packages/pep/requirements.ts";
import { PackageServer, serveBytes } from "../../src/packages/testing/package-server.ts";
import { EXTENSION_SUFFIX, extensionModule, sharedLibrary } from "../../src/packages/testing/shared-libraries.ts";
import { makeWheel, makeZip } from "../../src/packages/testing/wheels.ts";
import { SETTINGS } from "../../src/shared/settings.ts";
import { testConfig } from "../support/config.ts";
import { py } from "../support/engine.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/**
 * The default environment as Pyodide's own lock file has it: real names, versions, files and dependencies. Only what is
 * in the wheels stands in for what cannot be had without a network.
 */
interface LockedPackage {
  readonly name: string;
  readonly version: string;
  readonly file_name: string;
  readonly depends: readonly string[];
  readonly imports: readonly string[];
  readonly package_type: string;
  sha256: string;
}
interface Lock {
  readonly packages: Record<string, LockedPackage>;
}

const LOCK = createRequire(import.meta.url).resolve("pyodide/pyodide-lock.json");

/** How many shared libraries the real ones have, and in which folder. */
const LIBRARIES: Readonly<Record<string, readonly [folder: string, count: number]>> = {
  numpy: ["numpy/_core", 13],
  pandas: ["pandas/_libs", 44],
  matplotlib: ["matplotlib", 8],
  Pillow: ["PIL", 6],
  contourpy: ["contourpy", 1],
  kiwisolver: ["kiwisolver", 1],
};

/** What the runner calls to seed numpy's generator. */
const NUMPY = "from . import _core\nuint32 = None\ndef frombuffer(data, dtype): return data\n";

/** Modules whose attributes the image's builder, or users, ask for. */
const MODULES: Readonly<Record<string, string>> = {
  "numpy/random.py": "def seed(value): pass\n",
  "numpy/fft.py": "",
  "numpy/linalg.py": "",
  "numpy/ma.py": "",
  "numpy/polynomial.py": "",
  "PIL/Image.py": "",
  "matplotlib/figure.py":
    "class Figure:\n    def savefig(self, file, **kwargs): file.write(b'figure')\n    def add_subplot(self): return self\n    def plot(self, *args): pass\n",
  "matplotlib/pyplot.py": py`
    import matplotlib, os
    from matplotlib.figure import Figure
    assert os.environ["MPLBACKEND"] == "agg"
    class _Plain(Figure): "A figure that savefig alone can draw."
    _figures = []
    def switch_backend(name): matplotlib.backend = name
    def figure(*args):
        if not args: _figures.append(_Plain())
        return _figures[-1]
    def get_fignums(): return [*range(1, len(_figures) + 1)]
    def close(which): _figures.clear()
    `,
};

const lock = JSON.parse(readFileSync(LOCK, "utf8")) as Lock;
let mirror: PackageServer;
let server: TestServer;

beforeAll(async () => {
  mirror = await PackageServer.start();
  const wanted = [...SETTINGS.PYODIDE_PACKAGES.fallback.split(","), "scipy", "inspice", "tzdata"];
  for (const name of closure(wanted)) await offer(lock.packages[name] as LockedPackage);
  mirror.on("/mirror/pyodide-lock.json", (_request, response) => {
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(lock));
  });
  // Not in the lock file: it comes from the index, and says itself what it needs.
  mirror.add(
    await makeWheel({
      name: "seaborn",
      version: "0.13.2",
      requires: ["numpy>=1.20,!=1.24.0", "pandas>=1.2", "matplotlib>=3.4,!=3.6.1", 'scipy>=1.7; extra == "stats"'],
      extras: ["stats"],
      files: { "seaborn/__init__.py": "import numpy, pandas, matplotlib.pyplot\n" },
    }),
  );
  // As it is with this one, of which pandas takes what it needs for Excel's files.
  mirror.add(await makeWheel({ name: "openpyxl", version: "3.1.5", files: { "openpyxl/__init__.py": "" } }));
  const file = path.join(testConfig().DATA_DIR, "environments.json");
  writeFileSync(file, JSON.stringify({ linked: { packages: ["scipy", "inspice"] } }));
  server = await startTestServer({
    PYODIDE_PACKAGES: SETTINGS.PYODIDE_PACKAGES.fallback,
    PACKAGE_DIR: "",
    PYODIDE_INDEX_URL: `${mirror.origin}/mirror/`,
    PACKAGE_INDEX_URL: mirror.indexUrl,
    ENVIRONMENTS_FILE: file,
    ENVIRONMENT_STRICT: "true",
  });
});
afterAll(async () => {
  await server?.stop(0);
  await mirror?.close();
});

function closure(names: readonly string[]): Set<string> {
  const seen = new Set(names);
  for (const name of seen) for (const next of lock.packages[name]?.depends ?? []) seen.add(next);
  return new Set([...seen].filter((name) => name in lock.packages));
}

/** Puts a stand-in on the mirror under the package's own file name, and its hash into the lock file. */
async function offer(locked: LockedPackage): Promise<void> {
  const bytes = locked.package_type === "shared_library" ? await dynlibZip(locked) : await standIn(locked);
  locked.sha256 = createHash("sha256").update(bytes).digest("hex");
  mirror.on(`/mirror/${locked.file_name}`, serveBytes(bytes));
}

async function dynlibZip({ name }: LockedPackage): Promise<Buffer> {
  return await makeZip([{ name: `${name}.so`, data: answering(name, 41) }]);
}

/** A library that others link to: a function of that name answers `value`. */
function answering(name: string, value: number): Buffer {
  return sharedLibrary(`(module (import "env" "memory" (memory 1))
    (func (export "${name}_value") (result i32) (i32.const ${value})))`);
}

async function standIn({ name, version, file_name, depends, imports }: LockedPackage): Promise<Buffer> {
  const needed = depends.flatMap((other) => lock.packages[other]?.imports[0] ?? []);
  const files: Record<string, string | Buffer> = {};
  for (const module of imports) files[`${module}/__init__.py`] = needed.map((other) => `import ${other}\n`).join("");
  const own = new Set(imports);
  for (const [file, text] of Object.entries(MODULES)) if (own.has(file.split("/", 1)[0] as string)) files[file] = text;
  const [folder = "", count = 0] = LIBRARIES[name] ?? [];
  for (let index = 0; index < count; index++) {
    const module = `_lib${index}`;
    files[`${folder}/${module}${EXTENSION_SUFFIX}`] = extensionModule({ name: module, value: index });
    files[`${folder}/__init__.py`] = `${files[`${folder}/__init__.py`] ?? ""}from . import ${module}\n`;
  }
  if (name === "numpy") files["numpy/__init__.py"] += NUMPY;
  if (name === "pandas") files["pandas/__init__.py"] += "from . import _libs\n";
  if (name === "matplotlib") files["pylab/__init__.py"] = "import matplotlib.pyplot\n";
  if (name === "scipy") Object.assign(files, vendoredLibrary());
  if (name === "inspice") Object.assign(files, linkedLibrary());
  const [written = "", , ...tags] = file_name.slice(0, -".whl".length).split("-");
  const { bytes, filename } = await makeWheel({ name: written, version, files, tag: tags.join("-") });
  expect(filename).toBe(file_name);
  return bytes;
}

/** As Pyodide's wheels bring libraries along: in a folder beside the package, found by a path in the library. */
function vendoredLibrary() {
  const linking = { needed: ["libvendored.so"], runtimePaths: ["$ORIGIN/../scipy.libs"] };
  return {
    "scipy/__init__.py": "from . import _first, _second\n",
    [`scipy/_first${EXTENSION_SUFFIX}`]: extensionModule({
      name: "_first",
      valueFrom: "libvendored_value",
      ...linking,
    }),
    [`scipy/_second${EXTENSION_SUFFIX}`]: extensionModule({
      name: "_second",
      valueFrom: "libvendored_value",
      ...linking,
    }),
    "scipy.libs/libvendored.so": answering("libvendored", 17),
  };
}

/** As packages link to a library that is a package of its own in the lock file. */
function linkedLibrary() {
  const needed = ["libngspice.so"];
  return {
    "InSpice/__init__.py": "from . import _spice\n",
    [`InSpice/_spice${EXTENSION_SUFFIX}`]: extensionModule({
      name: "_spice",
      valueFrom: "libngspice_value",
      imports: ["PyErr_Clear"],
      needed,
    }),
  };
}

async function value(code: string, environment?: string): Promise<unknown> {
  const { body } = await server.post("/api/execute", { code, environment, files: "none" });
  expect({ error: body.error, stderr: body.stderr }).toEqual({ error: null, stderr: "" });
  return body.result;
}

describe("the default environment, by Pyodide's own lock file", () => {
  test("has every package of the graph, in the lock file's version", async () => {
    const { body } = await server.get("/api/environments");
    const { packages, warnings } = body.environments.find(({ name }: { name: string }) => name === "default");
    expect(warnings).toEqual([]);
    const versions = Object.fromEntries(
      packages.map((item: LockedPackage) => [normaliseName(item.name), item.version]),
    );
    const expected = [...closure(SETTINGS.PYODIDE_PACKAGES.fallback.split(","))].map((name) => {
      const locked = lock.packages[name] as LockedPackage;
      return [normaliseName(locked.name), locked.version];
    });
    expect(versions).toEqual({
      ...Object.fromEntries(expected),
      seaborn: "0.13.2",
      openpyxl: "3.1.5",
      tzdata: lock.packages.tzdata?.version,
    });
  });

  test("has its modules imported, under the names that people use", async () => {
    const code = py`
      import sys
      [np is sys.modules["numpy"], pd is sys.modules["pandas"], plt is sys.modules["matplotlib.pyplot"],
       sns is sys.modules["seaborn"], requests is sys.modules["requests"], httpx is sys.modules["httpx"],
       plt.get_fignums(), sys.modules["matplotlib"].backend, micropip.__version__.endswith("+sandbox")]`;
    expect(await value(code)).toEqual([true, true, true, true, true, true, [], "agg", true]);
  });

  test("calls each of its shared libraries, before and after a rewind", async () => {
    const code = py`
      import sys
      found = {}
      for name, module in sys.modules.items():
          package, _, library = name.rpartition("._lib")
          if library.isdecimal() and module.value == int(library):
              found[package] = found.get(package, 0) + 1
      found`;
    const expected = Object.fromEntries(
      Object.values(LIBRARIES).map(([folder, count]) => [folder.replaceAll("/", "."), count]),
    );
    for (let round = 0; round < 2; round++) expect(await value(code)).toEqual(expected);
  });

  test("sends a figure that is open at the end, also of code that fails, and closes it", async () => {
    const figure = expect.objectContaining({ "image/png": Buffer.from("figure").toString("base64") });
    const session = (await server.post("/api/sessions", {})).body.session.id;
    const run = async (code: string) => (await server.post("/api/execute", { code, session })).body;
    expect(await run("plt.figure()")).toMatchObject({ success: true, outputs: [figure] });
    expect(await run("plt.figure()\n1 / 0")).toMatchObject({ error: "division by zero", outputs: [figure] });
    expect(await run("plt.get_fignums()")).toMatchObject({ result: [], outputs: [] });
    const slow = { code: "plt.figure()\nwhile True: pass", session, timeout: 2000 };
    expect((await server.post("/api/execute", slow)).body).toMatchObject({
      errorInfo: { type: "Timeout" },
      outputs: [],
    });
    expect(await run("plt.get_fignums()")).toMatchObject({ result: [], outputs: [] });
  });
});

test("libraries of a lock file's packages pass the check, and nothing is warned of", async () => {
  const { body } = await server.get("/api/environments");
  const { warnings } = body.environments.find(({ name }: { name: string }) => name === "linked");
  expect(warnings).toEqual([]);
});

test("libraries link to those that a wheel brings along, and to those that are packages of their own", async () => {
  const code = py`
    from scipy import _first, _second
    from InSpice import _spice
    [_first.value, _second.value, _spice.value]`;
  for (let round = 0; round < 2; round++) expect(await value(code, "linked")).toEqual([17, 17, 41]);
});
