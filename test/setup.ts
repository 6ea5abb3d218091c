import { loadConfig } from "../src/config.ts";
import { ImageCache } from "../src/environments/image-cache.ts";
import { openHost } from "../src/server.ts";
import { TEST_CACHE_DIR } from "./support/config.ts";

/** Builds the memory image once, so that no test file waits for it, nor two build it at a time. */
export default async function setup(): Promise<void> {
  const config = loadConfig({ CACHE_DIR: TEST_CACHE_DIR });
  const images = new ImageCache({
    cacheDir: config.CACHE_DIR,
    host: await openHost(config),
    onProgress: (message) => console.log(message),
  });
  await images.base();
}
