import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { type Kernel, ServerConnection } from "@jupyterlab/services";
import { WebSocket } from "ws";

/** How JupyterLab's own library reaches a server. @param base `/jupyter`, or empty: at the root. */
export function jupyterSettings(url: string, token = "", base = "/jupyter"): ServerConnection.ISettings {
  return ServerConnection.makeSettings({
    baseUrl: `${url}${base}/`,
    wsUrl: `${url.replace("http", "ws")}${base}/`,
    token,
    appendToken: token !== "",
    WebSocket: WebSocket as unknown as ServerConnection.ISettings["WebSocket"],
  });
}

/** What a kernel has sent for one request. */
export interface Ran {
  // biome-ignore lint/suspicious/noExplicitAny: what a kernel sends is what the test is about to find out.
  readonly reply: any;
  /** Type and content of each message for all, in order, less `status`. */
  // biome-ignore lint/suspicious/noExplicitAny: as above.
  readonly outputs: readonly (readonly [string, any])[];
}

/** Runs a cell with JupyterLab's own library. @param answer what its user writes when the code asks. */
export async function runCell(kernel: Kernel.IKernelConnection, code: string, answer?: string): Promise<Ran> {
  const future = kernel.requestExecute({ code });
  const outputs: [string, unknown][] = [];
  future.onIOPub = ({ header, content }) => {
    if (header.msg_type !== "status") outputs.push([header.msg_type, content]);
  };
  future.onStdin = ({ header }) => {
    kernel.sendInputReply({ value: answer ?? "", status: "ok" }, header as Parameters<typeof kernel.sendInputReply>[1]);
  };
  return { reply: (await future.done).content, outputs: merged(outputs) };
}

/** What is printed comes in pieces, which depend on the moment. */
function merged(outputs: readonly (readonly [string, unknown])[]): Ran["outputs"] {
  const all: [string, JupyterMessage][] = [];
  for (const [type, content] of outputs as [string, JupyterMessage][]) {
    const last = all.at(-1);
    if (type === "stream" && last?.[0] === "stream" && last[1].name === content.name) {
      last[1] = { ...content, text: last[1].text + content.text };
    } else all.push([type, content]);
  }
  return all;
}

// biome-ignore lint/suspicious/noExplicitAny: as above.
export type JupyterMessage = any;

/** A client that sends what it is told to, and keeps all that comes. */
export class JupyterSocket {
  readonly socket: WebSocket;
  readonly messages: JupyterMessage[] = [];
  /** Code and reason, once it is closed. */
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>;
  #waiting: (() => void)[] = [];

  private constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("message", (data, isBinary) => {
      this.messages.push(isBinary ? data : JSON.parse(String(data)));
      this.#wake();
    });
    this.closed = new Promise((resolve) => {
      socket.on("close", (code, reason) => {
        resolve({ code, reason: String(reason) });
        this.#wake();
      });
    });
  }

  /** @param path of the WebSocket, with its query. */
  static async open(
    url: string,
    path: string,
    options: { readonly headers?: Record<string, string>; readonly protocols?: string[] } = {},
  ): Promise<JupyterSocket> {
    const { headers = {}, protocols = [] } = options;
    const socket = new WebSocket(url.replace("http", "ws") + path, protocols, { headers });
    const client = new JupyterSocket(socket);
    await once(socket, "open");
    return client;
  }

  /** @returns the id of the message. */
  send(type: string, content: object = {}, more: object = {}): string {
    const id = randomUUID();
    const header = { msg_id: id, msg_type: type, username: "test", session: "test", version: "5.3" };
    this.socket.send(
      JSON.stringify({ header, parent_header: {}, metadata: {}, content, channel: "shell", buffers: [], ...more }),
    );
    return id;
  }

  /** Sends a request and waits for its reply, and until the kernel is idle again. */
  async ask(type: string, content: object = {}, more: object = {}): Promise<Ran> {
    return await this.done(this.send(type, content, more));
  }

  /** Waits for the reply to a request. */
  async done(id: string): Promise<Ran> {
    await this.find((message) => isStatus(message, "idle") && message.parent_header.msg_id === id);
    const own = this.messages.filter(({ parent_header: parent }) => parent?.msg_id === id);
    const outputs = own.filter(({ channel, msg_type: type }) => channel === "iopub" && type !== "status");
    return {
      reply: own.find(({ msg_type: type }) => type.endsWith("_reply"))?.content,
      outputs: merged(outputs.map(({ msg_type: type, content }) => [type, content] as const)),
    };
  }

  /** The first message, of those that came and come, for which this is so. */
  async find(isMeant: (message: JupyterMessage) => boolean): Promise<JupyterMessage> {
    for (;;) {
      const found = this.messages.find(isMeant);
      if (found) return found;
      if (this.socket.readyState === WebSocket.CLOSED) throw new Error(`closed: ${JSON.stringify(this.messages)}`);
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  close(): void {
    this.socket.close();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

function isStatus({ msg_type: type, content }: JupyterMessage, state: string): boolean {
  return type === "status" && content.execution_state === state;
}
