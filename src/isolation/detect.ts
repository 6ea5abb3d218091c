import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { denoBinary } from "../shared/deno-binary.ts";
import { StartupError } from "../shared/errors.ts";
import type { Config } from "../shared/settings.ts";
import { readHostFacts } from "./host-facts.ts";
import { type IsolationLayer, judgeLayers, type LayerName, noLayers, type ProbeAnswer } from "./layers.ts";
import { candidatePlans, type IsolationPlan } from "./plan.ts";
import { innermostProcess, readProcess } from "./process-facts.ts";
import { hasSeccompFilter } from "./seccomp.ts";
import {
  limitsOf,
  type SandboxCommand,
  spawnWrapped,
  type WrappedCommand,
  type Wrapping,
  wrapWithPlan,
} from "./wrap.ts";

/** What {@link detectIsolation} found. `layers` and `tool` may be shown to anyone; the rest names paths of the host. */
export interface IsolationReport {
  readonly tool: IsolationPlan["tool"] | "none";
  readonly layers: readonly IsolationLayer[];
  /** Stronger ways that were tried and did not work, and what the tool said. */
  readonly rejected: readonly string[];
  /** null: sandboxes are started without a wrapper. */
  readonly wrapping: Wrapping | null;
}

/** What `ISOLATION_REQUIRED=os` asks for: code behind all of these reaches no file, process or network of the host. */
export const REQUIRED_FOR_OS: readonly LayerName[] = [
  "pid-namespace",
  "network-namespace",
  "mount-namespace",
  "ipc-namespace",
  "scratch-root",
  "no-new-privileges",
  "capabilities",
  "resource-limits",
];

const PROBE = fileURLToPath(new URL("./probe.ts", import.meta.url));
const PROBE_TIMEOUT_MS = 20_000;
const PROBE_MEMORY_BYTES = 256 * 1024 * 1024;

export interface DetectOptions {
  /** What sandboxes will be given to read. A way in which the sandbox's user cannot read them is passed over. */
  readonly readOnlyPaths?: readonly string[];
  /** Which ways to consider; default: all. */
  readonly consider?: (plan: IsolationPlan) => boolean;
}

/**
 * Finds the strongest isolation that works here, by running Deno under it and looking at that process from outside.
 *
 * Takes one start of Deno (about 100 ms) where the strongest works, and less for each way that does not.
 *
 * @throws {StartupError} if Deno itself is missing.
 */
export async function detectIsolation(
  config: Pick<Config, "ISOLATION" | "SANDBOX_MAX_AGE_MS">,
  { readOnlyPaths = [], consider = () => true }: DetectOptions = {},
): Promise<IsolationReport> {
  if (config.ISOLATION === "deno") return withoutWrapper("switched off by ISOLATION=deno");
  if (process.platform !== "linux") return withoutWrapper(`only on Linux; this is ${process.platform}`);
  const facts = await readHostFacts(denoBinary());
  // The server replaces a sandbox at that age; the kernel's limit is for the case that the server is gone.
  const cpuSeconds = (2 * config.SANDBOX_MAX_AGE_MS) / 1000;
  const rejected: string[] = [];
  for (const plan of candidatePlans(facts, hasSeccompFilter(process.arch)).filter(consider)) {
    const wrapping = { plan, facts, cpuSeconds };
    try {
      return { tool: plan.tool, layers: await probe(wrapping, readOnlyPaths), rejected, wrapping };
    } catch (cause) {
      rejected.push(`${plan.tool} as ${plan.identity}: ${cause instanceof Error ? cause.message : cause}`);
    }
  }
  return withoutWrapper("no tool of the operating system works here", rejected);
}

/**
 * Puts the layers of the report around a sandbox's command line; start the result with {@link spawnWrapped}.
 *
 * @throws {Error} if one of the paths does not exist.
 */
export function wrapCommand(report: IsolationReport, command: SandboxCommand): WrappedCommand {
  return wrapWithPlan(report.wrapping, command);
}

/** @throws {StartupError} that says what `ISOLATION_REQUIRED` misses here and what to do about it. */
export function assertIsolation(
  report: IsolationReport,
  config: Pick<Config, "ISOLATION" | "ISOLATION_REQUIRED">,
): void {
  // Deno's own layer is part of every command line that starts a sandbox: there is nothing below it to refuse.
  if (config.ISOLATION_REQUIRED !== "os") return;
  if (config.ISOLATION === "deno")
    throw new StartupError("ISOLATION=deno switches off what ISOLATION_REQUIRED=os demands: unset one of them.");
  const missing = report.layers.filter((layer) => !layer.active && REQUIRED_FOR_OS.includes(layer.name));
  if (missing.length === 0) return;
  const reasons = missing.map(({ name, detail }) => `  ${name}: ${detail}`);
  const attempts = report.rejected.map((attempt) => `  tried ${attempt}`);
  throw new StartupError(
    [
      "ISOLATION_REQUIRED=os, but these layers are not in force here:",
      ...reasons,
      ...attempts,
      "Install bubblewrap (`apt-get install bubblewrap`) and allow user namespaces, or run on a host or in a container",
      "that does: docs/isolation.md has the settings for Docker, Kubernetes and systemd. To start with Deno's layer",
      "alone, set ISOLATION_REQUIRED=deno.",
    ].join("\n"),
  );
}

function withoutWrapper(why: string, rejected: readonly string[] = []): IsolationReport {
  return { tool: "none", layers: noLayers(why), rejected, wrapping: null };
}

/** Runs Deno, with every permission of its own, under the wrapping. @throws {Error} if it does not run there. */
async function probe(wrapping: Wrapping, readOnlyPaths: readonly string[]): Promise<IsolationLayer[]> {
  await using listener = createServer((socket) => socket.on("error", () => {}).destroy()).listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address() as AddressInfo;
  const request: SandboxCommand = {
    command: denoBinary(),
    args: [..."run -A --no-remote --no-npm --cached-only --no-config --no-lock --no-prompt".split(" "), PROBE],
    readOnlyPaths: [PROBE, ...readOnlyPaths],
    env: {},
    memoryBytes: PROBE_MEMORY_BYTES,
  };
  const hostFile = fileURLToPath(import.meta.url);
  const wrapped = wrapWithPlan(wrapping, {
    ...request,
    args: [...request.args, hostFile, String(port), ...readOnlyPaths],
  });
  const child = spawnWrapped(wrapped);
  const timer = setTimeout(() => child.kill("SIGKILL"), PROBE_TIMEOUT_MS);
  const complaint = text(child.stderr);
  try {
    if (child.pid === undefined) throw (await once(child, "error"))[0];
    let answer: ProbeAnswer | undefined;
    for await (const line of createInterface({ input: child.stdout })) {
      answer = JSON.parse(line);
      break;
    }
    if (answer === undefined) throw new Error((await complaint).trim().split("\n")[0] || "ended without an answer");
    if (answer.unreadable.length > 0)
      throw new Error(`the sandbox's user cannot read ${answer.unreadable.join(", ")}: make it readable for others`);
    const [server, sandbox] = await Promise.all([readProcess("self"), innermostProcess(child.pid).then(readProcess)]);
    const limits = limitsOf(wrapping, request);
    return judgeLayers({ plan: wrapping.plan, host: wrapping.facts, server, sandbox, answer, limits });
  } finally {
    clearTimeout(timer);
    child.kill("SIGKILL");
  }
}
