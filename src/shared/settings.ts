// Over 400 lines: the one table of all settings.
import { readdirSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { StartupError } from "./errors.ts";
import { type HostLimits, readHostLimits } from "./host-limits.ts";
import { normalisePrefix } from "./path-prefix.ts";

/** One row of the settings table: how to read an environment variable, its default, and what it means. */
interface Setting<T> {
  readonly schema: z.ZodType<T>;
  /** The default as a person would write it in the environment; computed defaults name their rule in `meaning`. */
  readonly fallback: string;
  readonly meaning: string;
}

const integer = (min: number, max = Number.MAX_SAFE_INTEGER) =>
  z
    .string()
    .regex(/^[+-]?\d+$/, "this is no whole number")
    .transform(Number)
    .pipe(z.number().int().min(min).max(max));
const oneOf = <const T extends readonly string[]>(...values: T) => z.string().toLowerCase().pipe(z.enum(values));
const flag = oneOf("true", "false", "1", "0", "yes", "no", "on", "off").transform((value) =>
  ["true", "1", "yes", "on"].includes(value),
);
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

const prefix = z.string().transform((value, context) => {
  const path = normalisePrefix(value);
  if (path === null) context.addIssue({ code: "custom", message: "this is no path such as /python" });
  return path ?? "";
});

/** curl and others also take a proxy without `http://`. */
const proxy = z.string().transform((value, context) => {
  const address = value === "" || value.includes("://") ? value : `http://${value}`;
  if (value !== "" && !/^https?:$/.test(URL.parse(address)?.protocol ?? ""))
    context.addIssue({ code: "custom", message: "this is no address such as http://proxy.example:3128" });
  return address;
});

const isUrl = (value: string) => /^https?:\/\/[^/]/i.test(value) && URL.canParse(value);

const indexUrl = z
  .string()
  .refine((value) => value === "" || isUrl(value), "this is no address such as https://pypi.example.com/simple");

const mirror = z.string().transform((value, context) => {
  const isFolder = !/^[a-z][a-z0-9+.-]+:/i.test(value) || path.win32.isAbsolute(value);
  if (!isFolder && !/^file:\/\/\//i.test(value) && !isUrl(value))
    context.addIssue({
      code: "custom",
      message: "this is no address such as https://mirror.example.com/pyodide/, and no folder",
    });
  return value;
});

/** Protocols of other servers that clients may use: `src/protocols/`. */
export const PROTOCOLS = ["jupyter", "e2b", "mcp", "piston", "dify", "sandboxfusion", "librechat"] as const;
export type ProtocolName = (typeof PROTOCOLS)[number];

const protocols = list.transform((items, context) => {
  const wrong = items.find((item) => item !== "all" && !(PROTOCOLS as readonly string[]).includes(item));
  if (wrong !== undefined) context.addIssue({ code: "custom", message: `there is no protocol ${wrong.slice(0, 100)}` });
  return items.includes("all") ? PROTOCOLS : (items as ProtocolName[]);
});

const ports = list.transform((items, context) => {
  const wrong = items.find((item) => !/^\d+$/.test(item) || Number(item) < 1 || Number(item) > 65_535);
  if (wrong !== undefined) context.addIssue({ code: "custom", message: `${wrong.slice(0, 100)} is no port` });
  return items.map(Number);
});

/** Brackets belong to an address in a URL. */
const host = z.string().transform((value) => value.replace(/^\[(.*)\]$/, "$1"));

/** Origins as browsers write them: in small letters, without the scheme's own port and without a path. */
const origins = z.string().transform((value, context) => {
  const items = value.split(",").map((item) => item.trim());
  return items
    .filter((item) => item !== "")
    .map((item) => {
      if (item === "*" || item.toLowerCase() === "none") return item.toLowerCase();
      const url = URL.parse(item);
      const isOrigin =
        url !== null &&
        url.host !== "" &&
        !url.host.includes("*") &&
        `${url.pathname}${url.search}${url.hash}`.length <= 1;
      if (!isOrigin || url.username !== "" || url.password !== "")
        context.addIssue({
          code: "custom",
          message: `${JSON.stringify(item.slice(0, 100))} is no origin such as https://app.example.com`,
        });
      return url === null ? "" : `${url.protocol}//${url.host}`;
    })
    .join(",");
});

function setting<T>(schema: z.ZodType<T>, fallback: string, meaning: string): Setting<T> {
  return { schema, fallback, meaning };
}

/** Every setting there is. README and `doctor` print this table; nothing else reads `process.env`, but `cli mcp`, which has defaults of its own. */
export const SETTINGS = {
  PORT: setting(integer(0, 65_535), "3000", "TCP port to listen on; 0 picks a free one"),
  HOST: setting(host, "127.0.0.1", "address to bind; another than loopback needs API_KEYS or ALLOW_ANONYMOUS"),
  BASE_PATH: setting(
    prefix,
    "",
    "path below which clients see this server, such as /python; X-Forwarded-Prefix of a trusted proxy comes first",
  ),
  KEEP_ALIVE_S: setting(
    integer(1, 3600),
    "65",
    "how long an idle connection stays open, s; longer than the balancer's own limit, which is 60 for most",
  ),
  STREAM_HEARTBEAT_S: setting(
    integer(1, 3600),
    "15",
    "an event stream on which nothing happens sends a comment so often, s; shorter than the balancer's idle limit",
  ),
  WEBSOCKET_RESUME_S: setting(
    integer(0, 3600),
    "60",
    "what runs on a WebSocket whose connection is lost goes on for so long, s, and can be resumed",
  ),
  WEBSOCKETS_PER_PRINCIPAL: setting(
    integer(1, 1000),
    "20",
    "most WebSockets of one principal, those included that are lost and may be resumed",
  ),
  BODY_MIN_RATE: setting(
    integer(1),
    "500",
    "a body that comes slower than so many bytes a second, for BODY_STALL_S, is 408",
  ),
  BODY_STALL_S: setting(integer(1, 3600), "20", "how long a body may come slower than BODY_MIN_RATE, s"),
  NODE_ENV: setting(text, "production", "`development` pretty-prints the server log"),
  DATA_DIR: setting(text, "./data", "workspaces, packages, statistics"),
  CACHE_DIR: setting(text, "./data/cache", "memory images and package archives; safe to delete while stopped"),
  CACHE_UNUSED_DAYS: setting(
    integer(0, 3650),
    "30",
    "images, archives and wheels that were not used for so long are deleted, days; 0: never",
  ),
  CACHE_MAX_MB: setting(
    integer(1),
    "10240",
    "above this, images, archives and wheels that nothing needs and that were used least recently are deleted, MiB",
  ),
  PACKAGES_PRINCIPAL_MAX_MB: setting(
    integer(0),
    "0",
    "most that packages of one principal may take, with what was fetched and built for it in three hours, MiB; 0: a quarter of CACHE_MAX_MB",
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
    oneOf("after-reply", "commit"),
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
    "Redis 7 or Valkey that servers share all state of callers through (redis, rediss, redis+sentinel); empty: it is on this disk",
  ),
  PROTOCOLS: setting(
    protocols,
    "all",
    `protocols of other servers that are spoken, comma separated: ${PROTOCOLS.join(", ")}; \`all\`, \`none\``,
  ),
  E2B_DEBUG_PORTS: setting(
    ports,
    "",
    "further ports of the loopback interface, comma separated, for E2B's SDKs with E2B_DEBUG, which ask at 49999,49983 and send no key: not with API_KEYS",
  ),
  CORS_ORIGIN: setting(
    origins,
    "",
    "origins whose pages may use the server, comma separated; `none`: its own; empty: `*` while authentication is off, else none",
  ),
  TRUST_PROXY: setting(
    text,
    "",
    "addresses or count of reverse proxies whose X-Forwarded-For, -Proto and -Prefix are believed",
  ),
  API_KEYS: setting(
    text,
    "",
    "keys as name:key[:scope+scope…], comma separated, a key of 16 characters or more; empty: authentication off; no scopes: all but admin",
  ),
  API_KEY: setting(
    text,
    "",
    "one key with every scope and the name `default`; the variable of the compatibility contract",
  ),
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
  LOG_LEVEL: setting(oneOf("trace", "debug", "info", "warn", "error", "silent"), "info", "server log level"),
  LOG_DIR: setting(text, "./data/logs", "folder of server.log and security.log; `none`: no log files"),
  LOG_MAX_SIZE: setting(integer(1024), String(10 * 1024 * 1024), "rotate a log file at this size, bytes"),
  LOG_MAX_TOTAL_MB: setting(
    integer(0),
    "10240",
    "most that all files of the security log take, MiB: the oldest are deleted, which the log records; 0: none are",
  ),
  LOG_CODE: setting(flag, "false", "write the code itself, all of it, to the security log, not only its SHA-256"),
  AUDIT_REQUIRED: setting(flag, "false", "refuse to run code while the security log cannot be written"),
  POOL_SIZE: setting(
    integer(0, 1024),
    "0",
    "warm sandboxes; 0: one for each processor and at least two, as far as the memory limit of the container (cgroup) has room",
  ),
  QUEUE_LIMIT: setting(integer(0), "256", "executions that may wait for a sandbox before 429"),
  PRINCIPAL_MAX_CONCURRENCY: setting(
    integer(0),
    "0",
    "executions of one principal that run at a time; 0: all sandboxes but one where several have keys, else all. Sandboxes that its sessions cannot leave count when others wait",
  ),
  PRINCIPAL_MAX_QUEUED: setting(
    integer(0),
    "0",
    "executions of one principal that may wait; 0: half of QUEUE_LIMIT where several have keys, else all",
  ),
  PRINCIPAL_MAX_OPEN: setting(
    integer(0),
    "0",
    "requests of one principal that may be open, wherever they wait; 0: 500 of the 2000 connections where several have keys, else all",
  ),
  SANDBOX_SHARING: setting(
    oneOf("all", "principal"),
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
    "most CPU time of one execution, ms, on Linux; 0: as much as fits into its timeout",
  ),
  TOOL_TIMEOUT_MS: setting(
    integer(1, 3_600_000),
    "60000",
    "how long a call of a client's tool may be without an answer where the request names no toolTimeout, ms",
  ),
  TOOL_WAIT_MAX_S: setting(integer(1, 86_400), "600", "how long one execution may wait for its client in all, s"),
  TOOL_CALLS_MAX: setting(integer(1, 5000), "1000", "calls of its client's tools that one execution may make"),
  TOOL_EXECUTIONS_MAX: setting(
    integer(0),
    "0",
    "executions with tools at a time, each of which holds a sandbox while it waits; 0: all sandboxes but one",
  ),
  TOOL_EXECUTIONS_PER_PRINCIPAL: setting(
    integer(0),
    "0",
    "those of one principal; 0: half of TOOL_EXECUTIONS_MAX where several have keys, else all",
  ),
  TOOL_ENDPOINTS: setting(
    list,
    "",
    "URLs that may answer calls of tools (`toolEndpoint`), comma separated; private addresses only with NETWORK_ALLOW_PRIVATE",
  ),
  TOOL_ENDPOINT_SECRET: setting(
    text,
    "",
    "signs what TOOL_ENDPOINTS are posted, as standardwebhooks.com says: `whsec_` and base64, or 16 characters or more",
  ),
  SANDBOX_MEMORY_MB: setting(
    integer(64, 4096),
    "512",
    "most WebAssembly memory of one sandbox, MiB; unset: less where the memory limit of the container (cgroup) has not room for all",
  ),
  SANDBOX_COMPACT: setting(
    flag,
    "false",
    "have a sandbox take less memory and more of the processor's time, for machines with many: docs/performance.md",
  ),
  SANDBOX_MAX_EXECUTIONS: setting(integer(1), "100000", "replace a sandbox after this many executions"),
  SANDBOX_MAX_AGE_MS: setting(
    integer(1000),
    "21600000",
    "replace a sandbox after this time, ms; one that a session cannot leave may be as much older",
  ),
  SANDBOX_MAX_HEAP_MB: setting(
    integer(0, 4096),
    "160",
    "discard instead of rewind above this heap, MiB; 0: whenever the heap has grown (the next execution can see its size)",
  ),
  SANDBOX_START_TIMEOUT_MS: setting(integer(100), "60000", "give up on a sandbox that is not ready by then, ms"),
  MEMORY_MAPPING: setting(
    oneOf("auto", "off"),
    "auto",
    "`auto`: on Linux sandboxes share an image's memory until they write to it, and rewind what they wrote; `off`: each reads and compares all",
  ),
  ISOLATION: setting(oneOf("auto", "deno"), "auto", "`auto`: add the operating system's layers where they work"),
  ISOLATION_REQUIRED: setting(oneOf("", "deno", "os"), "", "refuse to start below this layer"),
  PYODIDE_PACKAGES: setting(
    list,
    "numpy,pandas,matplotlib,requests,micropip,seaborn,httpx,openpyxl,jinja2,lxml",
    "packages of the `default` environment, comma separated; `none`: there is no such environment",
  ),
  PYODIDE_INDEX_URL: setting(mirror, "", "Pyodide package mirror (URL or folder); empty: Pyodide's CDN"),
  PACKAGE_INDEX_URL: setting(
    indexUrl,
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
    "a package of an environment that is not available is an error, not a warning",
  ),
  NETWORK_ALLOW: setting(
    list,
    "",
    "hosts user code may reach over HTTP, comma separated, with `*.` for subdomains and `:port` for other ports; empty: none",
  ),
  NETWORK_ALLOW_PRIVATE: setting(flag, "false", "hosts of NETWORK_ALLOW may have private and loopback addresses, too"),
  PRINCIPALS_FILE: setting(
    text,
    "",
    "JSON file that says for keys, by their names, what their code may reach and which headers hosts are told with it; `*`: all other keys",
  ),
  MCP_SERVERS_FILE: setting(
    text,
    "",
    "JSON file of MCP servers whose tools code may call as mcp.<server>.<tool>(…): URL or command, headers, tools, for which keys",
  ),
  SECRETS_FILE: setting(text, "", "JSON file of the operator's secrets, which rules of PRINCIPALS_FILE name"),
  SECRETS: setting(text, "", "as SECRETS_FILE: its JSON itself"),
  SECRETS_KEY: setting(
    text,
    "",
    "key that callers' secrets are encrypted with: 32 bytes in hex or base64; a new one is put before the old one, comma separated; empty: they can store none",
  ),
  SECRETS_KEY_FILE: setting(text, "", "file that holds SECRETS_KEY"),
  NETWORK_TIMEOUT_MS: setting(integer(1, 300_000), "30000", "give up on a silent host after this time, ms"),
  NETWORK_MAX_REQUEST_MB: setting(integer(1, 32), "10", "largest body user code may send, MiB"),
  NETWORK_MAX_RESPONSE_MB: setting(integer(1, 1024), "64", "largest body user code may receive, MiB"),
  NETWORK_MAX_OPEN: setting(integer(1, 1024), "16", "requests of one principal at a time"),
} as const satisfies Record<string, Setting<unknown>>;

type Raw = { [K in keyof typeof SETTINGS]: (typeof SETTINGS)[K] extends Setting<infer T> ? T : never };

/** All settings, read and checked; folders are absolute, computed defaults are filled in. */
export type Config = Readonly<Raw>;

/** Values that may hold a password; no message repeats them. */
const SECRETS: ReadonlySet<string> = new Set([
  "API_KEY",
  "API_KEYS",
  "SECRETS",
  "SECRETS_KEY",
  "REDIS_URL",
  "TOOL_ENDPOINT_SECRET",
  "PYODIDE_INDEX_URL",
  "PACKAGE_INDEX_URL",
  "HTTP_PROXY",
  "HTTPS_PROXY",
]);

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Without the spaces and line ends that a file or a shell has left around it.
 *
 * The variables of proxies are in small letters on many systems.
 */
function readVariable(env: Environment, name: string): string | undefined {
  const small = name.endsWith("_PROXY") ? env[name.toLowerCase()]?.trim() : undefined;
  return small || env[name]?.trim();
}

/** Settings with a default that `none` turns off. */
const NONE: Readonly<Record<string, string>> = { LOG_DIR: "", PACKAGE_INDEX_URL: "" };
const FOLDERS = [
  "DATA_DIR",
  "CACHE_DIR",
  "UPLOAD_DIR",
  "LOG_DIR",
  "PACKAGE_DIR",
  "ENVIRONMENTS_FILE",
  "PRINCIPALS_FILE",
  "MCP_SERVERS_FILE",
  "SECRETS_FILE",
  "SECRETS_KEY_FILE",
] as const;

/** A setting that was worked out, and from what. */
export interface Inferred {
  readonly name: string;
  readonly value: string;
  readonly from: string;
}

/**
 * Reads the settings from environment variables.
 *
 * A folder below DATA_DIR that is not set itself moves with DATA_DIR.
 *
 * @param limits of the machine or container, read when they are needed.
 * @throws {StartupError} naming every variable that is wrong, what it was unless that may hold a secret, and what would be right.
 */
export function loadConfig(env: Environment = process.env, limits: () => HostLimits = readHostLimits): Config {
  return loadSettings(env, limits).config;
}

/** As {@link loadConfig}, with what was worked out. */
export function loadSettings(
  env: Environment = process.env,
  limits: () => HostLimits = readHostLimits,
): { readonly config: Config; readonly inferred: readonly Inferred[] } {
  const problems: string[] = [];
  const raw: Record<string, unknown> = {};
  for (const [name, { schema, fallback, meaning }] of Object.entries(SETTINGS)) {
    const value = readVariable(env, name);
    const isNone = value?.toLowerCase() === "none";
    const given = isNone ? (NONE[name] ?? "none") : value;
    const isSet = given !== undefined && (given !== "" || isNone);
    const parsed = schema.safeParse(isSet ? given : defaultOf(fallback, env));
    if (parsed.success) raw[name] = parsed.data;
    else {
      const shown = SECRETS.has(name) ? name : `${name}=${JSON.stringify(given)}`;
      problems.push(`${shown}: ${parsed.error.issues[0]?.message} (${meaning})`);
    }
  }
  if (problems.length === 0) problems.push(...missingPlaces(raw as Raw));
  if (problems.length > 0) throw new StartupError(`These settings cannot be used:\n  ${problems.join("\n  ")}`);
  for (const name of FOLDERS) if (raw[name] !== "") raw[name] = path.resolve(String(raw[name]));
  const inferred = inferSizes(raw as Raw, !readVariable(env, "SANDBOX_MEMORY_MB"), limits());
  return { config: { ...(raw as Config), ...inferred.sizes }, inferred: inferred.told };
}

/** Folders and files that must be there: what they name is read, never made. */
const READ = ["PACKAGE_DIR", "PYODIDE_INDEX_URL"] as const;

/** A folder that is not there is a wrong setting; the files that settings name are read, and told of, where they are used. */
function missingPlaces(raw: Raw): string[] {
  return READ.flatMap((name) => {
    const value = raw[name];
    if (value === "" || isUrl(value)) return [];
    const problem = problemOfFolder(value.startsWith("file:") ? fileURLToPath(value) : path.resolve(value));
    const shown = SECRETS.has(name) ? name : `${name}=${JSON.stringify(value)}`;
    return problem === null ? [] : [`${shown}: ${problem} (${SETTINGS[name].meaning})`];
  });
}

function problemOfFolder(folder: string): string | null {
  try {
    readdirSync(folder);
    return null;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return "there is no such folder";
    return code === "ENOTDIR" ? "this is no folder" : `the folder cannot be read (${code})`;
  }
}

/** Slips of the finger: a letter too many or too few, another one, or two that have changed places. Short names are exact: others are as near. */
const MAX_SLIPS = 2;
const CHARACTERS_FOR_A_SLIP = 6;

/** A variable of the environment that is none of ours, and the one of ours that is likely meant. */
export interface Misspelt {
  readonly name: string;
  readonly meant: string;
}

/** Variables whose names are nearly those of settings. */
export function misspeltSettings(env: Environment = process.env): readonly Misspelt[] {
  const names = Object.keys(SETTINGS);
  return Object.keys(env).flatMap((name) => {
    if (Object.hasOwn(SETTINGS, name) || (name.endsWith("_proxy") && Object.hasOwn(SETTINGS, name.toUpperCase())))
      return [];
    const near = names
      .map((meant) => ({ name, meant, slips: slipsBetween(name.toUpperCase(), meant) }))
      .filter(({ meant, slips }) => slips <= Math.min(MAX_SLIPS, Math.floor(meant.length / CHARACTERS_FOR_A_SLIP)))
      .toSorted((a, b) => a.slips - b.slips)[0];
    return near === undefined ? [] : [{ name, meant: near.meant }];
  });
}

/** The number of edits (optimal string alignment), or more than {@link MAX_SLIPS}. */
function slipsBetween(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > MAX_SLIPS) return MAX_SLIPS + 1;
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const [above, before] = [rows[i - 1] as number[], rows[i - 2]];
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let slips = Math.min(
        (above[j] as number) + 1,
        (row[j - 1] as number) + 1,
        (above[j - 1] as number) + (same ? 0 : 1),
      );
      if (before && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        slips = Math.min(slips, (before[j - 2] as number) + 1);
      row.push(slips);
    }
    rows.push(row);
  }
  return rows[a.length]?.[b.length] ?? 0;
}

