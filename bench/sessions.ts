/**
 * What sessions cost: wake times, bytes at rest, forks, and the same code in a resident session and in a bare interpreter.
 *
 * `npm run bench:sessions [-- --write] [-- --durability]`: with `--write`, docs/benchmark-sessions.md is written too; with `--durability`
 * only what durability costs is measured.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, writeFileSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { pino } from "pino";
import { type RunningServer, startServer } from "../src/compose/server.ts";
import { loadConfig } from "../src/shared/settings.ts";
import { hasRedis, startRedis } from "../test/support/redis.ts";
import { toTable } from "./report.ts";
import { measureDurability } from "./session-durability.ts";
import { median, PYTHON, quantile } from "./settings.ts";

const SESSIONS = Number(process.env.BENCH_SESSIONS ?? 100);
const WAKES = Number(process.env.BENCH_WAKES ?? 100);
const PROCESSES = Number(process.env.BENCH_PROCESSES ?? 20);

/** What an agent leaves behind: some functions, some results. */
const LIGHT_STATE = `
import json, re
results = []
${Array.from({ length: 20 }, (_, i) => `def step_${i}(x):\n    """Step ${i}."""\n    return {"step": ${i}, "value": x * ${i}}`).join("\n")}
for i in range(100): results.append(step_7(i))
text = json.dumps(results)`;
/** What a notebook may hold after a few cells: functions, classes, a thousand records, results. */
const STATE = `
import json, re, dataclasses, collections, statistics
@dataclasses.dataclass
class Record:
    key: str
    value: float
records = [Record(f"key-{i % 37}", (i * 7919 % 1000) / 10) for i in range(1000)]
groups = collections.defaultdict(list)
for record in records: groups[record.key].append(record.value)
means = {key: statistics.mean(values) for key, values in groups.items()}
def report(): return json.dumps(means, sort_keys=True)
text = report()`;
/** Some tens of milliseconds of work. */
const WORK = "total = 0\nfor i in range(400_000): total += i * i % 7\ntotal";

const folder = mkdtempSync(path.join(os.tmpdir(), "bench-sessions-"));
const lines: string[] = [];

try {
  await measureDurable();
  if (!process.argv.includes("--durability")) await measure();
  report();
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function measure(): Promise<void> {
  const disk = await measureStore("disk", { SESSION_DURABILITY: "after-reply" });
  let redisWakes: number[] | null = null;
  if (hasRedis) {
    const redis = await startRedis();
    try {
      redisWakes = (await measureStore("redis", { REDIS_URL: redis.url, SESSION_DURABILITY: "commit" })).wakes;
    } finally {
      await redis.stop();
    }
  }
  const processBytes = await pythonSessionBytes(STATE);
  const lightProcessBytes = await pythonSessionBytes(LIGHT_STATE);
  const perGb = (bytes: number) => Math.floor(2 ** 30 / bytes);
  lines.push(
    toTable(
      ["wake to answer of `1`, ms", "p50", "p99"],
      [
        ["resident in a sandbox", ...quantiles(disk.resident)],
        ["hibernated, on disk", ...quantiles(disk.wakes)],
        ...(redisWakes ? [["hibernated, in Redis", ...quantiles(redisWakes)]] : []),
        ["stateless execution, for comparison", ...quantiles(disk.stateless)],
        ["fork", ...quantiles(disk.forks)],
      ],
    ),
    "",
    toTable(
      ["an idle session", "bytes", "sessions for each GiB"],
      [
        ["light, ours, with its previous state", disk.lightBytes.toFixed(0), String(perGb(disk.lightBytes))],
        ["light, a `python3` process (PSS)", lightProcessBytes.toFixed(0), String(perGb(lightProcessBytes))],
        ["a thousand records, ours, with its previous state", disk.idleBytes.toFixed(0), String(perGb(disk.idleBytes))],
        ["a thousand records, a `python3` process (PSS)", processBytes.toFixed(0), String(perGb(processBytes))],
      ],
    ),
    "",
    toTable(
      ["target", "reached", ""],
      [
        goal("light sessions for each GiB ≥ 20 × a `python3` process", lightProcessBytes / disk.lightBytes, 20, true),
        goal("the same with a thousand records", processBytes / disk.idleBytes, 20, true),
        goal("resident execution ≤ 1.3 × bare interpreter + HTTP round trip", disk.ratio, 1.3, false),
      ],
    ),
  );
}

/** What comes first: what it costs that an answered execution is not lost. */
async function measureDurable(): Promise<void> {
  console.error("measuring what durability costs …");
  const figures = await measureDurability();
  const rows = figures.map(({ name, p50, p99, ratio }) => [
    name,
    p50.toFixed(2),
    p99.toFixed(2),
    `${ratio.toFixed(2)} ×`,
  ]);
  lines.push(toTable(["one connection, ms", "p50", "p99", "by stateless, p50"], rows), "");
}

function report(): void {
  console.log(lines.join("\n"));
  if (process.argv.includes("--write")) {
    const cpus = os.cpus();
    const machine = `${cpus.length} × ${cpus[0]?.model.trim()}, Node ${process.versions.node}, load ${os.loadavg()[0]?.toFixed(1)}`;
    const commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).trim();
    const head = `# Benchmark of sessions\n\nWritten by \`npm run bench:sessions -- --write\` at ${commit}. ${machine}.\n\n`;
    writeFileSync(new URL("../docs/benchmark-sessions.md", import.meta.url), `${head}${lines.join("\n")}\n`);
  }
}

