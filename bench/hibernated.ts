import type { Section } from "./report.ts";
import { startServerProcess } from "./server-process.ts";
import { measureDurability } from "./session-durability.ts";
import { BENCH, median, OURS, oursWith } from "./settings.ts";

const WAKES = 30;
const AT_A_TIME = 8;

/** What an execution in a session takes: resident, stored before or behind its reply, and woken from among ever more of them. */
export async function measureSessions(log: (line: string) => void, skipped: string[]): Promise<Section> {
  const durability = await measureDurability();
  if (!durability.some(({ name }) => name.includes("Redis")))
    skipped.push("sessions in Redis: there is no redis-server");
  for (const { name, p50, ratio } of durability) log(`${name}: p50 ${p50.toFixed(2)} ms, ${ratio.toFixed(2)} ×`);
  const wakes = await measureWakes(log);
  return {
    id: "sessions",
    title: "Sessions",
    note: "One connection. Limit: a stored execution waits for the disk once, 0.1–0.2 ms on this kind of virtual machine, 0.5–5 ms on others.",
    tables: [
      {
        title: "Execution in a session",
        unit: "ms",
        chart: "none",
        columns: ["p50", "p99", "× stateless, p50"],
        rows: durability.map(({ name, p50, p99, ratio }) => ({ name, values: [p50, p99, ratio] })),
      },
      {
        title: "Wake from disk to the answer of `1`, by sessions that are stored",
        unit: "ms",
        chart: "lines",
        columns: wakes.map(({ sessions }) => String(sessions)),
        rows: [
          { name: "median", values: wakes.map(({ medianMs }) => medianMs) },
          { name: "slowest", values: wakes.map(({ slowestMs }) => slowestMs) },
        ],
      },
    ],
  };
}

async function measureWakes(log: (line: string) => void) {
  const env = { POOL_SIZE: "2", SESSIONS_PER_PRINCIPAL: String(Math.max(...BENCH.hibernated) + 10) };
  const server = await startServerProcess(OURS.args, oursWith("hibernated", env));
  const post = async (route: string, body: object) => {
    const headers = { "content-type": "application/json" };
    const response = await fetch(server.url + route, { method: "POST", headers, body: JSON.stringify(body) });
    const reply = (await response.json()) as { success: boolean; session?: { id: string } };
    if (!reply.success) throw new Error(JSON.stringify(reply));
    return reply;
  };
  try {
    const ids: string[] = [];
    const results: { sessions: number; medianMs: number; slowestMs: number }[] = [];
    for (const sessions of BENCH.hibernated) {
      const add = async () => {
        while (ids.length < sessions) {
          const at = ids.push("") - 1;
          const { session } = await post("/api/sessions", {});
          ids[at] = session?.id ?? "";
          await post("/api/execute", { session: ids[at], code: `x = ${at}\ndef f(): return x` });
        }
      };
      await Promise.all(Array.from({ length: AT_A_TIME }, add));
      const times: number[] = [];
      for (let i = 0; i < WAKES; i++) {
        const session = ids[Math.floor((i * ids.length) / WAKES) % ids.length];
        const startedAt = performance.now();
        await post("/api/execute", { session, code: "1" });
        times.push(performance.now() - startedAt);
      }
      results.push({ sessions, medianMs: median(times), slowestMs: Math.max(...times) });
      log(`wake among ${sessions}: ${median(times).toFixed(1)} ms`);
    }
    return results;
  } finally {
    await server.stop();
  }
}
