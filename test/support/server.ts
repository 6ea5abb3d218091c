import { pino } from "pino";
import { type RunningServer, startServer } from "../../src/server.ts";
import { testConfig } from "./config.ts";

export interface TestServer extends RunningServer {
  /** Sends JSON (or, given a string or bytes, exactly those) and reads JSON. */
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Reply>;
  get(path: string, headers?: Record<string, string>): Promise<Reply>;
  /** Sends bytes or text as they are. */
  put(path: string, body: string | Uint8Array, headers?: Record<string, string>): Promise<Reply>;
  delete(path: string, headers?: Record<string, string>): Promise<Reply>;
}

export interface Reply {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: what a server sends is what the test is about to find out.
  readonly body: any;
}

/** A real server on a free port of the loopback interface. */
export async function startTestServer(settings: Record<string, string> = {}): Promise<TestServer> {
  const server = await startServer(testConfig(settings), pino({ level: "silent" }));
  const send = async (path: string, init: RequestInit): Promise<Reply> => {
    const response = await fetch(server.url + path, init);
    const text = await response.text();
    const isJson = response.headers.get("content-type")?.includes("json") === true;
    return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text };
  };
  return {
    ...server,
    post: (path, body, headers = {}) =>
      send(path, {
        method: "POST",
        headers: { "content-type": "application/json", ...headers },
        body:
          typeof body === "string" || body instanceof Uint8Array
            ? (body as NonNullable<RequestInit["body"]>)
            : JSON.stringify(body),
      }),
    get: (path, headers = {}) => send(path, { headers }),
    put: (path, body, headers = {}) =>
      send(path, { method: "PUT", headers, body: body as NonNullable<RequestInit["body"]> }),
    delete: (path, headers = {}) => send(path, { method: "DELETE", headers }),
  };
}
