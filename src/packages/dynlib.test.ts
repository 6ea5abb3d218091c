import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { DynlibZip } from "./dynlib.ts";
import { HttpFetcher } from "./fetcher.ts";
import { PackageSetBuilder } from "./package-set.ts";
import { parseRequirement } from "./pep/requirements.ts";
import { resolve } from "./resolver.ts";
import { loadPyodideLock } from "./sources/pyodide-lock.ts";
import { createPackageSources } from "./sources/sources.ts";
import { makeWheel, makeZip } from "./testing/wheels.ts";
import { WheelStore } from "./wheel-store.ts";

const LIBRARY = Buffer.from("\0asm\u0001\0\0\0", "latin1");

test("a library that Pyodide's lock file lists comes along, and is loaded before what needs it", async () => {
  const lock = await loadPyodideLock();
  const folder = temporaryFolder();
  const wheel = await makeWheel({
    name: "demo",
    version: "1",
    tag: "cp314-cp314-pyemscripten_2026_0_wasm32",
    files: { "demo/a.so": LIBRARY },
  });
  const zip = await makeZip([{ name: "libdemo.so", data: LIBRARY }]);
  const common = { imports: [], depends: [] as string[] };
  const json = {
    info: { abi_version: "2026_0", arch: "wasm32", platform: "emscripten_5_0_3", python: "3.14.2" },
    packages: {
      demo: {
        ...common,
        name: "demo",
        version: "1",
        file_name: wheel.filename,
        sha256: wheel.sha256,
        depends: ["libdemo"],
      },
      libdemo: {
        ...common,
        name: "libdemo",
        version: "0.1",
        file_name: "libdemo-0.1.zip",
        sha256: createHash("sha256").update(zip).digest("hex"),
        package_type: "shared_library",
      },
    },
  };
  await writeFile(path.join(folder, wheel.filename), wheel.bytes);
  await writeFile(path.join(folder, "libdemo-0.1.zip"), zip);
  await writeFile(path.join(folder, "pyodide-lock.json"), JSON.stringify(json));

  const store = new WheelStore(temporaryFolder(), new HttpFetcher());
  const settings = { PACKAGE_DIR: "", PYODIDE_INDEX_URL: folder, PACKAGE_INDEX_URL: "" };
  const sources = await createPackageSources(settings, { lock, remote: new HttpFetcher(), store });
  const { packages } = await resolve([parseRequirement("demo")], { sources, python: lock.python });
  const set = await new PackageSetBuilder(temporaryFolder(), { store, lock }).build(packages);
  expect(set.compiled).toBe(true);
  expect(set.sharedLibraries).toEqual(["dynlib/libdemo.so", "site-packages/demo/a.so"]);
  expect(set.packages.map(({ name, dependsOn }) => [name, dependsOn])).toEqual([
    ["demo", ["libdemo"]],
    ["libdemo", []],
  ]);
});

test("without RECORD the zip's own checksum tells damage", async () => {
  const zip = await makeZip([{ name: "lib.so", data: "0123456789abcdefghijklmnopqrstuvwxyz" }]);
  const file = path.join(temporaryFolder(), "lib.zip");
  const start = zip.indexOf("lib.so") + "lib.so".length;
  let refused = 0;
  for (let at = start + 4; at < start + 34; at++) {
    const damaged = Buffer.from(zip);
    damaged[at] = (damaged[at] as number) ^ 1;
    await writeFile(file, damaged);
    const open = await DynlibZip.open(file, "lib.zip");
    const [entry] = open.files;
    if (entry === undefined) throw new Error("no entry");
    await expect(open.read(entry), `byte ${at}`).rejects.toThrow(expect.objectContaining({ code: "package_damaged" }));
    open.close();
    refused++;
  }
  expect(refused).toBe(30);
});
