import type { Request, Response } from "express";
import type { NetworkEvent, NetworkProxy } from "../egress/policy.ts";
import { baseOf } from "../environments/registry.ts";
import type { ExecutionRequest, ExecutionResult, OutputEvent } from "../executor/execution.ts";
import type { Engine } from "../executor/executor.ts";
import { type Principal, principalOf } from "../http/middleware/authentication.ts";
import type { ExecuteBody } from "../http/validation.ts";
import { codeDetails, type SecurityEvent } from "../security-log/event.ts";
import type { SecurityLog } from "../security-log/security-log.ts";
import type { Sessions } from "../sessions/sessions.ts";
import { badRequest, ClientError } from "../shared/errors.ts";
import type { Config } from "../shared/settings.ts";
import type { Statistics } from "../statistics/statistics.ts";
import type { ExecutionOutcome, Metrics } from "../telemetry/metrics.ts";
import type { WorkspaceStore } from "../workspaces/workspaces.ts";
import type { CallerPackages, OnInstall } from "./caller-environment.ts";

/** Lines in a minute of what a principal can cause at any rate; the rest of them is counted. */
const FOLDED_BURST = 100;

/** What stands behind every route. */
export interface Services {
  readonly config: Config;
  readonly engine: Engine;
  readonly sessions: Sessions;
  readonly workspaces: WorkspaceStore;
  readonly packages: CallerPackages;
  readonly network: NetworkProxy;
  /** Null where log files are off. */
  readonly securityLog: SecurityLog | null;
  readonly statistics: Statistics;
  readonly metrics: Metrics;
}

/** Who asks, as logs and statistics have it. */
export function callerOf(request: Request, response: Response) {
  return {
    ip: request.ip ?? null,
    userAgent: request.get("user-agent") ?? null,
    requestId: String(response.locals.requestId),
    principal: principalOf(response).id,
  };
}

/**
 * Runs a caller's code: in its workspace, with its packages, recorded before it is answered.
 *
 * @param body `codeBytes` is the code as it came, where that was not UTF-8 in JSON.
 * @throws {ClientError} 503 while the security log cannot be written and AUDIT_REQUIRED is set; what `Engine.execute` throws.
 */
