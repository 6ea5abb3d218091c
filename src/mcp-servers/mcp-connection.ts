import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import {
  CallToolResultSchema,
  ListToolsResultSchema,
  ToolListChangedNotificationSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { StrikeOut } from "../egress/strike-out.ts";
import { backoffMs } from "../shared/backoff.ts";
import { ClientError } from "../shared/errors.ts";
import { JsonText } from "../shared/json/json-text.ts";
import { mismatch } from "../tools/argument-check.ts";
import { charactersOf, MAX_TOOLS, type Tool, type ToolDefinition, toolOf } from "../tools/definitions.ts";
import { checkSchema } from "../tools/json-schema.ts";
import { VALUE_LIMITS } from "../tools/pending-calls.ts";
import { MAX_TOOL_VALUE_BYTES } from "../wire/host-calls.ts";
import { answerOf } from "./answers.ts";
import type { McpServerDefinition } from "./server-file.ts";
import { openTransport } from "./transports.ts";

const CONNECT_TIMEOUT_MS = 15_000;
/** Tools are asked for again after this time, ms. */
const LIST_AGE_MS = 300_000;
const MAX_PAGES = 20;
const MAX_LIST_CHARACTERS = 1024 * 1024;
const MAX_AT_A_TIME = 64;
/** Values in the arguments of one call: the SDK takes them as objects. */
const MAX_ARGUMENT_NODES = 100_000;
const PAUSES = { firstMs: 500, longestMs: 60_000 };

/** What a call has come to; a value as JSON. */
export type McpResult = { readonly result: JsonText } | { readonly error: { readonly message: string } };

/** A tool as code has it, by the name that its server has for it. */
export interface McpTool {
  readonly tool: Tool;
  /** Of the answer, checked; null: it says nothing of it. */
  readonly output: Tool | null;
}

export interface McpToolList {
  readonly tools: ReadonlyMap<string, McpTool>;
  /** Those that cannot be offered, and why. */
  readonly leftOut: ReadonlyMap<string, string>;
}

/** The connection of one principal to one MCP server. It is made when it is needed, and anew when the server has died. */
export class McpConnection {
  readonly #server: McpServerDefinition;
  readonly #principal: string;
  readonly #struck = new StrikeOut();
  #client: Promise<Client> | null = null;
  #list: { readonly at: number; readonly list: Promise<McpToolList> } | null = null;
  #opened: Client | null = null;
  /** Why this end has closed the connection. */
  #reason: string | null = null;
  #underWay = 0;
  #failures = 0;
  #nextTryAt = 0;
  #usedAt = performance.now();

  /** @param secrets values that must not come back. */
  constructor(server: McpServerDefinition, principal: string, secrets: readonly string[]) {
    this.#server = server;
    this.#principal = principal;
    for (const secret of secrets) this.#struck.add(secret);
  }

  /** ms since it was last used; 0 while it is. */
  get idleMs(): number {
    return this.#underWay > 0 ? 0 : performance.now() - this.#usedAt;
  }

  /** @throws {ClientError} 503 `mcp_unavailable`, which says why. */
  async tools(): Promise<McpToolList> {
    this.#usedAt = performance.now();
    if (this.#list === null || performance.now() - this.#list.at > LIST_AGE_MS) {
      const before = this.#list;
      const list = this.#readTools();
      this.#list = { at: performance.now(), list };
      list.catch(() => {
        // What was known is better than nothing.
        if (this.#list?.list === list) this.#list = before && { ...before, at: performance.now() };
      });
    }
    try {
      return await this.#list.list;
    } catch (error) {
      throw this.#unavailable(error);
    }
  }

  /** Never rejects. @param input the arguments: a JSON object that was scanned within the limits of a value. */
  async call(name: string, input: JsonText, signal: AbortSignal): Promise<McpResult> {
    this.#usedAt = performance.now();
    const args = input.parse({ maxBytes: MAX_TOOL_VALUE_BYTES, maxNodes: MAX_ARGUMENT_NODES });
    if ("tooLarge" in args) return failed(`its arguments are too large: ${args.tooLarge}`);
    if (this.#underWay >= MAX_AT_A_TIME) return failed(`more than ${MAX_AT_A_TIME} calls at a time`);
    this.#underWay++;
    try {
      const client = await this.#connected();
      const result = await client.request(
        { method: "tools/call", params: { name, arguments: args.value as Record<string, unknown> } },
        CallToolResultSchema,
        { timeout: this.#server.timeoutMs, signal },
      );
      const answer = answerOf(result);
      if ("failed" in answer) return failed(this.#struck.text(answer.failed));
      const text = this.#struck.text(JSON.stringify(answer.value) ?? "null");
      if (text.length > MAX_TOOL_VALUE_BYTES) return failed(`its answer has more than ${MAX_TOOL_VALUE_BYTES} bytes`);
      const value = await JsonText.checkInSlices(Buffer.from(text), VALUE_LIMITS);
      const known = await this.#list?.list.catch(() => null);
      const output = known?.tools.get(name)?.output ?? null;
      const wrong = output && result.structuredContent ? await mismatch(this.#principal, output, value) : null;
      return wrong === null ? { result: value } : failed(`its answer is not what it says it would be: ${wrong}`);
    } catch (error) {
      return failed(this.#words(error));
    } finally {
      this.#underWay--;
      this.#usedAt = performance.now();
    }
  }

  /** Ends it, and the process that it is to. */
  async close(): Promise<void> {
    const client = this.#client;
    this.#client = null;
    await client?.then((opened) => opened.close()).catch(() => {});
  }

  async #connected(): Promise<Client> {
    if (this.#client !== null) return await this.#client;
    if (performance.now() < this.#nextTryAt) throw new Error("it could not be reached a moment ago");
    const connecting = this.#connect();
    this.#client = connecting;
    try {
      const client = await connecting;
      this.#failures = 0;
      return client;
    } catch (error) {
      this.#forget(connecting);
      this.#nextTryAt = performance.now() + backoffMs(this.#failures++, PAUSES);
      throw error;
    }
  }

  async #connect(): Promise<Client> {
    // No capability: it can ask this client for nothing.
    const client = new Client({ name: "pyodide-express", version: "1" }, { capabilities: {} });
    this.#reason = null;
    const giveUp = (reason: string) => {
      this.#reason = reason;
      void client.close().catch(() => {});
    };
    const transport = openTransport(this.#server, giveUp);
    client.onclose = () => {
      if (this.#opened === client) this.#client = null;
    };
    client.onerror = ({ message }) => {
      if (message.includes("exceeded maximum size")) this.#reason = "it sends too much";
    };
    client.setNotificationHandler(ToolListChangedNotificationSchema, () => {
      this.#list = null;
    });
    try {
      await client.connect(transport, { timeout: CONNECT_TIMEOUT_MS });
    } catch (error) {
      await client.close().catch(() => {});
      throw error;
    }
    this.#opened = client;
    return client;
  }

  #forget(connecting: Promise<Client>): void {
    if (this.#client === connecting) this.#client = null;
  }

  async #readTools(): Promise<McpToolList> {
    const client = await this.#connected();
    const listed: { name: string; description?: string | undefined; inputSchema: unknown; outputSchema?: unknown }[] =
      [];
    let cursor: string | undefined;
    let characters = 0;
    for (let page = 0; page < MAX_PAGES; page++) {
      const answer = await client.request(
        { method: "tools/list", params: cursor === undefined ? {} : { cursor } },
        ListToolsResultSchema,
        { timeout: CONNECT_TIMEOUT_MS },
      );
      characters += JSON.stringify(answer.tools).length;
      if (characters > MAX_LIST_CHARACTERS)
        throw new Error(`its tools have more than ${MAX_LIST_CHARACTERS} characters`);
      listed.push(...answer.tools);
      cursor = answer.nextCursor;
      if (cursor === undefined) break;
    }
    return offered(this.#server, listed);
  }

  #unavailable(error: unknown): ClientError {
    return new ClientError(
      "mcp_unavailable",
      `The MCP server ${this.#server.name} cannot be used: ${this.#words(error)}.`,
      {
        cause: error,
      },
    );
  }

  /** Without what only the operator may know: its address, its command, its headers. */
  #words(error: unknown): string {
    const { message = "", code, cause } = error as { message?: string; code?: unknown; cause?: { code?: unknown } };
    if (code === -32001) return `no answer came within ${this.#server.timeoutMs} ms`;
    if (code === -32000) return this.#reason ?? "it has ended, or closed the connection";
    // Of JSON-RPC: what the server says of its own accord.
    if (typeof code === "number" && code <= -32000) {
      return this.#struck.text(message.replace(/^MCP error -?\d+: /, "")).slice(0, 1000);
    }
    // The page that came with it may tell of more than its status.
    if (typeof code === "number" && code >= 100) return `it answers with the status ${code}`;
    if (/redirect|^it (sends|could|has)|^its tools/.test(message)) return message;
    const known = String(cause?.code ?? code ?? "");
    return /^E[A-Z]+$/.test(known)
      ? `it cannot be reached (${known})`
      : "it cannot be reached, or its answer is not one";
  }
}

function failed(message: string): McpResult {
  return { error: { message } };
}

/** Checks what a server says of its tools as a client's are checked: what cannot be offered is left out, and the others stay. */
function offered(
  server: McpServerDefinition,
  listed: readonly { name: string; description?: string | undefined; inputSchema: unknown; outputSchema?: unknown }[],
): McpToolList {
  const tools = new Map<string, McpTool>();
  const leftOut = new Map<string, string>();
  const names = new Set<string>();
  for (const { name, description, inputSchema, outputSchema } of listed) {
    if (server.tools !== null && !server.tools.has(name)) continue;
    try {
      const parameters = inputSchema as ToolDefinition["parameters"];
      const definition = { name, description, parameters, returns: outputSchema as ToolDefinition["returns"] };
      const naming = { namespace: `mcp.${server.name}`, key: keyOf(server.name, name) };
      const tool = toolOf(definition, { naming });
      if (tools.has(name)) throw new Error("there are two tools of this name");
      if (names.has(tool.signature.name)) throw new Error(`another tool is ${tool.signature.name}, too`);
      if (tools.size >= MAX_TOOLS) throw new Error(`there are more than ${MAX_TOOLS} tools`);
      names.add(tool.signature.name);
      tools.set(name, { tool, output: outputOf(tool, outputSchema) });
    } catch (error) {
      leftOut.set(name.slice(0, 128), (error as Error).message);
    }
  }
  for (const name of server.tools ?? []) {
    if (!tools.has(name) && !leftOut.has(name)) leftOut.set(name, "the server does not have it");
  }
  return { tools, leftOut };
}

function outputOf(tool: Tool, schema: unknown): Tool | null {
  if (schema === undefined || schema === null) return null;
  const { isPlain } = checkSchema(schema);
  return {
    ...tool,
    parameters: schema as Tool["parameters"],
    isPlain,
    schemaCharacters: charactersOf(schema),
  };
}

/** What a tool is called where its execution's calls are kept: no client's tool has such a name. */
export function keyOf(server: string, tool: string): string {
  return `mcp:${server}:${tool}`;
}
