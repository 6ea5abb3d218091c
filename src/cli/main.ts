#!/usr/bin/env node
import { isUtf8 } from "node:buffer";
import { readFile } from "node:fs/promises";
import os from "node:os";
import { buffer, text } from "node:stream/consumers";
import { parseArgs } from "node:util";
import type { Logger } from "pino";
import { ClientError, StartupError } from "../shared/errors.ts";
import type { JsonText } from "../shared/json/json-text.ts";
import { loadConfig, loadSettings, misspeltSettings } from "../shared/settings.ts";

// Each command loads what it needs: all of it takes as long as a server's start.

const MAX_INDENTED_BYTES = 128 * 1024;

const USAGE = `Usage: pyodide-express <command>

  serve                          serve over HTTP (settings: environment variables, see README)
  run FILE [--timeout MS] [--context JSON] [--trace]
                                 run one file ("-": standard input) in a sandbox and print what it prints;
                                 --trace: each frame to and from the sandbox, its size and time, on stderr
  mcp [--url URL]                speak MCP on stdin and stdout, for hosts that start a command; with URL for a server
                                 that runs there, with its key in API_KEY
  doctor                         versions, cache, and which isolation is active
  build [NAME]                   build the environments' images now, not at the first start
  audit verify [FOLDER]          check the security log's chain and name the first broken line
  version                        the version, and those of Pyodide and Node
`;

const COMMANDS: Readonly<Record<string, (args: string[]) => Promise<number>>> = {
  serve,
  run,
  mcp: runMcp,
  doctor: runDoctor,
  build,
  audit,
  version,
  "--version": version,
};

async function serve(): Promise<number> {
  const { config, inferred } = loadSettings();
  const { openHost } = await import("../compose/host.ts");
  // What the operating system can do is tried out by processes, which run while this one loads its modules.
  const host = openHost(config);
  host.catch(() => {});
  const { startServer } = await import("../compose/server.ts");
  const { impliedSettings } = await import("../compose/principals.ts");
  const { surviveUncaught } = await import("../compose/last-resort.ts");
  const { openServerLog } = await import("../telemetry/server-log.ts");
  const { LOG_LEVEL, LOG_DIR, LOG_MAX_SIZE, NODE_ENV } = config;
  const pretty = NODE_ENV === "development" || process.stdout.isTTY;
  const { logger, close } = openServerLog({ level: LOG_LEVEL, dir: LOG_DIR, maxBytes: LOG_MAX_SIZE, pretty });
  for (const { name, value, from } of [...inferred, ...impliedSettings(config)])
    logger.info(`${name} is ${value}: ${from}`);
  warnOfMisspelt(logger);
  const server = await startServer(config, logger, host);
  surviveUncaught(logger);
  logger.info(`Listening on ${server.url}; starting: /ready tells how far`);
  return await new Promise((resolve, reject) => {
    let isStopping = false;
    const stop = (signal: NodeJS.Signals) => {
      if (isStopping) {
        logger.warn(`${signal} again: ending at once`);
        // Sandboxes end with their server.
        process.exit(128 + os.constants.signals[signal]);
      }
      isStopping = true;
      logger.info(`${signal}: stopping; what runs has ${config.STOP_GRACE_S} s to end`);
      const stopped = (status: number) => {
        close();
        resolve(status);
      };
      server.stop(config.STOP_GRACE_S * 1000).then(
        () => stopped(0),
        (error) => {
          logger.error({ err: error }, "The server could not be stopped in order.");
          stopped(1);
        },
      );
    };
    // A terminal that is closed, and a daemon's manager, say SIGHUP.
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, stop);
    server.ready.then(
      () => {
        if (!isStopping) logger.info(`Ready on ${server.url}`);
      },
      async (error) => {
        // What was being built when it was told to stop was given up.
        if (isStopping) return;
        isStopping = true;
        await server.stop(0).catch(() => {});
        close();
        reject(error);
      },
    );
  });
}

