import { toolSet } from "../tools/definitions.ts";
import type { EndedCall, ToolClient } from "../tools/events.ts";
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
  const { tools, interactive = false, check = false, toolMode, toolTimeout } = input;
  if (tools === undefined && !interactive && !check) return null;
  return services.tools.begin({
    principal: principal.id,
    tools: toolSet(tools ?? [], variablesOf(input)),
    interactive,
    mode: toolMode ?? "sync",
    check,
    client,
    callTimeoutMs: toolTimeout ?? services.config.TOOL_TIMEOUT_MS,
    onEnded: (call) => record(services, caller, call),
  });
}

function variablesOf({ context }: ExecutionInput): string[] {
  return context === undefined ? [] : Object.keys(JSON.parse(context) as object);
}

function record({ securityLog, config }: Services, caller: Caller, call: EndedCall): void {
  const { name, inputBytes, resultBytes, durationMs, outcome, input } = call;
  void securityLog?.append({
    event: "tool_call",
    ...caller,
    details: {
      tool: name,
      outcome,
      inputBytes,
      resultBytes,
      duration: Math.round(durationMs * 1000) / 1000,
      ...(config.LOG_CODE && { arguments: input }),
    },
  });
}
