import { Sandbox, type SandboxOpts } from "@e2b/code-interpreter";
import { startTestServer, type TestServer } from "../support/server.ts";

export const ALICE = "a-key-of-alice-for-e2b";
export const BOB = "another-key-of-bob-for-e2b";

/** A server whose sandboxes are reached by the SDK, unchanged. */
export interface E2bServer extends TestServer {
  /** What the environment variables E2B_API_URL, E2B_SANDBOX_URL, E2B_API_KEY and E2B_VALIDATE_API_KEY say. */
  readonly connection: (apiKey?: string) => {
    apiUrl: string;
    sandboxUrl: string;
    apiKey: string;
    validateApiKey: false;
  };
  /** A sandbox that goes with the server. */
  readonly sandbox: (options?: SandboxOpts) => Promise<Sandbox>;
  /** A request as the SDK sends it. @param path of the control plane, or with `sandbox` of the sandbox. */
  readonly ask: (path: string, options?: AskOptions) => Promise<{ status: number; text: string; body: unknown }>;
}

export interface AskOptions {
  readonly method?: string;
  readonly key?: string;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
}

export async function startE2bServer(settings: Record<string, string> = {}): Promise<E2bServer> {
  const server = await startTestServer({ API_KEYS: `alice:${ALICE},bob:${BOB}`, ...settings });
  const connection = (apiKey = ALICE) => ({
    apiUrl: server.url,
    sandboxUrl: server.url,
    apiKey,
    validateApiKey: false as const,
  });
  return {
    ...server,
    connection,
    sandbox: async (options = {}) => await Sandbox.create({ ...connection(), ...options }),
    ask: async (path, { method = "GET", key = ALICE, body, headers = {} } = {}) => {
      const response = await fetch(`${server.url}${path}`, {
        method,
        headers: {
          ...(key !== "" && { "x-api-key": key }),
          ...(body !== undefined && { "content-type": "application/json" }),
          ...headers,
        },
        ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
      });
      const text = await response.text();
      return { status: response.status, text, body: parsed(text) };
    },
  };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
