import { setTimeout as delay } from "node:timers/promises";
import type { Section } from "./report.ts";
import { startServerProcess } from "./server-process.ts";
import { BENCH, OURS, oursWith } from "./settings.ts";
import { wrk } from "./wrk.ts";

const POOL_SIZE = 2;
const QUEUE_LIMIT = 16;
/** As many as the server holds, twice and 25 times as many. */
const HELD = POOL_SIZE + QUEUE_LIMIT;
const LOADS = [
  { name: "as many connections as are held", connections: HELD },
  { name: "2 × as many, retrying at once", connections: 2 * HELD },
  { name: "25 × as many, retrying at once", connections: 25 * HELD },
];

/** What is left of throughput when more ask than are answered, by clients that ignore `Retry-After`; and what a client meets that does not. */
export async function measureOverload(log: (line: string) => void): Promise<Section> {
  const env = oursWith("overload", { POOL_SIZE: String(POOL_SIZE), QUEUE_LIMIT: String(QUEUE_LIMIT) });
  const server = await startServerProcess(OURS.args, env);
  const seconds = Math.max(2, 2 * BENCH.seconds);
  try {
    const body = { code: "1+1" };
    await wrk({ url: server.url, connections: POOL_SIZE, seconds: 2, body });
    const rows: { name: string; values: (number | null)[] }[] = [];
    let peak = 0;
    for (const { name, connections } of LOADS) {
      const politeMs: number[] = [];
      let isOver = false;
      const polite = (async () => {
        while (!isOver) {
          politeMs.push(...(await refusalMs(server.url)));
          await delay(50);
        }
      })();
      const result = await wrk({ url: server.url, connections, seconds, body });
      isOver = true;
      await polite;
      peak ||= result.goodPerSecond;
      const sorted = politeMs.toSorted((a, b) => a - b);
      const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? null;
      rows.push({
        name,
        values: [result.goodPerSecond, result.goodPerSecond / peak, result.refused / result.seconds, at(0.5), at(0.99)],
      });
      log(`overload, ${name}: ${result.goodPerSecond.toFixed(0)}/s good, ${result.refused} refused`);
    }
    return {
      id: "overload",
      title: "Overload",
      note: `\`1+1\`, POOL_SIZE=${POOL_SIZE}, QUEUE_LIMIT=${QUEUE_LIMIT}, ${seconds} s each. Beside them one client asks every 50 ms over a connection of its own: how long its refusals take. Limit: on two cores each refusal takes processor time from the sandboxes.`,
      tables: [
        {
          title: "Answered and refused",
          unit: "see columns",
          chart: "none",
          columns: ["answered/s", "of the peak", "refused/s", "refusal p50, ms", "refusal p99, ms"],
          rows,
        },
      ],
    };
  } finally {
    await server.stop();
  }
}

/** @returns how long a refusal took; none if there was an answer. */
async function refusalMs(url: string): Promise<number[]> {
  const startedAt = performance.now();
  try {
    const headers = { "content-type": "application/json", connection: "close" };
    const response = await fetch(`${url}/api/execute`, { method: "POST", headers, body: '{"code":"1"}' });
    await response.arrayBuffer();
    return response.status === 429 ? [performance.now() - startedAt] : [];
  } catch {
    return [];
  }
}
