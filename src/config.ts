import os from "node:os";
import path from "node:path";
import { z } from "zod";
import { StartupError } from "./errors.ts";

/** One row of the settings table: how to read an environment variable, its default, and what it means. */
interface Setting<T> {
  readonly schema: z.ZodType<T>;
  /** The default as a person would write it in the environment; computed defaults name their rule in `meaning`. */
  readonly fallback: string;
  readonly meaning: string;
}

const integer = (min: number, max = Number.MAX_SAFE_INTEGER) => z.coerce.number().int().min(min).max(max);
const flag = z
  .enum(["true", "false", "1", "0", "yes", "no"])
  .transform((value) => value === "true" || value === "1" || value === "yes");
const text = z.string();
const list = z.string().transform((value) =>
  value
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "" && item !== "none"),
);

const extensions = list.transform((items, context) => {
  const names = items.map((item) => (item.startsWith(".") ? item : `.${item}`).toLowerCase());
  const wrong = names.find((name) => !/^\.[a-z0-9]{1,19}$/.test(name));
  if (wrong !== undefined) context.addIssue({ code: "custom", message: `${wrong} is no extension such as .csv` });
  if (names.length === 0) context.addIssue({ code: "custom", message: "name at least one extension, such as .csv" });
  return names;
});

/** curl and others also take a proxy without `http://`. */
const proxy = z.string().transform((value, context) => {
  const address = value === "" || value.includes("://") ? value : `http://${value}`;
  if (value !== "" && !/^https?:$/.test(URL.parse(address)?.protocol ?? ""))
    context.addIssue({ code: "custom", message: "this is no address such as http://proxy.example:3128" });
  return address;
});

function setting<T>(schema: z.ZodType<T>, fallback: string, meaning: string): Setting<T> {
  return { schema, fallback, meaning };
}

