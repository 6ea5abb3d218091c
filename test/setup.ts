import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import type { TestProject } from "vitest/node";
import { openHost } from "../src/compose/host.ts";
import { ImageCache } from "../src/environments/images.ts";
import { loadConfig } from "../src/shared/settings.ts";
import { TEST_CACHE_DIR } from "./support/config.ts";

/** Builds the memory image once, so that no test file waits for it, nor two build it at a time. What tests leave behind goes with the run. */
export default async function setup(project: TestProject): Promise<() => void> {
  const folder = mkdtempSync(path.join(os.tmpdir(), "pyodide-express-tests-"));
  // Some tests are of servers that are another user's.
  chmodSync(folder, 0o755);
  process.env.TMPDIR = folder;
  const config = loadConfig({ CACHE_DIR: TEST_CACHE_DIR });
  const images = new ImageCache({
    cacheDir: config.CACHE_DIR,
    host: await openHost(config),
    onProgress: (message) => console.log(message),
  });
  const image = await images.base();
  const files = [...image.stdlib.files, image.path, `${image.path}.json`];
  project.provide(
    "builtFiles",
    files.map((file) => path.relative(TEST_CACHE_DIR, file)),
  );
  return () => rmSync(folder, { recursive: true, force: true });
}
