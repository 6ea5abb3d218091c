import type { Logger } from "pino";
import { STDLIB } from "../environments/definitions.ts";
import { denoCache } from "../environments/deno-cache.ts";
import { baseOf, type Environments } from "../environments/registry.ts";
import { Executor } from "../executor/executor.ts";
import { SandboxPool } from "../executor/pool.ts";
import { warmUp } from "../executor/warm-up.ts";
import type { IsolationReport } from "../isolation/detect.ts";
import { ArchiveReader } from "../packages/archive-reader.ts";
import type { PackageRecords } from "../packages/package-records.ts";
import { PackageShares } from "../packages/package-shares.ts";
import { Sandbox, type SandboxOptions } from "../sandbox/sandbox.ts";
import { CallerPackages } from "../service/caller-environment.ts";
import { ClientError } from "../shared/errors.ts";
import type { Config } from "../shared/settings.ts";
import { openEnvironments } from "./environments.ts";
import { bootOptions, openHost } from "./host.ts";
import { principalShares } from "./principals.ts";

/** Servers that share a cache tell each other so often what they use. */
const CACHE_SWEEP_INTERVAL_MS = 3_600_000;

/** Everything that runs Python, without HTTP. */
export interface Runtime {
  readonly executor: Executor;
  readonly isolation: IsolationReport;
  readonly environments: Environments;
  readonly packages: CallerPackages;
  /** Resolves when all that was defined can run. Rejects with why it cannot start; then `stop` it. */
  readonly ready: Promise<void>;
  stop(graceMs: number): Promise<void>;
}

/**
 * Builds what is not built yet, and starts sandboxes.
 *
 * @param onFrame told of each frame of the pool's sandboxes.
 * @returns when all that was defined can run.
 * @throws {StartupError} with what to do about it.
 */
export async function startRuntime(
  config: Config,
  logger: Logger,
  { onFrame }: Pick<SandboxOptions, "onFrame"> = {},
): Promise<Runtime> {
  const runtime = await openRuntime(config, logger, undefined, openHost(config), onFrame);
  try {
    await runtime.ready;
    return runtime;
  } catch (error) {
    await runtime.stop(0);
    throw error;
  }
}

/**
 * As {@link startRuntime}, but builds in the background.
 *
 * @param records as for {@link openEnvironments}.
 */
export async function openRuntime(
  config: Config,
  logger: Logger,
  records: PackageRecords | undefined,
  opening: ReturnType<typeof openHost>,
  onFrame?: SandboxOptions["onFrame"],
): Promise<Runtime> {
  const host = await opening;
  const { environments, images, store, keeper, owners, close } = await openEnvironments(config, logger, host, records);
  const guestOf = (name: string) => bootOptions(config, environments.get(name));
  let denoDir: string | null = null;
  const pool = new SandboxPool({
    size: config.POOL_SIZE,
    sharing: config.SANDBOX_SHARING,
    spareEnvironment: baseOf,
    queueLimit: config.QUEUE_LIMIT,
    ...principalShares(config),
    maxExecutions: config.SANDBOX_MAX_EXECUTIONS,
    maxAgeMs: config.SANDBOX_MAX_AGE_MS,
    environment: STDLIB,
    start: (name) => Sandbox.start({ ...host, denoDir, guest: guestOf(name), onFrame }),
    warmUp,
  });
  pool.on("ready", ({ pid, bootMs, everyPage }) => logger.debug({ pid, bootMs, everyPage }, "sandbox ready"));
  pool.once("ready", ({ everyPage }) => {
    if (everyPage !== null) logger.info({ reason: everyPage }, "Rewinds look at all of a sandbox's memory.");
  });
  pool.on("startFailed", (error, environment) =>
    logger.error({ err: error, environment }, "a sandbox could not be started; trying again"),
  );
  pool.on("discarded", (reason) => logger.info({ reason }, "sandbox replaced"));
  const sweep = async () =>
    await keeper.sweep().catch((error) => logger.error({ err: error }, "The caches could not be looked after."));

  let isStarting = true;
  let isStopping = false;
  let sweeper: NodeJS.Timeout | undefined;
  const prepare = async () => {
    await environments.prepareStdlib();
    const sandbox = { ...host, guest: guestOf(STDLIB) };
    denoDir = await denoCache({ cacheDir: config.CACHE_DIR, key: await images.runtimeKey(), sandbox });
    if (denoDir !== null) keeper.hold(denoDir);
    await environments.prepareBuilt();
    const { defaultName } = environments;
    await pool.start(environments.isReady(defaultName) ? defaultName : STDLIB);
    await environments.prepare();
    if (isStopping) throw new ClientError("server_stopping");
    await pool.prefer(environments.defaultName);
    isStarting = false;
    // Not before: what is built is in use.
    await sweep();
    sweeper = setInterval(() => void sweep(), CACHE_SWEEP_INTERVAL_MS).unref();
  };
  const ready = prepare();
  // Who stops the server need not wait for it.
  ready.catch(() => {});

  const archives = new ArchiveReader();
  return {
    executor: new Executor(pool, () => isStarting),
    isolation: host.isolation,
    environments,
    packages: new CallerPackages({
      store,
      environments,
      archives,
      keeper,
      owners,
      shares: new PackageShares((config.PACKAGES_PRINCIPAL_MAX_MB || Math.ceil(config.CACHE_MAX_MB / 4)) * 2 ** 20),
    }),
    ready,
    async stop(graceMs) {
      isStopping = true;
      if (isStarting) await close();
      await pool.stop(graceMs);
      await close();
      await ready.catch(() => {});
      clearInterval(sweeper);
      archives.close();
    },
  };
}
