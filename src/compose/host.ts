import { readFile } from "node:fs/promises";
import path from "node:path";
import { unusableCache } from "../environments/images.ts";
import { assertIsolation, detectIsolation } from "../isolation/detect.ts";
import { GUEST_DIR, PYODIDE_DIR } from "../sandbox/launch.ts";
import type { SandboxOptions } from "../sandbox/sandbox.ts";
import { makeFolder } from "../shared/make-folder.ts";
import type { Config } from "../shared/settings.ts";
import type { GuestEnvironment, GuestOptions } from "../wire/messages.ts";

/**
 * How a sandbox process is started on this host; the operating system's layers are tried out, not assumed.
 *
 * @throws {StartupError} if the cache folder cannot be made, or a layer that ISOLATION_REQUIRED names does not work here.
 */
export async function openHost(config: Config): Promise<Omit<SandboxOptions, "guest">> {
  // Made here, since only what exists can be made visible inside.
  await makeFolder(config.CACHE_DIR).catch((cause) => {
    throw unusableCache(config.CACHE_DIR, cause);
  });
  const isolation = await detectIsolation(config, { readOnlyPaths: [GUEST_DIR, PYODIDE_DIR, config.CACHE_DIR] });
  assertIsolation(isolation, config);
  return {
    memoryMb: config.SANDBOX_MEMORY_MB,
    isCompact: config.SANDBOX_COMPACT,
    startTimeoutMs: config.SANDBOX_START_TIMEOUT_MS,
    maxCpuTimeMs: config.EXECUTION_CPU_MS,
    isolation,
    denoDir: null,
  };
}

/** How a sandbox of an environment boots. @param environment its `guest` is null for the standard library alone. */
export function bootOptions(
  config: Config,
  {
    baseImagePath,
    stdlibPath,
    guest,
  }: Pick<GuestOptions, "baseImagePath" | "stdlibPath"> & { readonly guest: GuestEnvironment | null },
): GuestOptions {
  return {
    baseImagePath,
    stdlibPath,
    environment: guest,
    preload: [],
    maxHeapBytes: config.SANDBOX_MAX_HEAP_MB * 2 ** 20,
    mapMemory: config.MEMORY_MAPPING === "auto",
    hashBaseline: false,
  };
}

export async function pyodideVersion(): Promise<string> {
  const manifest = await readFile(path.join(PYODIDE_DIR, "package.json"), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}
