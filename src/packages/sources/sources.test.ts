import { createHash } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { temporaryFolder } from "../../shared/testing/temporary-folder.ts";
import { HttpFetcher } from "../fetcher.ts";
import { parseRequirement } from "../pep/requirements.ts";
import { resolve } from "../resolver.ts";
import { PackageServer, serveBytes } from "../testing/package-server.ts";
import { COMPILED_TAG } from "../testing/shared-libraries.ts";
import { type MadeWheel, makeWheel } from "../testing/wheels.ts";
import { WheelStore } from "../wheel-store.ts";
import type { Offers, PackageSource } from "./package-source.ts";
import { loadPyodideLock } from "./pyodide-lock.ts";
import { createPackageSources } from "./sources.ts";

const lock = await loadPyodideLock();
let server: PackageServer;
let remote: HttpFetcher;

beforeEach(async () => {
  server = await PackageServer.start();
  remote = new HttpFetcher({ retryDelayMs: 1 });
});

afterEach(async () => {
  await remote.close();
  await server.close();
});

async function sources(settings: { PACKAGE_DIR?: string; PYODIDE_INDEX_URL?: string; PACKAGE_INDEX_URL?: string }) {
  const store = new WheelStore(temporaryFolder(), remote);
  return await createPackageSources(
    { PACKAGE_DIR: "", PYODIDE_INDEX_URL: "", PACKAGE_INDEX_URL: "", ...settings },
    { lock, remote, store },
  );
}

const last = (list: readonly PackageSource[]) => list.at(-1) as PackageSource;
const found = ({ candidates }: Offers) => candidates.map(({ filename }) => filename);
const unavailable = (message: RegExp) =>
  expect.objectContaining({ code: "package_source_unavailable", message: expect.stringMatching(message) });

async function folderOf(...files: readonly { filename: string; bytes: Uint8Array | string }[]): Promise<string> {
  const folder = temporaryFolder();
  for (const { filename, bytes } of files) await writeFile(path.join(folder, filename), bytes);
  return folder;
}

function lockFile(change: (lock: { info: Record<string, string>; packages: Record<string, unknown> }) => void): string {
  const json = {
    info: { abi_version: "2026_0", arch: "wasm32", platform: "emscripten_5_0_3", python: "3.14.2" },
    packages: {} as Record<string, unknown>,
  };
  change(json);
  return JSON.stringify(json);
}

const locked = (wheel: MadeWheel, depends: string[] = []) => ({
  name: wheel.recipe.name,
  version: wheel.recipe.version,
  file_name: wheel.filename,
  sha256: wheel.sha256,
  depends,
  imports: [],
  package_type: "package",
  install_dir: "site",
});

test("the settings' sources come in their order, and their descriptions keep secrets", async () => {
  const list = await sources({
    PACKAGE_DIR: "/srv/wheels",
    PYODIDE_INDEX_URL: "https://me:s3cret@mirror.example/pyodide",
    PACKAGE_INDEX_URL: "https://me:s3cret@pypi.example/simple",
  });
  expect(list.map(({ description }) => description)).toEqual([
    "the package folder",
    "Pyodide's packages at mirror.example",
    "index pypi.example",
  ]);
  expect((await sources({})).map(({ description }) => description)).toEqual(["Pyodide's packages at cdn.jsdelivr.net"]);
  await expect(sources({ PACKAGE_INDEX_URL: "ftp://x" })).rejects.toThrow(/PACKAGE_INDEX_URL/);
  await expect(sources({ PYODIDE_INDEX_URL: "s3://x" })).rejects.toThrow(/PYODIDE_INDEX_URL/);
});