/** Every setting there is. README and `doctor` print this table; nothing else reads `process.env`. */
export const SETTINGS = {
  PORT: setting(integer(0, 65_535), "3000", "TCP port to listen on; 0 picks a free one"),
  HOST: setting(text, "127.0.0.1", "address to bind; another than loopback needs API_KEYS or ALLOW_ANONYMOUS"),
  NODE_ENV: setting(text, "production", "`development` pretty-prints the server log"),
  DATA_DIR: setting(text, "./data", "workspaces, packages, statistics"),
  CACHE_DIR: setting(text, "./data/cache", "memory images and package archives; safe to delete while stopped"),
  CACHE_UNUSED_DAYS: setting(
    integer(0, 3650),
    "30",
    "images, archives and wheels that nobody used for so long are deleted, days; 0: never",
  ),
  CACHE_MAX_MB: setting(
    integer(1),
    "10240",
    "above this, images and archives that were used least recently are deleted, MiB",
  ),
  UPLOAD_DIR: setting(text, "./data/uploads", "where an upload is held while its request runs; of this server alone"),
  MAX_FILE_SIZE: setting(integer(1), String(10 * 1024 * 1024), "largest upload, bytes"),
  UPLOAD_TYPES: setting(
    extensions,
    ".csv,.json,.txt,.py",
    "extensions that /api/upload takes, comma separated; /api/files takes every file",
  ),
  WORKSPACE_MAX_MB: setting(integer(1, 65_536), "256", "largest workspace of one principal, MiB"),
  WORKSPACE_MAX_FILES: setting(integer(1), "10000", "most files in one workspace"),
  SESSION_DURABILITY: setting(
    z.enum(["after-reply", "commit"]),
    "commit",
    "`commit`: a session's reply is sent when its state is stored; `after-reply`: it is stored before its next execution",
  ),
  SESSION_TTL_S: setting(
    integer(1, 315_360_000),
    "86400",
    "a session that names no ttl ends when unused for so long, s",
  ),
  SESSION_MAX_MB: setting(integer(1, 4096), "128", "largest stored state of one session, files included, MiB"),
  SESSIONS_PER_PRINCIPAL: setting(integer(1), "1000", "most sessions of one principal"),
  SESSION_STORE_MAX_MB: setting(integer(1), "10240", "most that all sessions may take, on this disk or in Redis, MiB"),
  SESSION_STORE_PRINCIPAL_MAX_MB: setting(
    integer(0),
    "0",
    "most that the sessions of one principal may take, MiB; 0: an equal part of SESSION_STORE_MAX_MB, which no other can take",
  ),
  SESSION_LEASE_MS: setting(
    integer(1000, 600_000),
    "10000",
    "with Redis: a server silent for so long has lost its sessions to the others, ms",
  ),
  REDIS_URL: setting(
    text,
    "",
    "Redis 7 or Valkey that servers share all state of callers through; empty: it is on this disk",
  ),
  CORS_ORIGIN: setting(
    text,
    "",
    "origins whose pages may use the server, comma separated; `none`: its own; empty: `*` while authentication is off, else none",
  ),
  TRUST_PROXY: setting(text, "", "addresses or count of reverse proxies whose X-Forwarded-For is believed"),
  API_KEYS: setting(
    text,
    "",
    "keys as name:key[:scope+scope…], comma separated, a key of 16 characters or more; empty: authentication off; no scopes: all but admin",
  ),
  API_KEY: setting(text, "", "one key with every scope and the name `default`; the original's variable"),
  AUTH_MAX_FAILURES: setting(
    integer(0),
    "10",
    "wrong keys from one address in ten minutes before it must wait, longer each time; 0: no limit",
  ),
  ALLOW_ANONYMOUS: setting(flag, "false", "bind to any address although authentication is off"),
  RATE_LIMIT_WINDOW_MS: setting(integer(1), "900000", "rate limit window, ms"),
  RATE_LIMIT_MAX_REQUESTS: setting(
    integer(0),
    "0",
    "requests of one principal and address in a window, to all servers that share Redis; 0: no limit",
  ),
  LOG_LEVEL: setting(z.enum(["trace", "debug", "info", "warn", "error", "silent"]), "info", "server log level"),
  LOG_DIR: setting(text, "./data/logs", "folder of server.log and security.log; `none`: no log files"),
  LOG_MAX_SIZE: setting(integer(1024), String(10 * 1024 * 1024), "rotate a log file at this size, bytes"),
  LOG_MAX_TOTAL_MB: setting(
    integer(0),
    "10240",
    "most that all files of the security log take, MiB: the oldest are deleted, which the log records; 0: none are",
  ),
  LOG_CODE: setting(flag, "false", "write the code itself, all of it, to the security log, not only its SHA-256"),
  AUDIT_REQUIRED: setting(flag, "false", "refuse to run code while the security log cannot be written"),
  POOL_SIZE: setting(integer(0, 1024), "0", "warm sandboxes; 0: one for each core"),
  QUEUE_LIMIT: setting(integer(0), "256", "executions that may wait for a sandbox before 429"),
  PRINCIPAL_MAX_CONCURRENCY: setting(
    integer(0),
    "0",
    "executions of one principal that run at a time; 0: all sandboxes but one where several have keys, else all",
  ),
  PRINCIPAL_MAX_QUEUED: setting(
    integer(0),
    "0",
    "executions of one principal that may wait; 0: half of QUEUE_LIMIT where several have keys, else all",
  ),
  SANDBOX_SHARING: setting(
    z.enum(["all", "principal"]),
    "all",
    "`principal`: a sandbox serves one principal only and is ended when another needs its place; half of POOL_SIZE more are kept",
  ),
  STOP_GRACE_S: setting(
    integer(0, 3600),
    "20",
    "how long a server that is told to stop lets executions go on, s; less than the time after which it is killed",
  ),
  EXECUTION_TIMEOUT_MS: setting(integer(1, 300_000), "30000", "timeout of a request that names none, ms"),
  EXECUTION_CPU_MS: setting(
    integer(0, 3_600_000),
    "0",
    "most processor time of one execution, ms, on Linux; 0: as much as fits into its timeout",
  ),
  SANDBOX_MEMORY_MB: setting(integer(64, 4096), "512", "most WebAssembly memory of one sandbox, MiB"),
  SANDBOX_MAX_EXECUTIONS: setting(integer(1), "100000", "replace a sandbox after this many executions"),
  SANDBOX_MAX_AGE_MS: setting(integer(1000), "21600000", "replace a sandbox after this time, ms"),
  SANDBOX_MAX_HEAP_MB: setting(
    integer(0, 4096),
    "160",
    "discard instead of rewind above this heap, MiB; 0: whenever it has grown, of which the next could tell",
  ),
  SANDBOX_START_TIMEOUT_MS: setting(integer(100), "60000", "give up on a sandbox that is not ready by then, ms"),
  MEMORY_MAPPING: setting(
    z.enum(["auto", "off"]),
    "auto",
    "`auto`: on Linux sandboxes share an image's memory until they write to it, and rewind what they wrote; `off`: each reads and compares all",
  ),
  ISOLATION: setting(z.enum(["auto", "deno"]), "auto", "`auto`: add the operating system's layers where they work"),
  ISOLATION_REQUIRED: setting(z.enum(["", "deno", "os"]), "", "refuse to start below this layer"),
  PYODIDE_PACKAGES: setting(
    list,
    "numpy,pandas,matplotlib,requests,micropip,seaborn,httpx,openpyxl,jinja2,lxml",
    "packages of the `default` environment, comma separated; `none`: there is no such environment",
  ),
  PYODIDE_INDEX_URL: setting(text, "", "Pyodide package mirror (URL or folder); empty: Pyodide's CDN"),
  PACKAGE_INDEX_URL: setting(
    text,
    "https://pypi.org/simple",
    "Python package index (simple API, JSON or HTML); `none`: none",
  ),
  HTTP_PROXY: setting(proxy, "", "proxy for package sources of http, as http://[user:password@]host:port"),
  HTTPS_PROXY: setting(
    proxy,
    "",
    "proxy for package sources of https; empty: HTTP_PROXY. User code goes through neither",
  ),
  NO_PROXY: setting(text, "", "hosts that are asked without a proxy, comma separated; `*`: all"),
  PACKAGE_DIR: setting(text, "", "folder of wheels, looked in first (air gap)"),
  ENVIRONMENTS_FILE: setting(text, "", "JSON file that defines further environments"),
  ENVIRONMENT_STRICT: setting(
    flag,
    "false",
    "a package of an environment that cannot be had is an error, not a warning",
  ),
  NETWORK_ALLOW: setting(
    list,
    "",
    "hosts user code may reach over HTTP, comma separated, with `*.` for subdomains and `:port` for other ports; empty: none",
  ),
  NETWORK_ALLOW_PRIVATE: setting(flag, "false", "hosts of NETWORK_ALLOW may have private and loopback addresses, too"),
  NETWORK_TIMEOUT_MS: setting(integer(1, 300_000), "30000", "give up on a silent host after this time, ms"),
  NETWORK_MAX_REQUEST_MB: setting(integer(1, 32), "10", "largest body user code may send, MiB"),
  NETWORK_MAX_RESPONSE_MB: setting(integer(1, 1024), "64", "largest body user code may receive, MiB"),
  NETWORK_MAX_OPEN: setting(integer(1, 1024), "16", "requests of one principal at a time"),
} as const satisfies Record<string, Setting<unknown>>;

