import { load } from "./load.ts";
import { PROGRAMS } from "./programs.ts";
import type { Section } from "./report.ts";
import { startServerProcess } from "./server-process.ts";
import { BENCH, median, OURS, oursWith } from "./settings.ts";

const SAMPLES = 20;
const CONNECTIONS = 16;

export interface Soak {
  readonly section: Section;
  readonly executions: number;
  /** Largest departure from the memory after the first fifth, as a fraction of it. */
  readonly drift: number;
}

/** Resident memory of server and sandboxes under load, all programs in turns. */
export async function measureSoak(log: (line: string) => void): Promise<Soak> {
  const server = await startServerProcess(OURS.args, oursWith("soak"));
  try {
    const samples: { executions: number; server: number; sandboxes: number }[] = [];
    let executions = 0;
    for (let sample = 0; sample <= SAMPLES; sample++) {
      if (sample > 0) {
        const seconds = Math.max(1, Math.round(BENCH.soakSeconds / SAMPLES));
        const program = sample % PROGRAMS.length;
        executions += (await load({ url: server.url, program, connections: CONNECTIONS, seconds })).good;
      }
      const readings = Array.from({ length: 3 }, () => server.residentBytes());
      samples.push({
        executions,
        server: median(readings.map(({ server }) => server)) / 2 ** 20,
        sandboxes: median(readings.map(({ children }) => children)) / 2 ** 20,
      });
    }
    const after = samples.slice(Math.floor(SAMPLES / 5)).map(({ server, sandboxes }) => server + sandboxes);
    const base = after[0] ?? 1;
    const drift = after.map((sum) => (sum - base) / base).reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0);
    log(`soak: ${executions} executions, drift ${(drift * 100).toFixed(1)} %`);
    return {
      executions,
      drift,
      section: {
        id: "soak",
        title: "Soak",
        note: `Resident memory (VmRSS) over ${BENCH.soakSeconds} s at ${CONNECTIONS} connections, ${executions} executions; BENCH_SOAK_SECONDS=1800 is half an hour. Shared pages count in each process.`,
        tables: [
          {
            title: "Resident memory by executions",
            unit: "MiB",
            chart: "lines",
            columns: samples.map(({ executions }) => String(executions)),
            rows: [
              { name: "server", values: samples.map(({ server }) => server) },
              { name: "sandboxes", values: samples.map(({ sandboxes }) => sandboxes) },
            ],
          },
        ],
      },
    };
  } finally {
    await server.stop();
  }
}
