/** What came of code, as models and programs read it. */
import type { CallToolResult, ContentBlock } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import type { ExecutionResult } from "../../sandbox/outcome.ts";
import { parseExact } from "../../shared/json/exact-json.ts";
import { contentOf, Slices, textMembers } from "../../shared/json/json-members.ts";
import type { JsonText } from "../../shared/json/json-text.ts";
import type { Step } from "../../tools/events.ts";
import { addMedium, base64Of, isMedium, withMediaBeside, withoutMedia } from "./media.ts";

/** Of stdout, of stderr and of the result each: a model that is shown more reads none of it. */
const MAX_TEXT_CHARACTERS = 30_000;
const MAX_SHOWN_CHARACTERS = 10_000;
/** What a model reads best first. */
const TEXTS = ["text/markdown", "text/plain", "text/latex", "application/json", "text/html", "image/svg+xml"];

/** What Python says of an object that has no text of its own. */
const NAMELESS = /^<[\w.]+ object(?: at 0x[0-9a-f]+)?>$/;

const shown = z.looseObject({
  mimeTypes: z.array(z.string()),
  text: z.string().optional(),
  content: z.int().optional().describe("Index of the image, or the sound, in the result's content."),
});

export const executionOutput = z.looseObject({
  status: z
    .enum([
      "completed",
      "error",
      "timeout",
      "cpu_limit",
      "cancelled",
      "tool_wait_expired",
      "sandbox_died",
      "tool_call_required",
    ])
    .describe("`error`: a Python exception. `tool_call_required`: the code waits for resume_python."),
  result: z.unknown().optional().describe("Value of the last expression, as JSON; absent if it is too large."),
  stdout: z.string(),
  stderr: z.string(),
  error: z
    .looseObject({ name: z.string(), message: z.string(), traceback: z.string(), line: z.int().nullable() })
    .optional(),
  outputs: z.array(shown).optional().describe("What was displayed: figures, tables."),
  display: shown.optional().describe("The result as it is shown."),
  session: z.string().optional(),
  executionCount: z.int().optional(),
  executionTimeMs: z.number().optional(),
  truncated: z.boolean().optional().describe("Output, or the result, was cut."),
  note: z.string().optional().describe("What became of files or session, where that is not what the code did."),
  handle: z.string().optional().describe("For resume_python."),
  toolCalls: z
    .array(z.looseObject({ id: z.string(), name: z.string(), input: z.looseObject({}) }))
    .optional()
    .describe("Calls that the code waits for."),
  inputRequests: z
    .array(z.looseObject({ id: z.string(), prompt: z.string(), password: z.boolean() }))
    .optional()
    .describe("What `input()` asks."),
});

type ExecutionOutput = z.input<typeof executionOutput>;

/**
 * A result, whatever the code came to: that it raised an exception is what the tool was asked to find out. `isError` is for calls that ran nothing.
 *
 * @param session that it ran in.
 */
export async function executionResult(result: ExecutionResult, session: string | undefined): Promise<CallToolResult> {
  const { status, errorInfo, executionCount, executionTimeMs } = result;
  const media: ContentBlock[] = [];
  // Code may display 64 MiB: others have their turn meanwhile.
  const slices = new Slices();
  const outputs: ShownBundle[] = [];
  for (const bundle of result.outputs) outputs.push(await showBundle(bundle, media, slices));
  const value = shownValue(result.result);
  const display = result.success && result.display ? await showBundle(result.display, media, slices) : null;
  const stdout = cut(result.stdout, MAX_TEXT_CHARACTERS);
  const stderr = cut(result.stderr, MAX_TEXT_CHARACTERS);
  const isCut = result.truncated || stdout !== result.stdout || stderr !== result.stderr || !("value" in value);
  const note = result.session?.reason ?? result.session?.pinned ?? result.notKept?.message;
  const structuredContent: ExecutionOutput = {
    status,
    ...("value" in value && { result: value.value }),
    stdout,
    stderr,
    ...(errorInfo && {
      error: {
        name: errorInfo.type,
        message: errorInfo.message,
        traceback: cut(errorInfo.traceback, MAX_TEXT_CHARACTERS),
        line: errorInfo.line,
      },
    }),
    ...(outputs.length > 0 && { outputs: outputs.map(({ output }) => output) }),
    ...(display && { display: display.output }),
    ...(session !== undefined && { session }),
    ...(executionCount !== null && { executionCount }),
    executionTimeMs: Math.round(executionTimeMs * 1000) / 1000,
    ...(isCut && { truncated: true }),
    ...(note !== undefined && { note }),
  };
  const texts = [
    stdout.trimEnd(),
    stderr.trimEnd(),
    ...outputs.map(({ text }) => text),
    display?.text ?? "",
    // What is shown says it better.
    !result.success || (display && "value" in value) || result.result.isNull ? "" : value.text,
    !result.success && !isTold(result) ? `${errorInfo?.type ?? status}: ${result.error}` : "",
    note === undefined ? "" : `Note: ${note}`,
  ];
  const text = texts.filter((part) => part !== "").join("\n");
  // Images have their indexes from here on.
  return {
    content: [{ type: "text", text: text || (media.length > 0 ? "(see below)" : "(no output)") }, ...media],
    structuredContent,
  };
}

