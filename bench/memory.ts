import { setTimeout as delay } from "node:timers/promises";
import { load } from "./load.ts";
import { PROGRAMS } from "./programs.ts";
import { startServerProcess } from "./server-process.ts";
import { BENCH, median, OURS } from "./settings.ts";

const SAMPLES = 20;
const CONNECTIONS = 16;
const READINGS = 5;
const READING_PAUSE_MS = 200;

export interface MemorySample {
  readonly executions: number;
  /** Resident memory, bytes. */
  readonly server: number;
  readonly sandboxes: number;
}

/** Resident memory of server and sandboxes along `BENCH.executions` executions of all programs in turns. */
export async function measureMemory(log: (line: string) => void): Promise<MemorySample[]> {
  const server = await startServerProcess(OURS.args, OURS.env);
  try {
    const samples: MemorySample[] = [];
    const step = Math.max(CONNECTIONS, Math.ceil(BENCH.executions / SAMPLES));
    for (let executions = 0; executions <= BENCH.executions; executions += step) {
      if (executions > 0) {
        const programs = PROGRAMS.map((_, index) => index);
        await load({ url: server.url, programs, connections: CONNECTIONS, requests: step });
      }
      const readings: { server: number; children: number }[] = [];
      for (let reading = 0; reading < READINGS; reading++) {
        await delay(READING_PAUSE_MS);
        readings.push(server.residentBytes());
      }
      const sample = {
        executions,
        server: median(readings.map((reading) => reading.server)),
        sandboxes: median(readings.map((reading) => reading.children)),
      };
      samples.push(sample);
      const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(0);
      log(`memory after ${executions}: server ${mib(sample.server)} MiB, sandboxes ${mib(sample.sandboxes)} MiB`);
    }
    return samples;
  } finally {
    await server.stop();
  }
}

/** Largest departure from the memory after the first tenth of the executions, as a fraction of it: up is positive. */
export function drift(samples: readonly MemorySample[]): number {
  const total = (sample: MemorySample) => sample.server + sample.sandboxes;
  const warmUp = (samples.at(-1)?.executions ?? 0) / 10;
  const after = samples.filter((sample) => sample.executions >= warmUp);
  const base = total(after[0] as MemorySample);
  const departures = after.map((sample) => (total(sample) - base) / base);
  return departures.reduce((largest, value) => (Math.abs(value) > Math.abs(largest) ? value : largest), 0);
}