export async function runCode(
  services: Services,
  body: ExecuteBody & { readonly codeBytes?: Uint8Array | undefined },
  request: Request,
  response: Response,
  watch: Pick<CallerExecution, "onWait" | "onStart" | "onOutput"> = {},
): Promise<ExecutionResult> {
  const { config } = services;
  requireAudit(services);
  const caller = callerOf(request, response);
  // At once: a client that goes away while something is looked up must be noticed, too.
  const signal = clientGone(response);
  const code = codeDetails(body.code, config.LOG_CODE, body.codeBytes);
  const environment = await environmentOf(services, body, caller.principal);
  let result: ExecutionResult;
  try {
    result = await executeFor(services, principalOf(response), {
      ...body,
      environment,
      timeoutMs: body.timeout ?? config.EXECUTION_TIMEOUT_MS,
      signal,
      ...watch,
      onNetwork: ({ event, ...details }) =>
        services.securityLog?.appendFolded({ event, ...caller, details }, caller.principal, FOLDED_BURST),
      onInstall: (requirement, error) => recordInstall(services, caller, requirement, error),
    });
  } catch (error) {
    // Recorded all the same: that somebody tried is what an audit wants to know.
    const cancelled = error instanceof ClientError && error.code === "client_gone";
    record(services, caller, code, environment, null, cancelled ? "cancelled" : "rejected");
    throw error;
  }
  const outcome = result.status === "completed" ? "success" : result.status;
  if (!record(services, caller, code, environment, result, outcome)) requireAudit(services);
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

/** @throws {ClientError} 404 if it is to run in a session that there is not, 400 if that has another environment. */
async function environmentOf({ sessions, packages }: Services, body: ExecuteBody, principal: string): Promise<string> {
  if (body.session === undefined) return body.environment ?? packages.defaultEnvironment;
  const { environment, head } = await sessions.record(principal, body.session);
  if (body.environment !== undefined && body.environment !== baseOf(environment)) {
    throw badRequest("other_environment", `The session runs in the environment "${environment}".`);
  }
  if (head !== null) return environment;
  // It has nothing to lose yet: it can have what its owner has installed since it was made.
  const { environment: current } = await packages.environmentFor(principal, baseOf(environment));
  if (current === environment) return environment;
  return (await sessions.move(principal, body.session, current)).environment;
}

export interface CallerExecution {
  readonly code: string;
  /** JSON text of an object. */
  readonly context?: string | undefined;
  readonly stdin?: string | undefined;
  readonly environment: string;
  readonly timeoutMs: number;
  readonly files?: "workspace" | "none" | undefined;
  /** Id of the session to run in. */
  readonly session?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onWait?: (() => void) | undefined;
  readonly onStart?: (() => void) | undefined;
  readonly onOutput?: ((event: OutputEvent) => void) | undefined;
  readonly onNetwork?: ((event: NetworkEvent) => void) | undefined;
  /** Called for what the code installs. */
  readonly onInstall?: OnInstall | undefined;
}

/** Runs code in a principal's workspace and with its packages; nothing is recorded. */
export async function executeFor(
  {
    engine,
    sessions,
    workspaces,
    packages,
    network,
  }: Pick<Services, "engine" | "sessions" | "workspaces" | "packages" | "network">,
  principal: Principal,
  execution: CallerExecution,
): Promise<ExecutionResult> {
  const inSession = execution.session !== undefined;
  const { environment, archive } = inSession
    ? await packages.environmentOfSession(principal.id, execution.environment)
    : await packages.environmentFor(principal.id, execution.environment);
  using opened = network.open(principal.id, execution.onNetwork);
  const request: ExecutionRequest = {
    ...execution,
    network: opened,
    environment,
    principal: principal.id,
    packages: archive ?? undefined,
    installPackages: async (requirements) => {
      if (!principal.scopes.has("packages")) {
        throw new ClientError(403, "missing_scope", 'This API key lacks the scope "packages"');
      }
      const { onInstall } = execution;
      return await packages.installWhileRunning(principal.id, environment, requirements, { inSession, onInstall });
    },
    explainModule: async (module) =>
      await packages.explainModule(environment, module, principal.scopes.has("packages")),
  };
  if (execution.session !== undefined) return await sessions.execute(execution.session, request);
  using workspace = execution.files === "none" ? null : workspaces.of(principal.id).forExecution();
  return await engine.execute({ ...request, workspace: workspace ?? undefined });
}

/** Puts on record what somebody had installed, or tried to: by request, or from code. */
export function recordInstall(
  { securityLog, statistics }: Services,
  caller: ReturnType<typeof callerOf>,
  requirement: string,
  error: string | null,
): void {
  if (error === null) statistics.recordPackage(caller.principal);
  const details = { package: requirement, success: error === null, error };
  securityLog?.append({ event: "package_install", ...caller, details });
}

/** @throws {ClientError} 503 if runs have to be recorded and cannot be. */
function requireAudit({ config, securityLog }: Services): void {
  if (config.AUDIT_REQUIRED && !securityLog?.healthy) {
    throw new ClientError(503, "audit_unavailable", "The security log cannot be written, so no code is run.", {
      retryAfterS: 10,
    });
  }
}

/** @returns whether the security log has it. */
function record(
  { securityLog, metrics }: Services,
  caller: ReturnType<typeof callerOf>,
  code: ReturnType<typeof codeDetails>,
  environment: string,
  result: ExecutionResult | null,
  outcome: ExecutionOutcome,
): boolean {
  metrics.recordExecution(outcome, baseOf(environment), result?.executionTimeMs);
  metrics.recordProcessorTime(caller.principal, result?.processorTimeMs ?? 0);
  if (securityLog === null) return true;
  const line: SecurityEvent = {
    event: result?.success ? "code_execution" : "code_execution_error",
    ...caller,
    details: {
      success: result?.success ?? false,
      outcome,
      ...code,
      environment,
      executionTime: result && Math.round(result.executionTimeMs * 1000) / 1000,
      cpuTime: result?.processorTimeMs ?? null,
      resultLength: result === null || result.result.isNull ? 0 : result.result.bytes.length,
      hasOutput: result !== null && (result.stdout !== "" || result.stderr !== ""),
      error: result?.errorInfo?.type ?? null,
    },
  };
  // What ran is a line each. What was refused costs its caller nothing.
  if (outcome !== "rejected") return securityLog.append(line);
  securityLog.appendFolded(line, caller.principal, FOLDED_BURST);
  return true;
}

/** Aborts when the client closes the connection before it has the answer. */
export function clientGone(response: Response): AbortSignal {
  const controller = new AbortController();
  response.once("close", () => {
    // Nobody reads this reply; as an error of the client's it is not logged as a fault of the server's.
    if (!response.writableFinished) controller.abort(new ClientError(499, "client_gone", "The client went away"));
  });
  return controller.signal;
}
