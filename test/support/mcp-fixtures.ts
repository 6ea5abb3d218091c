/** What MCP's conformance suite asks of every server and this one has no use for: tools that answer what it expects, prompts, logging, completion. */
import { setTimeout as delay } from "node:timers/promises";
import type { Server } from "@modelcontextprotocol/sdk/server/index.js";
import {
  CompleteRequestSchema,
  type ContentBlock,
  CreateMessageResultSchema,
  ElicitResultSchema,
  ErrorCode,
  GetPromptRequestSchema,
  type GetPromptResult,
  ListPromptsRequestSchema,
  ListResourcesRequestSchema,
  ListResourceTemplatesRequestSchema,
  McpError,
  ReadResourceRequestSchema,
  SetLevelRequestSchema,
  SubscribeRequestSchema,
  UnsubscribeRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";
import type { ProtocolOptions } from "../../src/http/protocol.ts";
import { mcp } from "../../src/protocols/mcp/mcp.ts";
import type { McpTool, ToolCall } from "../../src/protocols/mcp/tool.ts";
import { ClientError } from "../../src/shared/errors.ts";
import type { ProtocolName } from "../../src/shared/settings.ts";

/** One red pixel. */
const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
const WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA==";
const STEP_MS = 50;

const text = (content: string): ContentBlock => ({ type: "text", text: content });
const image: ContentBlock = { type: "image", data: PNG, mimeType: "image/png" };

/** The protocol MCP with the fixtures, for a server that a test starts. */
export function openWithFixtures(names: readonly ProtocolName[], options: ProtocolOptions) {
  return names.includes("mcp") ? [mcp(options, { tools: TOOLS, extend })] : [];
}

interface FixtureTool {
  readonly name: string;
  readonly inputSchema?: object;
  readonly run: (call: ToolCall, args: Record<string, unknown>) => Promise<readonly ContentBlock[]> | ContentBlock[];
}

function fixture({ name, inputSchema = { type: "object", properties: {} }, run }: FixtureTool): McpTool {
  return {
    name,
    listed: { name, description: `Fixture of the conformance suite: ${name}.`, inputSchema },
    scopes: [],
    isLong: true,
    run: async (call, args) => ({ content: [...(await run(call, (args ?? {}) as Record<string, unknown>))] }),
  };
}

const argument = (name: string) => ({ type: "object", properties: { [name]: { type: "string" } }, required: [name] });

/** Asks the client's user. */
async function elicit({ extra }: ToolCall, message: string, requestedSchema: object): Promise<string> {
  const params = { message, requestedSchema } as never;
  const { action, content } = await extra.sendRequest({ method: "elicitation/create", params }, ElicitResultSchema);
  return `action=${action}, content=${JSON.stringify(content ?? {})}`;
}

const TOOLS = [
  fixture({ name: "test_simple_text", run: () => [text("This is a simple text response for testing.")] }),
  fixture({ name: "test_image_content", run: () => [image] }),
  fixture({ name: "test_audio_content", run: () => [{ type: "audio", data: WAV, mimeType: "audio/wav" }] }),
  fixture({
    name: "test_embedded_resource",
    run: () => [
      {
        type: "resource",
        resource: {
          uri: "test://embedded-resource",
          mimeType: "text/plain",
          text: "This is an embedded resource content.",
        },
      },
    ],
  }),
  fixture({
    name: "test_multiple_content_types",
    run: () => [
      text("Multiple content types test:"),
      image,
      {
        type: "resource",
        resource: {
          uri: "test://mixed-content-resource",
          mimeType: "application/json",
          text: JSON.stringify({ test: "data", value: 123 }),
        },
      },
    ],
  }),
  fixture({
    name: "test_tool_with_logging",
    run: async ({ extra }) => {
      for (const data of ["Tool execution started", "Tool processing data", "Tool execution completed"]) {
        await extra.sendNotification({ method: "notifications/message", params: { level: "info", data } });
        await delay(STEP_MS);
      }
      return [text("Logged.")];
    },
  }),
  fixture({
    name: "test_error_handling",
    run: () => {
      throw new ClientError("invalid_request", "This tool intentionally returns an error for testing");
    },
  }),
  fixture({
    name: "test_tool_with_progress",
    run: async ({ extra }) => {
      const progressToken = extra._meta?.progressToken;
      for (const progress of [0, 50, 100]) {
        if (progressToken !== undefined)
          await extra.sendNotification({
            method: "notifications/progress",
            params: { progressToken, progress, total: 100 },
          });
        await delay(STEP_MS);
      }
      return [text("Done.")];
    },
  }),
  fixture({
    name: "test_sampling",
    inputSchema: argument("prompt"),
    run: async ({ extra }, { prompt }) => {
      const content = { type: "text" as const, text: String(prompt) };
      const params = { messages: [{ role: "user" as const, content }], maxTokens: 100 };
      const result = await extra.sendRequest({ method: "sampling/createMessage", params }, CreateMessageResultSchema);
      return [text(`LLM response: ${"text" in result.content ? result.content.text : ""}`)];
    },
  }),
  fixture({
    name: "test_elicitation",
    inputSchema: argument("message"),
    run: async (call, { message }) => {
      const answered = await elicit(call, String(message), {
        type: "object",
        properties: {
          username: { type: "string", description: "User's response" },
          email: { type: "string", description: "User's email address" },
        },
        required: ["username", "email"],
      });
      return [text(`User response: ${answered}`)];
    },
  }),
  fixture({
    name: "test_elicitation_sep1034_defaults",
    run: async (call) => {
      const answered = await elicit(call, "Defaults", {
        type: "object",
        properties: {
          name: { type: "string", default: "John Doe" },
          age: { type: "integer", default: 30 },
          score: { type: "number", default: 95.5 },
          status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
          verified: { type: "boolean", default: true },
        },
      });
      return [text(`Elicitation completed: ${answered}`)];
    },
  }),
  fixture({
    name: "test_elicitation_sep1330_enums",
    run: async (call) => {
      const titled = (name: string) => [1, 2, 3].map((n) => ({ const: `value${n}`, title: `${name} ${n}` }));
      const options = ["option1", "option2", "option3"];
      const answered = await elicit(call, "Choices", {
        type: "object",
        properties: {
          untitledSingle: { type: "string", enum: options },
          titledSingle: { type: "string", oneOf: titled("Option") },
          legacyEnum: {
            type: "string",
            enum: ["opt1", "opt2", "opt3"],
            enumNames: ["Option One", "Option Two", "Option Three"],
          },
          untitledMulti: { type: "array", items: { type: "string", enum: options } },
          titledMulti: { type: "array", items: { anyOf: titled("Choice") } },
        },
      });
      return [text(`Elicitation completed: ${answered}`)];
    },
  }),
  fixture({
    name: "json_schema_2020_12_tool",
    inputSchema: {
      $schema: "https://json-schema.org/draft/2020-12/schema",
      type: "object",
      $defs: { address: { type: "object", properties: { street: { type: "string" }, city: { type: "string" } } } },
      properties: { name: { type: "string" }, address: { $ref: "#/$defs/address" } },
      additionalProperties: false,
    },
    run: () => [text("Fits.")],
  }),
];

const PROMPTS = {
  test_simple_prompt: {
    arguments: [],
    content: () => [text("This is a simple prompt for testing.")],
  },
  test_prompt_with_arguments: {
    arguments: ["arg1", "arg2"],
    content: ({ arg1, arg2 }: Record<string, string>) => [
      text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`),
    ],
  },
  test_prompt_with_embedded_resource: {
    arguments: ["resourceUri"],
    content: ({ resourceUri = "" }: Record<string, string>) => [
      {
        type: "resource" as const,
        resource: { uri: resourceUri, mimeType: "text/plain", text: "Embedded resource content for testing." },
      },
      text("Please process the embedded resource above."),
    ],
  },
  test_prompt_with_image: {
    arguments: [],
    content: () => [image, text("Please analyze the image above.")],
  },
};

function resource(uri: string) {
  if (uri === "test://static-text")
    return { uri, mimeType: "text/plain", text: "This is the content of the static text resource." };
  if (uri === "test://static-binary") return { uri, mimeType: "image/png", blob: PNG };
  const id = /^test:\/\/template\/([^/]+)\/data$/.exec(uri)?.[1];
  if (id === undefined) throw new McpError(-32002, "Resource not found", { uri });
  return {
    uri,
    mimeType: "application/json",
    text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }),
  };
}

function extend(server: Server): void {
  server.registerCapabilities({ logging: {}, prompts: {}, completions: {}, resources: { subscribe: true } });
  server.setRequestHandler(ListPromptsRequestSchema, () => ({
    prompts: Object.entries(PROMPTS).map(([name, prompt]) => ({
      name,
      description: `Fixture of the conformance suite: ${name}.`,
      arguments: prompt.arguments.map((argument) => ({ name: argument, description: argument, required: true })),
    })),
  }));
  server.setRequestHandler(GetPromptRequestSchema, ({ params }): GetPromptResult => {
    const prompt = PROMPTS[params.name as keyof typeof PROMPTS];
    if (prompt === undefined) throw new McpError(ErrorCode.InvalidParams, "There is no such prompt");
    const contents = prompt.content(params.arguments ?? {});
    return { messages: contents.map((content) => ({ role: "user", content })) };
  });
  server.setRequestHandler(CompleteRequestSchema, () => ({
    completion: { values: ["paris", "park"], hasMore: false },
  }));
  server.setRequestHandler(ListResourcesRequestSchema, () => ({
    resources: ["test://static-text", "test://static-binary"].map((uri) => ({
      uri,
      name: uri,
      description: `Fixture of the conformance suite: ${uri}.`,
    })),
  }));
  server.setRequestHandler(ListResourceTemplatesRequestSchema, () => ({
    resourceTemplates: [{ uriTemplate: "test://template/{id}/data", name: "template" }],
  }));
  server.setRequestHandler(ReadResourceRequestSchema, ({ params }) => ({ contents: [resource(params.uri)] }));
  server.setRequestHandler(SubscribeRequestSchema, () => ({}));
  server.setRequestHandler(UnsubscribeRequestSchema, () => ({}));
  // `logging/setLevel` is the SDK's own, where the capability is there from the beginning.
  server.setRequestHandler(SetLevelRequestSchema, () => ({}));
}
