import { once } from "node:events";
import { createServer } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import express from "express";
import { pino } from "pino";
import { expect, test } from "vitest";
import { until } from "../../../test/support/until.ts";
import { limitConnections, refuseBeyondConnections } from "./connection-limit.ts";
import { errorHandler } from "./error-handler.ts";

async function start(isProxy: (address: string) => boolean, probeMs = 60_000) {
  const app = express();
  app.use(refuseBeyondConnections((path) => path === "/health"));
  app.use((_request, response) => void response.send("ok"));
  app.use(errorHandler(pino({ level: "silent" })));
  const server = createServer(app);
  limitConnections(server, { maxConnections: 30, forProbes: 3, probeMs, maxOfNetwork: 10, isProxy });
  await once(server.listen(0, "127.0.0.1"), "listening");
  const { port } = server.address() as AddressInfo;
  const sockets: Socket[] = [];
  return {
    url: `http://127.0.0.1:${port}`,
    /** @returns whether a request has a reply on a connection of its own; null: without asking. */
    open: async (localAddress: string, path: string | null = "/") => {
      const socket = connect({ port, host: "127.0.0.1", localAddress }).on("error", () => {});
      sockets.push(socket);
      await once(socket, "connect");
      if (path === null) return once(socket, "close").then(() => false);
      socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`);
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

test("a server that has all its connections says how it is, and nothing else", async () => {
  await using server = await start(() => true);
  for (let i = 0; i < 30; i++) expect(await server.open("127.0.0.2")).toBe(true);
  for (let i = 0; i < 10; i++) {
    const health = await fetch(`${server.url}/health`);
    expect([health.status, health.headers.get("connection")]).toEqual([200, "close"]);
    const other = await fetch(`${server.url}/api/status`);
    expect([other.status, other.headers.get("connection")]).toEqual([503, "close"]);
    expect(await other.json()).toMatchObject({ code: "connection_limit" });
  }
  server.close(1);
  await until(async () => (await fetch(`${server.url}/api/status`).catch(() => null))?.status === 200);
});

test("connections for probes on which nothing is asked are closed, so that they keep none out for long", async () => {
  await using server = await start(() => true, 100);
  for (let i = 0; i < 30; i++) expect(await server.open("127.0.0.2")).toBe(true);
  const silent = [1, 2, 3].map(() => server.open("127.0.0.2", null));
  expect(await Promise.all(silent)).toEqual([false, false, false]);
});
