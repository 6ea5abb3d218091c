import { cpSync, mkdirSync } from "node:fs";
import path from "node:path";
import { inject } from "vitest";
import { TEST_CACHE_DIR } from "./config.ts";

declare module "vitest" {
  export interface ProvidedContext {
    /** Files of the standard library's archive and image, relative to {@link TEST_CACHE_DIR}. */
    readonly builtFiles: readonly string[];
  }
}

/**
 * Copies what every environment is built on into a cache folder of a test's own: compiling the standard library takes ten
 * seconds, and is the same whatever the program around it is like. An image of another program is not taken for its own.
 */
export function copyBuilt(cacheDir: string): void {
  for (const file of inject("builtFiles")) {
    mkdirSync(path.dirname(path.join(cacheDir, file)), { recursive: true });
    cpSync(path.join(TEST_CACHE_DIR, file), path.join(cacheDir, file));
  }
}
