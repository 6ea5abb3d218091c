import type { AddressInfo } from "node:net";
import path from "node:path";
import type { Logger } from "pino";
import type { Executor } from "../executor/executor.ts";
import { createApp } from "../http/app.ts";
import { checkBinding, parseApiKeys } from "../http/middleware/authentication.ts";
import { allowedOrigins } from "../http/middleware/cross-site.ts";
import { KeyGuesses } from "../http/middleware/key-guesses.ts";
import { messageLimit, requestLimiter } from "../http/middleware/rate-limit.ts";
import type { RouteServices } from "../http/routes.ts";
import { Channels } from "../http/websocket/channels.ts";
import { openProtocols } from "../protocols/protocols.ts";
import { Sessions } from "../sessions/sessions.ts";
import { Broadcast } from "../shared/broadcast.ts";
import { StartupError } from "../shared/errors.ts";
import type { Config } from "../shared/settings.ts";
import { Statistics } from "../statistics/statistics.ts";
import { Metrics } from "../telemetry/metrics.ts";
import { Continuations } from "../tools/continuations.ts";
import { newServerName } from "../tools/execution-id.ts";
import { ToolFleet } from "../tools/fleet.ts";
import { ToolExecutions } from "../tools/tool-executions.ts";
import { ToolEndpoints } from "../tools/webhook.ts";
import { workspaceLimits } from "../workspaces/workspace-index.ts";
import { chooseStores } from "./choose-stores.ts";
import { openHost, pyodideVersion } from "./host.ts";
import { createListener, listen } from "./listener.ts";
import { openCallerNetwork, openMcpServers, openSecrets } from "./network.ts";
import { maxOpenRequests, toolShares } from "./principals.ts";
import { openRuntime } from "./runtime.ts";
import { openSecurityLog } from "./security-log.ts";

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

/**
 * Listens, and starts everything.
 *
 * @param host what is found out of this host: takes a while, and may have been begun.
 * @param adapters opens the foreign protocols that PROTOCOLS names; default: as they are.
 * @returns when it listens; see {@link RunningServer.ready}.
 * @throws {StartupError} with what to do about it.
 */