async function measureStore(name: string, settings: Record<string, string>) {
  const server = await startServer(
    loadConfig({
      DATA_DIR: path.join(folder, name),
      CACHE_DIR: path.resolve("data/cache"),
      PORT: "0",
      POOL_SIZE: "1",
      LOG_LEVEL: "silent",
      PYODIDE_PACKAGES: "none",
      PACKAGE_INDEX_URL: "none",
      SESSIONS_PER_PRINCIPAL: "100000",
      ...settings,
    }),
    pino({ level: "silent" }),
  );
  try {
    await server.ready;
    console.error(`measuring sessions in ${name} …`);
    return await measureServer(server);
  } finally {
    await server.stop(1000);
  }
}

async function measureServer(server: RunningServer) {
  const post = async (route: string, body: object) => {
    const response = await fetch(server.url + route, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const reply = (await response.json()) as { success: boolean; session: { id: string }; executionTime: number };
    if (!reply.success) throw new Error(JSON.stringify(reply));
    return reply;
  };
  const timed = async (action: () => Promise<unknown>) => {
    const startedAt = performance.now();
    await action();
    return performance.now() - startedAt;
  };
  const ids: string[] = [];
  for (let i = 0; i < SESSIONS; i++) {
    const { id } = (await post("/api/sessions", {})).session;
    await post("/api/execute", { session: id, code: STATE });
    await post("/api/execute", { session: id, code: "report()[:10]" });
    ids.push(id);
  }
  const light = (await post("/api/sessions", {})).session.id;
  for (const code of [LIGHT_STATE, "len(text)", "len(results)"]) await post("/api/execute", { session: light, code });
  // Another turn begins when the last one has been stored.
  await post(`/api/sessions/${light}/checkpoints`, {});
  await post(`/api/sessions/${ids.at(-1)}/checkpoints`, {});
  const list = (await (await fetch(`${server.url}/api/sessions`)).json()) as {
    sessions: { id: string; memoryBytes: number; fileBytes: number }[];
  };
  // The state before the last change is kept too, and is as large.
  const bytesOf = (wanted: readonly string[]) =>
    list.sessions
      .filter(({ id }) => wanted.includes(id))
      .reduce((sum, { memoryBytes, fileBytes }) => sum + 2 * (memoryBytes + fileBytes), 0) / wanted.length;
  const idleBytes = bytesOf(ids);
  const lightBytes = bytesOf([light]);

  const wakes: number[] = [];
  // One sandbox: each session that is asked for in turn has been put away for another.
  for (let i = 0; i < WAKES; i++) {
    wakes.push(await timed(() => post("/api/execute", { session: ids[i % ids.length], code: "1" })));
  }
  const resident: number[] = [];
  const last = ids[(WAKES - 1) % ids.length];
  for (let i = 0; i < WAKES; i++) resident.push(await timed(() => post("/api/execute", { session: last, code: "1" })));
  const forks: number[] = [];
  for (let i = 0; i < WAKES; i++) forks.push(await timed(() => post(`/api/sessions/${ids[i % ids.length]}/fork`, {})));
  const stateless: number[] = [];
  for (let i = 0; i < WAKES; i++) stateless.push(await timed(() => post("/api/execute", { code: "1" })));

  // The round trip is that of a request that runs nothing; the bare interpreter's time is what it says itself.
  const roundTrips: number[] = [];
  const inSession: number[] = [];
  const bare: number[] = [];
  await post("/api/execute", { session: last, code: WORK });
  for (let i = 0; i < 20; i++) {
    roundTrips.push(await timed(() => fetch(`${server.url}/ready`).then((reply) => reply.text())));
    bare.push((await post("/api/execute", { code: WORK })).executionTime);
    await post("/api/execute", { session: last, code: "1" });
    // Whoever thinks for a moment does not wait for what is stored behind a reply.
    await new Promise((resolve) => setTimeout(resolve, 300));
    inSession.push(await timed(() => post("/api/execute", { session: last, code: WORK })));
  }
  const ratio = median(inSession) / (median(bare) + median(roundTrips));
  return { idleBytes, lightBytes, wakes, resident, forks, stateless, ratio };
}

/** Proportional memory of one of many `python3` processes that hold the same state, bytes. */
async function pythonSessionBytes(state: string): Promise<number> {
  execFileSync(PYTHON, ["--version"]);
  const processes: ChildProcess[] = [];
  try {
    let bytes = 0;
    for (let i = 0; i < PROCESSES; i++) {
      const child = spawn(PYTHON, ["-I", "-c", `${state}\nprint("ready", flush=True)\ninput()`], {
        stdio: ["pipe", "pipe", "ignore"],
      });
      processes.push(child);
      if (child.stdout) await once(child.stdout, "data");
    }
    for (const { pid } of processes) {
      const rollup = await readFile(`/proc/${pid}/smaps_rollup`, "utf8");
      bytes += Number(/^Pss:\s+(\d+) kB/m.exec(rollup)?.[1]) * 1024;
    }
    return bytes / PROCESSES;
  } finally {
    for (const child of processes) child.kill("SIGKILL");
  }
}

const quantiles = (values: readonly number[]) => [0.5, 0.99].map((share) => quantile(values, share).toFixed(1));

function goal(name: string, value: number, limit: number, least: boolean): string[] {
  const reached = least ? value >= limit : value <= limit;
  return [name, `${value.toFixed(2)} ×`, reached ? "yes" : "**no**"];
}
