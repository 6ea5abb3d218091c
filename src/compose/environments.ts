import { setMaxListeners } from "node:events";
import { readdir } from "node:fs/promises";
import path from "node:path";
import type { Logger } from "pino";
import { CacheCollector } from "../environments/cache-collector.ts";
import { loadDefinitions } from "../environments/definitions.ts";
import { ImageCache } from "../environments/images.ts";
import { ModuleOwners } from "../environments/module-owners.ts";
import { Environments } from "../environments/registry.ts";
import { BytecodeCompiler } from "../packages/bytecode-compiler.ts";
import { BytecodeStore } from "../packages/bytecode-store.ts";
import { HttpFetcher } from "../packages/fetcher.ts";
import { PackageSetBuilder } from "../packages/package-set.ts";
import { PackageStore } from "../packages/package-store.ts";
import { loadPyodideLock } from "../packages/sources/pyodide-lock.ts";
import { createPackageSources } from "../packages/sources/sources.ts";
import { WheelStore } from "../packages/wheel-store.ts";
import type { SandboxOptions } from "../sandbox/sandbox.ts";
import { ARCHIVES_FOLDER } from "../shared/cache-layout.ts";
import type { Config } from "../shared/settings.ts";
import { diskStores } from "./stores.ts";

/**
 * Package sources, and the environments that are made from them; nothing is built yet.
 *
 * @param records what callers have installed; default: as kept on this server's disk.
 */
export async function openEnvironments(
  config: Config,
  logger: Logger,
  host: Omit<SandboxOptions, "guest">,
  records = diskStores(config).packageRecords(),
) {
  const lock = await loadPyodideLock();
  const building = new AbortController();
  // A listener for each sandbox that builds or compiles.
  setMaxListeners(0, building.signal);
  const remote = new HttpFetcher({ proxies: config });
  const wheelsDir = path.join(config.DATA_DIR, "packages");
  const wheels = new WheelStore(wheelsDir, remote);
  const sources = await createPackageSources(config, { lock, remote, store: wheels });
  const images = new ImageCache({
    cacheDir: config.CACHE_DIR,
    host: { ...host, signal: building.signal },
    onProgress: (message) => logger.info(message),
  });
  const archives = path.join(config.CACHE_DIR, ARCHIVES_FOLDER);
  const compiler = new BytecodeCompiler(() => images.compiler());
  const bytecode = new BytecodeStore(archives, compiler, () => images.compilerKey());
  const sets = new PackageSetBuilder(archives, { store: wheels, lock, bytecode });
  const keeper = new CacheCollector({
    cacheDir: config.CACHE_DIR,
    wheelsDir,
    unusedMs: config.CACHE_UNUSED_DAYS === 0 ? Number.POSITIVE_INFINITY : config.CACHE_UNUSED_DAYS * 86_400_000,
    maxBytes: config.CACHE_MAX_MB * 2 ** 20,
    neededWheels: async () => new Set([...environments.wheels(), ...(await records.wheels())]),
    onRemoved: (paths) => {
      logger.info({ files: paths.size }, "Removed unused files from the caches.");
      environments.forget(paths);
      void images.forget(paths);
      store.forget();
    },
  });
  const environments = new Environments({
    keeper,
    definitions: await loadDefinitions(config),
    sources,
    python: lock.python,
    sets,
    images,
    cacheDir: config.CACHE_DIR,
    sourcesFingerprint: await fingerprintSources(config),
    strict: config.ENVIRONMENT_STRICT,
    onProgress: (message) => logger.info(message),
    onWarning: (message) => logger.warn(message),
  });
  const store = new PackageStore({ records, sources, python: lock.python, wheels, sets });
  const owners = new ModuleOwners({ lock, sources, python: lock.python });
  return {
    environments,
    images,
    store,
    keeper,
    owners,
    /** Gives up what is being sought, fetched and built. */
    close: async () => {
      environments.close();
      building.abort();
      await compiler.close();
      await remote.close();
    },
  };
}

/** What the package sources are, and which files folders among them hold. */
async function fingerprintSources(config: Config): Promise<string> {
  const { PACKAGE_DIR, PYODIDE_INDEX_URL, PACKAGE_INDEX_URL } = config;
  const list = async (folder: string) => (await readdir(folder).catch(() => [])).sort();
  const folders = [PACKAGE_DIR, PYODIDE_INDEX_URL].filter((place) => place !== "" && !/^https?:/i.test(place));
  return JSON.stringify([PACKAGE_DIR, PYODIDE_INDEX_URL, PACKAGE_INDEX_URL, await Promise.all(folders.map(list))]);
}
