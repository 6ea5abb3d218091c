import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { WebSocket } from "ws";
import { startServerProcess } from "./server-process.ts";
import { median, OURS, oursWith } from "./settings.ts";
import { post } from "./tool-clients.ts";

/** Executions that wait at a time: each holds a sandbox. */
export const WAITING = 4;

/** Of each waiting execution, bytes. */
export interface WaitingMemory {
  /** More of the server's resident memory than without it. */
  readonly server: number;
  /** More of the server's heap, garbage collected. */
  readonly heap: number;
  /** More of a sandbox's resident memory than while it is idle. */
  readonly sandbox: number;
  /** All of the sandbox that it holds, resident. */
  readonly held: number;
}

/** What {@link WAITING} executions take that wait for their client, by difference: of each round, without those that begin with it. */
export async function measureWaiting(rounds: number): Promise<WaitingMemory> {
  const port = await freePort();
  const env = oursWith("waiting", { POOL_SIZE: String(WAITING + 1) });
  const server = await startServerProcess([`--inspect=127.0.0.1:${port}`, ...OURS.args], env);
  try {
    const heap = await Heap.open(port);
    const facts = async () => {
      const heapBytes = await heap.bytes();
      return { heap: heapBytes, ...server.residentBytes() };
    };
    const all: WaitingMemory[] = [];
    // The first round warms up: each sandbox has run code by then.
    for (let round = 0; round <= rounds; round++) {
      const before = await facts();
      const body = { code: "echo(value=1)", tools: [{ name: "echo" }] };
      const replies = await Promise.all(Array.from({ length: WAITING }, () => post(`${server.url}/api/execute`, body)));
      const during = await facts();
      await Promise.all(
        replies.map(({ continuation, toolCalls: [{ id }] }) =>
          post(`${server.url}/api/executions/${continuation}`, { results: [{ id, result: 1 }] }),
        ),
      );
      if (round === 0) continue;
      all.push({
        server: (during.server - before.server) / WAITING,
        heap: (during.heap - before.heap) / WAITING,
        sandbox: (during.children - before.children) / WAITING,
        held: during.children / (WAITING + 1),
      });
    }
    heap.close();
    const of = (name: keyof WaitingMemory) => median(all.map((measured) => measured[name]));
    return { server: of("server"), heap: of("heap"), sandbox: of("sandbox"), held: of("held") };
  } finally {
    await server.stop();
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, "close");
  return port;
}

/** The heap of a Node that was started with `--inspect`: https://chromedevtools.github.io/devtools-protocol/v8/. */
class Heap {
  readonly #socket: WebSocket;
  #id = 0;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
  }

  static async open(port: number): Promise<Heap> {
    const response = await fetch(`http://127.0.0.1:${port}/json/list`);
    const [target] = (await response.json()) as { webSocketDebuggerUrl: string }[];
    const socket = new WebSocket(target?.webSocketDebuggerUrl ?? "");
    await once(socket, "open");
    return new Heap(socket);
  }

  /** What is in use once garbage is collected. */
  async bytes(): Promise<number> {
    await this.#ask("HeapProfiler.collectGarbage");
    return (await this.#ask("Runtime.getHeapUsage")).usedSize as number;
  }

  close(): void {
    this.#socket.close();
  }

  async #ask(method: string): Promise<Record<string, unknown>> {
    const id = ++this.#id;
    this.#socket.send(JSON.stringify({ id, method }));
    for (;;) {
      const [data] = await once(this.#socket, "message");
      const answer = JSON.parse(String(data));
      if (answer.id === id) return answer.result;
    }
  }
}
