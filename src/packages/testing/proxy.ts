import { createServer, request } from "node:http";
import { type AddressInfo, connect } from "node:net";

/** A real HTTP proxy: forwards plain requests and tunnels the rest, for those who log in. */
export interface TestProxy extends AsyncDisposable {
  readonly address: string;
  /** `METHOD target` of everything that was asked of it. */
  readonly requests: string[];
}

/** @param login `user:password` that it wants; default: none. */
export async function startProxy(login?: string): Promise<TestProxy> {
  const requests: string[] = [];
  const isAllowed = (header: string | undefined) =>
    login === undefined || header === `Basic ${Buffer.from(login).toString("base64")}`;
  const server = createServer((incoming, response) => {
    requests.push(`${incoming.method} ${incoming.url}`);
    if (!isAllowed(incoming.headers["proxy-authorization"])) return void response.writeHead(407).end();
    const { "proxy-authorization": _, ...headers } = incoming.headers;
    const forwarded = request(String(incoming.url), { method: incoming.method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    forwarded.on("error", () => response.writeHead(502).end());
    incoming.pipe(forwarded);
  });
  server.on("connect", (incoming, socket) => {
    requests.push(`CONNECT ${incoming.url}`);
    socket.on("error", () => {});
    if (!isAllowed(incoming.headers["proxy-authorization"])) {
      return void socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    }
    const [host, port] = String(incoming.url).split(":");
    const tunnel = connect(Number(port), host, () => {
      socket.write("HTTP/1.1 200 Connection Established\r\n\r\n");
      tunnel.pipe(socket).pipe(tunnel);
    });
    tunnel.on("error", () => socket.destroy());
    socket.on("close", () => tunnel.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    address: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
