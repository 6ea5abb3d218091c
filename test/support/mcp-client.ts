import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { RequestOptions } from "@modelcontextprotocol/sdk/shared/protocol.js";
import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";

/** A result, with what a model reads of it. */
export interface McpResult extends CallToolResult {
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: what a server sends is what the test is about to find out.
  readonly data: any;
}

/** The SDK's own client, by streamable HTTP. */
export interface McpTestClient extends AsyncDisposable {
  readonly client: Client;
  /** As the server has named it. */
  readonly session: string | undefined;
  call(name: string, args?: object, options?: RequestOptions): Promise<McpResult>;
}

export async function connectMcp(url: string, key?: string): Promise<McpTestClient> {
  const client = new Client({ name: "test", version: "1" });
  const headers: Record<string, string> = key === undefined ? {} : { authorization: `Bearer ${key}` };
  const transport = new StreamableHTTPClientTransport(new URL(`${url}/mcp`), { requestInit: { headers } });
  await client.connect(transport as never);
  return {
    client,
    session: transport.sessionId,
    call: async (name, args = {}, options) => await callMcp(client, name, args, options),
    [Symbol.asyncDispose]: async () => await client.close(),
  };
}

export async function callMcp(
  client: Client,
  name: string,
  args: object,
  options?: RequestOptions,
): Promise<McpResult> {
  const result = await client.callTool({ name, arguments: { ...args } }, undefined, options);
  const { content, structuredContent } = result as CallToolResult;
  const texts = content.flatMap((block) => (block.type === "text" ? [block.text] : []));
  return { ...(result as CallToolResult), text: texts.join("\n"), data: structuredContent };
}