describe("a folder of wheels", () => {
  test("gives what fits, newest first, and says what does not", async () => {
    const wheels = await Promise.all(
      ["1.9", "1.10"].map(async (version) => await makeWheel({ name: "demo", version, requires: ["other>=2"] })),
    );
    const foreign = await makeWheel({ name: "demo", version: "2", tag: "cp314-cp314-manylinux_2_17_x86_64" });
    const PACKAGE_DIR = await folderOf(...wheels, foreign, { filename: "demo_more-1-py3-none-any.whl", bytes: "" });
    const [folder] = await sources({ PACKAGE_DIR });
    const offers = await (folder as PackageSource).find("demo");
    expect(found(offers)).toEqual(["demo-1.10-py3-none-any.whl", "demo-1.9-py3-none-any.whl"]);
    expect(offers.unusable).toEqual([{ filename: foreign.filename, reason: "other-platform", detail: "manylinux" }]);
    const requirements = await offers.candidates[0]?.requirements();
    expect(requirements?.requires.map(({ text }) => text)).toEqual(["other>=2"]);
    expect(found(await (folder as PackageSource).find("nothing"))).toEqual([]);
  });

  test("sees wheels that are put there later", async () => {
    const PACKAGE_DIR = await folderOf();
    const [folder] = await sources({ PACKAGE_DIR });
    expect(found(await (folder as PackageSource).find("demo"))).toEqual([]);
    const wheel = await makeWheel({ name: "demo", version: "1" });
    await writeFile(path.join(PACKAGE_DIR, wheel.filename), wheel.bytes);
    expect(found(await (folder as PackageSource).find("demo"))).toEqual([wheel.filename]);
  });

  test("that is not there cannot be asked", async () => {
    const [folder] = await sources({ PACKAGE_DIR: "/nonexistent/wheels" });
    await expect((folder as PackageSource).find("demo")).rejects.toThrow(
      unavailable(/^the package folder cannot be read\.$/),
    );
  });

  test("with a lock file of its own binds what that lists", async () => {
    const wheel = await makeWheel({ name: "demo", version: "1", requires: ["unwanted"] });
    const loose = await makeWheel({ name: "loose", version: "1" });
    const lockText = lockFile(({ packages }) => {
      packages.demo = { ...locked(wheel, ["wanted"]) };
    });
    const PYODIDE_INDEX_URL = await folderOf(wheel, loose, { filename: "pyodide-lock.json", bytes: lockText });
    const [folder] = await sources({ PYODIDE_INDEX_URL });
    const [candidate] = (await (folder as PackageSource).find("demo")).candidates;
    expect(candidate?.sha256).toBe(wheel.sha256);
    expect((await candidate?.requirements())?.requires.map(({ text }) => text)).toEqual(["wanted"]);
    expect(found(await (folder as PackageSource).find("loose"))).toEqual([loose.filename]);
  });
});

test("a folder that holds what Pyodide's lock file names has all that another build of it needs", async () => {
  const wheels = await Promise.all([
    // As the real one states it, to whom time zones are no option.
    makeWheel({
      name: "pandas",
      version: "2.3.3",
      tag: COMPILED_TAG,
      requires: ["numpy>=1.26", "python-dateutil>=2.8.2", "pytz>=2020.1", "tzdata>=2022.7", 'xlrd; extra == "excel"'],
      extras: ["excel"],
    }),
    ...["numpy", "python-dateutil", "pytz", "six"].map(async (name) => await makeWheel({ name, version: "2026.1" })),
  ]);
  const PACKAGE_DIR = await folderOf(...wheels);
  const place = await sources({ PACKAGE_DIR, PYODIDE_INDEX_URL: await folderOf() });
  const names = async (text: string) => {
    const { packages } = await resolve([parseRequirement(text)], { sources: place, python: lock.python });
    return packages.map(({ candidate, dependsOn }) => [candidate.key, dependsOn]);
  };
  expect(await names("pandas")).toEqual([
    ["numpy", []],
    ["pandas", ["numpy", "python-dateutil", "pytz"]],
    ["python-dateutil", []],
    ["pytz", []],
  ]);
  await expect(names("pandas[excel]")).rejects.toThrow(/xlrd/);
  const zones = await makeWheel({ name: "tzdata", version: "2025.3" });
  await writeFile(path.join(PACKAGE_DIR, zones.filename), zones.bytes);
  expect((await names("pandas")).map(([key]) => key)).toContain("tzdata");
});