async function run(args: string[]): Promise<number> {
  const { startRuntime } = await import("../compose/runtime.ts");
  const { openCallerNetwork, openSecrets } = await import("../compose/network.ts");
  const { executeBody, parseBody } = await import("../http/validation.ts");
  const { frameTable } = await import("./trace.ts");
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { timeout: { type: "string" }, context: { type: "string" }, trace: { type: "boolean" } },
  });
  const [file] = positionals;
  if (file === undefined || positionals.length > 1) throw new StartupError(USAGE);
  const { context, timeout: timeoutMs } = parseBody(executeBody.pick({ context: true, timeout: true }), {
    context: await parseContext(values.context),
    timeout: values.timeout === undefined ? undefined : Number(values.timeout),
  });
  const code = await readCode(file);
  const config = { ...loadConfig(), POOL_SIZE: 1 };
  const callers = openCallerNetwork(config, openSecrets(config, null));
  const onFrame = values.trace ? frameTable((line) => process.stderr.write(line)) : undefined;
  const runtime = await startRuntime(config, await createLogger("warn"), { onFrame });
  try {
    using network = callers.open("cli", callers.accessFor("cli", []));
    const result = await runtime.executor.execute({
      code,
      environment: runtime.environments.defaultName,
      context,
      // What the file reads is ours to give, unless we read the file itself from there.
      stdin: file !== "-" && !process.stdin.isTTY ? await text(process.stdin) : "",
      timeoutMs: timeoutMs ?? config.EXECUTION_TIMEOUT_MS,
      principal: "cli",
      calls: () => network.calls,
      onOutput: (event) => {
        if (event.type === "stdout") process.stdout.write(event.content);
        if (event.type === "stderr") process.stderr.write(event.content);
      },
    });
    if (result.success && !result.result.isNull) console.log(indented(result.result));
    // What ended it from outside, a timeout say, or ended the interpreter with it, is in no traceback that Python printed.
    const { type = "", traceback = "" } = result.errorInfo ?? {};
    const isTold = traceback.includes(type) && result.stderr.includes(traceback);
    if (!result.success && !isTold) console.error(result.error);
    return result.success ? 0 : 1;
  } finally {
    await runtime.stop(0);
  }
}

async function runMcp(args: string[]): Promise<number> {
  const { mcp } = await import("./mcp.ts");
  return await mcp(args);
}

async function runDoctor(): Promise<number> {
  const { doctor } = await import("./doctor.ts");
  return await doctor(loadSettings());
}

async function build([name]: string[]): Promise<number> {
  const { openEnvironments } = await import("../compose/environments.ts");
  const { openHost } = await import("../compose/host.ts");
  const config = loadConfig();
  const { environments, close } = await openEnvironments(config, await createLogger("info"), await openHost(config));
  try {
    await environments.prepare(name);
    for (const { name, image, packages } of environments.list()) {
      const sizeMb = (image.bytes / 2 ** 20).toFixed(1);
      console.log(`${name}: ${packages.length} packages, image of ${sizeMb} MiB, built ${image.builtAt}`);
    }
    return 0;
  } finally {
    await close();
  }
}

