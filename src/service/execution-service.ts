import type { ExecutionNetwork } from "../egress/exchange.ts";
import type { NetworkInput } from "../egress/network-rules.ts";
import type { NetworkEvent } from "../egress/policy.ts";
import { baseOf } from "../environments/registry.ts";
import type { ExecutionRequest } from "../executor/execution.ts";
import type { Executor } from "../executor/executor.ts";
import type { McpServers } from "../mcp-servers/mcp-servers.ts";
import type { ExecutionResult } from "../sandbox/outcome.ts";
import type { Secrets } from "../secrets/secrets.ts";
import { codeDetails } from "../security-log/event.ts";
import type { SecurityLog } from "../security-log/security-log.ts";
import type { Sessions } from "../sessions/sessions.ts";
import { ClientError } from "../shared/errors.ts";
import type { Principal } from "../shared/principal.ts";
import type { Config } from "../shared/settings.ts";
import type { Statistics } from "../statistics/statistics.ts";
import type { ExecutionOutcome, Metrics } from "../telemetry/metrics.ts";
import { NO_TOOLS } from "../tools/call-answers.ts";
import type { Continuations } from "../tools/continuations.ts";
import type { ToolInput } from "../tools/definitions.ts";
import type { ToolExecution, ToolExecutions } from "../tools/tool-executions.ts";
import type { ToolEndpoints } from "../tools/webhook.ts";
import type { HostCalls, Workspace } from "../wire/host-calls.ts";
import type { WorkspaceStore } from "../workspaces/workspaces.ts";
import type { CallerPackages, OnInstall } from "./caller-environment.ts";
import type { CallerNetwork } from "./caller-network.ts";

/** What stands behind every route. */
export interface Services {
  readonly config: Config;
  readonly executor: Executor;
  readonly sessions: Sessions;
  readonly workspaces: WorkspaceStore;
  readonly packages: CallerPackages;
  readonly network: CallerNetwork;
  readonly secrets: Secrets;
  readonly tools: ToolExecutions;
  readonly mcpServers: McpServers;
  readonly continuations: Continuations;
  readonly toolEndpoints: ToolEndpoints;
  /** Null where log files are off. */
  readonly securityLog: SecurityLog | null;
  readonly statistics: Statistics;
  readonly metrics: Metrics;
}

/** Who asks, as logs and statistics have it. */
export interface Caller {
  readonly ip: string | null;
  readonly userAgent: string | null;
  readonly requestId: string;
  /** Id of the principal. */
  readonly principal: string;
}

/** What a caller asks to run: the body of a request, less its form. What is absent has the default of the server's settings. */
export interface ExecutionInput
  extends ToolInput,
    Pick<ExecutionRequest, "stdin" | "env" | "argv" | "namespace" | "printTraceback" | "isCounted"> {
  readonly code: string;
  /** The code as it came, where that was not UTF-8 in JSON. */
  readonly codeBytes?: Uint8Array | undefined;
  /** JSON text of an object. */
  readonly context?: string | undefined;
  /** ms */
  readonly timeout?: number | undefined;
  readonly environment?: string | undefined;
  readonly files?: "workspace" | "none" | undefined;
  /** Files of this execution alone, in place of the caller's workspace. Not in a session. */
  readonly ownFiles?: Workspace | undefined;
  /** Id of the session to run in. */
  readonly session?: string | undefined;
  /** What it may reach, of what its session and the server allow. */
  readonly network?: NetworkInput | undefined;
  /** Compare the code's calls of tools with their signatures before it runs. */
  readonly check?: boolean | undefined;
  /**
   * The last value as a MIME bundle, too. `after-outputs`: as true, but a figure that is the value and still open is displayed as it is without
   * a bundle, and the bundle has its text alone.
   */
  readonly display?: boolean | "after-outputs" | undefined;
}

/** For whom code runs. */
export interface ExecutionContext {
  readonly principal: Principal;
  readonly caller: Caller;
  /** Aborting it (the client went away) stops the execution. */
  readonly signal: AbortSignal;
}

interface Listeners extends Pick<ExecutionRequest, "onWait" | "onStart" | "onOutput"> {
  /** As `openTools` has opened them; the caller disposes of them. Null: the code has none. */
  readonly tools?: ToolExecution | null;
}

