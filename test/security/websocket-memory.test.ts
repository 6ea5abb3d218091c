import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { py } from "../support/engine.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";
import { SocketClient, type SocketEvent } from "../support/web-socket.ts";

const MIB = 2 ** 20;

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ POOL_SIZE: "2", QUEUE_LIMIT: "10000", RATE_LIMIT_MAX_REQUESTS: "0" });
});
afterAll(async () => await server.stop(0));

/** What the server's process holds, in this process, after a collection where it can be asked for. */
function heldBytes(): number {
  (globalThis as { gc?: () => void }).gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

describe("the server's memory", () => {
  test("a client that does not read costs what a log may hold; it is told what it has lost, and has the last", async () => {
    const client = await SocketClient.open(server.url);
    await client.next({ type: "ready" });
    // The control: one that reads loses nothing of the same.
    const reading = await SocketClient.open(server.url);
    const code = py`
      for _ in range(9):
          display({"text/plain": "x" * 1_000_000}, raw=True)
      i`;
    client.socket.pause();
    for (let i = 0; i < 6; i++) {
      client.send({ type: "execute", execution: `e${i}`, code, context: { i } });
      reading.send({ type: "execute", execution: `e${i}`, code, context: { i } });
      await reading.next({ type: "result", execution: `e${i}` });
    }
    // It ran, although nothing was read: what waits is events.
    await until(async () => (await server.get("/api/status")).body.pool.busy === 0);
    client.socket.resume();
    const last = await client.next({ type: "result", execution: "e5" });
    expect(last).toMatchObject({ result: 5, outputs: expect.objectContaining({ length: 9 }) });
    const lost = client.events.filter(({ type }) => type === "lost");
    expect(lost.length).toBeGreaterThan(0);
    const seqs = client.events.flatMap(({ type, seq, from, to }: SocketEvent) =>
      type === "lost" ? Array.from({ length: to - from + 1 }, (_, i) => from + i) : seq === undefined ? [] : [seq],
    );
    expect(seqs).toEqual(Array.from({ length: seqs.length }, (_, i) => i + 1));
    expect(reading.events.some(({ type }) => type === "lost")).toBe(false);
    client.close();
    reading.close();
  });

  /** Both sandboxes are taken until it closes: what else is asked for waits. */
  async function holdAll(): Promise<SocketClient> {
    const client = await SocketClient.open(server.url);
    for (const execution of ["h1", "h2"]) {
      client.send({ type: "execute", execution, code: "import time\ntime.sleep(250)", timeout: 300_000 });
      await client.next({ type: "status", status: "running", execution });
    }
    return client;
  }

  const answered = ({ events }: SocketClient) => events.filter(({ type }) => type === "error" || type === "status");

  test("executions that wait, with what came with them, are bounded for a principal", async () => {
    const holder = await holdAll();
    const clients = await Promise.all(Array.from({ length: 4 }, () => SocketClient.open(server.url)));
    const stdin = "x".repeat(1_000_000);
    for (const client of clients) {
      for (let i = 0; i < 100; i++) client.send({ type: "execute", execution: `w${i}`, code: "1", stdin });
    }
    await until(async () => clients.every((client) => answered(client).length >= 100));
    const refused = clients.flatMap(({ events }) => events.filter(({ type }) => type === "error"));
    expect(new Set(refused.map(({ code }) => code))).toEqual(new Set(["too_much_held"]));
    expect((400 - refused.length) * stdin.length).toBeLessThanOrEqual(256 * MIB);
    for (const client of clients) client.close();
    await Promise.all(clients.map(({ closed }) => closed));
    // What they held is given back: as much is taken again.
    const again = await SocketClient.open(server.url);
    for (let i = 0; i < 100; i++) again.send({ type: "execute", execution: `w${i}`, code: "1", stdin });
    await until(async () => answered(again).length >= 100);
    expect(again.events.some(({ type }) => type === "error")).toBe(false);
    for (const client of [again, holder]) client.close();
    await until(async () => (await server.get("/api/status")).body.pool.busy === 0);
  });

  test("1,900 executions that wait take some kilobytes each", async () => {
    const holder = await holdAll();
    const clients = await Promise.all(Array.from({ length: 19 }, () => SocketClient.open(server.url)));
    const before = heldBytes();
    for (const client of clients) {
      for (let i = 0; i < 100; i++) client.send({ type: "execute", execution: `w${i}`, code: "1" });
    }
    await until(async () => clients.every((client) => answered(client).length >= 100));
    expect(clients.flatMap(({ events }) => events).some(({ type }) => type === "error")).toBe(false);
    const each = (heldBytes() - before) / 1900;
    if (process.env.FIGURES) console.log(`${Math.round(each)} bytes for each execution that waits`);
    // Without a collection what is garbage counts, too.
    expect(each).toBeLessThan(100_000);
    expect((await server.get("/health")).status).toBe(200);
    for (const client of [...clients, holder]) client.close();
    await until(async () => (await server.get("/api/status")).body.pool.busy === 0);
  });
});