async function audit([action, folder]: string[]): Promise<number> {
  if (action !== "verify") throw new StartupError(USAGE);
  const { verifySecurityLog } = await import("../security-log/verify.ts");
  const { escapeControls } = await import("../security-log/event.ts");
  const dir = folder ?? loadConfig().LOG_DIR;
  if (dir === "") throw new StartupError("LOG_DIR is `none`: there is no security log. Name a folder that has one.");
  const result = await verifySecurityLog(dir).catch((cause) => {
    throw new StartupError(
      `Cannot read the security log in ${dir}: ${(cause as NodeJS.ErrnoException).code ?? cause}.`,
      { cause },
    );
  });
  // A server's log has a line from its start on: a folder without any file of one is the wrong folder.
  if (result.ok && result.files.length === 0) throw new StartupError(`There is no security log in ${dir}.`);
  if (!result.ok) {
    console.error(`${result.file}:${result.line}: ${result.reason}`);
    return 1;
  }
  const { firstSeq, sealedToSeq } = result;
  if (sealedToSeq > 0)
    console.log(`lines 1 to ${sealedToSeq} were deleted by the log, which LOG_MAX_TOTAL_MB bounds; its chain says so`);
  if ((firstSeq ?? 1) > sealedToSeq + 1) {
    console.log(`lines ${sealedToSeq + 1} to ${Number(firstSeq) - 1} are not here, and the log has not deleted them`);
  }
  for (const { file, line, event, details } of result.notes) {
    if (event === "log_sealed") continue;
    console.log(`note: ${file}:${line}: ${event} ${escapeControls(JSON.stringify(details))}`);
  }
  console.log(`ok: ${result.lines} lines in ${result.files.length} files`);
  // Who can rewrite the log to its end can rewrite its chain: kept elsewhere, this line tells.
  if (result.head) console.log(`line ${result.head.seq} has the hash ${result.head.hash}`);
  return 0;
}

async function readCode(file: string): Promise<string> {
  const bytes = await (file === "-" ? buffer(process.stdin) : readFile(file)).catch((cause) => {
    throw new StartupError(`Cannot read ${file}: ${(cause as NodeJS.ErrnoException).code}.`, { cause });
  });
  if (!isUtf8(bytes)) throw new StartupError(`${file === "-" ? "Standard input" : file} is not UTF-8.`);
  return bytes.toString("utf8");
}

async function parseContext(json: string | undefined): Promise<unknown> {
  if (json === undefined) return undefined;
  const { contextOf } = await import("../http/validation.ts");
  const context = contextOf(json);
  if (typeof context !== "string") return context;
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw new StartupError("--context takes a JSON object, such as '{\"x\": 1}'.", { cause });
  }
}

/** As lines, unless it is larger than the eye would read. */
function indented(value: JsonText): string {
  const parsed = value.parse({ maxBytes: MAX_INDENTED_BYTES, maxNodes: Number.POSITIVE_INFINITY });
  return "tooLarge" in parsed ? value.toString() : JSON.stringify(parsed.value, null, 2);
}

async function createLogger(level: string): Promise<Logger> {
  const { openServerLog } = await import("../telemetry/server-log.ts");
  // To stderr: stdout is for what `run` prints.
  const { logger } = openServerLog({
    level,
    dir: "",
    maxBytes: 0,
    pretty: process.stderr.isTTY,
    stdout: process.stderr,
  });
  warnOfMisspelt(logger);
  return logger;
}

function warnOfMisspelt(logger: Logger): void {
  for (const { name, meant } of misspeltSettings()) logger.warn(`${name} is no setting: is ${meant} meant?`);
}

/** Its own, and those of what runs code here. */
async function version(): Promise<number> {
  const { pyodideVersion } = await import("../compose/host.ts");
  const { version } = JSON.parse(await readFile(new URL("../../package.json", import.meta.url), "utf8"));
  console.log(`pyodide-express ${version} (Pyodide ${await pyodideVersion()}, Node ${process.versions.node})`);
  return 0;
}

const [command = "", ...rest] = process.argv.slice(2);
const main = Object.hasOwn(COMMANDS, command) ? COMMANDS[command] : undefined;
if (!main) {
  const asked = ["help", "--help", "-h"].includes(command);
  (asked ? console.log : console.error)(USAGE);
  process.exitCode = asked ? 0 : 2;
} else {
  try {
    process.exitCode = await main(rest);
  } catch (error) {
    const friendly =
      error instanceof StartupError ||
      error instanceof ClientError ||
      (error as { code?: string }).code?.startsWith("ERR_PARSE_ARGS");
    console.error(friendly ? (error as Error).message : error);
    process.exitCode = 1;
  }
}
