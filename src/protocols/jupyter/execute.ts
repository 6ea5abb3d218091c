import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import { MAX_TIMEOUT_MS, parseBody } from "../../http/validation.ts";
import type { ExecutionResult } from "../../sandbox/outcome.ts";
import type { OutputEvent } from "../../sandbox/running-job.ts";
import { type ExecutionContext, type ExecutionInput, runCode } from "../../service/execution-service.ts";
import { openTools } from "../../service/tool-calls.ts";
import { ClientError, type ErrorCode } from "../../shared/errors.ts";
import { Slices } from "../../shared/json/json-members.ts";
import { JsonFragments } from "../../shared/json/json-parts.ts";
import { whileWaiting } from "../../shared/while-waiting.ts";
import type { ToolExecution } from "../../tools/tool-executions.ts";
import type { ErrorInfo } from "../../wire/guest-messages.ts";
import { cutNote, tracebackLines } from "../execution-limits.ts";
import { InOrder } from "../in-order.ts";
import { exitStatusOf } from "../program.ts";
import { notebookData } from "./bundles.ts";
import type { Asked } from "./live-kernel.ts";

/** Expressions of one request: each is an execution, and counts as a request. */
const MAX_EXPRESSIONS = 32;

const executeContent = z.object({
  code: z.string("An execute_request has code."),
  silent: z.boolean().optional().default(false),
  store_history: z.boolean().optional().default(true),
  user_expressions: z
    .record(z.string(), z.string("User expressions must be strings."), "User expressions must be an object of strings.")
    .refine(
      (expressions) => Object.keys(expressions).length <= MAX_EXPRESSIONS,
      `There may be at most ${MAX_EXPRESSIONS} user expressions.`,
    )
    .optional()
    .default({}),
  allow_stdin: z.boolean().optional().default(true),
});

/** A server that has no room now may have it in a moment: a kernel has its clients wait. */
const WORTH_WAITING: ReadonlySet<ErrorCode> = new Set(["queue_full", "principal_queue_full", "starting"]);
const MAX_ATTEMPTS = 60;
/** Where too many executions wait for clients already, code runs without one that it could ask. */
const CANNOT_ASK: ReadonlySet<ErrorCode> = new Set(["too_few_sandboxes", "too_many_tool_executions"]);

/** Notebooks have no end of a cell but a person's; this server has one. */
const IN_KERNEL = { display: true, printTraceback: false, timeout: MAX_TIMEOUT_MS } as const;

/** `execute_request`. @returns the content of its reply. */
export async function execute(asked: Asked): Promise<object> {
  const { kernel, request } = asked;
  const content = parseBody(executeContent, request.content);
  const { executions } = await kernel.services.sessions.record(kernel.owner, kernel.id);
  if (content.code.trim() === "") return ok(executions, await evaluate(asked, content.user_expressions));
  if (!content.silent) {
    kernel.publish(request, "execute_input", { code: content.code, execution_count: executions + 1 });
  }
  const isCounted = content.store_history && !content.silent;
  let result: ExecutionResult;
  try {
    const input = { ...IN_KERNEL, code: content.code, session: kernel.id, isCounted };
    result = await run(asked, input, content.allow_stdin);
  } catch (error) {
    if (!(error instanceof ClientError)) throw error;
    const { code, message } = error;
    return failed(asked, executions + 1, code === "interrupted" ? KEYBOARD_INTERRUPT : { type: code, message });
  }
  const count = result.executionCount ?? executions + 1;
  const { session, errorInfo } = result;
  // Where nothing else went wrong than that, the error says it.
  if (session?.restored && session.reason !== undefined && !errorInfo?.message.includes(session.reason)) {
    kernel.publish(request, "stream", { name: "stderr", text: `${session.reason}\n` });
  }
  if (result.truncated) kernel.publish(request, "stream", { name: "stderr", text: cutNote(result) });
  if (result.status === "cancelled") return failed(asked, count, { ...errorInfo, ...KEYBOARD_INTERRUPT });
  if (errorInfo) return failed(asked, count, errorInfo);
  if (!content.silent && result.display != null) {
    const { display, displayMetadata: metadata = {} } = result;
    // What is not counted has the next number, as its input had.
    const number = isCounted ? count : executions + 1;
    kernel.publish(request, "execute_result", { execution_count: number, data: await notebookData(display), metadata });
  }
  return ok(count, await evaluate(asked, content.user_expressions));
}

const KEYBOARD_INTERRUPT = { type: "KeyboardInterrupt", message: "" };

function ok(count: number, expressions: object): object {
  return { status: "ok", execution_count: count, user_expressions: expressions, payload: [] };
}