type Raw = { [K in keyof typeof SETTINGS]: (typeof SETTINGS)[K] extends Setting<infer T> ? T : never };

/** All settings, read and checked; folders are absolute, computed defaults are filled in. */
export type Config = Readonly<Raw>;

/** The variables of proxies are in small letters on many systems. */
function readVariable(env: Readonly<Record<string, string | undefined>>, name: string): string | undefined {
  const small = name.endsWith("_PROXY") ? env[name.toLowerCase()] : undefined;
  return small || env[name];
}

/** Settings with a default that `none` turns off. */
const NONE: Readonly<Record<string, string>> = { LOG_DIR: "", PACKAGE_INDEX_URL: "" };
const FOLDERS = ["DATA_DIR", "CACHE_DIR", "UPLOAD_DIR", "LOG_DIR", "PACKAGE_DIR", "ENVIRONMENTS_FILE"] as const;

/**
 * Reads the settings from environment variables.
 *
 * A folder below DATA_DIR that is not set itself moves with DATA_DIR.
 *
 * @throws {StartupError} naming every variable that is wrong, what it was, and what would be right.
 */
export function loadConfig(env: Readonly<Record<string, string | undefined>> = process.env): Config {
  const problems: string[] = [];
  const raw: Record<string, unknown> = {};
  for (const [name, { schema, fallback, meaning }] of Object.entries(SETTINGS)) {
    const value = readVariable(env, name);
    const given = value === "none" ? (NONE[name] ?? "none") : value;
    const isSet = given !== undefined && (given !== "" || value === "none");
    const parsed = schema.safeParse(isSet ? given : defaultOf(fallback, env));
    if (parsed.success) raw[name] = parsed.data;
    else problems.push(`${name}=${JSON.stringify(given)}: ${parsed.error.issues[0]?.message} (${meaning})`);
  }
  if (problems.length > 0) throw new StartupError(`These settings cannot be used:\n  ${problems.join("\n  ")}`);
  for (const name of FOLDERS) if (raw[name] !== "") raw[name] = path.resolve(String(raw[name]));
  if (raw.POOL_SIZE === 0) raw.POOL_SIZE = os.availableParallelism();
  return raw as Config;
}

function defaultOf(fallback: string, env: Readonly<Record<string, string | undefined>>): string {
  const dataDir = env.DATA_DIR;
  return dataDir && fallback.startsWith("./data/") ? path.join(dataDir, fallback.slice("./data/".length)) : fallback;
}
