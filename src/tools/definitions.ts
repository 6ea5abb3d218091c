import { z } from "zod";
import { ClientError } from "../shared/errors.ts";
import { isObject } from "../shared/json/json-object.ts";
import type { ToolSignature } from "../wire/messages.ts";
import { checkSchema, type JsonSchema, PatternBudget, SchemaError } from "./json-schema.ts";
import { toIdentifier } from "./python-names.ts";
import { SchemaReader } from "./schema-reader.ts";
import { MAX_SIGNATURE_CHARACTERS, signatureOf } from "./signatures.ts";

export const MAX_TOOLS = 128;
/** Of all definitions together, characters of JSON. */
const MAX_CHARACTERS = 256 * 1024;
const MAX_NAME_CHARACTERS = 128;

const schema = z.custom<Readonly<Record<string, unknown>>>(isObject, "A tool's schema must be an object.");

/** A tool as the client describes it. */
export const toolDefinition = z.object({
  name: z
    .string("A tool needs a name.")
    .min(1, "A tool needs a name.")
    .max(MAX_NAME_CHARACTERS, `A tool's name has at most ${MAX_NAME_CHARACTERS} characters.`),
  description: z.string("A tool's description must be a string.").nullish(),
  parameters: schema
    .nullish()
    .meta({ description: "JSON Schema of an object: the arguments by name.", type: "object" }),
  returns: schema.nullish().meta({ description: "JSON Schema of the answer.", type: "object" }),
  inputSchema: schema.nullish().meta({ description: "MCP's name of `parameters`.", type: "object" }),
  input_schema: schema.nullish().meta({ description: "Anthropic's name of `parameters`.", type: "object" }),
  outputSchema: schema.nullish().meta({ description: "MCP's name of `returns`.", type: "object" }),
});

export type ToolDefinition = z.output<typeof toolDefinition>;

/** What a client offers to code, and how it is asked: of one execution, or of all of a session. */
export interface ToolInput {
  readonly tools?: readonly ToolDefinition[] | undefined;
  /** Whether the functions block, or are coroutine functions; default: `sync`. */
  readonly toolMode?: "sync" | "async" | undefined;
  /** `input()` asks the client; default: it reads `stdin`. */
  readonly interactive?: boolean | undefined;
  /** Until a call has its answer, ms. */
  readonly toolTimeout?: number | undefined;
  /** URL that answers instead of the client. */
  readonly toolEndpoint?: string | undefined;
  /** MCP servers of the operator's that the code may call; true: all that its principal may use. */
  readonly mcp?: readonly string[] | boolean | undefined;
}

/** A tool as it is offered to code. */
export interface Tool {
  readonly signature: ToolSignature;
  /** Of the arguments, checked; null: any are taken. */
  readonly parameters: JsonSchema | null;
  /** Of the answer, checked; null: it says nothing of it. */
  readonly returns: JsonSchema | null;
  /** Whether the schema can be applied at once, without a thread of its own. */
  readonly isPlain: boolean;
  /** Characters of the schema as JSON. */
  readonly schemaCharacters: number;
  /** Characters of what its signature says, references followed. */
  readonly signatureCharacters: number;
}

/** The tools of one execution by the names that their client has for them. */
export type ToolSet = ReadonlyMap<string, Tool>;

/**
 * Checks definitions, and gives each tool its name in Python.
 *
 * @param variables names that the execution has already: its `context`.
 * @throws {ClientError} 400 `invalid_tools`, which names the tool.
 */
