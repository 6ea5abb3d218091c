import { readFileSync } from "node:fs";
import { z } from "zod";
import { StartupError } from "../shared/errors.ts";
import type { Config } from "../shared/settings.ts";

/** What the operator says of one MCP server. */
export interface McpServerDefinition {
  /** Its name in Python: `mcp.<name>`. */
  readonly name: string;
  readonly transport:
    | { readonly type: "http"; readonly url: URL; readonly headers: Readonly<Record<string, string>> }
    | {
        readonly type: "stdio";
        readonly command: string;
        readonly args: readonly string[];
        readonly env: Readonly<Record<string, string>>;
        readonly cwd?: string | undefined;
      };
  /** Null: all that it has. */
  readonly tools: ReadonlySet<string> | null;
  /** Null: everyone. */
  readonly principals: ReadonlySet<string> | null;
  /** Until a call has its answer, ms. */
  readonly timeoutMs: number;
}

const EXAMPLE =
  '{"github": {"url": "https://mcp.example.com/mcp", "headers": {"Authorization": "Bearer ${secret:GITHUB_TOKEN}"}, "tools": ["search_issues"], "principals": ["alice"]}}';
const DEFAULT_TIMEOUT_MS = 60_000;

const common = {
  tools: z.array(z.string()).optional(),
  principals: z.array(z.string()).optional(),
  timeoutMs: z.int().min(1).max(600_000).optional(),
};
const definition = z.union([
  z.strictObject({
    type: z.enum(["http", "streamable-http"]).optional(),
    url: z.string(),
    headers: z.record(z.string(), z.string()).optional(),
    ...common,
  }),
  z.strictObject({
    type: z.literal("stdio").optional(),
    command: z.string().min(1),
    args: z.array(z.string()).optional(),
    env: z.record(z.string(), z.string()).optional(),
    cwd: z.string().optional(),
    ...common,
  }),
]);

/**
 * Reads MCP_SERVERS_FILE.
 *
 * @param principals the names of keys. @param secretOf the operator's secrets; null: there is none of the name.
 * @throws {StartupError} that names the server that cannot be used. It repeats no header and no variable.
 */
export function readMcpServers(
  config: Pick<Config, "MCP_SERVERS_FILE">,
  principals: ReadonlySet<string>,
  secretOf: (name: string) => string | null,
): readonly McpServerDefinition[] {
  if (config.MCP_SERVERS_FILE === "") return [];
  const problem = (what: string) =>
    new StartupError(`MCP_SERVERS_FILE: ${what}. It is a JSON object such as ${EXAMPLE}.`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(config.MCP_SERVERS_FILE, "utf8"));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // The parser's message quotes the text, which may hold a credential.
    throw problem(code === undefined ? "the file is not JSON" : `the file cannot be read (${code})`);
  }
  // What MCP hosts have in their settings.
  const { mcpServers } = z.looseObject({ mcpServers: z.unknown() }).catch({ mcpServers: undefined }).parse(parsed);
  const checked = z.record(z.string(), z.unknown()).safeParse(mcpServers ?? parsed);
  if (!checked.success) throw problem("it is no object");
  return Object.entries(checked.data).map(([name, given]) => {
    const shown = JSON.stringify(name);
    if (!/^[A-Za-z][A-Za-z0-9_]{0,63}$/.test(name) || name === "None" || name === "True" || name === "False") {
      throw problem(`${shown} is no name for Python: letters, digits and underscores, a letter first`);
    }
    const read = definition.safeParse(given);
    if (!read.success) throw problem(`${shown} has another form: it needs a url or a command`);
    const { tools, principals: own, timeoutMs = DEFAULT_TIMEOUT_MS, ...rest } = read.data;
    const unknown = own?.find((one) => !principals.has(one));
    if (unknown !== undefined) {
      throw problem(`${shown}: ${JSON.stringify(unknown)} is no key's name. There are ${[...principals].join(", ")}`);
    }
    const filled = (members: Readonly<Record<string, string>> = {}) =>
      Object.fromEntries(
        Object.entries(members).map(([member, value]) => {
          const text = value.replace(/\$\{secret:([^}]*)\}/g, (_, secret: string) => {
            const found = secretOf(secret);
            if (found === null) throw problem(`${shown}: there is no secret ${JSON.stringify(secret)} in SECRETS_FILE`);
            return found;
          });
          if (/[\r\n\0]/.test(text)) throw problem(`${shown}: ${JSON.stringify(member)} has a line end`);
          return [member, text];
        }),
      );
    return {
      name,
      transport:
        "url" in rest
          ? httpOf(rest.url, filled(rest.headers), () => problem(`${shown}: its url is no address of http or https`))
          : {
              type: "stdio",
              command: rest.command,
              args: rest.args ?? [],
              env: filled(rest.env),
              cwd: rest.cwd,
            },
      tools: tools === undefined ? null : new Set(tools),
      principals: own === undefined ? null : new Set(own),
      timeoutMs,
    };
  });
}

function httpOf(text: string, headers: Readonly<Record<string, string>>, problem: () => StartupError) {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol) || url.username !== "" || url.password !== "") throw problem();
  return { type: "http" as const, url, headers };
}
