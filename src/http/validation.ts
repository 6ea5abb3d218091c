import { z } from "zod";
import { networkInput } from "../egress/network-rules.ts";
import { ClientError } from "../shared/errors.ts";
import { isObject } from "../shared/json/json-object.ts";
import { membersOf } from "../shared/json/json-source.ts";
import { MAX_TOOLS, toolDefinition } from "../tools/definitions.ts";
import { isVariableName, normalised } from "../tools/python-names.ts";
import { parseContext } from "./body-parsing.ts";
import { contextSource, rememberSource, sourceOf } from "./context-source.ts";

export const MAX_CODE_CHARACTERS = 100_000;
export const MAX_TIMEOUT_MS = 300_000;
export const MAX_STDIN_CHARACTERS = 1_000_000;
const MAX_TOOL_TIMEOUT_MS = 3_600_000;
const MAX_VARIABLES = 256;
const MAX_VARIABLES_CHARACTERS = 32 * 1024;

/** Texts and their order are part of the HTTP contract. */
const code = z
  .string({
    error: ({ input }) =>
      input === undefined || input === null
        ? 'No code provided. Please include "code" in the request body.'
        : "Code must be a string.",
  })
  // What is too long is not looked at any further.
  .max(MAX_CODE_CHARACTERS, {
    error: `Code too long. Maximum length: ${MAX_CODE_CHARACTERS} characters.`,
    abort: true,
  })
  .refine((text) => text.trim() !== "", "Code cannot be empty")
  .refine((text) => text.replace(/\\[ntr]/g, "").trim() !== "", "Code cannot contain only whitespace")
  .meta({
    description:
      "Python source. The value of its last expression is the result. Code as notebooks and models write it runs too: indented as a whole, in ```` ``` ```` fences, " +
      "with prompts, `%pip install`, `%matplotlib inline`, `%time`; other magics and `!` lines get a sentence. `/mnt/data` is the home folder.",
    example: "1 + 1",
  });

/** Becomes the JSON text that Python reads: numbers as they were written, not as JavaScript has them. */
const context = z
  .custom<Record<string, unknown>>(isObject, "Context must be an object (key-value pairs).")
  .meta({
    description:
      "Global variables of the execution, as JSON data. Numbers arrive as JSON has them: integers of any size, `1.0` and `-0.0` as floats.",
    type: "object",
  })
  .transform((value, { addIssue }) => {
    const refuse = (message: string) => {
      addIssue({ code: "custom", message });
      return z.NEVER;
    };
    const source = sourceOf(value) ?? contextSource(JSON.stringify(value));
    if ("refused" in source) return refuse(source.refused);
    // Python reads every name in NFKC form (PEP 3131), so under any other form code could not reach the variable.
    const members = membersOf(source.json).map(([name, text]) => [normalised(name), text] as const);
    if (!members.every(([name]) => name !== null && isVariableName(name)))
      return refuse("Context keys must be valid Python names.");
    return `{${members.map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(",")}}`;
  });

const timeout = z
  .number("Timeout must be a positive number (milliseconds).")
  .refine((value) => value > 0, "Timeout must be a positive number (milliseconds).")
  .max(MAX_TIMEOUT_MS, `Timeout too large. Maximum: ${MAX_TIMEOUT_MS}ms (5 minutes).`)
  .meta({ description: "Wall time the code may take, ms.", example: 5000 });

const stdin = z
  .string("Stdin must be a string.")
  .max(MAX_STDIN_CHARACTERS, `Stdin too long. Maximum length: ${MAX_STDIN_CHARACTERS} characters.`)
  .meta({ description: "What `input()` and `sys.stdin` read." });

