import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Logger } from "pino";
import type { Config } from "./config.ts";
import { Engine } from "./engine/engine.ts";
import { SandboxPool } from "./engine/pool.ts";
import { type Image, stdlibImage } from "./environments/image-cache.ts";
import { StartupError } from "./errors.ts";
import { createApp } from "./http/app.ts";
import { Sandbox } from "./sandbox/sandbox.ts";

export interface RunningServer {
  /** `http://127.0.0.1:3000` */
  readonly url: string;
  readonly engine: Engine;
  /** Stops listening, lets what runs end for up to `graceMs`, and ends every sandbox. */
  stop(graceMs: number): Promise<void>;
}

/** Everything that runs Python: the image and the pool of sandboxes, without HTTP. */
export async function startEngine(config: Config, logger: Logger): Promise<{ engine: Engine; image: Image }> {
  const image = await stdlibImage({
    cacheDir: config.CACHE_DIR,
    memoryMb: config.SANDBOX_MEMORY_MB,
    startTimeoutMs: config.SANDBOX_START_TIMEOUT_MS,
    onProgress: (message) => logger.info(message),
  });
  const pool = new SandboxPool({
    size: config.POOL_SIZE,
    queueLimit: config.QUEUE_LIMIT,
    maxExecutions: config.SANDBOX_MAX_EXECUTIONS,
    maxAgeMs: config.SANDBOX_MAX_AGE_MS,
    environment: "stdlib",
    start: () =>
      Sandbox.start({
        guest: {
          snapshotPath: image.path,
          environment: null,
          preload: [],
          maxHeapBytes: config.SANDBOX_MAX_HEAP_MB * 1024 * 1024,
          hashCheckpoint: false,
        },
        memoryMb: config.SANDBOX_MEMORY_MB,
        startTimeoutMs: config.SANDBOX_START_TIMEOUT_MS,
      }),
  });
  pool.on("ready", (sandbox) => logger.debug({ pid: sandbox.pid, bootMs: sandbox.bootMs }, "sandbox ready"));
  pool.on("startFailed", (error) => logger.error({ err: error }, "a sandbox could not be started; trying again"));
  pool.on("discarded", (reason) => logger.info({ reason }, "sandbox replaced"));
  await pool.start();
  const engine = new Engine({
    pool,
    defaultEnvironment: "stdlib",
    quota: { bytes: config.WORKSPACE_MAX_MB * 1024 * 1024, files: config.WORKSPACE_MAX_FILES },
  });
  return { engine, image };
}

/**
 * Starts sandboxes, then listens.
 *
 * @throws {StartupError} with what to do about it.
 */
export async function startServer(config: Config, logger: Logger): Promise<RunningServer> {
  const { engine } = await startEngine(config, logger);
  const version = engine.pool.sandboxes()[0]?.pyodideVersion ?? "";
  const app = createApp({ config, engine, logger, version, facts: () => ({}) });
  const http = createServer(app);
  try {
    await listen(http, config);
  } catch (error) {
    await engine.pool.stop(0);
    throw error;
  }
  const { address, port, family } = http.address() as AddressInfo;
  return {
    url: `http://${family === "IPv6" ? `[${address}]` : address}:${port}`,
    engine,
    async stop(graceMs) {
      const closed = new Promise<void>((resolve) => http.close(() => resolve()));
      http.closeIdleConnections();
      await engine.pool.stop(graceMs);
      http.closeAllConnections();
      await closed;
    },
  };
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