/** Called for what the code does besides running. */
interface Observers extends Listeners {
  readonly onNetwork?: (event: NetworkEvent) => void;
  readonly onInstall?: OnInstall;
}

/**
 * Runs a caller's code: in its workspace, with its packages, recorded before it is answered.
 *
 * @throws {ClientError} 503 while the security log cannot be written and AUDIT_REQUIRED is set; what `Executor.execute` throws.
 */
export async function runCode(
  services: Services,
  input: ExecutionInput,
  { principal, caller, signal }: ExecutionContext,
  listeners: Listeners = {},
): Promise<ExecutionResult> {
  requireAudit(services);
  const code = codeDetails(input.code, services.config.LOG_CODE, input.codeBytes);
  const { environment, sessionNetwork } = await placeOf(services, input, principal.id, signal);
  let result: ExecutionResult;
  try {
    await services.network.checkSecrets(principal.id, input.network);
    result = await execute(services, principal, { ...input, environment, sessionNetwork }, signal, {
      ...listeners,
      onNetwork: ({ event, ...details }) => services.securityLog?.appendOften({ event, ...caller, details }),
      onInstall: (requirement, error) => recordInstall(services, caller, requirement, error),
    });
  } catch (error) {
    // Recorded all the same: an audit wants to know of attempts.
    const cancelled = error instanceof ClientError && error.code === "client_gone";
    await record(services, caller, code, environment, null, cancelled ? "cancelled" : "rejected");
    throw error;
  }
  const outcome = result.status === "completed" ? "success" : result.status;
  if (!(await record(services, caller, code, environment, result, outcome))) requireAudit(services);
  services.statistics.record({
    type: "execution",
    principal: caller.principal,
    ip: caller.ip ?? "unknown",
    userAgent: caller.userAgent ?? "unknown",
    success: result.success,
    errorType: result.errorInfo?.type ?? null,
    executionTimeMs: result.executionTimeMs,
  });
  return result;
}

/** Runs a program of the server's own for a principal: as its code does, but not recorded. */
export async function runInternal(
  services: Services,
  principal: Principal,
  input: ExecutionInput,
  signal: AbortSignal,
): Promise<ExecutionResult> {
  return await execute(services, principal, input, signal);
}

/** Where an execution runs: in which environment, and with what its session says of the network. */
interface Place {
  readonly environment: string;
  readonly sessionNetwork?: NetworkInput | undefined;
}

/** @throws {ClientError} 404 if it is to run in a session that there is not, 400 if that has another environment, or a namespace has no session. */
async function placeOf(
  { sessions, packages }: Services,
  input: ExecutionInput,
  principal: string,
  signal: AbortSignal,
): Promise<Place> {
  if (input.session === undefined && input.namespace !== undefined) throw new ClientError("namespace_without_session");
  if (input.session === undefined) return { environment: input.environment ?? packages.defaultEnvironment };
  const { environment, head, network: sessionNetwork } = await sessions.record(principal, input.session);
  if (input.environment !== undefined && input.environment !== baseOf(environment)) {
    throw new ClientError("other_environment", `The session runs in the environment "${environment}".`);
  }
  if (head !== null) return { environment, sessionNetwork };
  // It has nothing to lose yet: it can have what its owner has installed since it was made.
  const { environment: current } = await packages.environmentFor(principal, baseOf(environment));
  if (current === environment) return { environment, sessionNetwork };
  return { environment: (await sessions.move(principal, input.session, signal, current)).environment, sessionNetwork };
}