/** Environment variables: what POSIX lets them be, and UTF-8 has. */
export const env = z
  .record(z.string(), z.string("Values of env must be strings."), "Env must be an object of strings.")
  .superRefine((members, { addIssue }) => {
    const all = Object.entries(members);
    if (all.length > MAX_VARIABLES) addIssue(`Env may have at most ${MAX_VARIABLES} variables.`);
    if (all.reduce((sum, [name, value]) => sum + name.length + value.length, 0) > MAX_VARIABLES_CHARACTERS)
      addIssue(`Env too long. Maximum: ${MAX_VARIABLES_CHARACTERS} characters.`);
    if (all.some(([name]) => name === "" || /[=\0]/.test(name)))
      addIssue('Names of env must have a character, and neither "=" nor NUL.');
    if (all.some(([, value]) => value.includes("\0"))) addIssue("Values of env must have no NUL.");
    if (!all.flat().every((text) => text.isWellFormed())) addIssue("Env must be text that UTF-8 has.");
  })
  .meta({ description: "Environment variables (`os.environ`).", example: { LANG: "de_DE.UTF-8" } });

export const environment = z
  .string("Environment must be a string.")
  .regex(/^[a-z0-9][a-z0-9_-]{0,63}$/, "Invalid environment name.")
  .meta({ description: "Package set to run in.", example: "stdlib" });

const files = z
  .enum(["workspace", "none"], 'Files must be "workspace" or "none".')
  .meta({ description: "Whether the caller's files are there; they are unless `none` is asked for." });

const session = z
  .string("Session must be a string.")
  .meta({ description: "Run in this session, which keeps its state." });

export const namespace = z.string("Namespace must be a string.").meta({
  description: "Which of the session's namespaces has the code's global variables; made if there is none of this name.",
});

/** What the client answers while code runs: of one execution, or of all of a session. */
export const toolFields = {
  tools: z
    .array(toolDefinition, "Tools must be a list of objects with name, description, parameters and returns.")
    .max(MAX_TOOLS, `At most ${MAX_TOOLS} tools can be offered.`)
    .optional()
    .meta({ description: "Functions of the code that this client answers while it runs; each is a global variable." }),
  toolMode: z
    .enum(["sync", "async"], 'Tool mode must be "sync" or "async".')
    .optional()
    .meta({ description: "Whether the functions block, or are coroutine functions. Default: `sync`." }),
  interactive: z
    .boolean("Interactive must be a boolean.")
    .optional()
    .meta({ description: "`input()` asks this client instead of reading `stdin`." }),
  toolTimeout: z
    .number("Tool timeout must be a positive number (milliseconds).")
    .positive("Tool timeout must be a positive number (milliseconds).")
    .max(MAX_TOOL_TIMEOUT_MS, `Tool timeout too large. Maximum: ${MAX_TOOL_TIMEOUT_MS}ms.`)
    .optional()
    .meta({ description: "Until a call has its answer, ms. It is not part of `timeout`." }),
  mcp: z
    .union(
      [z.boolean(), z.array(z.string().max(64)).max(64)],
      "Mcp must be a list of the names of MCP servers, or true for all that there are.",
    )
    .optional()
    .meta({ description: "MCP servers of the operator's whose tools the code has, as `mcp.<server>.<tool>(…)`." }),
  toolEndpoint: z.string("Tool endpoint must be a string.").max(2000, "Tool endpoint too long.").optional().meta({
    description: "One of the server's TOOL_ENDPOINTS: it is posted each call, and answers instead of this client.",
  }),
};

/** Body of `POST /api/execute`. Keys stand in the order in which they are checked. */
export const executeBody = z.object({
  code,
  context: context.optional(),
  timeout: timeout.optional(),
  stdin: stdin.optional(),
  env: env.optional(),
  environment: environment.optional(),
  files: files.optional(),
  session: session.optional(),
  namespace: namespace.optional(),
  network: networkInput.optional(),
  display: z.boolean("Display must be a boolean.").optional().meta({
    description:
      "The value of the last expression as a MIME bundle too, in `display`: its `repr`, and what else a notebook would show of it. Streams always have it.",
  }),
  ...toolFields,
  check: z
    .boolean("Check must be a boolean.")
    .optional()
    .meta({ description: "Compare the code's calls of tools with their signatures before anything of it runs." }),
});

