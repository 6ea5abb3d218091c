import { writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { makeWheel } from "../../src/packages/testing/wheels.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { createClient, type TestClient } from "../support/client.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

/** What a failed import says of the package that the module is part of. */

let server: TestServer;
let folder: string;
let ada: TestClient;
let reader: TestClient;

beforeAll(async () => {
  folder = temporaryFolder("pyodide-express-owners");
  for (const recipe of [
    { name: "python-docx", version: "1.2", files: { "docx/__init__.py": "" } },
    { name: "python-dotenv", version: "1", requires: ["nowhere-to-be-found"] },
    {
      name: "beautifulsoup4",
      version: "4",
      files: { "bs4/__init__.py": "" },
      requires: ["python-docx ; extra == 'docs'", "nowhere-to-be-found ; extra == 'http2'"],
    },
    { name: "anything", version: "1", files: { "anything.py": "" } },
  ]) {
    const { filename, bytes } = await makeWheel(recipe);
    await writeFile(path.join(folder, filename), bytes);
  }
  const environments = path.join(folder, "environments.json");
  await writeFile(environments, JSON.stringify({ soup: { packages: ["beautifulsoup4", "pyyaml"] } }));
  server = await startTestServer({
    PACKAGE_DIR: folder,
    PACKAGE_INDEX_URL: "",
    ENVIRONMENTS_FILE: environments,
    API_KEYS: "ada:ada-key-of-sixteen,reader:reader-key-of-sixteen:execute",
  });
  const clientOf = (key: string) => createClient(server.url, { authorization: `Bearer ${key}` });
  ada = clientOf("ada-key-of-sixteen");
  reader = clientOf("reader-key-of-sixteen");
}, 120_000);
afterAll(async () => {
  await server.stop(0);
});

const run = async (client: TestClient, code: string, environment = "stdlib") =>
  (await client.post("/api/execute", { code, environment })).body;
const failed = async (module: string, client = ada, environment = "stdlib") =>
  (await run(client, `import ${module}`, environment)).error as string;

test("a package of another name that can be installed", async () => {
  const error = await failed("docx");
  expect(error).toBe(
    "No module named 'docx': it is part of the package python-docx, which is not installed; " +
      'install it with `await micropip.install("python-docx")` or a line `%pip install python-docx`',
  );
  expect((await run(ada, "import docx.shared")).stderr).toContain(`${error}\n`);
});

test("that does what it says", async () => {
  expect(await run(ada, 'import micropip\nawait micropip.install("python-docx")\nimport docx')).toMatchObject({
    success: true,
  });
  expect(await run(ada, "%pip install python-docx\n!pip install -q nowhere\nimport docx\n5")).toMatchObject({
    success: true,
    result: 5,
    stderr: expect.stringMatching(/^ERROR: "nowhere" cannot be installed: /),
  });
});

test("one that cannot be installed, and why", async () => {
  const error = await failed("dotenv");
  expect(error).toMatch(
    /part of the package python-dotenv, which is not installed here and cannot be: .*needs "nowhere-to-be-found"/,
  );
  const known = {
    sklearn: "scikit-learn",
    cv2: "opencv-python",
    yaml: "pyyaml",
    dateutil: "python-dateutil",
    skimage: "scikit-image",
  };
  const others = {
    fitz: "PyMuPDF",
    Crypto: "pycryptodome",
    jwt: "PyJWT",
    serial: "pyserial",
    attr: "attrs",
    PIL: "pillow",
  };
  for (const [module, name] of Object.entries({ ...known, ...others })) {
    expect((await failed(module)).toLowerCase(), module).toMatch(
      new RegExp(
        `part of the package ${name.toLowerCase()}, which .*cannot be: "${name.toLowerCase()}" cannot be installed`,
      ),
    );
  }
  expect(await failed("torch")).toMatch(/^No module named 'torch': the package is not installed here and cannot be: /);
});

test("one that the environment goes without, and one that another environment has", async () => {
  expect(await failed("yaml", ada, "soup")).toMatch(
    /part of the package pyyaml, which the environment "soup" goes without: "pyyaml" cannot be installed: no source has this package/,
  );
  expect(await failed("bs4")).toMatch(
    /part of the package beautifulsoup4, which is not installed.*; the environment "soup" has it$/,
  );
  expect(await run(ada, "import bs4\n1", "soup")).toMatchObject({ success: true });
});

test("extras of a package that the environment has are installed, or named", async () => {
  const install = async (requirement: string) =>
    await run(ada, `import micropip\nawait micropip.install("${requirement}")\nimport docx\n1`, "soup");
  expect(await install("beautifulsoup4")).toMatchObject({ errorInfo: { type: "ModuleNotFoundError" } });
  expect((await install("beautifulsoup4[http2]")).error).toMatch(
    /"beautifulsoup4\[http2\]" cannot be installed: beautifulsoup4 4 needs "nowhere-to-be-found", but no source has this package/,
  );
  expect((await install("beautifulsoup4[nothing]")).error).toMatch(/has the extras docs, http2, and not nothing/);
  expect(await install("beautifulsoup4[docs]")).toMatchObject({ success: true, result: 1 });
});

test("a key that may not install is told so", async () => {
  expect(await failed("docx", reader)).toMatch(
    /python-docx, which is not installed, and this API key may not install packages$/,
  );
});

test("in sessions, too", async () => {
  const { session } = (await ada.post("/api/sessions", { environment: "stdlib" })).body;
  const { body } = await ada.post("/api/execute", { code: "import dotenv", session: session.id });
  expect(body.error).toMatch(/python-dotenv/);
});

test("a name that is not known is not guessed at", async () => {
  for (const module of [
    "anything",
    "nowhere",
    "my_own_module",
    "os.nowhere",
    "docx.nowhere",
    "__proto__",
    "constructor",
  ]) {
    expect(await failed(module, reader)).toMatch(
      new RegExp(module === "docx.nowhere" ? "python-docx" : `^No module named '${module.split(".")[0]}[^:]*$`),
    );
  }
});

test("code that catches the error finds Python's own message, and asks no source", async () => {
  expect(await run(ada, "try: import sklearn\nexcept ImportError as e: print(e)")).toMatchObject({
    stdout: "No module named 'sklearn'\n",
  });
});

test("what Pyodide's own functions for the network are refused", async () => {
  for (const code of [
    "from pyodide.http import open_url\nopen_url('https://example.com/x.csv')",
    "from pyodide.http import pyfetch\nawait pyfetch('https://example.com/x.csv')",
  ]) {
    expect(await run(ada, code)).toMatchObject({
      success: false,
      error: expect.stringMatching(/example\.com/),
      errorInfo: { type: expect.stringMatching(/^(URLError|ConnectionError)$/) },
    });
  }
});
