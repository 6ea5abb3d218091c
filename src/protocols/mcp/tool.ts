import type { RequestHandlerExtra } from "@modelcontextprotocol/sdk/shared/protocol.js";
import type {
  CallToolResult,
  ServerNotification,
  ServerRequest,
  ToolAnnotations,
} from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import type { Asked } from "../../http/routes.ts";
import { parseBody } from "../../http/validation.ts";
import type { ExecutionContext } from "../../service/execution-service.ts";
import { ClientError } from "../../shared/errors.ts";
import { isObject } from "../../shared/json/json-object.ts";
import type { Scope } from "../../shared/principal.ts";
import type { ToolAnswer } from "../../tools/events.ts";

export type RequestExtra = RequestHandlerExtra<ServerRequest, ServerNotification>;

/** One call of a tool, and who makes it. Its signal is aborted when the client cancels the call, or goes away. */
export interface ToolCall extends ExecutionContext, Pick<Asked<unknown, unknown, unknown>, "services" | "record"> {
  /** Tells the client that something has happened; null: it has not asked to be told. */
  readonly progress: ((message: string) => void) | null;
  /** What the arguments' `results` answer, with all digits of their numbers. @throws {ClientError} */
  readonly answers: () => Promise<readonly ToolAnswer[]>;
  /** Counts what is read for the call, before it is in memory. @throws {ClientError} 429 `too_much_held`. */
  readonly hold: (bytes: number) => void;
  /** Has `delivered` be called when the client has the result. */
  readonly onDelivered: (delivered: () => unknown) => void;
  /** What the SDK knows of the request. */
  readonly extra: RequestExtra;
  /** Aborted when the client has said that it wants the call no more: not when it is gone. */
  readonly cancelled: AbortSignal;
}

/** A tool that models call. */
export interface McpTool {
  readonly name: string;
  /** As `tools/list` has it. */
  readonly listed: object;
  /** All of them are needed. */
  readonly scopes: readonly Scope[];
  /** Its result may take a while: it comes in a stream, which says meanwhile that the server is there. */
  readonly isLong: boolean;
  /** @throws {ClientError} */
  readonly run: (call: ToolCall, args: unknown) => Promise<CallToolResult>;
}

interface ToolDeclaration<Input extends z.ZodObject> {
  readonly name: string;
  readonly title: string;
  /** For models. */
  readonly description: string;
  readonly scopes: readonly Scope[];
  readonly isLong?: boolean;
  readonly input: Input;
  /** Names that a client may have learnt elsewhere (the HTTP API, another tool): what each is here. */
  readonly aliases?: Readonly<Record<string, (value: unknown) => Record<string, unknown>>>;
  readonly output: z.ZodObject;
  /** A hint that is not given is false, but for `openWorldHint`: what code reaches is the operator's affair. */
  readonly annotations?: ToolAnnotations;
  readonly run: (call: ToolCall, input: z.output<Input>) => Promise<CallToolResult>;
}

export function tool<Input extends z.ZodObject>(declaration: ToolDeclaration<Input>): McpTool {
  const { name, title, description, scopes, isLong = false, input, aliases = {}, output, annotations } = declaration;
  return {
    name,
    scopes,
    isLong,
    listed: {
      name,
      title,
      description,
      inputSchema: z.toJSONSchema(input, { io: "input", unrepresentable: "any" }),
      outputSchema: z.toJSONSchema(output, { unrepresentable: "any" }),
      annotations: {
        readOnlyHint: false,
        destructiveHint: false,
        idempotentHint: false,
        openWorldHint: false,
        ...annotations,
      },
    },
    run: async (call, args) =>
      await declaration.run(
        call,
        parseBody(input, knownArguments(name, Object.keys(input.shape), aliases, args ?? {})),
      ),
  };
}

/** The argument that an alias stands for. */
export function as(name: string): (value: unknown) => Record<string, unknown> {
  return (value) => ({ [name]: value });
}

/** n8n sends one of them along with whatever its item has: https://github.com/n8n-io/n8n/issues/21500 */
const OF_N8N = ["toolCallId", "chatInput"];

/** @throws {ClientError} 400 for an argument that there is none of: code would run without what a model has asked for. */
function knownArguments(
  tool: string,
  names: readonly string[],
  aliases: NonNullable<ToolDeclaration<z.ZodObject>["aliases"]>,
  args: unknown,
): unknown {
  if (!isObject(args)) return args;
  const known: Record<string, unknown> = {};
  const isOfN8n = OF_N8N.some((name) => Object.hasOwn(args, name));
  const all = Object.entries(args);
  for (const [name, value] of all.filter(([name]) => names.includes(name))) known[name] = value;
  for (const [name, value] of all.filter(([name]) => !names.includes(name))) {
    if (value === null) continue;
    const alias = Object.hasOwn(aliases, name) ? aliases[name]?.(value) : undefined;
    if (alias !== undefined && Object.keys(alias).every((meant) => known[meant] == null)) Object.assign(known, alias);
    else if (!isOfN8n) throw new ClientError("invalid_request", unknownArgument(tool, name, names));
  }
  return known;
}

function unknownArgument(tool: string, name: string, names: readonly string[]): string {
  const plain = (text: string) => text.toLowerCase().replace(/[^a-z0-9]/g, "");
  const meant = names.find((other) => plain(name).includes(plain(other)) || plain(other).includes(plain(name)));
  const advice = meant === undefined || plain(name) === "" ? "" : ` Is ${meant} meant?`;
  const list = names.length === 0 ? "It has no arguments." : `Its arguments: ${names.join(", ")}.`;
  return `${tool} has no argument ${JSON.stringify(name.slice(0, 100))}.${advice} ${list}`;
}

/** @throws {ClientError} 403 `missing_scope`. */
export function requireScopes({ principal }: Pick<ToolCall, "principal">, scopes: readonly Scope[]): void {
  const missing = scopes.find((scope) => !principal.scopes.has(scope));
  if (missing !== undefined) throw new ClientError("missing_scope", `This API key lacks the scope "${missing}"`);
}

/** A result for programs, which models read as text. @param text default: the JSON. */
export function structured(value: Record<string, unknown>, text = JSON.stringify(value)): CallToolResult {
  return { content: [{ type: "text", text }], structuredContent: value };
}

/** What keeps a tool from doing anything, as a result: a model can read it, and do better. */
export function refusal({ message, hint, code, retryAfterS }: ClientError): CallToolResult {
  const text = [message, hint, retryAfterS !== undefined && `Try again in ${retryAfterS} s.`].filter(Boolean).join(" ");
  return {
    content: [{ type: "text", text }],
    isError: true,
    _meta: {
      "pyodide-express/code": code,
      ...(retryAfterS !== undefined && { "pyodide-express/retryAfter": retryAfterS }),
    },
  };
}
