/**
 * `npm run bench:services`: what workspaces, the security log and statistics add to an execution of `1+1`, and how long the
 * upload of a 10 MiB CSV takes, analysis included. Rounds take turns; medians.
 *
 * BENCH_SECONDS and BENCH_ROUNDS shorten it. The environment is the standard library, or what BENCH_PACKAGES names.
 */
import { rm } from "node:fs/promises";
import os from "node:os";
import { type LoadResult, load } from "./load.ts";
import { toTable } from "./report.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { BENCH, median, OURS } from "./settings.ts";

const MIB = 2 ** 20;
const WARM_UP_SECONDS = 1;
const CONNECTIONS = [1, 16] as const;
const MAX_LOSS = 0.15;
/** A workspace that somebody works in: listed before each execution, compared after it. */
const WORKSPACE_FILES = 50;

const env = (name: string) => ({ ...OURS.env, DATA_DIR: `${OURS.env.DATA_DIR}/${name}` });

const SERVERS = [
  {
    id: "engine",
    name: "engine behind ten lines of Express",
    args: ["bench/peers/bare-engine.ts"],
    env: env("engine"),
  },
  {
    id: "none",
    name: 'server with LOG_DIR=none, `files: "none"`',
    args: OURS.args,
    env: { ...env("none"), LOG_DIR: "none" },
    body: { files: "none" },
  },
  { id: "full", name: "server as it is, empty workspace", args: OURS.args, env: env("full") },
  { id: "files", name: `server as it is, ${WORKSPACE_FILES} files`, args: OURS.args, env: env("files") },
] as const;
type Id = (typeof SERVERS)[number]["id"];

interface Round extends LoadResult {
  /** Processor time for one request, ms. */
  readonly serverCpuMs: number;
  readonly sandboxCpuMs: number;
}

const log = (line: string) => console.error(line);

async function measure(server: ServerProcess, connections: number, seconds: number, body = {}): Promise<Round> {
  const before = server.cpuMs();
  const result = await load({ url: server.url, program: 0, connections, seconds, body });
  const after = server.cpuMs();
  return {
    ...result,
    serverCpuMs: (after.server - before.server) / result.good,
    sandboxCpuMs: (after.children - before.children) / result.good,
  };
}

/** @returns whether the target was reached. */
async function compare(running: Readonly<Record<Id, ServerProcess>>, connections: number): Promise<boolean> {
  const rounds: Record<Id, Round[]> = { engine: [], none: [], full: [], files: [] };
  for (let round = 0; round <= BENCH.rounds; round++) {
    for (const server of SERVERS) {
      const seconds = round === 0 ? WARM_UP_SECONDS : BENCH.seconds;
      const body = "body" in server ? server.body : {};
      const result = await measure(running[server.id], connections, seconds, body);
      if (round > 0) rounds[server.id].push(result);
    }
  }
  const of = (id: Id, key: keyof Round) => median(rounds[id].map((round) => round[key]));
  /** Of each round its own ratio: what slows the machine down slows down both. */
  const ratio = (id: Id, base: Id) =>
    median(rounds[id].map((round, i) => round.goodPerSecond / (rounds[base][i]?.goodPerSecond ?? 0)));
  const rows = SERVERS.map(({ id, name }) => [
    name,
    of(id, "goodPerSecond").toFixed(0),
    of(id, "p50Ms").toFixed(1),
    of(id, "p99Ms").toFixed(1),
    of(id, "serverCpuMs").toFixed(2),
    of(id, "sandboxCpuMs").toFixed(2),
    `${(ratio(id, "engine") * 100).toFixed(0)} %`,
    `${(ratio(id, "none") * 100).toFixed(0)} %`,
  ]);
  const loss = 1 - ratio("full", "engine");
  const reached = loss < MAX_LOSS;
  console.log(`## \`1+1\`, ${connections} connection${connections === 1 ? "" : "s"}\n`);
  const head = ["", "requests/s", "p50, ms", "p99, ms", "server's CPU, ms", "sandboxes' CPU, ms"];
  console.log(toTable([...head, "of the engine's", "of the server's without"], rows));
  const verdict = reached ? "reached" : "**not reached**";
  console.log(`\nServices cost ${(loss * 100).toFixed(1)} % of the engine's throughput; target: < 15 %, ${verdict}.\n`);
  return reached;
}

async function upload(server: ServerProcess): Promise<void> {
  const row = "1234567,some name of a person,2026-11-23,2.71,true\n";
  const header = "id,name,day,value,flag\n";
  const rows = Math.floor((10 * MIB - header.length) / row.length);
  const content = header + row.repeat(rows);
  const timesMs: number[] = [];
  for (let round = 0; round <= BENCH.rounds; round++) {
    const form = new FormData();
    // Different each time, or it would be stored already.
    form.append("csvFile", new Blob([content, `${round},x,x,1,true\n`]), `big-${round}.csv`);
    const startedAt = performance.now();
    const response = await fetch(`${server.url}/api/upload`, { method: "POST", body: form });
    const { analysis, error } = (await response.json()) as { analysis?: { shape: number[] }; error?: string };
    if (analysis?.shape?.[0] !== rows + 1) throw new Error(`the upload was not described: ${error}`);
    if (round > 0) timesMs.push(performance.now() - startedAt);
    await fetch(`${server.url}/api/clear-all-files`, { method: "POST" });
  }
  const worst = Math.max(...timesMs).toFixed(0);
  console.log(`## Upload of a 10 MiB CSV, ${rows + 1} rows of 5 columns, with its analysis\n`);
  console.log(`Median ${median(timesMs).toFixed(0)} ms, worst ${worst} ms, of ${timesMs.length}.\n`);
}

async function fill({ url }: ServerProcess): Promise<void> {
  const code = `for i in range(${WORKSPACE_FILES}): open(f"file-{i}.txt", "w").write("x" * 1000)`;
  const headers = { "content-type": "application/json" };
  await fetch(`${url}/api/execute`, { method: "POST", headers, body: JSON.stringify({ code }) });
}

const running = {} as Record<Id, ServerProcess>;
try {
  for (const { id, args, env } of SERVERS) running[id] = await startServerProcess(args, env);
  await fill(running.files);
  console.log("# Services\n");
  let reached = true;
  for (const connections of CONNECTIONS) reached = (await compare(running, connections)) && reached;
  await upload(running.full);
  const cpus = os.cpus();
  const load = (os.loadavg()[0] ?? 0).toFixed(1);
  console.log(
    `${cpus.length} × ${cpus[0]?.model.trim()}, Node ${process.versions.node}, load average at the end ${load}.`,
  );
  if (!reached) log("A target was not reached.");
} finally {
  await Promise.all(Object.values(running).map((server) => server.stop()));
  await rm(OURS.env.DATA_DIR, { recursive: true, force: true });
}