/** What a client wants to know after its code, one after another. */
async function evaluate(asked: Asked, expressions: Readonly<Record<string, string>>): Promise<object> {
  const values: [string, JsonFragments][] = [];
  for (const [name, code] of Object.entries(expressions)) {
    values.push([name, new JsonFragments(await evaluateOne(asked, code))]);
  }
  return new JsonFragments(Object.fromEntries(values));
}

async function evaluateOne({ kernel, principal, caller, signal, count }: Asked, code: string): Promise<object> {
  const input: ExecutionInput = { ...IN_KERNEL, code, session: kernel.id, isCounted: false };
  try {
    await count();
    const context = { principal, caller, signal };
    const { errorInfo, display, displayMetadata: metadata = {} } = await runCode(kernel.services, input, context);
    if (errorInfo) return { status: "error", ...errorOf(errorInfo) };
    const data = display == null ? { "text/plain": "None" } : await notebookData(display);
    return { status: "ok", data, metadata };
  } catch (error) {
    if (!(error instanceof ClientError)) throw error;
    return { status: "error", ...errorOf({ type: error.code, message: error.message }) };
  }
}

/** An error as Jupyter's messages have it. */
function errorOf({ type: ename, message, traceback = "" }: RaisedError) {
  const evalue = exitStatusOf({ type: ename, message }) ?? message;
  const lines = traceback.trim() === "" ? [`${ename}: ${evalue}`] : tracebackLines(traceback);
  return { ename, evalue, traceback: lines };
}

type RaisedError = Pick<ErrorInfo, "type" | "message"> & Partial<ErrorInfo>;

function failed({ kernel, request }: Asked, count: number, info: RaisedError): object {
  const error = errorOf(info);
  kernel.publish(request, "error", error);
  return { status: "error", ...error, execution_count: count, user_expressions: {}, payload: [] };
}

/** @throws {ClientError} it does not run. */
async function run(asked: Asked, input: ExecutionInput, mayAsk: boolean): Promise<ExecutionResult> {
  const { kernel, principal, caller, signal } = asked;
  const context: ExecutionContext = { principal, caller, signal };
  using opened = new DisposableStack();
  const shown = new InOrder();
  const slices = new Slices();
  const tools = mayAsk ? await openInput(asked, input, context, shown, opened) : null;
  const onOutput = (event: OutputEvent) => shown.pass(() => publish(asked, event, slices));
  for (let attempt = 1; ; attempt++) {
    try {
      try {
        return await runCode(kernel.services, input, context, { tools, onOutput });
      } finally {
        await shown.end();
      }
    } catch (error) {
      if (!(error instanceof ClientError) || !WORTH_WAITING.has(error.code) || attempt === MAX_ATTEMPTS) throw error;
      await whileWaiting(signal, sleep(1000 * (error.retryAfterS ?? 1)));
    }
  }
}

/** Has `input()` ask the client that the request came from. @returns null: it cannot. */
async function openInput(
  asked: Asked,
  input: ExecutionInput,
  context: ExecutionContext,
  shown: InOrder,
  opened: DisposableStack,
): Promise<ToolExecution | null> {
  const { kernel, client, request } = asked;
  const open: string[] = [];
  const { TOOL_WAIT_MAX_S } = kernel.services.config;
  // A person answers: it waits as long as it may.
  const offer = { ...input, interactive: true, toolTimeout: TOOL_WAIT_MAX_S * 1000 };
  try {
    const tools = await openTools(kernel.services, offer, context, {
      send: (event) => {
        if (event.type !== "input_request") return;
        const { id, prompt, password } = event;
        // What was displayed before it is seen before it.
        shown.pass(() => {
          open.push(id);
          kernel.send(client, "stdin", "input_request", request, { prompt, password });
          return undefined;
        });
      },
      ended: (id) => {
        const at = open.indexOf(id);
        if (at >= 0) open.splice(at, 1);
      },
      isAttended: () => client.isConnected,
    });
    if (tools !== null) opened.use(kernel.ask(client, opened.use(tools), open));
    return tools;
  } catch (error) {
    if (error instanceof ClientError && CANNOT_ASK.has(error.code)) return null;
    throw error;
  }
}

/** @returns what has to be done before the next event; undefined: it is done. */
function publish({ kernel, request }: Asked, event: OutputEvent, slices: Slices): Promise<void> | undefined {
  switch (event.type) {
    case "stdout":
    case "stderr":
      kernel.publish(request, "stream", { name: event.type, text: event.content });
      break;
    case "clear_output":
      kernel.publish(request, "clear_output", { wait: event.wait });
      break;
    case "output": {
      const { bundle, metadata = {}, displayId, isUpdate } = event;
      const transient = displayId === undefined ? {} : { display_id: displayId };
      return notebookData(bundle, slices).then((data) => {
        kernel.publish(request, isUpdate ? "update_display_data" : "display_data", { data, metadata, transient });
      });
    }
  }
  return undefined;
}
