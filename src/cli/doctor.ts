import { openEnvironments } from "../compose/environments.ts";
import { bootOptions, openHost, pyodideVersion } from "../compose/host.ts";
import { openCallerNetwork, openMcpServers, openSecrets } from "../compose/network.ts";
import { impliedSettings } from "../compose/principals.ts";
import { denoCache } from "../environments/deno-cache.ts";
import type { Image } from "../environments/images.ts";
import type { BuiltBefore } from "../environments/registry.ts";
import { checkBinding } from "../http/middleware/authentication.ts";
import { trustProxy } from "../http/middleware/trust-proxy.ts";
import { Sandbox } from "../sandbox/sandbox.ts";
import { denoBinary } from "../shared/deno-binary.ts";
import { type loadSettings, misspeltSettings } from "../shared/settings.ts";
import { openServerLog } from "../telemetry/server-log.ts";

/** Tells what this machine has, by trying it. Returns the exit code: 0 if code can be run here. */
export async function doctor({ config, inferred }: ReturnType<typeof loadSettings>): Promise<number> {
  const rows: [string, string][] = [];
  rows.push(["node", `${process.version} (${process.platform} ${process.arch})`]);
  rows.push(["pyodide", await pyodideVersion()]);
  rows.push(["cache", config.CACHE_DIR]);
  let healthy = true;
  const attempt = async (name: string, what: () => Promise<string> | string) => {
    try {
      rows.push([name, await what()]);
    } catch (error) {
      healthy = false;
      rows.push([name, `FAILED: ${(error as Error).message}`]);
    }
  };
  for (const { name, value, from } of inferred) rows.push([name, `${value} (${from})`]);
  for (const { name, meant } of misspeltSettings()) rows.push([name, `no setting: is ${meant} meant?`]);
  await attempt("settings", () => {
    checkBinding(config);
    trustProxy(config);
    openCallerNetwork(config, openSecrets(config, null));
    for (const { name, value, from } of impliedSettings(config)) rows.push([name, `${value} (${from})`]);
    return "can be used";
  });
  await attempt("MCP servers", async () => {
    const servers = openMcpServers(config, openSecrets(config, null));
    const found = await servers.health();
    await servers.close();
    for (const { name, ok, text } of found) {
      if (!ok) healthy = false;
      rows.push([`mcp: ${name}`, ok ? text : `FAILED: ${text}`]);
    }
    return found.length === 0 ? "none" : String(found.length);
  });
  await attempt("deno", () => denoBinary());
  await attempt("sandbox", async () => {
    const host = await openHost(config);
    const { isolation } = host;
    for (const { name, active, detail } of isolation.layers) {
      rows.push([`isolation: ${name}`, `${active ? "active" : "not active"}: ${detail}`]);
    }
    for (const reason of isolation.rejected) rows.push(["isolation: tried", reason]);
    const { logger } = openServerLog({ level: "info", dir: "", maxBytes: 0, stdout: process.stderr });
    const { environments, images, close } = await openEnvironments(config, logger, host);
    const image = await images.base();
    rows.push(["standard library", `with bytecode, archive of ${toMb(image.stdlib.bytes)} MiB`]);
    rows.push(["image", describeImage(image)]);
    for (const built of await environments.inspect()) rows.push(...describeEnvironment(built));
    await close();
    const guest = bootOptions(config, { baseImagePath: image.path, stdlibPath: image.stdlibPath, guest: null });
    const { CACHE_DIR: cacheDir } = config;
    const denoDir = await denoCache({ cacheDir, key: await images.runtimeKey(), sandbox: { ...host, guest } });
    const sandbox = await Sandbox.start({ ...host, denoDir, guest });
    rows.push(["python", sandbox.pythonVersion]);
    const { everyPage } = sandbox;
    rows.push([
      "rewind",
      everyPage === null ? "looks at the pages that were written to" : `looks at every page: ${everyPage}`,
    ]);
    sandbox.kill("the doctor is done");
    await sandbox.ended;
    return `ready in ${Math.round(sandbox.bootMs)} ms`;
  });
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows) console.log(`${name.padEnd(width)}  ${value}`);
  return healthy ? 0 : 1;
}

function describeImage({ bytes, builtAt, buildMs, sha256 }: Image): string {
  return `${toMb(bytes)} MiB, built ${builtAt} in ${buildMs} ms, SHA-256 ${sha256.slice(0, 16)}…`;
}

function describeEnvironment({ name, known, empty, image }: BuiltBefore): [string, string][] {
  const row = `environment: ${name}`;
  if (empty !== null) return [[row, "0 packages: none was available"], ...describeMissing(empty)];
  if (known === null) return [[row, "not built yet: `build` does it, or the next start"]];
  const { packages, archive } = known.set;
  const contents = `${packages.length} packages, archive of ${toMb(archive.bytes)} MiB`;
  return [
    [row, `${contents}, image ${image === null ? "not built yet" : `of ${describeImage(image)}`}`],
    ...packages.map(({ name, version, source, lockStatus }): [string, string] => [
      `  ${name}`,
      `${version} from ${source}${LOCK_NOTES[lockStatus]}`,
    ]),
    ...describeMissing(known.missing),
  ];
}

function describeMissing(missing: Readonly<Record<string, string>>): [string, string][] {
  return Object.entries(missing).map(([requirement, why]) => [`  ${requirement}`, `MISSING: ${why}`]);
}

/** How a file differs from what Pyodide's authors tested together. */
const LOCK_NOTES = {
  same: "",
  "other-version": " (another version than Pyodide's lock file has)",
  "other-build": " (another build than Pyodide's lock file has)",
  "not-listed": "",
} as const;

function toMb(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
