/** A real MCP server, by stdio when it is run, by HTTP with {@link startMcpServer}. Some of its tools do what none should. */
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { CallToolRequestSchema, type CallToolResult, ListToolsRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const NUMBERS = {
  type: "object",
  properties: { a: { type: "number", description: "The first." }, b: { type: "number", default: 1 } },
  required: ["a"],
};
const NONE = { type: "object", properties: {} };
const SUM = { type: "object", properties: { sum: { type: "number" } }, required: ["sum"] };

const TOOLS: readonly object[] = [
  { name: "add", description: "Adds two numbers.", inputSchema: NUMBERS, outputSchema: SUM },
  {
    name: "greet-all",
    inputSchema: { type: "object", properties: { names: { type: "array", items: { type: "string" } } } },
  },
  { name: "picture", inputSchema: NONE },
  { name: "fails", inputSchema: NONE },
  { name: "lies", inputSchema: NONE, outputSchema: SUM },
  { name: "huge", inputSchema: NONE },
  { name: "hangs", inputSchema: NONE },
  { name: "dies", inputSchema: NONE },
  { name: "tells", inputSchema: NONE },
  { name: "counts", inputSchema: NONE },
  { name: "circle", inputSchema: { type: "object", properties: {}, $ref: "#" } },
  { name: "bad-type", inputSchema: { type: "object", properties: { a: { type: "nothing" } } } },
  { name: "__import__", inputSchema: NONE },
  { name: "greet_all", inputSchema: NONE },
];

let count = 0;

/** @param credential what this server was told. */
function mcpServer(credential: string): Server {
  const server = new Server({ name: "test", version: "1" }, { capabilities: { tools: {} } });
  server.setRequestHandler(ListToolsRequestSchema, async ({ params }) => {
    // In two pages.
    const half = TOOLS.length / 2;
    return params?.cursor === undefined
      ? { tools: TOOLS.slice(0, half) as never, nextCursor: "2" }
      : { tools: TOOLS.slice(half) as never };
  });
  server.setRequestHandler(CallToolRequestSchema, async ({ params }): Promise<CallToolResult> => {
    const text = (content: string) => ({ content: [{ type: "text" as const, text: content }] });
    const { a = 0, b = 1, names = [] } = (params.arguments ?? {}) as { a?: number; b?: number; names?: string[] };
    switch (params.name) {
      case "add":
        return { ...text(String(a + b)), structuredContent: { sum: a + b } };
      case "greet-all":
        return text(names.map((name) => `Hello ${name}`).join("\n"));
      case "picture":
        return {
          content: [
            { type: "text", text: "a dot" },
            { type: "image", data: "iVBO", mimeType: "image/png" },
          ],
        };
      case "fails":
        return { ...text("it is broken"), isError: true };
      case "lies":
        return { ...text("x"), structuredContent: { sum: "a lot" } };
      case "huge":
        return text("x".repeat(100_000_000));
      case "hangs":
        return await new Promise<never>(() => {});
      case "dies":
        process.exit(1);
        break;
      case "tells":
        return text(`told: ${credential}`);
      case "counts":
        return text(String(++count));
      default:
        throw new Error(`no tool ${params.name}`);
    }
  });
  return server;
}

export interface TestMcpServer {
  readonly url: string;
  /** Headers of each request. */
  readonly requests: IncomingHttpHeaders[];
  stop(): void;
}

/** @param redirectTo where `/redirect` leads. */
export async function startMcpServer(redirectTo = ""): Promise<TestMcpServer> {
  const requests: IncomingHttpHeaders[] = [];
  const http = createServer(async (request, response) => {
    requests.push(request.headers);
    if (request.url === "/redirect") return response.writeHead(307, { location: redirectTo }).end();
    if (request.url === "/html") return response.setHeader("content-type", "text/html").end("<h1>Hello</h1>");
    if (request.url === "/silent") return;
    const server = mcpServer(String(request.headers.authorization));
    const transport = new StreamableHTTPServerTransport({ enableJsonResponse: request.url === "/json" });
    response.on("close", () => void server.close());
    await server.connect(transport as never);
    await transport.handleRequest(request, response);
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(http.address() as AddressInfo).port}`,
    requests,
    stop: () => {
      http.closeAllConnections();
      http.close();
    },
  };
}

if (process.argv[1] === import.meta.filename) {
  if (process.env.ENDS_AT_ONCE) process.exit(1);
  await mcpServer(process.env.TOKEN ?? "").connect(new StdioServerTransport());
}
