import { type LoadResult, load } from "./load.ts";
import { PROGRAMS } from "./programs.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { BENCH, median, OURS } from "./settings.ts";

const WARM_UP_SECONDS = 1;
export const CONNECTIONS = [1, 16] as const;

export const SERVERS = [
  { id: "ours", name: "pyodide-express: pristine, contained", ...OURS },
  {
    id: "shared",
    name: "Express + Pyodide, shared globals: isolates nothing",
    args: ["bench/peers/shared-globals.ts"],
    env: {},
  },
  {
    id: "process",
    name: "Express + `python3 -I -c` for each request: pristine, not contained",
    args: ["bench/peers/python-process.ts"],
    env: {},
  },
] as const;

export type ServerId = (typeof SERVERS)[number]["id"];

/** Medians over the rounds. */
export interface Throughput {
  readonly program: string;
  readonly connections: number;
  readonly results: Readonly<Record<ServerId, LoadResult>>;
}

/** Every server with every program; rounds take turns, so that a slow minute of the machine hits all alike. */
export async function measureThroughput(log: (line: string) => void): Promise<Throughput[]> {
  const running = {} as Record<ServerId, ServerProcess>;
  try {
    for (const { id, args, env } of SERVERS) running[id] = await startServerProcess(args, env);
    const table: Throughput[] = [];
    for (const [index, program] of PROGRAMS.entries()) {
      for (const connections of CONNECTIONS) {
        const rounds: Record<ServerId, LoadResult[]> = { ours: [], shared: [], process: [] };
        for (let round = 0; round <= BENCH.rounds; round++) {
          const isWarmUp = round === 0;
          for (const { id } of SERVERS) {
            const seconds = isWarmUp ? WARM_UP_SECONDS : BENCH.seconds;
            const result = await load({ url: running[id].url, programs: [index], connections, seconds });
            if (!isWarmUp) rounds[id].push(result);
          }
        }
        const results = {
          ours: medians(rounds.ours),
          shared: medians(rounds.shared),
          process: medians(rounds.process),
        };
        table.push({ program: program.name, connections, results });
        const rates = SERVERS.map(({ id }) => `${id} ${results[id].requestsPerSecond.toFixed(0)}/s`);
        log(`throughput, ${program.name}, ${connections} connections: ${rates.join(", ")}`);
      }
    }
    return table;
  } finally {
    await Promise.all(Object.values(running).map((server) => server.stop()));
  }
}

function medians(rounds: readonly LoadResult[]): LoadResult {
  const of = (key: keyof LoadResult) => median(rounds.map((round) => round[key]));
  return {
    requestsPerSecond: of("requestsPerSecond"),
    latencyP50Ms: of("latencyP50Ms"),
    latencyP99Ms: of("latencyP99Ms"),
    requests: of("requests"),
  };
}
