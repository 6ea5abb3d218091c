/**
 * Where the processor time of a request goes: by process and thread, and on the server's main thread by part of the program.
 *
 *     node bench/where.ts [NAME=FOLDER …]
 *
 * FOLDER: other checkouts of this project, measured in turns with this one. BENCH_CONNECTIONS and BENCH_CODE say what is asked.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { cpuOf, perRequest, totalOf } from "./cpu.ts";
import { figure, type Section, type Table } from "./report.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { BENCH, median, OURS, oursWith } from "./settings.ts";
import { wrk } from "./wrk.ts";

const CONNECTIONS = Number(process.env.BENCH_CONNECTIONS ?? 4);
const CODE = process.env.BENCH_CODE ?? "1+1";
const WARM_UP_SECONDS = 3;
const COLUMNS = [
  "requests/s",
  "event loop",
  "server's helpers",
  "interpreters",
  "watchers and helpers",
  "sum",
  "generator",
];
/** Most parts of the program that are told apart. */
const MAX_PARTS = 25;

interface Checkout {
  readonly name: string;
  readonly server: ServerProcess;
  readonly rows: number[][];
}

/** @param others further checkouts: name → folder. */
export async function measureWhere(
  log: (line: string) => void,
  others: Readonly<Record<string, string>> = {},
): Promise<Section> {
  const checkouts: Checkout[] = [];
  try {
    checkouts.push({ name: "this checkout", server: await startServerProcess(OURS.args, oursWith("where")), rows: [] });
    for (const [name, folder] of Object.entries(others))
      checkouts.push({ name, server: await startOther(name, folder), rows: [] });
    const ask = (url: string, seconds: number) => wrk({ url, connections: CONNECTIONS, seconds, body: { code: CODE } });
    for (const { server } of checkouts) await ask(server.url, WARM_UP_SECONDS);
    for (let round = 0; round < BENCH.rounds; round++)
      for (const { server, rows } of round % 2 ? checkouts.toReversed() : checkouts) {
        const before = cpuOf(server.pid);
        const result = await ask(server.url, BENCH.seconds);
        const cpu = perRequest(before, cpuOf(server.pid), result.good);
        const { loop, helpers, interpreters, watchers } = cpu;
        rows.push([result.goodPerSecond, loop, helpers, interpreters, watchers, totalOf(cpu), result.generatorCpuMs]);
      }
  } finally {
    await Promise.all(checkouts.map(({ server }) => server.stop()));
  }
  const rows = checkouts.map(({ name, rows }) => ({
    name,
    values: COLUMNS.map((_, column) => median(rows.map((row) => row[column] ?? 0))),
  }));
  for (const { name, values } of rows)
    log(`${name}: ${COLUMNS.map((column, i) => `${column} ${figure(values[i] ?? null)}`).join(", ")}`);
  return {
    id: "where",
    title: "Where a request's processor time goes",
    note: `\`${CODE}\`, ${CONNECTIONS} connections; nanoseconds of the kernel's scheduler. By parts: the profiler's samples of the event loop, which count time that it is kept from running, too, and so only their shares say something.`,
    tables: [
      { title: "Processor time of a request by thread", unit: "ms", chart: "none", columns: COLUMNS, rows },
      await profile(),
    ],
  };
}

/** One of another time may have its entry elsewhere, and its own Node. */
async function startOther(name: string, folder: string): Promise<ServerProcess> {
  const entry = ["src/cli/main.ts", "src/cli.ts"].map((file) => path.join(folder, file)).find(existsSync);
  if (entry === undefined) throw new Error(`${folder} is no checkout of this project`);
  const own = oursWith(`where-${name}`);
  const CACHE_DIR = path.join(own.DATA_DIR as string, "cache");
  return await startServerProcess([...OURS.args.slice(0, 2), entry, "serve"], { ...own, CACHE_DIR });
}

interface Profile {
  readonly nodes: readonly {
    readonly id: number;
    readonly callFrame: { readonly url: string; readonly functionName: string };
  }[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/** Shares of the event loop's time while it does not wait, by folder of ours, package, or module of Node's. */
async function profile(): Promise<Table> {
  const folder = mkdtempSync(path.join(os.tmpdir(), "bench-where-"));
  try {
    const flags = ["--cpu-prof", `--cpu-prof-dir=${folder}`, "--cpu-prof-interval=500"];
    const server = await startServerProcess([...flags, ...OURS.args], oursWith("where"));
    await wrk({
      url: server.url,
      connections: CONNECTIONS,
      seconds: WARM_UP_SECONDS + BENCH.seconds,
      body: { code: CODE },
    });
    await server.stop();
    const profiles = readdirSync(folder).map(
      (name): Profile => JSON.parse(readFileSync(path.join(folder, name), "utf8")),
    );
    // Of its threads, the one that did most.
    const main = profiles.toSorted((a, b) => b.nodes.length - a.nodes.length)[0] as Profile;
    const parts = new Map(main.nodes.map(({ id, callFrame }) => [id, partOf(callFrame)]));
    const times = new Map<string, number>();
    for (const [at, id] of main.samples.entries()) {
      const part = parts.get(id) ?? "";
      times.set(part, (times.get(part) ?? 0) + (main.timeDeltas[at] ?? 0));
    }
    times.delete("(idle)");
    const total = [...times.values()].reduce((sum, time) => sum + time, 0);
    const sorted = [...times].toSorted(([, a], [, b]) => b - a).slice(0, MAX_PARTS);
    return {
      title: "Event loop by part, from the process's start on",
      unit: "%",
      chart: "bars",
      columns: ["share"],
      rows: sorted.map(([name, time]) => ({ name, values: [(100 * time) / total] })),
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function partOf({ url, functionName }: Profile["nodes"][number]["callFrame"]): string {
  if (url === "")
    return functionName === "(garbage collector)" || functionName === "(idle)" ? functionName : "V8 and system calls";
  const own = /\/(src\/[^/]+)\//.exec(url)?.[1];
  const dependency = /\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1];
  return dependency ?? own ?? url.replace(/^(node:[^/]+(?:\/[^/]+)?).*/, "$1");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const others = process.argv.slice(2).filter((argument) => argument.includes("="));
  await measureWhere(
    (line) => console.log(line),
    Object.fromEntries(others.map((text) => text.split("=") as [string, string])),
  );
  await rm(OURS.env.DATA_DIR, { recursive: true, force: true });
}
