import { rm } from "node:fs/promises";
import path from "node:path";
import { pino } from "pino";
import { openEnvironments } from "../../src/compose/environments.ts";
import { openHost } from "../../src/compose/host.ts";
import type { CacheCollector } from "../../src/environments/cache-collector.ts";
import type { Environments } from "../../src/environments/registry.ts";
import type { PackageStore } from "../../src/packages/package-store.ts";
import { ARCHIVES_FOLDER } from "../../src/shared/cache-layout.ts";
import { copyBuilt } from "./built.ts";
import { testConfig } from "./config.ts";

export interface TestEnvironments extends AsyncDisposable {
  readonly environments: Environments;
  readonly store: PackageStore;
  readonly keeper: CacheCollector;
  /** Of the server log, in order. */
  readonly messages: string[];
  readonly warnings: string[];
}

/** Environments as a server opens them; nothing is built yet. */
export async function openTestEnvironments(settings: Record<string, string>): Promise<TestEnvironments> {
  const messages: string[] = [];
  const warnings: string[] = [];
  const write = (line: string) => {
    const { level, msg } = JSON.parse(line) as { level: number; msg: string };
    messages.push(msg);
    if (level >= 40) warnings.push(msg);
  };
  const config = testConfig(settings);
  const { environments, store, keeper, close } = await openEnvironments(
    config,
    pino({}, { write }),
    await openHost(config),
  );
  return { environments, store, keeper, messages, warnings, [Symbol.asyncDispose]: close };
}

/** A cache folder of a test's own that has the standard library's image, and its archive unless `compiled` is false. */
export async function cacheFolder({ compiled = true } = {}): Promise<string> {
  const folder = path.join(testConfig().DATA_DIR, "cache");
  copyBuilt(folder);
  if (!compiled) await rm(path.join(folder, ARCHIVES_FOLDER), { recursive: true });
  return folder;
}
