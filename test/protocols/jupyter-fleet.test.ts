/** Kernels of several servers on one Redis. */
import { KernelManager } from "@jupyterlab/services";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { JupyterSocket, jupyterSettings, runCell } from "../support/jupyter.ts";
import { hasRedis, startRedis, type TestRedis } from "../support/redis.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

if (!hasRedis) console.warn("There is no redis-server on this machine: its tests are skipped.");
// What the library says of its connections.
for (const method of ["debug", "log", "warn", "error"] as const) vi.spyOn(console, method).mockImplementation(() => {});

describe.skipIf(!hasRedis)("kernels on a fleet", () => {
  let redis: TestRedis;
  let a: TestServer;
  let b: TestServer;
  const settings = () => ({ REDIS_URL: redis.url, SESSION_DURABILITY: "commit" });
  const opened: { dispose(): void }[] = [];

  beforeAll(async () => {
    redis = await startRedis();
    [a, b] = await Promise.all([startTestServer(settings()), startTestServer(settings())]);
  });
  afterAll(async () => {
    for (const manager of opened) manager.dispose();
    await Promise.all([a?.stop(0), b?.stop(0)]);
    await redis?.stop();
  });

  function managerOf(server: TestServer): KernelManager {
    const manager = new KernelManager({ serverSettings: jupyterSettings(server.url) });
    opened.push(manager);
    return manager;
  }

  const printed = (text: string) => ["stream", { name: "stdout", text }];

  test("are reached on every server, with their variables, files and numbers", async () => {
    const kernel = await managerOf(a).startNew({ name: "python3" });
    await runCell(kernel, "x = 42\nopen('f.txt', 'w').write('file')");
    const others = managerOf(b);
    await others.refreshRunning();
    const model = Array.from(others.running()).find(({ id }) => id === kernel.id);
    expect(model).toMatchObject({ id: kernel.id, name: "python3", execution_state: "idle" });
    const other = others.connectTo({ model: { id: kernel.id, name: "python3" } });
    const { outputs, reply } = await runCell(other, "print(x, open('f.txt').read())\nx = 43");
    expect([outputs[1], reply.execution_count]).toEqual([printed("42 file\n"), 2]);
    expect((await runCell(kernel, "print(x)")).outputs[1]).toEqual(printed("43\n"));
    expect((await other.requestComplete({ code: "x.bit_len", cursor_pos: 9 })).content).toMatchObject({
      matches: ["bit_length"],
    });
    // What one ends is gone on the other.
    await other.shutdown();
    expect((await a.get(`/api/kernels/${kernel.id}`)).status).toBe(404);
  });

  test("are interrupted and restarted by another server than the one that runs their code", async () => {
    const kernel = await managerOf(a).startNew({ name: "python3" });
    await runCell(kernel, "x = 1");
    for (const [action, ename] of [
      ["interrupt", "KeyboardInterrupt"],
      ["restart", expect.any(String)],
    ] as const) {
      const running = kernel.requestExecute({ code: "print('begun', flush=True)\nwhile True: pass" });
      const begun = Promise.withResolvers<void>();
      running.onIOPub = ({ header }) => {
        if (header.msg_type === "stream") begun.resolve();
      };
      await begun.promise;
      const { status } = await b.post(`/api/kernels/${kernel.id}/${action}`, {});
      expect(status).toBe(action === "interrupt" ? 204 : 200);
      expect((await running.done).content).toMatchObject({ status: "error", ename });
    }
    expect((await runCell(kernel, "x")).reply).toMatchObject({ ename: "NameError", execution_count: 1 });
  });

  test("outlive the server that they were made on, and are there when it is back", async () => {
    const before = await startTestServer(settings());
    const { body } = await before.post("/api/kernels", { name: "python3" });
    const path = `/api/kernels/${body.id}/channels`;
    const socket = await JupyterSocket.open(before.url, path);
    await socket.ask("execute_request", { code: "x = [1, 2]\ndef f(): return x" });
    await before.stop(1000);
    expect((await socket.closed).code).toBe(1001);
    const elsewhere = await JupyterSocket.open(b.url, path);
    expect((await elsewhere.ask("execute_request", { code: "x.append(3)\nprint(f())" })).outputs.at(-1)).toEqual(
      printed("[1, 2, 3]\n"),
    );
    elsewhere.close();
    const after = await startTestServer(settings());
    try {
      const again = await JupyterSocket.open(after.url, path);
      const { outputs, reply } = await again.ask("execute_request", { code: "print(f())" });
      expect([outputs.at(-1), reply.execution_count]).toEqual([printed("[1, 2, 3]\n"), 3]);
    } finally {
      await after.stop(0);
    }
  });
});
