import { once } from "node:events";
import { text } from "node:stream/consumers";
import { type ClientOptions, WebSocket } from "ws";

// biome-ignore lint/suspicious/noExplicitAny: what a server sends is what the test is about to find out.
export type SocketEvent = any;

export interface OpenOptions extends ClientOptions {
  /** Default: that of the protocol alone. */
  readonly protocols?: string[];
  readonly path?: string;
}

/** What a server has answered in place of opening a WebSocket. */
export class RefusedError extends Error {
  readonly status: number;
  readonly body: SocketEvent;
  readonly headers: Readonly<Record<string, unknown>>;

  constructor(status: number, body: SocketEvent, headers: Readonly<Record<string, unknown>>) {
    super(`refused: ${status}`);
    this.status = status;
    this.body = body;
    this.headers = headers;
  }
}

export const SUBPROTOCOL = "pyodide-express.v1";

/** A client of `/api/ws` that keeps all events. */
export class SocketClient {
  readonly events: SocketEvent[] = [];
  readonly socket: WebSocket;
  /** The close code, once it is closed. */
  readonly closed: Promise<number>;
  #waiting: (() => void)[] = [];

  private constructor(socket: WebSocket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("message", (data) => {
      this.events.push(JSON.parse(String(data)));
      this.#wake();
    });
    this.closed = new Promise((resolve) => {
      socket.on("close", (code) => {
        resolve(code);
        this.#wake();
      });
    });
  }

  /** @throws {RefusedError} if it does not open. */
  static async open(url: string, options: OpenOptions = {}): Promise<SocketClient> {
    const { protocols = [SUBPROTOCOL], path = "/api/ws", ...rest } = options;
    const socket = new WebSocket(url.replace("http", "ws") + path, protocols, rest);
    const client = new SocketClient(socket);
    const refused = new Promise<never>((_resolve, reject) => {
      socket.on("unexpected-response", async (_request, response) => {
        const body = await text(response);
        const isJson = response.headers["content-type"]?.includes("json");
        reject(new RefusedError(response.statusCode ?? 0, isJson ? JSON.parse(body) : body, response.headers));
      });
      socket.once("error", reject);
    });
    await Promise.race([once(socket, "open"), refused]);
    return client;
  }

  /** The channel's id. */
  get channel(): string {
    return this.events.find(({ type }) => type === "resumed" || type === "ready")?.channel;
  }

  get lastSeq(): number {
    return Math.max(0, ...this.events.map(({ seq = 0 }) => seq));
  }

  send(message: object | string): void {
    this.socket.send(typeof message === "string" ? message : JSON.stringify(message));
  }

  /** The first event, of those that came and come, that has these members. */
  async next(members: Readonly<Record<string, unknown>>): Promise<SocketEvent> {
    for (;;) {
      const found = this.events.find((event) =>
        Object.entries(members).every(([name, value]) => event[name] === value),
      );
      if (found) return found;
      if (this.socket.readyState === WebSocket.CLOSED) {
        throw new Error(`closed without ${JSON.stringify(members)}: ${JSON.stringify(this.events)}`);
      }
      await this.#more();
    }
  }

  /** Runs code to its end. */
  async run(execution: string, body: object): Promise<SocketEvent> {
    const before = this.events.length;
    this.send({ type: "execute", execution, ...body });
    for (;;) {
      const found = this.events
        .slice(before)
        .find(({ type, execution: of }) => of === execution && (type === "result" || type === "error"));
      if (found) return found;
      await this.#more();
    }
  }

  of(execution: string): SocketEvent[] {
    return this.events.filter((event) => event.execution === execution);
  }

  answer(execution: string, ...results: object[]): void {
    this.send({ type: "results", execution, results });
  }

  close(): void {
    this.socket.close(1000);
  }

  /** As if the network were gone. */
  lose(): void {
    this.socket.terminate();
  }

  async #more(): Promise<void> {
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