export async function startServer(
  config: Config,
  logger: Logger,
  host = openHost(config),
  adapters = openProtocols,
): Promise<RunningServer> {
  // It is waited for later, or not at all.
  host.catch(() => {});
  checkBinding(config);
  await using stack = new AsyncDisposableStack();
  const { redis, stores } = await chooseStores(config, logger);
  stack.defer(() => redis?.close());
  const rateLimiter = requestLimiter(config, redis);
  const keyGuesses = new KeyGuesses({ maxFailures: config.AUTH_MAX_FAILURES, redis });
  const statistics = stack.adopt(
    new Statistics({ store: stores.statistics() }),
    async (statistics) => await statistics.close(),
  );
  const workspaces = stack.adopt(stores.workspaces(), async (store) => await store.close());
  const securityLog =
    config.LOG_DIR === "" ? null : stack.adopt(openSecurityLog(config, logger), async (log) => await log.close());
  if (securityLog === null && config.AUDIT_REQUIRED) {
    throw new StartupError("AUDIT_REQUIRED is set, but LOG_DIR is `none`: there would be no security log.");
  }
  const store = stack.adopt(await stores.sessions(), async (store) => await store.close());
  const secrets = openSecrets(config, stores.secrets());
  const network = openCallerNetwork(config, secrets);
  const mcpServers = stack.adopt(openMcpServers(config, secrets), async (servers) => await servers.close());
  const runtime = await openRuntime(config, logger, stores.packageRecords(), host);
  let graceMs = 0;
  stack.defer(async () => await runtime.stop(graceMs));
  const { executor, environments, packages, isolation } = runtime;
  const serverName = newServerName();
  const fleet = redis === null ? null : new ToolFleet(redis, serverName);
  const tools = new ToolExecutions({
    server: serverName,
    fleet,
    ...toolShares(config),
    maxWaitMs: config.TOOL_WAIT_MAX_S * 1000,
    maxCalls: config.TOOL_CALLS_MAX,
  });
  const sessions = new Sessions({
    pool: executor.pool,
    store,
    identityOf: (name) => environments.get(name).image.sha256,
    durability: config.SESSION_DURABILITY,
    defaultTtlMs: config.SESSION_TTL_S * 1000,
    maxBytes: config.SESSION_MAX_MB * 2 ** 20,
    maxOfPrincipal: config.SESSIONS_PER_PRINCIPAL,
    files: workspaceLimits(config),
    workspaces,
    onError: (error, session) => logger.error({ err: error, session }, "a session could not be looked after"),
    isWaitingElsewhere: fleet === null ? undefined : (id) => tools.isWaitingElsewhere(id),
  });
  stack.defer(async () => await sessions.stop(graceMs));
  const continuations = new Continuations(tools);
  fleet?.serve({
    answer: async (principal, id, answers) => await tools.answer(principal, id, answers),
    proceed: async (principal, id, answers) => (await continuations.proceed(principal, id, answers)).reply,
    delivered: (principal, id) => continuations.delivered(principal, id),
    cancel: (principal, id) => continuations.cancel(principal, id),
  });
  const toolEndpoints = new ToolEndpoints({
    urls: config.TOOL_ENDPOINTS,
    secret: config.TOOL_ENDPOINT_SECRET,
    allowPrivate: config.NETWORK_ALLOW_PRIVATE,
  });
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

  const channels = new Channels({
    logger,
    maxOfPrincipal: config.WEBSOCKETS_PER_PRINCIPAL,
    resumeMs: config.WEBSOCKET_RESUME_S * 1000,
    heartbeatMs: config.STREAM_HEARTBEAT_S * 1000,
    count: messageLimit(rateLimiter),
  });
  const services: RouteServices = {
    channels,
    config,
    executor,
    sessions,
    workspaces,
    packages,
    network,
    secrets,
    tools,
    continuations,
    mcpServers,
    toolEndpoints,
    securityLog,
    statistics,
    metrics,
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
  };
  const protocols = adapters(config.PROTOCOLS, {
    services,
    logger,
    broadcast: new Broadcast(redis),
    count: messageLimit(rateLimiter),
  });
  stack.defer(async () => {
    for (const protocol of protocols) await protocol.close?.();
  });
  const maxOpen = maxOpenRequests(config);
  const app = createApp({ ...services, logger, rateLimiter, keyGuesses, maxOpenRequests: maxOpen, protocols });
  if (parseApiKeys(config).length === 0 && allowedOrigins(config) === "*") {
    logger.warn("There are no API_KEYS: any page a browser here opens may run code. CORS_ORIGIN=none shuts them out.");
  }
  if (config.E2B_DEBUG_PORTS.length > 0 && parseApiKeys(config).length > 0)
    throw new StartupError(
      "E2B_DEBUG_PORTS is for a server without keys: who asks there sends none. Unset one of them.",
    );
  const { http, draining } = createListener(app, config);
  await listen(http, config);
  const debugging = config.E2B_DEBUG_PORTS.map((port) => ({ port, ...createListener(app, config) }));
  try {
    for (const { http, port } of debugging) await listen(http, { PORT: port, HOST: "127.0.0.1" }, "E2B_DEBUG_PORTS");
  } catch (error) {
    for (const each of [http, ...debugging.map((other) => other.http)]) each.close();
    throw error;
  }
  const { address, port, family } = http.address() as AddressInfo;
  const running = stack.move();
  return {
    url: `http://${family === "IPv6" ? `[${address}]` : address}:${port}`,
    executor,
    ready: runtime.ready,
    async stop(grace) {
      graceMs = grace;
      draining.begin();
      for (const other of debugging) other.draining.begin();
      channels.begin();
      await running.disposeAsync();
      await channels.end();
      await Promise.all([draining.end(), ...debugging.map((other) => other.draining.end())]);
    },
  };
}
