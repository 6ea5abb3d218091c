import { execFileSync } from "node:child_process";
import os from "node:os";
import { drift, type MemorySample } from "./memory.ts";
import { BENCH, PYTHON } from "./settings.ts";
import type { Startup } from "./startup.ts";
import { SERVERS, type Throughput } from "./throughput.ts";

export interface Results {
  readonly throughput: readonly Throughput[];
  readonly startup: Startup;
  readonly memory: readonly MemorySample[];
  readonly pyodideVersion: string;
}

const MIB = 2 ** 20;
const MAX_DRIFT = 0.05;

/** The results as Markdown: what was measured, on what, and which targets were reached. */
export function report(results: Results): string {
  const { throughput, startup, memory } = results;
  return `# Benchmarks

Written by \`npm run bench -- --write\`; do not edit. ${new Date().toISOString().slice(0, 10)}, ${machine()},
Pyodide ${results.pyodideVersion}. All servers ran in one session on this machine, as did the load generator (autocannon, a process of its own,
which checked every reply). Medians of ${BENCH.rounds} rounds of ${BENCH.seconds} s in turns.

## Targets

${table(["target", "reached", ""], targets(results))}

## Throughput

${throughput.map(throughputTable).join("\n\n")}

The second program is about 30 lines: it parses text with \`re\` into dataclasses, sums, takes a median with \`statistics\` and prints JSON
(\`bench/programs.ts\`). All three servers get the same code; \`1+1\` is sent as \`print(1+1)\`, since a \`python3\` process can answer only
by printing.

## Start to ready

${table(
  ["", "ms", "× ours"],
  [
    ["sandbox from the cached image: start of its process to ready", ms(startup.sandboxMs), "1.0"],
    ["`loadPyodide()` in a running Node process", ms(startup.loadPyodideMs), times(startup, "loadPyodideMs")],
    ["Node process with `loadPyodide()`: start to end", ms(startup.plainProcessMs), times(startup, "plainProcessMs")],
    [
      "our server: start of its process until it listens, a sandbox ready",
      ms(startup.serverMs),
      times(startup, "serverMs"),
    ],
  ],
)}

Medians of ${BENCH.starts} starts in turns.

## Memory

Resident memory (VmRSS) of the server and its sandboxes over ${BENCH.executions} executions of both programs in turns, at 16 connections. Pages
that processes share, such as the executable's, are counted in each.

${table(
  ["executions", "server, MiB", "sandboxes, MiB", "sum, MiB", ""],
  memory.map((sample) => {
    const sum = sample.server + sample.sandboxes;
    const bar = "█".repeat(Math.round((sum / Math.max(...memory.map((m) => m.server + m.sandboxes))) * 40));
    return [String(sample.executions), mib(sample.server), mib(sample.sandboxes), mib(sum), bar];
  }),
)}
`;
}

function targets({ throughput, startup, memory }: Results): string[][] {
  const rows: string[][] = [];
  for (const { program, connections, results } of throughput) {
    if (connections !== 16) continue;
    const ratio = (id: "process" | "shared") => results.ours.requestsPerSecond / results[id].requestsPerSecond;
    rows.push(goal(`≥ 5 × a \`python3\` process for each request, 16 connections, ${program}`, ratio("process"), 5));
    rows.push(goal(`≥ 0.5 × the shared-globals server, 16 connections, ${program}`, ratio("shared"), 0.5));
  }
  const faster = startup.loadPyodideMs / startup.sandboxMs;
  rows.push(goal("sandbox start ≥ 5 × faster than plain `loadPyodide()`", faster, 5));
  const change = drift(memory);
  const text = `${change >= 0 ? "+" : "−"}${(Math.abs(change) * 100).toFixed(1)} %`;
  const warmUp = (memory.at(-1)?.executions ?? 0) / 10;
  const flat = Math.abs(change) <= MAX_DRIFT;
  rows.push([`memory flat within 5 % after the first ${warmUp} executions`, text, flat ? "yes" : "**no**"]);
  return rows;
}

function goal(name: string, value: number, least: number): string[] {
  return [name, `${value.toFixed(2)} ×`, value >= least ? "yes" : "**no**"];
}

function throughputTable({ program, connections, results }: Throughput): string {
  const rows = SERVERS.map(({ id, name }) => {
    const { requestsPerSecond, latencyP50Ms, latencyP99Ms } = results[id];
    const ratio = results.ours.requestsPerSecond / requestsPerSecond;
    return [name, requestsPerSecond.toFixed(0), ms(latencyP50Ms), ms(latencyP99Ms), `${ratio.toFixed(2)} ×`];
  });
  const head = [`${program}, ${connections} connection${connections === 1 ? "" : "s"}`, "requests/s"];
  return table([...head, "p50, ms", "p99, ms", "ours is"], rows);
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

function machine(): string {
  const cpus = os.cpus();
  const python = execFileSync(PYTHON, ["--version"], { encoding: "utf8" }).trim();
  const load = os.loadavg()[0] ?? 0;
  const facts = [
    `${cpus.length} × ${cpus[0]?.model.trim()}`,
    `${(os.totalmem() / 2 ** 30).toFixed(0)} GiB`,
    `${os.type()} ${os.arch()}`,
    `Node ${process.versions.node}`,
    `${python} (${PYTHON})`,
  ];
  return `${facts.join(", ")} (load average at the end ${load.toFixed(1)})`;
}

const ms = (value: number) => (value < 10 ? value.toFixed(1) : value.toFixed(0));
const mib = (bytes: number) => (bytes / MIB).toFixed(0);
const times = (startup: Startup, key: keyof Startup) => (startup[key] / startup.sandboxMs).toFixed(1);
