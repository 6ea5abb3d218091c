import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { expect, test } from "vitest";
import { until } from "../../../test/support/until.ts";
import { limitConnections } from "./connection-limit.ts";

async function start(isProxy: (address: string) => boolean) {
  const server = createServer((_request, response) => void response.end("ok"));
  limitConnections(server, { maxConnections: 30, maxOfNetwork: 10, isProxy });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  const sockets: Socket[] = [];
  return {
    open: async (localAddress: string) => {
      const socket = connect({ port, host: "127.0.0.1", localAddress }).on("error", () => {});
      sockets.push(socket);
      await once(socket, "connect");
      socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      return await Promise.race([once(socket, "data").then(() => true), once(socket, "close").then(() => false)]);
    },
    close: (count: number) => {
      for (const socket of sockets.splice(0, count)) socket.destroy();
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

test("one address has its part of the connections, and others have theirs", async () => {
  await using server = await start(() => false);
  for (let i = 0; i < 10; i++) expect(await server.open("127.0.0.2")).toBe(true);
  for (let i = 0; i < 5; i++) expect(await server.open("127.0.0.2")).toBe(false);
  expect(await server.open("127.0.0.3")).toBe(true);
  server.close(3);
  await until(async () => await server.open("127.0.0.2"));
});

test("a proxy that is trusted may have all", async () => {
  await using server = await start((address) => address === "127.0.0.2");
  for (let i = 0; i < 25; i++) expect(await server.open("127.0.0.2")).toBe(true);
  expect(await server.open("127.0.0.3")).toBe(true);
});
