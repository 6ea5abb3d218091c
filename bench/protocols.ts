/**
 * `npm run bench:protocols`: how long clients of other servers wait for their first result, on a warm server, one after another: the real
 * client, unchanged, makes what it runs code in, and runs code in it. Without files between: those of this machine's disk. JupyterLab's
 * client does the same at Debian's Jupyter server with its ipykernel, where that is installed: a kernel of ours and one of its, in turn.
 *
 * BENCH_ROUNDS and BENCH_SECONDS do not matter; BENCH_COUNT says how many of each (200), a tenth of it of ipykernel's.
 */
import { rm } from "node:fs/promises";
import os from "node:os";
import { Sandbox } from "@e2b/code-interpreter";
import { KernelManager, type ServerConnection } from "@jupyterlab/services";
import { jupyterSettings, runCell } from "../test/support/jupyter.ts";
import { hasJupyterServer, startJupyterServer } from "../test/support/jupyter-server.ts";
import { toTable } from "./report.ts";
import { startServerProcess } from "./server-process.ts";
import { OURS } from "./settings.ts";

const COUNT = Number(process.env.BENCH_COUNT ?? 200);
const WARM_UP = 20;
/** As often one of ipykernel's, which takes its second. */
const PEER_SHARE = 10;
const KEY = "a-key-of-the-benchmark";

interface Measured {
  readonly what: string;
  /** ms, each. */
  readonly times: number[];
}

/** A client, and the parts of what it waits for: the whole first. */
type Client = (url: string) => Promise<Record<string, number>>;

const CLIENTS: Readonly<Record<string, Client>> = {
  "E2B: new sandbox": async (url) => {
    const connection = { apiUrl: url, sandboxUrl: url, apiKey: KEY, validateApiKey: false };
    const startedAt = performance.now();
    const sandbox = await Sandbox.create(connection);
    const createdAt = performance.now();
    const { text } = await sandbox.runCode("6 * 7");
    const ranAt = performance.now();
    if (text !== "42") throw new Error(`the result is ${text}`);
    await sandbox.runCode("1");
    const endedAt = performance.now();
    await sandbox.kill();
    return {
      "create → first result": ranAt - startedAt,
      create: createdAt - startedAt,
      "first runCode": ranAt - createdAt,
      "second runCode": endedAt - ranAt,
    };
  },
};

/** JupyterLab's library. */
async function kernelStart(serverSettings: ServerConnection.ISettings): Promise<Record<string, number>> {
  const manager = new KernelManager({ serverSettings });
  try {
    const startedAt = performance.now();
    const kernel = await manager.startNew({ name: "python3" });
    const madeAt = performance.now();
    const { outputs } = await runCell(kernel, "6 * 7");
    const ranAt = performance.now();
    const value = outputs.at(-1)?.[1].data?.["text/plain"];
    if (value !== "42") throw new Error(`the result is ${value}`);
    await runCell(kernel, "1");
    const endedAt = performance.now();
    await kernel.shutdown();
    return {
      "startNew → first result": ranAt - startedAt,
      startNew: madeAt - startedAt,
      "first cell": ranAt - madeAt,
      "second cell": endedAt - ranAt,
    };
  } finally {
    manager.dispose();
  }
}

class Samples {
  readonly #all = new Map<string, number[]>();

  add(times: Readonly<Record<string, number>>): void {
    for (const [what, ms] of Object.entries(times)) this.#all.set(what, [...(this.#all.get(what) ?? []), ms]);
  }

  sorted(): readonly Measured[] {
    return Array.from(this.#all, ([what, times]) => ({ what, times: times.sort((x, y) => x - y) }));
  }
}

async function measure(client: Client, url: string): Promise<readonly Measured[]> {
  const samples = new Samples();
  for (let n = 0; n < WARM_UP + COUNT; n++) {
    const times = await client(url);
    if (n >= WARM_UP) samples.add(times);
  }
  return samples.sorted();
}

/** Ours and ipykernel's in turn, so that what else the machine does is the same for both. */
async function measureKernels(url: string): Promise<readonly (readonly [string, readonly Measured[]])[]> {
  const ours = new Samples();
  const theirs = new Samples();
  if (!hasJupyterServer)
    console.warn("There is no python3-jupyter-server with python3-ipykernel on this machine: only ours is measured.");
  const peer = hasJupyterServer ? await startJupyterServer() : null;
  try {
    for (let n = 0; n < WARM_UP + COUNT; n++) {
      const times = await kernelStart(jupyterSettings(url, KEY));
      if (n >= WARM_UP) ours.add(times);
      if (peer !== null && n % PEER_SHARE === 0) {
        const peerTimes = await kernelStart(jupyterSettings(peer.url, peer.token, ""));
        if (n >= WARM_UP) theirs.add(peerTimes);
      }
    }
  } finally {
    await peer?.stop();
  }
  return [
    ["JupyterLab: new kernel", ours.sorted()],
    ["JupyterLab: new ipykernel", theirs.sorted()],
  ];
}

const at = (times: readonly number[], share: number) => (times[Math.floor(times.length * share)] ?? 0).toFixed(1);

// JupyterLab's library says on the console what becomes of its connections.
for (const method of ["debug", "info"] as const) console[method] = () => {};

const folder = `${OURS.env.DATA_DIR}/protocols`;
const server = await startServerProcess(OURS.args, {
  ...OURS.env,
  DATA_DIR: folder,
  API_KEYS: `bench:${KEY}`,
  RATE_LIMIT_MAX_REQUESTS: "1000000",
});
try {
  const rows: string[][] = [];
  for (const [name, client] of Object.entries(CLIENTS)) {
    for (const { what, times } of await measure(client, server.url))
      rows.push([name, what, at(times, 0.5), at(times, 0.95), at(times, 0.99)]);
  }
  for (const [name, measured] of await measureKernels(server.url))
    for (const { what, times } of measured) rows.push([name, what, at(times, 0.5), at(times, 0.95), at(times, 0.99)]);
  console.log(`${COUNT} of each, ${os.cpus().length} processors, Node ${process.version}\n`);
  console.log(toTable(["client", "what it waits for", "p50 ms", "p95 ms", "p99 ms"], rows));
} finally {
  await server.stop();
  await rm(folder, { recursive: true, force: true });
}
