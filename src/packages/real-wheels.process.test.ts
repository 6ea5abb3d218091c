import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { parseArchive } from "../wire/archive-format.ts";
import { HttpFetcher } from "./fetcher.ts";
import { PackageSetBuilder } from "./package-set.ts";
import { parseRequirement } from "./pep/requirements.ts";
import { resolve } from "./resolver.ts";
import { loadPyodideLock } from "./sources/pyodide-lock.ts";
import { createPackageSources } from "./sources/sources.ts";
import { Wheel } from "./wheel.ts";
import { WheelStore } from "./wheel-store.ts";

/** A folder of wheels built for the installed Pyodide, numpy among them; without it these tests are skipped. */
const folder = process.env.PYODIDE_EXPRESS_WHEELS ?? "";
const lock = await loadPyodideLock();

test.skipIf(folder === "")(
  "every wheel in PYODIDE_EXPRESS_WHEELS is sound, each file's hash included",
  async () => {
    const filenames = (await readdir(folder)).filter((name) => name.endsWith(".whl"));
    expect(filenames).not.toEqual([]);
    for (const filename of filenames) {
      const wheel = await Wheel.open(path.join(folder, filename), filename);
      for (const file of wheel.files) await wheel.read(file);
      expect(wheel.files.length, filename).toBeGreaterThan(3);
      wheel.close();
    }
  },
  120_000,
);

test.skipIf(folder === "")(
  "numpy from PYODIDE_EXPRESS_WHEELS becomes the same archive every time",
  async () => {
    const build = async () => {
      const remote = new HttpFetcher();
      const store = new WheelStore(temporaryFolder(), remote);
      const settings = { PACKAGE_DIR: folder, PYODIDE_INDEX_URL: temporaryFolder(), PACKAGE_INDEX_URL: "" };
      const sources = await createPackageSources(settings, { lock, remote, store });
      const { packages } = await resolve([parseRequirement("numpy")], { sources, python: lock.python });
      const cache = temporaryFolder();
      return await new PackageSetBuilder(cache, { store, lock }).build(packages);
    };
    const [first, second] = [await build(), await build()];
    expect(second.archive.sha256).toBe(first.archive.sha256);
    expect(first.packages.map(({ key, compiled, imports }) => ({ key, compiled, imports }))).toEqual([
      { key: "numpy", compiled: true, imports: ["numpy"] },
    ]);
    expect(first.packages[0]?.lockStatus).not.toBe("not-listed");
    expect(first.sharedLibraries.length).toBeGreaterThan(10);
    const archive = parseArchive(await readFile(first.archive.path));
    const libraries = archive.entries.filter(({ kind }) => kind === "library").map((entry) => entry.path);
    expect(libraries).toEqual(first.sharedLibraries);
  },
  120_000,
);