describe("Pyodide's packages", () => {
  test("the CDN's come from the installed lock file, without asking anybody", async () => {
    const source = last(await sources({}));
    const [numpy] = (await source.find("numpy")).candidates;
    expect(numpy).toMatchObject({ version: lock.packages.get("numpy")?.version, format: "wheel" });
    expect(numpy?.sha256).toMatch(/^[0-9a-f]{64}$/);
    const [blas] = (await source.find("libopenblas")).candidates;
    expect(blas?.format).toBe("dynlib");
    expect(found(await source.find("pandas-tests"))).toEqual([]);
  });

  test("a mirror without a lock file has the installed one's packages", async () => {
    const source = last(await sources({ PYODIDE_INDEX_URL: `${server.origin}/pyodide` }));
    const [numpy] = (await source.find("numpy")).candidates;
    expect(numpy?.location).toEqual({ url: `${server.origin}/pyodide/${lock.packages.get("numpy")?.filename}` });
    expect(server.requests).toEqual(["GET /pyodide/pyodide-lock.json"]);
  });

  test("a mirror's own lock file counts", async () => {
    const wheel = await makeWheel({ name: "Own_Package", version: "7" });
    const text = lockFile(({ packages }) => {
      packages["own-package"] = locked(wheel);
    });
    server.on("/pyodide/pyodide-lock.json", serveBytes(Buffer.from(text)));
    const source = last(await sources({ PYODIDE_INDEX_URL: `${server.origin}/pyodide/` }));
    expect(found(await source.find("own-package"))).toEqual([wheel.filename]);
    expect(found(await source.find("numpy"))).toEqual([]);
  });

  test.each([
    ["not JSON", "{", /is not JSON/],
    ["another kind of JSON", '{"packages": []}', /cannot be read \(at "info"\)/],
    [
      "a file name that leads elsewhere",
      lockFile(({ packages }) => {
        packages.x = { name: "x", version: "1", file_name: "../x.whl", sha256: "0".repeat(64) };
      }),
      /at "packages\.x\.file_name"/,
    ],
    [
      "another Python",
      lockFile(({ info }) => {
        info.python = "3.13.2";
      }),
      /is for Python 3\.13, ABI 2026_0, wasm32, not for Python 3\.14/,
    ],
  ])("a mirror's lock file that is %s is refused", async (_what, text, message) => {
    server.on("/pyodide/pyodide-lock.json", serveBytes(Buffer.from(text)));
    const source = last(await sources({ PYODIDE_INDEX_URL: `${server.origin}/pyodide` }));
    await expect(source.find("x")).rejects.toThrow(unavailable(message));
  });

  test("a mirror that is back is used", async () => {
    server.on("/pyodide/pyodide-lock.json", (_request, response) => response.writeHead(503).end());
    const source = last(await sources({ PYODIDE_INDEX_URL: `${server.origin}/pyodide` }));
    await expect(source.find("x")).rejects.toThrow(unavailable(/answered 503/));
    server.on("/pyodide/pyodide-lock.json", serveBytes(Buffer.from(lockFile(() => {}))));
    expect(found(await source.find("x"))).toEqual([]);
  });
});

