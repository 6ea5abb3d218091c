import path from "node:path";
import type { TestProject } from "vitest/node";
import { openHost } from "../src/compose/host.ts";
import { ImageCache } from "../src/environments/images.ts";
import { loadConfig } from "../src/shared/settings.ts";
import { TEST_CACHE_DIR } from "./support/config.ts";

/** Builds the memory image once, so that no test file waits for it, nor two build it at a time. */
export default async function setup(project: TestProject): Promise<void> {
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
}