/**
 * Checks a request's body. A member that may be left out may be null as well: many clients write what they do not have as null.
 *
 * @param isForm the body came from a form, where a number is text.
 * @throws {ClientError} 400 with the first thing that is wrong.
 */
export function parseBody<T extends z.ZodType>(schema: T, body: unknown, isForm = false): z.output<T> {
  const given = isObject(body) ? membersThatCount(schema, body) : {};
  if (isForm) readFormTexts(schema, given);
  const parsed = reducedTo(schema, given).safeParse(given);
  if (!parsed.success) throw new ClientError("invalid_request", parsed.error.issues[0]?.message ?? "Invalid request");
  return parsed.data;
}

/**
 * The schema without those members that are not there and may be absent: most requests have one of fifteen, and each absent one costs
 * as much to look at. The client chooses which are there, so only so many choices are kept, and others have the whole schema: to make
 * a reduced one takes longer than to do without.
 */
function reducedTo<T extends z.ZodType>(schema: T, given: object): T {
  // What is checked of several members together needs all of them.
  if (!(schema instanceof z.ZodObject) || (schema.def.checks ?? []).length > 0) return schema;
  let reduced = REDUCED.get(schema);
  if (reduced === undefined) {
    const mayBeAbsent = (member: z.ZodType) => {
      const { success, data } = member.safeParse(undefined);
      return success && data === undefined;
    };
    const needed = Object.keys(schema.shape).filter((name) => !mayBeAbsent(schema.shape[name] as z.ZodType));
    reduced = { needed: new Set(needed), byNames: new Map() };
    REDUCED.set(schema, reduced);
  }
  const { needed, byNames } = reduced;
  const names = Object.keys(schema.shape).filter((name) => needed.has(name) || Object.hasOwn(given, name));
  const key = names.join();
  let picked = byNames.get(key);
  if (picked === undefined) {
    if (byNames.size >= MAX_REDUCED) return schema;
    picked = schema.pick(Object.fromEntries(names.map((name) => [name, true as const])) as Record<never, never>);
    byNames.set(key, picked);
  }
  return picked as unknown as T;
}

/** Of one schema: each is 15 kB. */
const MAX_REDUCED = 64;
/** By schema: members that it needs, and what it is reduced to by the names that are there. */
const REDUCED = new WeakMap<
  z.ZodType,
  { readonly needed: ReadonlySet<string>; readonly byNames: Map<string, z.ZodObject> }
>();

/** In a form all is text: numbers, and what is true or false, are read from it. */
function readFormTexts(schema: z.ZodType, given: Record<string, unknown>): void {
  if (!(schema instanceof z.ZodObject)) return;
  for (const [name, value] of Object.entries(given)) {
    if (typeof value !== "string") continue;
    let member = schema.shape[name] as z.ZodType;
    while (member instanceof z.ZodOptional) member = member.unwrap() as z.ZodType;
    if (member instanceof z.ZodNumber && value.trim() !== "") given[name] = Number(value);
    if (member instanceof z.ZodBoolean && /^(?:true|false)$/.test(value)) given[name] = value === "true";
  }
}

/** Those that the schema names: a client may send any number of others. */
function membersThatCount(schema: z.ZodType, body: Record<string, unknown>): Record<string, unknown> {
  if (!(schema instanceof z.ZodObject)) return { ...body };
  const isAbsent = (name: string) =>
    body[name] === null && (schema.shape[name] as z.ZodType).safeParse(undefined).success;
  const names = Object.keys(schema.shape).filter((name) => Object.hasOwn(body, name) && !isAbsent(name));
  return Object.fromEntries(names.map((name) => [name, body[name]]));
}

/** @returns the object of which `text` is the JSON, or the text itself: that is then refused as any text is. */
export function contextOf(text: string): unknown {
  const parsed = parseContext(text);
  if (parsed === null) return text;
  rememberSource(parsed.value, parsed.source);
  return parsed.value;
}