describe("a Python package index", () => {
  test("gives wheels with hash and metadata, without fetching a wheel", async () => {
    const wheel = await makeWheel({ name: "Demo", version: "1", requires: ["other>=2"], requiresPython: ">=3.9" });
    server.add(wheel);
    const source = last(await sources({ PACKAGE_INDEX_URL: server.indexUrl }));
    const [candidate] = (await source.find("demo")).candidates;
    expect(candidate).toMatchObject({ filename: wheel.filename, sha256: wheel.sha256, version: "1" });
    expect((await candidate?.requirements())?.requires.map(({ text }) => text)).toEqual(["other>=2"]);
    expect(server.requests).toEqual(["GET /simple/demo/", `GET /files/${wheel.filename}.metadata`]);
    await source.find("demo");
    expect(server.count("/simple/demo/")).toBe(1);
  });

  test("without metadata beside the wheels, the wheel is fetched and kept", async () => {
    const wheel = await makeWheel({ name: "demo", version: "1", requires: ["other>=2"] });
    server.add(wheel, (file) => ({ ...file, "core-metadata": false }));
    const source = last(await sources({ PACKAGE_INDEX_URL: server.indexUrl }));
    const [candidate] = (await source.find("demo")).candidates;
    expect((await candidate?.requirements())?.requires.map(({ text }) => text)).toEqual(["other>=2"]);
    await candidate?.requirements();
    expect(server.count(`/files/${wheel.filename}`)).toBe(1);
  });

  test("metadata with another hash than promised is refused", async () => {
    const wheel = await makeWheel({ name: "demo", version: "1" });
    const sha256 = createHash("sha256").update("other").digest("hex");
    server.add(wheel, (file) => ({ ...file, "core-metadata": { sha256 } }));
    const source = last(await sources({ PACKAGE_INDEX_URL: server.indexUrl }));
    const [candidate] = (await source.find("demo")).candidates;
    await expect(candidate?.requirements()).rejects.toThrow(expect.objectContaining({ code: "package_damaged" }));
  });

  test("what is withdrawn, for another Python, without hash, or elsewhere than HTTP is not offered", async () => {
    const named = (filename: string, more: object = {}) => ({
      filename,
      url: `../../files/${filename}`,
      hashes: { sha256: "0".repeat(64) },
      ...more,
    });
    server.addFile("demo", named("demo-1-py3-none-any.whl", { yanked: "broken" }));
    server.addFile("demo", named("demo-2-py3-none-any.whl", { "requires-python": "<3.10" }));
    server.addFile("demo", named("demo-3-py3-none-any.whl", { hashes: {} }));
    server.addFile("demo", named("demo-4-py3-none-any.whl", { url: "file:///etc/passwd" }));
    server.addFile("demo", named("demo-5.tar.gz"));
    server.addFile("demo", named("demo-6-cp314-cp314-win_amd64.whl"));
    server.addFile("demo", named("demo-1.5-py3-none-any.whl", { "requires-python": ">=3.8", yanked: false }));
    const source = last(await sources({ PACKAGE_INDEX_URL: server.indexUrl }));
    const offers = await source.find("demo");
    expect(found(offers)).toEqual(["demo-1.5-py3-none-any.whl"]);
    expect(offers.unusable.map(({ filename, reason }) => `${filename.slice(5, 6)} ${reason}`)).toEqual([
      "1 yanked",
      "2 other-python",
      "3 unverifiable",
      "4 unsafe-address",
      "5 source-distribution",
      "6 other-platform",
    ]);
  });

  test.each([
    ["a web page", "text/html", "<html>", /a web page that lists no files of a package/],
    ["no JSON", "application/json", "{", /is not JSON/],
    ["another JSON", "application/json", '{"message":"hi"}', /is not the simple API's/],
    [
      "a future version",
      "application/json",
      '{"meta":{"api-version":"2.0"},"name":"x","files":[]}',
      /version of the API/,
    ],
  ])("that answers with %s cannot be used", async (_what, type, body, message) => {
    server.on("/simple/demo/", (_request, response) => response.writeHead(200, { "content-type": type }).end(body));
    const source = last(await sources({ PACKAGE_INDEX_URL: server.indexUrl }));
    await expect(source.find("demo")).rejects.toThrow(unavailable(message));
  });

  test("404 means that there is no such package, 500 that it is tried again", async () => {
    const source = last(await sources({ PACKAGE_INDEX_URL: server.indexUrl }));
    expect(found(await source.find("nothing"))).toEqual([]);
    const wheel = await makeWheel({ name: "demo", version: "1" });
    server.add(wheel);
    let asked = 0;
    const body = { meta: { "api-version": "1.0" }, name: "demo", files: [] };
    server.on("/simple/demo/", (_request, response) => {
      if (++asked === 1) response.writeHead(500).end();
      else response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
    });
    expect(found(await source.find("demo"))).toEqual([]);
    expect(asked).toBe(2);
  });

  test("of HTML gives wheels as one of JSON does", async () => {
    const wheel = await makeWheel({ name: "Demo", version: "1", requires: ["other>=2"], requiresPython: ">=3.9" });
    server.add(wheel);
    const metadata = createHash("sha256").update(wheel.metadata).digest("hex");
    const page = `<!DOCTYPE html><html><body><a href="../../files/${wheel.filename}#sha256=${wheel.sha256}"
      data-requires-python="&gt;=3.9" data-core-metadata="sha256=${metadata}">${wheel.filename}</a>
      <a href="../../files/demo-2-py3-none-any.whl">without a hash</a></body></html>`;
    server.on("/simple/demo/", (request, response) => {
      expect(request.headers.accept).toContain("text/html");
      response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(page);
    });
    const source = last(await sources({ PACKAGE_INDEX_URL: server.indexUrl }));
    const { candidates, unusable } = await source.find("demo");
    expect(candidates).toMatchObject([{ filename: wheel.filename, sha256: wheel.sha256, version: "1" }]);
    expect((await candidates[0]?.requirements())?.requires.map(({ text }) => text)).toEqual(["other>=2"]);
    expect(unusable).toMatchObject([{ reason: "unverifiable" }]);
  });

  test("behind a login is asked with it, and so are its files", async () => {
    const wheel = await makeWheel({ name: "demo", version: "1" });
    server.add(wheel, (file) => ({ ...file, "core-metadata": false }));
    const seen: (string | undefined)[] = [];
    server.on(`/files/${wheel.filename}`, (request, response) => {
      seen.push(request.headers.authorization);
      serveBytes(wheel.bytes)(request, response);
    });
    const source = last(await sources({ PACKAGE_INDEX_URL: server.indexUrl.replace("//", "//me:s3cret@") }));
    const [candidate] = (await source.find("demo")).candidates;
    await candidate?.requirements();
    expect(seen).toEqual([`Basic ${btoa("me:s3cret")}`]);
  });
});

test("a folder inside the folder is no wheel", async () => {
  const PACKAGE_DIR = await folderOf();
  await mkdir(path.join(PACKAGE_DIR, "demo-1-py3-none-any.whl"));
  const [folder] = await sources({ PACKAGE_DIR });
  const offers = await (folder as PackageSource).find("demo").catch((error: unknown) => error);
  expect(offers).toEqual({ candidates: [], unusable: [] });
});
