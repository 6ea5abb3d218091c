import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { BaseChatModel } from "@langchain/core/language_models/chat_models";
import { AIMessage, type BaseMessage, HumanMessage, ToolMessage } from "@langchain/core/messages";
import type { StructuredToolInterface } from "@langchain/core/tools";
import { generateText, stepCountIs, type Tool } from "ai";
import { MockLanguageModelV3 } from "ai/test";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { ROOT } from "../support/imports.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const KEY = "a-key-of-the-recipes";
const CODE = "print('hi')\nsum(range(10))";
/** A PNG of one pixel, and a table. */
const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const SHOWING = `from IPython.display import HTML, Image
import base64
display(Image(base64.b64decode("${PNG}")), HTML("<table>"))`;
const SHOWN = ["<IPython.core.display.Image object>", "<IPython.core.display.HTML object>"];
let server: TestServer;

beforeAll(async () => {
  server = await startTestServer({ API_KEYS: `alice:${KEY}` });
  vi.stubEnv("PYTHON_URL", server.url);
  vi.stubEnv("PYTHON_KEY", KEY);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await server.stop(0);
});

/** What a section of docs/clients.md exports, run as it stands there. */
async function recipe<T>(section: string): Promise<T> {
  const page = readFileSync(path.join(ROOT, "docs/clients.md"), "utf8");
  const [, code = ""] = new RegExp(`\\n## ${section}\\n[^#]*?\`\`\`js\\n(.*?)\`\`\``, "s").exec(page) ?? [];
  expect(code).toContain("export const");
  // Where its imports are found.
  const folder = path.join(ROOT, "node_modules/.cache/pyodide-express-recipes");
  mkdirSync(folder, { recursive: true });
  const file = path.join(folder, `${section.replaceAll(" ", "-")}.mjs`);
  writeFileSync(file, code);
  return (await import(file)) as T;
}

const usage = {
  inputTokens: { total: 1, noCache: 1, cacheRead: 0, cacheWrite: 0 },
  outputTokens: { total: 1, text: 1, reasoning: 0 },
};

/** A model of the AI SDK that calls the tool with this code, and then says that it is done. */
const scripted = (code: string) =>
  new MockLanguageModelV3({
    doGenerate: [
      {
        content: [{ type: "tool-call", toolCallId: "1", toolName: "runPython", input: JSON.stringify({ code }) }],
        finishReason: { unified: "tool-calls", raw: undefined },
        usage,
        warnings: [],
      },
      {
        content: [{ type: "text", text: "done" }],
        finishReason: { unified: "stop", raw: undefined },
        usage,
        warnings: [],
      },
    ],
  });

test("the recipe of the Vercel AI SDK gives a model Python", async () => {
  const { runPython } = await recipe<{ runPython: Tool }>("Vercel AI SDK");
  const ask = async (code: string) => {
    const model = scripted(code);
    const { text, steps } = await generateText({ model, tools: { runPython }, stopWhen: stepCountIs(3), prompt: "Go" });
    expect(text).toBe("done");
    expect(JSON.stringify(model.doGenerateCalls[1]?.prompt)).toContain("tool-result");
    const [message] = model.doGenerateCalls[1]?.prompt.filter(({ role }) => role === "tool") ?? [];
    const { output } = (message?.content[0] ?? {}) as { output: { value: readonly { type: string; text: string }[] } };
    const [first, ...images] = output.value;
    return { ...JSON.parse(first?.text ?? ""), images, whole: steps[0]?.toolResults[0]?.output };
  };
  expect(await ask(CODE)).toMatchObject({
    stdout: "hi\n",
    stderr: "",
    result: 45,
    error: null,
    outputs: [],
    images: [],
  });
  expect(await ask("1/0")).toMatchObject({ result: null, error: expect.stringContaining("division by zero") });
  // Refused before it runs: there are no outputs.
  expect(await ask(" ")).toMatchObject({ error: "Code cannot be empty", images: [] });
  const showing = await ask(SHOWING);
  expect(showing.outputs).toEqual(SHOWN);
  expect(showing.images).toEqual([{ type: "image-data", data: PNG, mediaType: "image/png" }]);
  expect(showing.whole.outputs[1]["text/html"]).toBe("<table>");
});

/** A model of LangChain's that calls the tool with this code, and then says what it was answered. */
class ScriptedModel extends BaseChatModel {
  readonly #code: string;

  constructor(code: string) {
    super({});
    this.#code = code;
  }

  override _llmType(): string {
    return "scripted";
  }

  override async _generate(messages: BaseMessage[]) {
    const last = messages.at(-1);
    const call = { id: "1", name: "run_python", args: { code: this.#code } };
    const message =
      last instanceof ToolMessage
        ? new AIMessage({ content: last.content as never })
        : new AIMessage({ content: "", tool_calls: [call] });
    return { generations: [{ text: message.text, message }] };
  }
}

test("the recipe of LangChain gives a model Python", async () => {
  const { runPython } = await recipe<{ runPython: StructuredToolInterface }>("LangChain");
  const ask = async (code: string) => {
    const model = new ScriptedModel(code);
    const messages: BaseMessage[] = [new HumanMessage("Go")];
    const asked = await model.invoke(messages);
    const [call] = asked.tool_calls ?? [];
    expect(call?.name).toBe(runPython.name);
    const result = (await runPython.invoke({ ...call, type: "tool_call" })) as ToolMessage;
    const { content } = await model.invoke([...messages, asked, result]);
    const [first, ...images] = content as unknown as readonly { type: string; text: string }[];
    return { ...JSON.parse(first?.text ?? ""), images };
  };
  expect(await ask(CODE)).toEqual({ stdout: "hi\n", stderr: "", result: 45, error: null, outputs: [], images: [] });
  expect(await ask("1/0")).toMatchObject({ result: null, error: expect.stringContaining("division by zero") });
  const url = `data:image/png;base64,${PNG}`;
  expect(await ask(SHOWING)).toMatchObject({
    outputs: SHOWN,
    images: [{ type: "image_url", image_url: { url } }],
  });
});