/** What the server itself takes, and an image while it is built beside the sandboxes' own memory, MiB. */
const SERVER_MB = 192;
/** A sandbox takes so much beside its WebAssembly memory, and so much in all as a rule, MiB [measured: 90–220 in all]. */
const BESIDE_MB = 96;
const USUAL_SANDBOX_MB = 256;
/** What waits for its client leaves one to others. */
const LEAST_SANDBOXES = 2;
/** The standard library runs in this. */
const LEAST_SANDBOX_MB = 128;

/**
 * How many sandboxes there are, and how large each may be, where the settings leave that open: one for each processor, two at least, but no more than
 * a memory limit has room for as they usually are, and no larger than all fit at their largest.
 */
function inferSizes(raw: Raw, isMemoryOpen: boolean, { cpus, memory }: HostLimits) {
  const told: Inferred[] = [];
  const places = (size: number) => size + (raw.SANDBOX_SHARING === "principal" ? Math.ceil(size / 2) : 0);
  const roomMb = memory === null ? Number.POSITIVE_INFINITY : memory.bytes / 2 ** 20 - SERVER_MB;
  let size = raw.POOL_SIZE;
  if (size === 0) {
    const processors = Math.max(LEAST_SANDBOXES, Math.ceil(cpus.count));
    const eachMb = isMemoryOpen ? USUAL_SANDBOX_MB : raw.SANDBOX_MEMORY_MB + BESIDE_MB;
    size = processors;
    while (size > 1 && places(size) * eachMb > roomMb) size--;
    told.push({ name: "POOL_SIZE", value: String(size), from: size < processors && memory ? memory.from : cpus.from });
  }
  let memoryMb = raw.SANDBOX_MEMORY_MB;
  if (isMemoryOpen && memory !== null) {
    memoryMb = Math.max(LEAST_SANDBOX_MB, Math.min(memoryMb, Math.floor(roomMb / places(size)) - BESIDE_MB));
    const from = memoryMb < raw.SANDBOX_MEMORY_MB ? `${memory.from}, of which ${places(size)} get a part` : memory.from;
    told.push({ name: "SANDBOX_MEMORY_MB", value: String(memoryMb), from });
  }
  return { sizes: { POOL_SIZE: size, SANDBOX_MEMORY_MB: memoryMb }, told };
}

function defaultOf(fallback: string, env: Environment): string {
  const dataDir = readVariable(env, "DATA_DIR");
  return dataDir && fallback.startsWith("./data/") ? path.join(dataDir, fallback.slice("./data/".length)) : fallback;
}
