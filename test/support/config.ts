import { mkdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type Config, loadConfig } from "../../src/shared/settings.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";

/** Shared by all test files and runs: the image in it is keyed by what it is made from. */
export const TEST_CACHE_DIR = fileURLToPath(new URL("../../node_modules/.cache/pyodide-express", import.meta.url));

/** Environment variables for a server under test: a data folder of its own, any free port, nothing from a network. */
export function testSettings(settings: Record<string, string> = {}): Record<string, string> {
  const dataDir = settings.DATA_DIR ?? temporaryFolder("pyodide-express-test");
  mkdirSync(path.join(dataDir, "no-packages"), { recursive: true });
  return {
    DATA_DIR: dataDir,
    CACHE_DIR: TEST_CACHE_DIR,
    PORT: "0",
    LOG_LEVEL: "silent",
    POOL_SIZE: "1",
    // `MEMORY_MAPPING=off npx vitest run` tests everything as it is where a system has no such thing.
    MEMORY_MAPPING: process.env.MEMORY_MAPPING ?? "auto",
    // Without a network there is nothing to be had from the defaults but waiting.
    PYODIDE_PACKAGES: TEST_PACKAGES,
    PACKAGE_DIR: TEST_PACKAGES === "none" ? "" : TEST_WHEELS,
    PYODIDE_INDEX_URL: path.join(dataDir, "no-packages"),
    PACKAGE_INDEX_URL: "none",
    ...settings,
  };
}

/** A folder of wheels built for the installed Pyodide, numpy among them; empty: what takes those is skipped. */
export const TEST_WHEELS = process.env.PYODIDE_EXPRESS_WHEELS ?? "";

/** What the default environment of tests holds. Files in `test/numpy/` set it and run other files' tests again. */
const TEST_PACKAGES = process.env.TEST_PACKAGES ?? "none";

/** Settings for a test: a data folder of its own, any free port. */
export function testConfig(settings: Record<string, string> = {}): Config {
  return loadConfig(testSettings(settings));
}
