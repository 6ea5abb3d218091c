import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { StartupError } from "../shared/errors.ts";
import { loadConfig } from "../shared/settings.ts";
import { openServerLog } from "../telemetry/server-log.ts";
import { StdioBridge } from "./stdio-bridge.ts";

/** Where a message goes to, and what ends with the connection. */
interface Target extends AsyncDisposable {
  readonly url: string;
  readonly key: string | null;
  readonly ready: Promise<unknown>;
}

/**
 * Speaks MCP by stdio, for hosts that start a command: with a server of its own, or with one that runs elsewhere. Stdout is the protocol's alone.
 *
 * @returns exit code, when stdin has ended or a signal has come.
 */
export async function mcp(args: string[]): Promise<number> {
  const { values } = parseArgs({ args, options: { url: { type: "string" } } });
  await using target = values.url === undefined ? await ownServer() : otherServer(values.url);
  const bridge = new StdioBridge({
    ...target,
    input: process.stdin,
    write: (line) => process.stdout.write(line),
  });
  const ended = new Promise<void>((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.once(signal, () => resolve());
    // The host reads no more.
    process.stdout.on("error", () => resolve());
  });
  const failed = target.ready.then(
    () => new Promise<never>(() => {}),
    (error) => {
      throw error;
    },
  );
  try {
    await Promise.race([bridge.run(), ended, failed]);
    return 0;
  } finally {
    // Ends the bridge, too.
    process.stdin.destroy();
  }
}

/** @throws {StartupError} */
function otherServer(given: string): Target {
  const url = URL.parse(given);
  if (url === null || !/^https?:$/.test(url.protocol))
    throw new StartupError("--url must be the http:// or https:// address of a server.");
  if (!url.pathname.endsWith("/mcp")) url.pathname = `${url.pathname.replace(/\/$/, "")}/mcp`;
  const { API_KEY } = loadConfig();
  return {
    url: url.href,
    key: API_KEY === "" ? null : API_KEY,
    ready: Promise.resolve(),
    [Symbol.asyncDispose]: async () => {},
  };
}

/**
 * A server for this host alone: on a port of the loopback interface that no other process has the key of. Its data are gone with it, unless DATA_DIR names a
 * folder; images and packages are kept in the user's cache.
 */
async function ownServer(): Promise<Target> {
  const { env } = process;
  await using stack = new AsyncDisposableStack();
  const dataDir = env.DATA_DIR || (await mkdtemp(path.join(os.tmpdir(), "pyodide-express-mcp-")));
  if (!env.DATA_DIR) stack.defer(async () => await rm(dataDir, { recursive: true, force: true, maxRetries: 3 }));
  const key = randomBytes(32).toString("hex");
  const caches = env.XDG_CACHE_HOME || path.join(os.homedir(), ".cache");
  const config = loadConfig({
    CACHE_DIR: path.join(caches, "pyodide-express"),
    LOG_DIR: "none",
    LOG_LEVEL: "warn",
    ...env,
    DATA_DIR: dataDir,
    HOST: "127.0.0.1",
    PORT: "0",
    BASE_PATH: "",
    TRUST_PROXY: "",
    API_KEYS: "",
    API_KEY: key,
    PROTOCOLS: "mcp",
  });
  const { LOG_LEVEL, LOG_DIR, LOG_MAX_SIZE } = config;
  const { logger, close } = openServerLog({
    level: LOG_LEVEL,
    dir: LOG_DIR,
    maxBytes: LOG_MAX_SIZE,
    stdout: process.stderr,
  });
  stack.defer(close);
  const { startServer } = await import("../compose/server.ts");
  const server = await startServer(config, logger);
  stack.defer(async () => await server.stop(0));
  const running = stack.move();
  return {
    url: `${server.url}/mcp`,
    key,
    ready: server.ready,
    [Symbol.asyncDispose]: async () => await running.disposeAsync(),
  };
}
