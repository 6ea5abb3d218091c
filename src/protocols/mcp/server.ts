import { readFileSync } from "node:fs";
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import {
  CallToolRequestSchema,
  type CallToolResult,
  ErrorCode,
  ListResourcesRequestSchema,
  ListResourceTemplatesRequestSchema,
  ListToolsRequestSchema,
  McpError,
  ReadResourceRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { AjvJsonSchemaValidator } from "@modelcontextprotocol/sdk/validation/ajv-provider.js";
import { toClientError } from "../../http/middleware/error-handler.ts";
import { ClientError } from "../../shared/errors.ts";
import { fileTools } from "./file-tools.ts";
import { INSTRUCTIONS } from "./instructions.ts";
import { packageTools } from "./package-tools.ts";
import { listResources, RESOURCE_TEMPLATES, readResource } from "./resources.ts";
import { resumePython, runPython } from "./run-tools.ts";
import { sessionTools } from "./session-tools.ts";
import { type McpTool, type RequestExtra, refusal, requireScopes, type ToolCall } from "./tool.ts";

export const TOOLS: readonly McpTool[] = [runPython, resumePython, ...sessionTools, ...fileTools, ...packageTools];

const { version } = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as {
  version: string;
};
/** Of what clients are asked, which is nothing: each server would make one of its own. */
const VALIDATOR = new AjvJsonSchemaValidator();
const MIN_PROGRESS_MS = 100;
/** A client that is told nothing for so long may give up, ms. */
const ALIVE_MS = 10_000;

/** What one request is answered with. */
export interface ServerOptions {
  readonly tools: readonly McpTool[];
  readonly call: Omit<ToolCall, "progress" | "extra">;
  /** What a client is not told of. */
  readonly onError: (error: unknown) => void;
  /** Work that goes on, though its client may be gone. */
  readonly track: <T>(work: Promise<T>) => Promise<T>;
}

/** An MCP server for one request of a principal. It keeps nothing: what stays is in sessions, which tools are told by id. */
export function newServer({ tools, call, onError, track }: ServerOptions): Server {
  const server = new Server(
    { name: "pyodide-express", title: "Python sandboxes", version },
    { capabilities: { tools: {}, resources: {} }, instructions: INSTRUCTIONS, jsonSchemaValidator: VALIDATOR },
  );
  /** Of what is no tool: errors are JSON-RPC's. */
  const answer = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await track(work());
    } catch (error) {
      throw error instanceof McpError ? error : toMcpError(error, onError);
    }
  };
  server.setRequestHandler(ListToolsRequestSchema, () => ({
    tools: tools
      .filter(({ scopes }) => scopes.every((scope) => call.principal.scopes.has(scope)))
      .map(({ listed }) => listed) as never,
  }));
  server.setRequestHandler(CallToolRequestSchema, async ({ params }, extra) => {
    const found = tools.find(({ name }) => name === params.name);
    if (found === undefined) throw new McpError(ErrorCode.InvalidParams, `Unknown tool: ${params.name.slice(0, 100)}`);
    return await answer(async () => await callTool(found, params.arguments, call, extra));
  });
  server.setRequestHandler(ListResourcesRequestSchema, async ({ params }) =>
    answer(async () => await listResources(call, params?.cursor)),
  );
  server.setRequestHandler(ListResourceTemplatesRequestSchema, () => ({ resourceTemplates: [...RESOURCE_TEMPLATES] }));
  server.setRequestHandler(ReadResourceRequestSchema, async ({ params }) =>
    answer(async () => await readResource(call, params.uri)),
  );
  return server;
}

async function callTool(
  found: McpTool,
  args: unknown,
  call: ServerOptions["call"],
  extra: RequestExtra,
): Promise<CallToolResult> {
  using progress = reporter(extra);
  try {
    requireScopes(call, found.scopes);
    const result = await found.run({ ...call, extra, progress: progress.report }, args);
    // What was done is on record before it is told.
    await call.services.securityLog?.writing;
    return result;
  } catch (error) {
    const known = toClientError(error);
    if (known === null) throw error;
    if (known.code === "missing_scope")
      call.record("access_denied", { reason: known.code, method: "tools/call", path: found.name });
    return refusal(known);
  }
}

/** Tells a client that has asked for it what happens, and that something does. */
function reporter({ _meta, sendNotification }: RequestExtra): Disposable & { readonly report: ToolCall["progress"] } {
  const progressToken = _meta?.progressToken;
  if (progressToken === undefined) return { report: null, [Symbol.dispose]: () => {} };
  let progress = 0;
  let isOver = false;
  let toldAt = Number.NEGATIVE_INFINITY;
  const tell = (message?: string) => {
    if (isOver) return;
    toldAt = performance.now();
    const params = { progressToken, progress: ++progress, ...(message && { message }) };
    // The client may be gone.
    sendNotification({ method: "notifications/progress", params }).catch(() => {});
  };
  const timer = setInterval(tell, ALIVE_MS).unref();
  return {
    // Code prints as often as it likes.
    report: (message) => {
      if (performance.now() - toldAt >= MIN_PROGRESS_MS) tell(message);
    },
    [Symbol.dispose]: () => {
      isOver = true;
      clearInterval(timer);
    },
  };
}

function toMcpError(error: unknown, onError: (error: unknown) => void): McpError {
  const known = toClientError(error);
  if (known === null) onError(error);
  const { message, code, status, retryAfterS } = known ?? new ClientError("internal");
  const rpcCode = status >= 500 ? ErrorCode.InternalError : ErrorCode.InvalidRequest;
  return new McpError(rpcCode, message, { code, ...(retryAfterS !== undefined && { retryAfter: retryAfterS }) });
}
