import { ClientError } from "../shared/errors.ts";
import { type Tool, type ToolInput, toolSet } from "../tools/definitions.ts";
import type { EndedCall, InnerTools, ToolClient } from "../tools/events.ts";
import { stubsOf } from "../tools/stubs.ts";
import type { ToolExecution } from "../tools/tool-executions.ts";
import type { Caller, ExecutionContext, ExecutionInput, Services } from "./execution-service.ts";

/**
 * Opens what a caller's client answers while the code runs: its tools, and `input()`. The transport passes it to `runCode`, has answers reach
 * `services.tools`, and disposes of it.
 *
 * @returns null: the request offers nothing.
 * @throws {ClientError} 400 `invalid_tools`, 429 `too_many_tool_executions`; 404 if it is to run in a session that there is not.
 */
export async function openTools(
  services: Services,
  input: ExecutionInput,
  { principal, caller }: Pick<ExecutionContext, "principal" | "caller">,
  client: ToolClient,
): Promise<ToolExecution | null> {
  const {
    tools,
    interactive = false,
    toolMode,
    toolTimeout,
    toolEndpoint,
    mcp,
  } = await offer(services, input, principal.id);
  const check = input.check ?? false;
  const inner = await innerTools(services, mcp, principal.id);
  if (tools === undefined && !interactive && !check && inner === null) return null;
  const set = allTools(tools, inner, variablesOf(input));
  const asksClient = tools !== undefined || interactive || check;
  const webhook = toolEndpoint === undefined ? null : services.toolEndpoints.client(toolEndpoint, principal.id);
  const execution = services.tools.begin(
    {
      principal: principal.id,
      tools: set,
      interactive,
      mode: toolMode ?? "sync",
      check,
      client: webhook ?? client,
      inner,
      callTimeoutMs: toolTimeout ?? services.config.TOOL_TIMEOUT_MS,
      onEnded: (call) => record(services, caller, call),
      onWaiting: services.tools.marksWaiting(input.session),
    },
    { isAnsweredElsewhere: webhook !== null || !asksClient, onClose: () => webhook?.[Symbol.dispose]() },
  );
  webhook?.attach(execution.calls);
  return execution;
}

/**
 * Tools as a Python stub file: those that an execution with this input would have.
 *
 * @throws {ClientError} as {@link openTools}.
 */
export async function stubsFor(
  services: Services,
  input: ToolInput & Pick<ExecutionInput, "session">,
  principal: string,
): Promise<string> {
  const { tools, toolMode, mcp } = await offer(services, input, principal);
  const set = allTools(tools, await innerTools(services, mcp, principal), []);
  return stubsOf([...set.values()], toolMode ?? "sync");
}

/** What a request offers to its code: its session's defaults, and what it says itself. */
async function offer(
  { sessions }: Services,
  input: ToolInput & Pick<ExecutionInput, "session">,
  principal: string,
): Promise<ToolInput> {
  const defaults = input.session === undefined ? {} : (await sessions.record(principal, input.session)).tools;
  return { ...defaults, ...given(input) };
}

/** @throws {ClientError} 400 `invalid_tools`. */
function allTools(own: ToolInput["tools"], inner: InnerTools | null, variables: readonly string[]): Map<string, Tool> {
  const set = toolSet(own ?? [], [...variables, ...(inner === null ? [] : ["mcp"])]);
  for (const [key, tool] of inner?.tools ?? []) {
    if (set.has(key)) throw new ClientError("invalid_tools", `The name of the tool ${JSON.stringify(key)} is taken.`);
    set.set(key, tool);
  }
  return set;
}

/** @returns null: the request asks for none. */
async function innerTools(
  { mcpServers }: Services,
  wanted: ToolInput["mcp"],
  principal: string,
): Promise<InnerTools | null> {
  if (wanted === undefined || wanted === false) return null;
  return await mcpServers.toolsFor(principal, wanted);
}

/** What a request says of tools, of its own or as a session's default; what it does not say is not in it. */
function given({ tools, interactive, toolMode, toolTimeout, toolEndpoint, mcp }: ToolInput): ToolInput {
  return {
    ...(mcp !== undefined && { mcp }),
    ...(tools !== undefined && { tools }),
    ...(interactive !== undefined && { interactive }),
    ...(toolMode !== undefined && { toolMode }),
    ...(toolTimeout !== undefined && { toolTimeout }),
    ...(toolEndpoint !== undefined && { toolEndpoint }),
  };
}

/**
 * What a session offers to each of its executions. @returns undefined: nothing.
 *
 * @throws {ClientError} 400 `invalid_tools`, `unknown_tool_endpoint`.
 */
export function sessionTools(services: Services, input: ToolInput, principal: string): ToolInput | undefined {
  const defaults = given(input);
  if (Object.keys(defaults).length === 0) return undefined;
  toolSet(defaults.tools ?? []);
  if (defaults.toolEndpoint !== undefined)
    services.toolEndpoints.client(defaults.toolEndpoint, principal)[Symbol.dispose]();
  return defaults;
}

function variablesOf({ context }: ExecutionInput): string[] {
  return context === undefined ? [] : Object.keys(JSON.parse(context) as object);
}

function record({ securityLog, config }: Services, caller: Caller, call: EndedCall): void {
  const { name, inputBytes, resultBytes, durationMs, outcome, input } = call;
  securityLog?.appendOften({
    event: "tool_call",
    ...caller,
    details: {
      tool: name,
      outcome,
      inputBytes,
      resultBytes,
      duration: Math.round(durationMs * 1000) / 1000,
      ...(config.LOG_CODE && { arguments: String(input) }),
    },
  });
}
