import { ClientError } from "../shared/errors.ts";
import type { JsonText } from "../shared/json/json-text.ts";
import type { Tool } from "../tools/definitions.ts";
import type { InnerTools } from "../tools/events.ts";
import type { McpConnection, McpResult } from "./mcp-connection.ts";
import type { McpServerDefinition } from "./server-file.ts";

/** A connection that nothing has used for so long is closed, ms. */
const IDLE_MS = 600_000;
const SWEEP_MS = 60_000;
/** Connections to one server: each is a process where it is one. */
const MAX_CONNECTIONS = 100;

/** With the SDK, for the first that is connected to: most servers have none. */
const loadConnection = async () => (await import("./mcp-connection.ts")).McpConnection;

/** The MCP servers that the operator has named, for those that may use them. */
export class McpServers {
  readonly #servers: ReadonlyMap<string, McpServerDefinition>;
  readonly #secrets: readonly string[];
  readonly #connections = new Map<string, Map<string, McpConnection>>();
  readonly #sweeper: NodeJS.Timeout;

  /** @param secrets values that must not come back in an answer. */
  constructor(servers: readonly McpServerDefinition[], secrets: readonly string[]) {
    this.#servers = new Map(servers.map((server) => [server.name, server]));
    this.#secrets = secrets;
    this.#sweeper = setInterval(() => void this.#sweep(), SWEEP_MS).unref();
  }

  /** Names of those that a principal may use. */
  namesFor(principal: string): readonly string[] {
    return Array.from(this.#servers.values())
      .filter(({ principals }) => principals?.has(principal) ?? true)
      .map(({ name }) => name);
  }

  /**
   * The tools that an execution has of them.
   *
   * @param wanted names of servers; true: all that the principal may use.
   * @throws {ClientError} 400 `unknown_mcp_server`, the same for one that is another's; 503 `mcp_unavailable`.
   */
  async toolsFor(principal: string, wanted: readonly string[] | true): Promise<InnerTools> {
    const allowed = this.namesFor(principal);
    const names = wanted === true ? allowed : [...new Set(wanted)];
    const unknown = names.find((name) => !allowed.includes(name));
    if (unknown !== undefined) {
      throw new ClientError("unknown_mcp_server", `There is no MCP server ${JSON.stringify(unknown.slice(0, 100))}.`);
    }
    const tools = new Map<string, Tool>();
    const calls = new Map<string, (input: JsonText, signal: AbortSignal) => Promise<McpResult>>();
    await Promise.all(
      names.map(async (name) => {
        const connection = this.#connectionOf(name, principal, await loadConnection());
        for (const [own, { tool }] of (await connection.tools()).tools) {
          tools.set(tool.signature.tool, tool);
          calls.set(tool.signature.tool, async (input, signal) => await connection.call(own, input, signal));
        }
      }),
    );
    return {
      tools,
      call: async (name, input, signal) => {
        const call = calls.get(name);
        return call ? await call(input, signal) : { error: { message: "there is no such tool" } };
      },
    };
  }

  /** What each server is good for now, in words; false: it cannot be used. */
  async health(): Promise<readonly { readonly name: string; readonly ok: boolean; readonly text: string }[]> {
    return await Promise.all(
      Array.from(this.#servers.values(), async (server) => {
        const Connection = await loadConnection();
        const connection = new Connection(server, "(doctor)", this.#secrets);
        try {
          const { tools, leftOut } = await connection.tools();
          const reasons = Array.from(leftOut, ([name, why]) => `; ${name} is left out: ${why.replace(/\.$/, "")}`);
          return { name: server.name, ok: true, text: `${tools.size} tools${reasons.join("")}` };
        } catch (error) {
          return { name: server.name, ok: false, text: (error as Error).message };
        } finally {
          await connection.close();
        }
      }),
    );
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeper);
    const all = [...this.#connections.values()].flatMap((ofServer) => [...ofServer.values()]);
    this.#connections.clear();
    await Promise.all(all.map((connection) => connection.close()));
  }

  #connectionOf(name: string, principal: string, Connection: typeof McpConnection): McpConnection {
    const server = this.#servers.get(name) as McpServerDefinition;
    const ofServer = this.#connections.get(name) ?? new Map<string, McpConnection>();
    this.#connections.set(name, ofServer);
    const known = ofServer.get(principal);
    if (known) return known;
    if (ofServer.size >= MAX_CONNECTIONS) {
      const [idlest] = [...ofServer].filter(([, { idleMs }]) => idleMs > 0).sort(([, a], [, b]) => b.idleMs - a.idleMs);
      if (!idlest) throw new ClientError("mcp_unavailable", `The MCP server ${name} has too many connections.`);
      ofServer.delete(idlest[0]);
      void idlest[1].close();
    }
    const connection = new Connection(server, principal, this.#secrets);
    ofServer.set(principal, connection);
    return connection;
  }

  async #sweep(): Promise<void> {
    for (const ofServer of this.#connections.values()) {
      for (const [principal, connection] of ofServer) {
        if (connection.idleMs < IDLE_MS) continue;
        ofServer.delete(principal);
        await connection.close();
      }
    }
  }
}