/** Runs code in a principal's workspace, or session, and with its packages; nothing is recorded. */
async function execute(
  { config, executor, sessions, workspaces, packages, network }: Services,
  principal: Principal,
  {
    session,
    files,
    timeout = config.EXECUTION_TIMEOUT_MS,
    code,
    context,
    stdin,
    env,
    argv,
    ownFiles,
    display,
    namespace,
    ...input
  }: ExecutionInput & Pick<Place, "sessionNetwork">,
  signal: AbortSignal,
  { onWait, onStart, onOutput, onNetwork, onInstall, tools }: Observers = {},
): Promise<ExecutionResult> {
  const inSession = session !== undefined;
  const asked = input.environment ?? packages.defaultEnvironment;
  const { environment, archive } = inSession
    ? await packages.environmentOfSession(principal.id, asked)
    : await packages.environmentFor(principal.id, asked);
  const access = network.accessFor(principal.id, [input.sessionNetwork, input.network]);
  const mayInstall = principal.scopes.has("packages");
  using opened = new DisposableStack();
  const request: ExecutionRequest = {
    code,
    context,
    stdin,
    env,
    argv,
    display: display === true ? "on" : display || undefined,
    namespace,
    printTraceback: input.printTraceback,
    isCounted: input.isCounted,
    timeoutMs: timeout,
    environment,
    principal: principal.id,
    packages: archive ?? undefined,
    tools: tools?.calls.offer,
    isWaiting: () => tools?.calls.isWaiting ?? false,
    signal: tools ? AbortSignal.any([signal, tools.calls.expired]) : signal,
    onWait,
    onStart,
    onOutput,
    calls: () => ({
      // Opened by the first call: most code makes none.
      ...callsOf(opened.use(network.open(principal.id, access, onNetwork)), tools ?? null),
      "install-packages": {
        answer: async (requirements, stopped) => {
          if (!mayInstall) throw new ClientError("missing_scope", 'This API key lacks the scope "packages"');
          const changed = { inSession, onInstall };
          const all = await packages.installWhileRunning(principal.id, environment, requirements, stopped, changed);
          return { value: null, ...(all && { packages: all }) };
        },
      },
      "explain-module": {
        answer: async (module, stopped) => ({
          value: await packages.explainModule(principal.id, environment, module, mayInstall, stopped),
        }),
      },
    }),
  };
  if (session !== undefined) return await sessions.execute(session, request);
  if (ownFiles !== undefined) return await executor.execute({ ...request, workspace: ownFiles });
  using workspace = files === "none" ? null : workspaces.of(principal.id).forExecution();
  return await executor.execute({ ...request, workspace: workspace ?? undefined });
}

/** What the network and the caller's client answer. One wait may be for both. */
function callsOf({ calls }: ExecutionNetwork, tools: ToolExecution | null): HostCalls {
  if (tools === null) return { ...calls, ...NO_TOOLS };
  const wait = calls["http-wait"];
  const waitForRequests = async (ids: readonly number[], signal: AbortSignal) =>
    (await wait.answer({ ids: [...ids], timeoutMs: null }, signal)).value;
  return { ...calls, ...tools.calls.calls(waitForRequests) };
}

/** Puts on record what a caller had installed, or tried to: by request, or from code. */
export function recordInstall(
  { securityLog, statistics }: Services,
  caller: Caller,
  requirement: string,
  error: string | null,
): void {
  if (error === null) statistics.recordPackage(caller.principal);
  const details = { package: requirement, success: error === null, error };
  securityLog?.appendOften({ event: "package_install", ...caller, details });
}

/** @throws {ClientError} 503 if runs have to be recorded and cannot be. */
function requireAudit({ config, securityLog }: Services): void {
  if (config.AUDIT_REQUIRED && !securityLog?.healthy) {
    throw new ClientError("audit_unavailable");
  }
}

/** @returns whether the security log has it; at once where nothing has to be written for it. */
function record(
  { securityLog, metrics }: Services,
  caller: Caller,
  code: ReturnType<typeof codeDetails>,
  environment: string,
  result: ExecutionResult | null,
  outcome: ExecutionOutcome,
): boolean | Promise<boolean> {
  metrics.recordExecution(outcome, baseOf(environment), result?.executionTimeMs);
  metrics.recordCpuTime(caller.principal, result?.cpuTimeMs ?? 0);
  if (securityLog === null) return true;
  const line = {
    event: result?.success ? ("code_execution" as const) : ("code_execution_error" as const),
    ...caller,
    details: {
      success: result?.success ?? false,
      outcome,
      ...code,
      environment,
      executionTime: result && Math.round(result.executionTimeMs * 1000) / 1000,
      cpuTime: result?.cpuTimeMs ?? null,
      resultLength: result === null || result.result.isNull ? 0 : result.result.bytes.length,
      hasOutput: result !== null && (result.stdout !== "" || result.stderr !== ""),
      error: result?.errorInfo?.type ?? null,
    },
  };
  // What ran is a line each. What was refused costs its caller nothing.
  if (outcome !== "rejected") return securityLog.append(line);
  securityLog.appendOften(line);
  return securityLog.writing ?? true;
}
