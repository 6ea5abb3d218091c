import { mkdirSync, mkdtempSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { type Config, loadConfig } from "../../src/config.ts";

/** Shared by all test files and runs: the image in it is keyed by what it is made from. */
export const TEST_CACHE_DIR = fileURLToPath(new URL("../../node_modules/.cache/pyodide-express", import.meta.url));

/** Settings for a test: a data folder of its own, no log files, any free port. */
export function testConfig(settings: Record<string, string> = {}): Config {
  const dataDir = mkdtempSync(path.join(os.tmpdir(), "pyodide-express-test-"));
  mkdirSync(path.join(dataDir, "no-packages"));
  return loadConfig({
    DATA_DIR: dataDir,
    CACHE_DIR: TEST_CACHE_DIR,
    PORT: "0",
    LOG_LEVEL: "silent",
    POOL_SIZE: "1",
    // Without a network there is nothing to be had from the defaults but waiting.
    PYODIDE_PACKAGES: "none",
    PYODIDE_INDEX_URL: path.join(dataDir, "no-packages"),
    PACKAGE_INDEX_URL: "none",
    ...settings,
  });
}
