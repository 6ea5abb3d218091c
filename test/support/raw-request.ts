import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { text } from "node:stream/consumers";

/** A request whose bytes the test sends itself, as slowly or as broken as it likes. */
export interface RawRequest {
  readonly socket: Socket;
  send(bytes: string | Uint8Array): Promise<void>;
  /** All that the server has sent when it closes the connection. */
  reply(): Promise<string>;
}

/** Opens a connection to `url`'s host and sends `head` (request line and headers, without the empty line). */
export async function openRawRequest(url: string, head: readonly string[]): Promise<RawRequest> {
  const { hostname, port } = new URL(url);
  const socket = connect({ host: hostname, port: Number(port) });
  await once(socket, "connect");
  const reply = text(socket);
  reply.catch(() => {});
  const send = (bytes: string | Uint8Array) =>
    new Promise<void>((resolve, reject) => socket.write(bytes, (error) => (error ? reject(error) : resolve())));
  await send([...head, `Host: ${hostname}`, "Connection: close", "", ""].join("\r\n"));
  return { socket, send, reply: () => reply };
}
