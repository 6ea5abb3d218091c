import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import { executeBody, toolFields } from "../../http/validation.ts";
import type { OutputEvent } from "../../sandbox/running-job.ts";
import { type ExecutionInput, runCode } from "../../service/execution-service.ts";
import { openTools } from "../../service/tool-calls.ts";
import { ClientError } from "../../shared/errors.ts";
import { parseExact } from "../../shared/json/exact-json.ts";
import type { Proceeded } from "../../tools/continuations.ts";
import type { Reply } from "../../tools/events.ts";
import { fileInput, filesOf, writeFiles } from "./file-tools.ts";
import { executionOutput, executionResult, stepResult } from "./results.ts";
import { as, type ToolCall, tool } from "./tool.ts";

/** Before the ids of executions that are this protocol's: what `/api/executions` has begun is rendered for others. */
const HANDLE_PREFIX = "mcp-";

const { code, env, environment, stdin, network, check } = executeBody.shape;
const { tools, toolMode, interactive, toolTimeout, mcp } = toolFields;

const runInput = z.object({
  code: code.meta({ description: "Python source. The value of its last expression is the result." }),
  session: z.string("Session must be a string.").optional().meta({
    description:
      "Id from session_create: variables, imports and files stay for the next call. Without it: a fresh interpreter.",
  }),
  environment: environment.meta({ description: "Package set to run in, see environments_list." }),
  files: z.record(z.string(), fileInput, "Files must be an object: path → content.").optional().meta({
    description: 'Files to write before the code runs: {"data.csv": "a,b\\n1,2", "logo.png": {"base64": "…"}}.',
  }),
  timeout_ms: executeBody.shape.timeout.meta({ description: "Wall time the code may take, ms." }),
  env,
  stdin,
  tools: tools.meta({
    description:
      "Functions that you answer while the code runs: [{name, description, parameters (JSON Schema)}]. A call of one ends this call with status tool_call_required; go on with resume_python.",
  }),
  tool_mode: toolMode,
  interactive: interactive.meta({ description: "input() asks you, by tool_call_required, instead of reading stdin." }),
  tool_timeout_ms: toolTimeout,
  mcp,
  network,
  check,
});

export const runPython = tool({
  name: "run_python",
  title: "Run Python",
  description:
    "Runs Python code in a sandbox (CPython in WebAssembly) and returns what it printed, the value of its last expression, figures as images, and the traceback if it failed. " +
    "Without `session` each call starts with nothing but your files; with one (session_create) variables stay. Files are in the current folder. " +
    "There is no shell, no subprocess and no thread. Print little: write large results to files.",
  scopes: ["execute"],
  isLong: true,
  input: runInput,
  aliases: {
    timeout: as("timeout_ms"),
    toolMode: as("tool_mode"),
    toolTimeout: as("tool_timeout_ms"),
    session_id: as("session"),
  },
  output: executionOutput,
  annotations: { destructiveHint: true, openWorldHint: true },
  run: async (call, { timeout_ms: timeout, tool_mode, tool_timeout_ms: toolTimeout, files, ...rest }) => {
    const input: ExecutionInput = { ...rest, timeout, toolMode: tool_mode, toolTimeout, display: true };
    if (files !== undefined) await writeFiles(call, filesOf(call, input.session), files);
    return await run(call, input);
  },
});

export const resumePython = tool({
  name: "resume_python",
  title: "Go on with Python code that waits",
  description:
    "Answers calls of code that run_python has left waiting (status tool_call_required), and goes on with it until it waits again or is over. Without results it says again where the code stands.",
  scopes: ["execute"],
  isLong: true,
  input: z.object({
    handle: z
      .string("The handle must be a string.")
      .max(200)
      .meta({ description: "From run_python, or resume_python." }),
    results: z.array(z.unknown(), "Results must be a list.").optional().meta({
      description:
        'One for each call: {"id", "result": any JSON} or {"id", "error": {"message"}}. For input() the result is a string.',
    }),
  }),
  output: executionOutput,
  annotations: { destructiveHint: true, openWorldHint: true },
  run: async (call, { handle, results }) => {
    const { continuations } = call.services;
    if (!handle.startsWith(HANDLE_PREFIX)) throw new ClientError("execution_not_found");
    const id = handle.slice(HANDLE_PREFIX.length);
    const answers = results === undefined ? [] : await call.answers();
    const cancel = () => continuations.cancel(call.principal.id, id);
    call.cancelled.addEventListener("abort", cancel, { once: true });
    try {
      return resultOf(call, await continuations.proceed(call.principal.id, id, answers, call.signal));
    } finally {
      call.cancelled.removeEventListener("abort", cancel);
    }
  },
});

/** Runs code until it is over, or waits for the client. */
async function run(call: ToolCall, input: ExecutionInput): Promise<CallToolResult> {
  const { services, principal } = call;
  const { session } = input;
  const continuation = services.continuations.begin({
    principal: principal.id,
    leaseMs: input.toolTimeout ?? services.config.TOOL_TIMEOUT_MS,
    render: (step) => replyOf(stepResult(step, HANDLE_PREFIX + step.continuation, session)),
  });
  const { progress } = call;
  const report = (event: OutputEvent) => {
    if (event.type === "stdout" || event.type === "stderr") progress?.(lastLine(event.content));
  };
  const tools = await openTools(services, input, call, continuation);
  if (tools === null || tools.isAnsweredElsewhere) {
    using _ = tools;
    return await executionResult(
      await runCode(services, input, call, { tools, ...(progress && { onOutput: report }) }),
      session,
    );
  }
  continuation.start(tools, async (signal) => {
    const onOutput = (event: OutputEvent) => {
      if (event.type === "stdout" || event.type === "stderr") continuation.print(event.type, event.content);
      report(event);
    };
    const result = await runCode(services, input, { ...call, signal }, { tools, onOutput });
    return replyOf(await executionResult(result, session));
  });
  services.continuations.add(continuation);
  return resultOf(call, await services.continuations.next(continuation, [], call.signal));
}

/** As bytes, which another server of the fleet may have made. */
function replyOf(result: CallToolResult): Reply {
  return { status: 200, body: Buffer.from(JSON.stringify(result)) };
}

function resultOf(call: ToolCall, { reply, delivered }: Proceeded): CallToolResult {
  call.onDelivered(delivered);
  return parseExact(Buffer.from(reply.body).toString("utf8")) as CallToolResult;
}

const MAX_LINE_CHARACTERS = 200;

function lastLine(text: string): string {
  const lines = text.trimEnd();
  return lines
    .slice(lines.lastIndexOf("\n") + 1)
    .slice(-MAX_LINE_CHARACTERS)
    .toWellFormed();
}