/** What the code waits for. @param handle names it to {@link resume_python}. */
export function stepResult(
  { calls, stdout, stderr }: Step,
  handle: string,
  session: string | undefined,
): CallToolResult {
  const toolCalls = calls.flatMap((event) =>
    event.type === "tool_call"
      ? [{ id: event.id, name: event.name, input: parseExact(event.input.toString()) as Record<string, unknown> }]
      : [],
  );
  const inputRequests = calls.flatMap((event) =>
    event.type === "input_request" ? [{ id: event.id, prompt: event.prompt, password: event.password }] : [],
  );
  const structuredContent: ExecutionOutput = {
    status: "tool_call_required",
    stdout: cut(stdout, MAX_TEXT_CHARACTERS),
    stderr: cut(stderr, MAX_TEXT_CHARACTERS),
    ...(session !== undefined && { session }),
    handle,
    toolCalls,
    ...(inputRequests.length > 0 && { inputRequests }),
  };
  const lines = [
    "The code waits. Answer with resume_python:",
    `handle: ${handle}`,
    ...toolCalls.map(({ id, name, input }) => `${id}: ${name}(${cut(JSON.stringify(input), MAX_SHOWN_CHARACTERS)})`),
    ...inputRequests.map(({ id, prompt }) => `${id}: input(${JSON.stringify(prompt)})`),
  ];
  const printed = cut(stdout, MAX_TEXT_CHARACTERS).trimEnd();
  const text = [...(printed === "" ? [] : [printed]), ...lines].join("\n");
  return { content: [{ type: "text", text }], structuredContent };
}

/** Whether stderr says already what the error was. */
function isTold({ errorInfo, stderr }: ExecutionResult): boolean {
  const { type = "", traceback = "" } = errorInfo ?? {};
  return traceback !== "" && traceback.includes(type) && stderr.includes(traceback);
}

function shownValue(json: JsonText): { readonly text: string; readonly value?: unknown } {
  const { length } = json.bytes;
  if (length > 4 * MAX_TEXT_CHARACTERS)
    return { text: `(the result has ${length} bytes; print a part of it, or write it to a file)` };
  const text = json.toString();
  return { text: cut(text, MAX_SHOWN_CHARACTERS), value: parseExact(text) };
}

interface ShownBundle {
  readonly output: z.input<typeof shown>;
  readonly text: string;
}

/** @param media where an image or a sound is added. */
async function showBundle(bundle: JsonText, media: ContentBlock[], slices: Slices): Promise<ShownBundle> {
  const members = await textMembers(bundle, slices);
  const textOf = async (type: string): Promise<string | undefined> => {
    const member = members.get(type);
    return member && (await contentOf(member, slices)).toString();
  };
  const mimeTypes = [...members.keys()];
  let readable: string | undefined;
  let given = "";
  for (const type of TEXTS) {
    const text = await textOf(type);
    if (text === undefined || NAMELESS.test(text)) continue;
    readable = type;
    given = text;
    break;
  }
  const mimeType = mimeTypes.find(isMedium);
  const data = mimeType === undefined ? undefined : base64Of((await textOf(mimeType)) ?? "");
  if (mimeType === undefined || data === undefined) {
    const before = media.length;
    const text = cut(readable === "text/plain" ? given : withMediaBeside(given, media), MAX_SHOWN_CHARACTERS);
    const first = media.length > before && { content: before + 1 };
    return { output: { mimeTypes, ...(text !== "" && { text }), ...first }, text };
  }
  const output = { mimeTypes, ...(given !== "" && { text: cut(withoutMedia(given), MAX_SHOWN_CHARACTERS) }) };
  const added = addMedium(media, mimeType, data);
  // The text block is the first.
  return added === null ? { output: { ...output, content: media.length }, text: "" } : { output, text: added };
}

/** The beginning and the end of a text, where it is too long. */
export function cut(text: string, maxCharacters: number): string {
  if (text.length <= maxCharacters) return text;
  const tail = Math.floor(maxCharacters / 3);
  const begin = text.slice(0, maxCharacters - tail).toWellFormed();
  return `${begin}\n… ${text.length - maxCharacters} characters left out …\n${text.slice(-tail).toWellFormed()}`;
}