export function toolSet(definitions: readonly ToolDefinition[], variables: readonly string[] = []): Map<string, Tool> {
  if (definitions.length > MAX_TOOLS) throw refused(`At most ${MAX_TOOLS} tools can be offered.`);
  if (JSON.stringify(definitions).length > MAX_CHARACTERS)
    throw refused(`The tools' definitions may have ${MAX_CHARACTERS} characters of JSON together.`);
  const tools = new Map<string, Tool>();
  let characters = 0;
  const patterns = new PatternBudget();
  const taken = new Map<string, string>(variables.map((name) => [name, "a variable of the context"]));
  for (const definition of definitions) {
    const { name } = definition;
    if (tools.has(name)) throw refused(`There are two tools called ${quoted(name)}.`);
    const tool = toolOf(definition, { patterns });
    characters += tool.signatureCharacters;
    if (characters > MAX_SIGNATURE_CHARACTERS)
      throw refused(
        `The tools' signatures may have ${MAX_SIGNATURE_CHARACTERS} characters together, references followed.`,
      );
    const python = tool.signature.name;
    const other = taken.get(python);
    if (other !== undefined)
      throw refused(`The tool ${quoted(name)} would be called ${python} in Python, and so would ${other}.`);
    taken.set(python, `the tool ${quoted(name)}`);
    tools.set(name, tool);
  }
  return tools;
}

/** Where a tool is in Python, and what a call of it names, where neither is its own name. */
interface Naming {
  /** `mcp.github`: it is an attribute of that. */
  readonly namespace: string;
  readonly key: string;
}

/** @throws {ClientError} 400 `invalid_tools`, which names the tool. */
export function toolOf(
  definition: ToolDefinition,
  { naming, patterns }: { readonly naming?: Naming; readonly patterns?: PatternBudget } = {},
): Tool {
  const { name, description } = definition;
  const parameters = oneOf(definition, ["parameters", "inputSchema", "input_schema"]);
  const returns = oneOf(definition, ["returns", "outputSchema"]);
  const identifier = toIdentifier(name, "_tool");
  if (identifier === null) throw refused(`The tool ${quoted(name)} cannot have a name in Python.`);
  const within = <T>(what: string, make: () => T): T => {
    try {
      return make();
    } catch (error) {
      const reason = error instanceof SchemaError || error instanceof Error ? error.message : "";
      throw refused(`The ${what} of the tool ${quoted(name)}: ${reason}.`);
    }
  };
  const checked = within("parameters", () => {
    const facts = checkSchema(parameters ?? true, patterns);
    if (parameters?.type !== undefined && parameters.type !== "object")
      throw new SchemaError("the schema is none of an object");
    return facts;
  });
  const {
    parameters: described,
    takesMore,
    characters,
  } = within("parameters", () => signatureOf(parameters ?? undefined));
  const returned = within("returns", () => {
    checkSchema(returns ?? true, patterns);
    return returns == null ? "Any" : new SchemaReader(returns).annotationOf(returns);
  });
  return {
    signature: {
      name: naming === undefined ? identifier : `${naming.namespace}.${identifier}`,
      tool: naming?.key ?? name,
      description: description ?? "",
      parameters: described,
      takesMore,
      returns: returned,
    },
    parameters: parameters ?? null,
    returns: returns ?? null,
    isPlain: checked.isPlain,
    schemaCharacters: charactersOf(parameters ?? null),
    signatureCharacters: characters,
  };
}

type SchemaName = Exclude<keyof ToolDefinition, "name" | "description">;

/** What a definition has under one of several names. @throws {ClientError} 400 `invalid_tools`: it has two. */
function oneOf(definition: ToolDefinition, names: readonly SchemaName[]) {
  const [given, second] = names.filter((name) => definition[name] != null);
  if (given === undefined) return undefined;
  if (second !== undefined) throw refused(`The tool ${quoted(definition.name)} has both ${given} and ${second}.`);
  return definition[given];
}

/** Of a schema as JSON. Infinite for others than ASCII's: the validator escapes them in the paths that it makes, nine for one. */
export function charactersOf(schema: unknown): number {
  const text = JSON.stringify(schema);
  return /[^\x20-\x7e]/.test(text) ? Number.POSITIVE_INFINITY : text.length;
}

function refused(message: string): ClientError {
  return new ClientError("invalid_tools", message);
}

function quoted(name: string): string {
  return JSON.stringify(name.slice(0, MAX_NAME_CHARACTERS));
}
