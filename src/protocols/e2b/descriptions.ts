import { isIP } from "node:net";
import type { Request, Response } from "express";
import { derivedToken } from "../../http/middleware/authentication.ts";
import type { ClientError } from "../../shared/errors.ts";
import type { Config } from "../../shared/settings.ts";
import { purposeOf } from "./address.ts";
import type { MadeSandbox, Sandbox, Snapshot } from "./sandboxes.ts";
import { isPaused } from "./state.ts";

/** The version of E2B's daemon whose interface this is. SDKs go by it; from 0.6.2 on there would be metadata of files. */
const ENVD_VERSION = "0.6.1";
const CLIENT_ID = "pyodide-express";

interface Exchange {
  readonly request: Request;
  readonly response: Response;
}

/** A sandbox as a list has it. */
export function description({ record, state }: Sandbox, config: Config) {
  return {
    sandboxID: record.id,
    templateID: state.template,
    clientID: CLIENT_ID,
    envdVersion: ENVD_VERSION,
    startedAt: toIso(state.startedAtMs),
    endAt: toIso(state.endAtMs),
    state: isPaused(state) ? "paused" : "running",
    cpuCount: 1,
    memoryMB: config.SANDBOX_MEMORY_MB,
    diskSizeMB: config.SESSION_MAX_MB,
    metadata: record.metadata ?? {},
  };
}

/** All that is said of one. */
export function detail({ request, response }: Exchange, config: Config, sandbox: Sandbox) {
  const { allowInternetAccess, network, autoResume, onTimeout } = sandbox.state;
  return {
    ...description(sandbox, config),
    ...access(request, response, sandbox.record.id),
    allowInternetAccess,
    network: network ?? undefined,
    lifecycle: { autoResume, onTimeout },
    volumeMounts: [],
  };
}

/** What its creator, or who connects to it, needs to use it. */
export function made({ request, response }: Exchange, { id, state }: MadeSandbox) {
  return {
    sandboxID: id,
    templateID: state.template,
    clientID: CLIENT_ID,
    envdVersion: ENVD_VERSION,
    ...access(request, response, id),
  };
}

/** As E2B's API says what is wrong. */
export function toError({ status, message }: ClientError): { code: number; message: string } {
  return { code: status, message };
}

/** What is known of a sandbox's use: its state as it is stored, and its files. */
export function metricsOf({ record }: Sandbox, config: Config) {
  const now = Date.now();
  return {
    timestamp: toIso(now),
    timestampUnix: Math.floor(now / 1000),
    cpuCount: 1,
    cpuUsedPct: 0,
    memUsed: record.head?.size ?? 0,
    memTotal: config.SANDBOX_MEMORY_MB * 2 ** 20,
    memCache: 0,
    diskUsed: record.head?.fileBytes ?? 0,
    diskTotal: config.SESSION_MAX_MB * 2 ** 20,
  };
}

/** What its clients show inside, and under which domain it has names of hosts. */
function access(request: Request, response: Response, id: string) {
  const token = derivedToken(response, purposeOf(id));
  const { hostname } = request;
  const domain = (request.get("host") ?? "").replace(/^api\./i, "");
  const isName = hostname !== undefined && isIP(hostname.replace(/^\[|\]$/g, "")) === 0;
  return { envdAccessToken: token, trafficAccessToken: token, domain: isName ? domain : null };
}

export function describeSnapshot({ id, state: { name } }: Snapshot) {
  return { snapshotID: id, names: name === null ? [] : [`${name}:default`] };
}

function toIso(timeMs: number): string {
  return new Date(timeMs).toISOString();
}
