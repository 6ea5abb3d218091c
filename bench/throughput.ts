import { spawnSync } from "node:child_process";
import { mkdir } from "node:fs/promises";
import os from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { type CpuUse, cpuOf, perRequest, totalOf } from "./cpu.ts";
import { type LoadResult, load } from "./load.ts";
import { PROGRAMS } from "./programs.ts";
import type { Section, Table } from "./report.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { BENCH, median, OURS, oursWith, PYTHON } from "./settings.ts";

const WARM_UP_SECONDS = 2;
const LOOK_MS = 300;
/** A minute: more is not waited for. */
const MAX_LOOKS = 200;
const MIN_IDLE = 0.9;

interface Contender {
  readonly id: string;
  readonly name: string;
  start(): Promise<ServerProcess>;
}

const env = oursWith("throughput");

export const CONTENDERS: readonly Contender[] = [
  { id: "ours", name: "pyodide-express: pristine, contained", start: () => startServerProcess(OURS.args, env) },
  {
    id: "shared",
    name: "Express + Pyodide, shared globals: isolates nothing",
    start: () => startServerProcess(["bench/peers/shared-globals.ts"]),
  },
  {
    id: "process",
    name: "Express + python3 for each request: not contained",
    start: () => startServerProcess(["bench/peers/python-process.ts"]),
  },
  {
    id: "deno",
    name: "Express + Deno + Pyodide for each request",
    start: () => startServerProcess(["bench/peers/deno-process.ts"], env),
  },
  {
    id: "fork",
    name: "warm python3, forked for each request: not contained",
    start: () => startServerProcess(["bench/peers/python_server.py", "fork"], {}, PYTHON),
  },
  {
    id: "kernel",
    name: "ipykernel of Debian: one session for all",
    start: () => startServerProcess(["bench/peers/python_server.py", "kernel"], {}, "/usr/bin/python3"),
  },
];

type Measured = LoadResult & { readonly cpu: CpuUse };

/** Every server with every program; rounds take turns, so that a slow minute of the machine hits all alike. */
export async function measureThroughput(log: (line: string) => void, skipped: string[]): Promise<Section> {
  await mkdir(env.DATA_DIR as string, { recursive: true });
  const present = CONTENDERS.filter(({ id }) => id !== "kernel" || hasKernel());
  if (present.length < CONTENDERS.length)
    skipped.push("ipykernel: Debian's is not installed (`apt-get install python3-ipykernel`)");
  const running: { readonly id: string; readonly name: string; readonly server: ServerProcess }[] = [];
  const tables: Table[] = [];
  try {
    for (const { id, name, start } of present) running.push({ id, name, server: await start() });
    for (const [program, { name: title }] of PROGRAMS.entries()) {
      const results = new Map<string, Measured[]>();
      for (const { server } of running) {
        await quiet();
        await load({ url: server.url, program, connections: 4, seconds: WARM_UP_SECONDS, checked: true });
      }
      for (const connections of BENCH.connections) {
        const rounds = new Map<string, Measured[]>(running.map(({ id }) => [id, []]));
        for (let round = 0; round < BENCH.rounds; round++)
          for (const { id, server } of running) {
            await quiet();
            const before = cpuOf(server.pid);
            const result = await load({ url: server.url, program, connections, seconds: BENCH.seconds });
            rounds.get(id)?.push({ ...result, cpu: perRequest(before, cpuOf(server.pid), result.good) });
          }
        for (const [id, all] of rounds) results.set(id, [...(results.get(id) ?? []), medians(all)]);
        log(
          `${title}, ${connections}: ${running.map(({ id }) => `${id} ${results.get(id)?.at(-1)?.goodPerSecond.toFixed(0)}/s`).join(", ")}`,
        );
      }
      const table = (
        of: string,
        unit: string,
        chart: Table["chart"],
        value: (measured: Measured) => number,
      ): Table => ({
        title: `${title}: ${of}`,
        unit,
        chart,
        columns: BENCH.connections.map((count) => `${count} connection${count === 1 ? "" : "s"}`),
        rows: running.map(({ id, name }) => ({ name, values: (results.get(id) ?? []).map(value) })),
      });
      tables.push(
        table("throughput", "requests/s", "bars", ({ goodPerSecond }) => goodPerSecond),
        table("p50", "ms", "none", ({ p50Ms }) => p50Ms),
        table("p99", "ms", "none", ({ p99Ms }) => p99Ms),
        table("processor time of a request, server and all below it", "ms", "bars", ({ cpu }) => totalOf(cpu)),
        table("processor time of the generator itself", "ms", "none", ({ generatorCpuMs }) => generatorCpuMs),
      );
    }
  } finally {
    await Promise.all(running.map(({ server }) => server.stop()));
  }
  return {
    id: "throughput",
    title: "Throughput",
    note:
      `Medians of ${BENCH.rounds} rounds of ${BENCH.seconds} s in turns, after ${WARM_UP_SECONDS} s in which each reply was checked. All servers get the same code; \`1+1\` is sent as \`print(1+1)\`, since a python3 process can answer only by printing. ` +
      "Processor time counts processes that are still there: of a process for each request, the server's part alone. Limits: Express with a JSON body takes 0.11–0.13 ms of processor time, node:http 0.04, a hot `1+1` in Pyodide 0.12, fork and exit of python3 about 1, its start 10–20.",
    tables,
  };
}

function hasKernel(): boolean {
  return spawnSync("/usr/bin/python3", ["-c", "import ipykernel, jupyter_client"]).status === 0;
}

/** Waits until the machine has nothing to do: a server that queues goes on with what its clients have given up. */
async function quiet(): Promise<void> {
  for (let look = 0; look < MAX_LOOKS; look++) {
    const before = processorTimes();
    await sleep(LOOK_MS);
    const after = processorTimes();
    if ((after.idle - before.idle) / (after.all - before.all) > MIN_IDLE) return;
  }
}

function processorTimes(): { readonly idle: number; readonly all: number } {
  const times = os.cpus().map(({ times }) => times);
  const idle = times.reduce((sum, { idle }) => sum + idle, 0);
  return { idle, all: times.reduce((sum, { user, nice, sys, idle, irq }) => sum + user + nice + sys + idle + irq, 0) };
}

function medians(rounds: readonly Measured[]): Measured {
  const of = (key: Exclude<keyof Measured, "cpu">) => median(rounds.map((round) => round[key]));
  const cpu = (key: keyof CpuUse) => median(rounds.map((round) => round.cpu[key]));
  return {
    good: of("good"),
    refused: of("refused"),
    broken: of("broken"),
    seconds: of("seconds"),
    goodPerSecond: of("goodPerSecond"),
    p50Ms: of("p50Ms"),
    p99Ms: of("p99Ms"),
    maxMs: of("maxMs"),
    generatorCpuMs: of("generatorCpuMs"),
    cpu: { loop: cpu("loop"), helpers: cpu("helpers"), interpreters: cpu("interpreters"), watchers: cpu("watchers") },
  };
}
