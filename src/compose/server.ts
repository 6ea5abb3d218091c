import { setMaxListeners } from "node:events";
import { readdir, readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import type { Logger } from "pino";
import { openNetwork } from "../egress/egress.ts";
import { CacheCollector } from "../environments/cache-collector.ts";
import { loadDefinitions, STDLIB } from "../environments/definitions.ts";
import { denoCache } from "../environments/deno-cache.ts";
import { ImageCache, unusableCache } from "../environments/images.ts";
import { ModuleOwners } from "../environments/module-owners.ts";
import { baseOf, Environments } from "../environments/registry.ts";
import { Executor } from "../executor/executor.ts";
import { SandboxPool } from "../executor/pool.ts";
import { warmUp } from "../executor/warm-up.ts";
import { createApp } from "../http/app.ts";
import { checkBinding, parseApiKeys } from "../http/middleware/authentication.ts";
import { limitConnections } from "../http/middleware/connection-limit.ts";
import { allowedOrigins } from "../http/middleware/cross-site.ts";
import { Draining } from "../http/middleware/draining.ts";
import { replyWithError } from "../http/middleware/error-handler.ts";
import { KeyGuesses } from "../http/middleware/key-guesses.ts";
import { requestLimiter } from "../http/middleware/rate-limit.ts";
import { limitSlowBodies } from "../http/middleware/slow-bodies.ts";
import { assertIsolation, detectIsolation, type IsolationReport } from "../isolation/detect.ts";
import { ArchiveReader } from "../packages/archive-reader.ts";
import { BytecodeCompiler } from "../packages/bytecode-compiler.ts";
import { BytecodeStore } from "../packages/bytecode-store.ts";
import { HttpFetcher } from "../packages/fetcher.ts";
import { DiskPackageRecords } from "../packages/package-records.ts";
import { PackageSetBuilder } from "../packages/package-set.ts";
import { PackageShares } from "../packages/package-shares.ts";
import { PackageStore } from "../packages/package-store.ts";
import { RedisPackageRecords } from "../packages/redis-package-records.ts";
import { loadPyodideLock } from "../packages/sources/pyodide-lock.ts";
import { createPackageSources } from "../packages/sources/sources.ts";
import { WheelStore } from "../packages/wheel-store.ts";
import { GUEST_DIR, PYODIDE_DIR } from "../sandbox/launch.ts";
import { Sandbox, type SandboxOptions } from "../sandbox/sandbox.ts";
import { SecurityLog } from "../security-log/security-log.ts";
import { CallerPackages } from "../service/caller-environment.ts";
import { DiskSessions } from "../sessions/disk-store.ts";
import { RedisSessions } from "../sessions/redis-store.ts";
import { Sessions } from "../sessions/sessions.ts";
import { sharesOf } from "../sessions/shares.ts";
import type { SessionStore } from "../sessions/store.ts";
import { ARCHIVES_FOLDER } from "../shared/cache-layout.ts";
import { ClientError, StartupError } from "../shared/errors.ts";
import { makeFolder } from "../shared/make-folder.ts";
import { ANONYMOUS } from "../shared/principal.ts";
import { RedisConnection } from "../shared/redis-connection.ts";
import type { Config, Inferred } from "../shared/settings.ts";
import { DiskStatistics } from "../statistics/disk-store.ts";
import { RedisStatistics } from "../statistics/redis-store.ts";
import { Statistics } from "../statistics/statistics.ts";
import type { StatisticsStore } from "../statistics/store.ts";
import { Metrics } from "../telemetry/metrics.ts";
import type { GuestEnvironment, GuestOptions } from "../wire/messages.ts";
import { DiskWorkspaces } from "../workspaces/disk-workspaces.ts";
import { RedisWorkspaces } from "../workspaces/redis-workspaces.ts";
import type { WorkspaceStore } from "../workspaces/workspaces.ts";

const HTTP_LIMITS = {
  // Bodies are held to a rate, see `slow-bodies.ts`.
  requestTimeout: 0,
  connectionsCheckingInterval: 2_000,
  maxHeaderSize: 16 * 1024,
};
/**
 * A balancer may open a connection before it has a request for it: for Node that is one whose headers take long, so this has to be
 * beyond the time that an idle connection may have.
 */
const HEADERS_MARGIN_MS = 5_000;
/** Half of the descriptors that a process commonly may have, 4096 or more with Node's own raising of the limit. */
const MAX_CONNECTIONS = 2_000;
/** Of one address, be it a company's: a quarter is left for all others. */
const MAX_CONNECTIONS_OF_NETWORK = 1_500;

/** Servers that share a cache tell each other so often what they use. */
const CACHE_SWEEP_INTERVAL_MS = 3_600_000;

export interface RunningServer {
  /** `http://127.0.0.1:3000` */
  readonly url: string;
  readonly executor: Executor;
  /**
   * Resolves when all that was defined can run. Until then the standard library's environment is served as soon as it can be, and
   * what cannot yet is 503 `starting`. Rejects with why the server cannot start; then `stop` it.
   */
  readonly ready: Promise<void>;
  /** Stops listening, lets what runs end for up to `graceMs`, and ends every sandbox. */
  stop(graceMs: number): Promise<void>;
}

/** Everything that runs Python, without HTTP. */
export interface Runtime {
  readonly executor: Executor;
  readonly isolation: IsolationReport;
  readonly environments: Environments;
  readonly packages: CallerPackages;
  /** As of {@link RunningServer}. */
  readonly ready: Promise<void>;
  stop(graceMs: number): Promise<void>;
}

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
    hashCheckpoint: false,
  };
}

