import { once } from "node:events";
import { Agent, createServer, type IncomingMessage, request } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { SocketClient, type SocketEvent } from "../test/support/web-socket.ts";

/** What answers a call. */
export type Tool = (input: { readonly value: number }) => unknown;

/** Runs code whose calls the tool answers over one transport, each by itself as soon as it is there, and gives the reply. */
export type Transport = (url: string, body: object, tool: Tool) => Promise<{ readonly result: unknown }>;

/** By `node:http` as the echo is asked, since `fetch` takes longer than what is measured. */
const agent = new Agent({ keepAlive: true });

async function open(url: string, body: string, headers: Record<string, string> = {}): Promise<IncomingMessage> {
  const sent = request(url, {
    agent,
    method: "POST",
    headers: { "content-type": "application/json", "content-length": Buffer.byteLength(body), ...headers },
  });
  sent.end(body);
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  return response;
}

/** @throws {Error} for any status but 200 and 202. */
export async function post(url: string, body: object): Promise<SocketEvent> {
  const response = await open(url, JSON.stringify(body));
  const answer = await text(response);
  if (response.statusCode !== 200 && response.statusCode !== 202) throw new Error(`${response.statusCode}: ${answer}`);
  return JSON.parse(answer);
}

const overWebSocket: Transport = async (url, body, tool) => {
  const client = await SocketClient.open(url);
  const { promise, resolve, reject } = Promise.withResolvers<SocketEvent>();
  client.socket.removeAllListeners("message");
  client.socket.on("message", async (data) => {
    const event = JSON.parse(String(data));
    if (event.type === "result") resolve(event);
    if (event.type === "error") reject(new Error(event.error));
    if (event.type === "tool_call") client.answer("e", { id: event.id, result: await tool(event.input) });
  });
  client.send({ type: "execute", execution: "e", ...body });
  const reply = await promise;
  client.close();
  await client.closed;
  return reply;
};

const overStream: Transport = async (url, body, tool) => {
  const response = await open(`${url}/api/execute-stream`, JSON.stringify(body), { accept: "application/x-ndjson" });
  const { promise, resolve, reject } = Promise.withResolvers<SocketEvent>();
  let execution = "";
  const take = async (event: SocketEvent) => {
    execution = event.execution ?? execution;
    if (event.type === "result") resolve(event);
    if (event.type !== "tool_call") return;
    const results = [{ id: event.id, result: await tool(event.input) }];
    await post(`${url}/api/executions/${execution}/results`, { results });
  };
  let rest = "";
  response.setEncoding("utf8").on("data", (chunk: string) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line !== "") void take(JSON.parse(line)).catch(reject);
  });
  response.once("close", () => reject(new Error(`the stream has ended without a result: ${rest}`)));
  return await promise;
};

const overContinuation: Transport = async (url, body, tool) => {
  let reply = await post(`${url}/api/execute`, body);
  while (reply.status === "tool_call_required") {
    const calls = (reply.toolCalls as SocketEvent[]).map(async ({ id, input }) => ({ id, result: await tool(input) }));
    reply = await post(`${url}/api/executions/${reply.continuation}`, { results: await Promise.all(calls) });
  }
  return reply;
};

export const TRANSPORTS: Readonly<Record<string, Transport>> = {
  WebSocket: overWebSocket,
  "event stream, answers by POST": overStream,
  "plain HTTP continuation": overContinuation,
};

/** Answers the calls that a server posts to it: as many tools as there are executions come one after another. */
export class ToolEndpoint implements AsyncDisposable {
  readonly #server = createServer(async (request, response) => {
    const { input } = JSON.parse(await text(request));
    const body = JSON.stringify({ result: await this.#tool(input) });
    response.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
    response.end(body);
  });
  #tool: Tool = () => null;

  /** @returns its URL. */
  async listen(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`;
  }

  readonly transport: Transport = async (url, body, tool) => {
    this.#tool = tool;
    const { port } = this.#server.address() as AddressInfo;
    return await post(`${url}/api/execute`, { ...body, toolEndpoint: `http://127.0.0.1:${port}/` });
  };

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, "close");
  }
}
