import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { MadeWheel } from "./wheels.ts";

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** A real HTTP server with a package index (`/simple/`), files (`/files/`, with ranges) and whatever a test adds. */
export class PackageServer {
  /** `METHOD path` of everything that was asked, in order. */
  readonly requests: string[] = [];
  readonly #server: Server;
  readonly #handlers = new Map<string, Handler>();
  readonly #wheels: MadeWheel[] = [];

  private constructor() {
    this.#server = createServer((request, response) => {
      const path = request.url ?? "/";
      this.requests.push(`${request.method} ${path}`);
      const handler = this.#handlers.get(path);
      if (handler === undefined) response.writeHead(404).end("not found");
      else handler(request, response);
    });
  }

  static async start(): Promise<PackageServer> {
    const server = new PackageServer();
    await new Promise<void>((resolve) => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get indexUrl(): string {
    return `${this.origin}/simple`;
  }

  on(path: string, handler: Handler): void {
    this.#handlers.set(path, handler);
  }

  /** Offers a wheel on the index. `change` alters what the index says of it. */
  add(wheel: MadeWheel, change: (file: Record<string, unknown>) => Record<string, unknown> = (file) => file): void {
    this.#wheels.push(wheel);
    this.on(`/files/${wheel.filename}`, serveBytes(wheel.bytes));
    this.on(`/files/${wheel.filename}.metadata`, serveBytes(Buffer.from(wheel.metadata)));
    this.addFile(
      wheel.recipe.name,
      change({
        filename: wheel.filename,
        url: `../../files/${wheel.filename}`,
        hashes: { sha256: wheel.sha256 },
        "core-metadata": { sha256: createHash("sha256").update(wheel.metadata).digest("hex") },
        ...(wheel.recipe.requiresPython === undefined ? {} : { "requires-python": wheel.recipe.requiresPython }),
      }),
    );
  }

  readonly #projects = new Map<string, Record<string, unknown>[]>();

  /** Lists a file on the index that need not exist. */
  addFile(name: string, file: Record<string, unknown>): void {
    const key = name.replace(/[-_.]+/g, "-").toLowerCase();
    const files = this.#projects.get(key) ?? [];
    files.push(file);
    this.#projects.set(key, files);
    this.on(`/simple/${key}/`, (_request, response) => {
      response.writeHead(200, { "content-type": "application/vnd.pypi.simple.v1+json" });
      response.end(JSON.stringify({ meta: { "api-version": "1.1" }, name, files }));
    });
  }

  count(path: string): number {
    return this.requests.filter((request) => request === `GET ${path}`).length;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** As a plain file server does, one range included. */
export function serveBytes(bytes: Buffer): Handler {
  return (request, response) => {
    const start = /^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1];
    if (start === undefined) {
      response.writeHead(200, { "content-length": bytes.length }).end(bytes);
    } else if (Number(start) >= bytes.length) {
      response.writeHead(416, { "content-range": `bytes */${bytes.length}` }).end();
    } else {
      const part = bytes.subarray(Number(start));
      const range = `bytes ${start}-${bytes.length - 1}/${bytes.length}`;
      response.writeHead(206, { "content-length": part.length, "content-range": range }).end(part);
    }
  };
}