/**
 * Package sources, and the environments that are made from them; nothing is built yet.
 *
 * @param redis where it is kept what callers have installed; null: on this server's disk.
 */
export async function openEnvironments(
  config: Config,
  logger: Logger,
  host: Omit<SandboxOptions, "guest">,
  redis: RedisConnection | null = null,
) {
  const lock = await loadPyodideLock();
  const building = new AbortController();
  // A listener for each sandbox that builds or compiles.
  setMaxListeners(0, building.signal);
  const remote = new HttpFetcher({ proxies: config });
  const wheels = new WheelStore(path.join(config.DATA_DIR, "packages"), remote);
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
    wheelsDir: path.join(config.DATA_DIR, "packages"),
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
  const records = redis
    ? new RedisPackageRecords(redis)
    : new DiskPackageRecords(path.join(config.DATA_DIR, "packages", "principals"));
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
  const runtime = await openRuntime(config, logger, null, onFrame);
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
 * @param redis as for {@link openEnvironments}.
 */
async function openRuntime(
  config: Config,
  logger: Logger,
  redis: RedisConnection | null = null,
  onFrame?: SandboxOptions["onFrame"],
): Promise<Runtime> {
  const host = await openHost(config);
  const { environments, images, store, keeper, owners, close } = await openEnvironments(config, logger, host, redis);
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

/**
 * Listens, and starts everything.
 *
 * @returns when it listens; see {@link RunningServer.ready}.
 * @throws {StartupError} with what to do about it.
 */
export async function startServer(config: Config, logger: Logger): Promise<RunningServer> {
  checkBinding(config);
  await using stack = new AsyncDisposableStack();
  const redis = stack.adopt(connectToRedis(config, logger), (redis) => redis?.close());
  const rateLimiter = requestLimiter(config, redis);
  const keyGuesses = new KeyGuesses({ maxFailures: config.AUTH_MAX_FAILURES, redis });
  const statistics = stack.adopt(
    new Statistics({ store: openStatistics(config, redis) }),
    async (statistics) => await statistics.close(),
  );
  const workspaces = stack.adopt(openWorkspaces(config, redis), async (store) => await store.close());
  const securityLog =
    config.LOG_DIR === "" ? null : stack.adopt(openSecurityLog(config, logger), async (log) => await log.close());
  if (securityLog === null && config.AUDIT_REQUIRED) {
    throw new StartupError("AUDIT_REQUIRED is set, but LOG_DIR is `none`: there would be no security log.");
  }
  const store = stack.adopt(await openSessionStore(config, redis), async (store) => await store.close());
  const network = openNetwork(config);
  const runtime = await openRuntime(config, logger, redis);
  let graceMs = 0;
  stack.defer(async () => await runtime.stop(graceMs));
  const { executor, environments, packages, isolation } = runtime;
  const sessions = new Sessions({
    pool: executor.pool,
    store,
    identityOf: (name) => environments.get(name).image.sha256,
    durability: config.SESSION_DURABILITY,
    defaultTtlMs: config.SESSION_TTL_S * 1000,
    maxBytes: config.SESSION_MAX_MB * 2 ** 20,
    maxOfPrincipal: config.SESSIONS_PER_PRINCIPAL,
    files: { maxBytes: config.WORKSPACE_MAX_MB * 2 ** 20, maxFiles: config.WORKSPACE_MAX_FILES },
    onError: (error, session) => logger.error({ err: error, session }, "a session could not be looked after"),
  });
  stack.defer(async () => await sessions.stop(graceMs));
  /** What the server needs and does not work, in words. */
  const troubles = () => [
    ...(redis?.trouble == null ? [] : [`Redis cannot be used: ${redis.trouble}.`]),
    ...(securityLog?.reason == null ? [] : [`The security log cannot be written: ${securityLog.reason}.`]),
  ];
  const metrics = new Metrics({
    queueDepth: () => executor.pool.status().queued,
    sandboxes: () => {
      const { idle, busy, starting, failed } = executor.pool.status();
      return { idle, busy, starting, failed };
    },
    securityLogHealthy: () => securityLog?.healthy ?? true,
    ready: () => executor.isReady,
    degraded: () => troubles().length > 0,
  });
  executor.pool.on("discarded", (reason) => metrics.recordDiscard(reason.split(":", 1)[0] as string));
  executor.pool.on("rewound", () => metrics.recordRewind());

  const app = createApp({
    config,
    logger,
    executor,
    sessions,
    workspaces,
    packages,
    network,
    securityLog,
    statistics,
    metrics,
    rateLimiter,
    keyGuesses,
    status: {
      executor,
      environment: () => environments.defaultName,
      executionTimeoutMs: config.EXECUTION_TIMEOUT_MS,
      version: await pyodideVersion(),
      logging: {
        level: config.LOG_LEVEL,
        logFile: config.LOG_DIR === "" ? null : "server.log",
        securityLogFile: securityLog === null ? null : "security.log",
        isFileLoggingEnabled: config.LOG_DIR !== "",
        // A name, not a path: where things lie on the host is no client's concern.
        logDirectory: config.LOG_DIR === "" ? null : path.basename(config.LOG_DIR),
      },
      isOpen: parseApiKeys(config).length === 0,
      progress: () => environments.progress,
      troubles,
      facts: () => ({
        defaultEnvironment: environments.defaultName,
        environments: environments.list().map(({ name }) => name),
        isolation: { tool: isolation.tool, layers: isolation.layers },
        securityLog: { healthy: securityLog?.healthy ?? true, reason: securityLog?.reason ?? null },
      }),
    },
  });
  if (parseApiKeys(config).length === 0 && allowedOrigins(config) === "*") {
    logger.warn("There are no API_KEYS: any page a browser here opens may run code. CORS_ORIGIN=none shuts them out.");
  }
  const keepAliveTimeout = config.KEEP_ALIVE_S * 1000;
  const http = createServer(
    { ...HTTP_LIMITS, keepAliveTimeout, headersTimeout: keepAliveTimeout + HEADERS_MARGIN_MS },
    app,
  );
  limitSlowBodies(http, {
    minBytesPerSecond: config.BODY_MIN_RATE,
    windowMs: config.BODY_STALL_S * 1000,
    refuse: replyWithError,
  });
  const draining = new Draining(http);
  limitConnections(http, {
    maxConnections: MAX_CONNECTIONS,
    maxOfNetwork: MAX_CONNECTIONS_OF_NETWORK,
    isProxy: app.get("trust proxy fn"),
  });
  await listen(http, config);
  const { address, port, family } = http.address() as AddressInfo;
  const running = stack.move();
  return {
    url: `http://${family === "IPv6" ? `[${address}]` : address}:${port}`,
    executor,
    ready: runtime.ready,
    async stop(grace) {
      graceMs = grace;
      draining.begin();
      await running.disposeAsync();
      await draining.end();
    },
  };
}

async function pyodideVersion(): Promise<string> {
  const manifest = await readFile(path.join(PYODIDE_DIR, "package.json"), "utf8");
  return (JSON.parse(manifest) as { version: string }).version;
}

/** @returns null: this server shares nothing. */
function connectToRedis(config: Config, logger: Logger): RedisConnection | null {
  const { REDIS_URL, SESSION_STORE_MAX_MB, WORKSPACE_MAX_MB } = config;
  if (REDIS_URL === "") return null;
  return new RedisConnection({
    url: REDIS_URL,
    // A workspace that is replaced is there twice for a moment.
    promisedBytes: (SESSION_STORE_MAX_MB + 2 * principalsOf(config).size * WORKSPACE_MAX_MB) * 2 ** 20,
    onConnection: (reason) => {
      if (reason === null) logger.info("Redis can be used.");
      else logger.error({ reason }, "Redis cannot be used; trying again.");
    },
    onWarning: (message) => logger.warn(message),
  });
}

async function openSessionStore(config: Config, redis: RedisConnection | null): Promise<SessionStore> {
  const shares = sharesOf(
    config.SESSION_STORE_MAX_MB * 2 ** 20,
    principalsOf(config).size,
    config.SESSION_STORE_PRINCIPAL_MAX_MB * 2 ** 20,
  );
  if (redis !== null) return new RedisSessions({ connection: redis, leaseMs: config.SESSION_LEASE_MS, shares });
  return await DiskSessions.open({ directory: path.join(config.DATA_DIR, "sessions"), shares });
}

function openStatistics({ DATA_DIR }: Config, redis: RedisConnection | null): StatisticsStore {
  return redis === null ? new DiskStatistics(DATA_DIR) : new RedisStatistics({ connection: redis, dir: DATA_DIR });
}

function openWorkspaces(config: Config, redis: RedisConnection | null): WorkspaceStore {
  const limits = { maxBytes: config.WORKSPACE_MAX_MB * 2 ** 20, maxFiles: config.WORKSPACE_MAX_FILES };
  if (redis !== null) return new RedisWorkspaces({ connection: redis, ...limits });
  return new DiskWorkspaces({ directory: path.join(config.DATA_DIR, "workspaces"), ...limits });
}

/** Who may be let in; one, `anonymous`, while authentication is off. */
function principalsOf(config: Config): ReadonlySet<string> {
  const keys = parseApiKeys(config);
  return new Set(keys.length === 0 ? [ANONYMOUS.id] : keys.map(({ principal }) => principal.id));
}

/** How much of the pool one principal may have. A principal that is alone may take all of it. */
function principalShares(config: Config): { maxPerPrincipal: number; maxQueuedPerPrincipal: number } {
  const { POOL_SIZE, QUEUE_LIMIT, PRINCIPAL_MAX_CONCURRENCY, PRINCIPAL_MAX_QUEUED } = config;
  const isShared = principalsOf(config).size > 1;
  return {
    maxPerPrincipal: PRINCIPAL_MAX_CONCURRENCY || (isShared ? Math.max(1, POOL_SIZE - 1) : POOL_SIZE),
    maxQueuedPerPrincipal: PRINCIPAL_MAX_QUEUED || (isShared ? Math.ceil(QUEUE_LIMIT / 2) : QUEUE_LIMIT),
  };
}

/** What follows from other settings where they leave it open, for people. */
export function impliedSettings(config: Config): readonly Inferred[] {
  const { maxPerPrincipal, maxQueuedPerPrincipal } = principalShares(config);
  const keys = parseApiKeys(config).length;
  const from = keys === 0 ? "no API keys" : `the API keys of ${principalsOf(config).size}`;
  const origins = allowedOrigins(config);
  const implied: Inferred[] = [];
  const imply = (name: string, value: string) => implied.push({ name, value, from });
  if (config.PRINCIPAL_MAX_CONCURRENCY === 0) imply("PRINCIPAL_MAX_CONCURRENCY", String(maxPerPrincipal));
  if (config.PRINCIPAL_MAX_QUEUED === 0) imply("PRINCIPAL_MAX_QUEUED", String(maxQueuedPerPrincipal));
  if (config.CORS_ORIGIN === "") imply("CORS_ORIGIN", origins === "*" ? "*" : "none");
  return implied;
}

/** What the package sources are, and which files folders among them hold. */
async function fingerprintSources(config: Config): Promise<string> {
  const { PACKAGE_DIR, PYODIDE_INDEX_URL, PACKAGE_INDEX_URL } = config;
  const list = async (folder: string) => (await readdir(folder).catch(() => [])).sort();
  const folders = [PACKAGE_DIR, PYODIDE_INDEX_URL].filter((place) => place !== "" && !/^https?:/i.test(place));
  return JSON.stringify([PACKAGE_DIR, PYODIDE_INDEX_URL, PACKAGE_INDEX_URL, await Promise.all(folders.map(list))]);
}

function openSecurityLog(config: Config, logger: Logger): SecurityLog {
  const { LOG_DIR: dir, LOG_MAX_SIZE: maxBytes, LOG_MAX_TOTAL_MB } = config;
  const maxTotalBytes = LOG_MAX_TOTAL_MB === 0 ? Number.POSITIVE_INFINITY : LOG_MAX_TOTAL_MB * 2 ** 20;
  if (maxTotalBytes < 2 * maxBytes) {
    throw new StartupError(
      "LOG_MAX_TOTAL_MB must have room for two files of LOG_MAX_SIZE, or be 0: nothing is deleted.",
    );
  }
  const log = new SecurityLog({
    dir,
    maxBytes,
    maxTotalBytes,
    onHealth: (healthy, reason) => {
      if (healthy) logger.info("The security log can be written again.");
      else logger.error({ reason }, "The security log cannot be written.");
    },
  });
  const { refused } = log;
  // A full disk has room again some time, and code may run until then. Another server's log stays that server's.
  if (refused !== null && refused.trouble !== null && refused.trouble !== "full") {
    void log.close();
    throw refused;
  }
  return log;
}

function listen(http: Server, config: Config): Promise<void> {
  return new Promise((resolve, reject) => {
    http.once("error", (error: NodeJS.ErrnoException) => {
      const where = `${config.HOST}:${config.PORT}`;
      const hint = {
        EADDRINUSE: `Port ${config.PORT} is taken. Stop what uses it, or set PORT to another (0 picks a free one).`,
        EACCES: `Port ${config.PORT} needs privileges. Set PORT to one above 1023.`,
        EADDRNOTAVAIL: `${config.HOST} is not an address of this machine. Set HOST to one that is.`,
        ENOTFOUND: `${config.HOST} is not a known name. Set HOST to an address of this machine.`,
      }[error.code ?? ""];
      reject(new StartupError(hint ?? `Cannot listen on ${where}: ${error.message}`, { cause: error }));
    });
    http.listen(config.PORT, config.HOST, resolve);
  });
}
