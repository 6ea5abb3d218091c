/**
 * `npm run bench:protocols`: how long clients of other servers wait for their first result, on a warm server, one after another: the real
 * client, unchanged, makes what it runs code in, and runs code in it. Without files between: those of this machine's disk.
 *
 * BENCH_ROUNDS and BENCH_SECONDS do not matter; BENCH_COUNT says how many of each (200). The environment is the standard library, or what BENCH_PACKAGES names.
 */
import { rm } from "node:fs/promises";
import os from "node:os";
import { Sandbox } from "@e2b/code-interpreter";
import { toTable } from "./report.ts";
import { startServerProcess } from "./server-process.ts";
import { OURS } from "./settings.ts";

const COUNT = Number(process.env.BENCH_COUNT ?? 200);
const WARM_UP = 20;
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

async function measure(client: Client, url: string): Promise<Measured[]> {
  const all = new Map<string, number[]>();
  for (let n = 0; n < WARM_UP + COUNT; n++) {
    const times = await client(url);
    if (n < WARM_UP) continue;
    for (const [what, ms] of Object.entries(times)) all.set(what, [...(all.get(what) ?? []), ms]);
  }
  return Array.from(all, ([what, times]) => ({ what, times: times.sort((x, y) => x - y) }));
}

const at = (times: readonly number[], share: number) => (times[Math.floor(times.length * share)] ?? 0).toFixed(1);

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
  console.log(`${COUNT} of each, ${os.cpus().length} processors, Node ${process.version}\n`);
  console.log(toTable(["client", "what it waits for", "p50 ms", "p95 ms", "p99 ms"], rows));
} finally {
  await server.stop();
  await rm(folder, { recursive: true, force: true });
}
