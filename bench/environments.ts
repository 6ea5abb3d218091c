/**
 * `npm run bench:environments`: what an environment with compiled packages costs, and what its image saves. PYODIDE_EXPRESS_WHEELS names
 * a folder of wheels, numpy among them; with pandas in it, and in the system's Python, pandas is measured as well. `-- --write` keeps
 * the report in docs/benchmarks-environments.md.
 */
import { execFile, spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { pino } from "pino";
import { openEnvironments } from "../src/compose/environments.ts";
import { bootOptions, openHost } from "../src/compose/host.ts";
import type { Environment } from "../src/environments/build.ts";
import { denoCache } from "../src/environments/deno-cache.ts";
import { internalJob } from "../src/sandbox/running-job.ts";
import { Sandbox } from "../src/sandbox/sandbox.ts";
import { loadConfig } from "../src/shared/settings.ts";
import { descendantsOf } from "../test/support/processes.ts";
import { type LoadResult, load } from "./load.ts";
import { EVERY_PROGRAM, type Program } from "./programs.ts";
import { startServerProcess } from "./server-process.ts";
import { BENCH, median, OURS, PYTHON } from "./settings.ts";

const FURTHER_SANDBOXES = 3;
const REWINDS = 100;
const WARM_UP_SECONDS = 1;
const CONNECTIONS = 4;

/** What is measured, where the folder of wheels has all of it. */
interface Case {
  readonly packages: readonly string[];
  /** Start to ready, times faster than plain Pyodide. */
  readonly start: number;
  /** Of which program, and times more requests than a process for each. Null: it is measured already. */
  readonly throughput: { readonly program: string; readonly least: number } | null;
}

const CASES: Readonly<Record<string, Case>> = {
  numpy: { packages: ["numpy"], start: 8, throughput: { program: "numpy", least: 15 } },
  pandas: { packages: ["numpy", "pandas", "matplotlib"], start: 8, throughput: { program: "pandas", least: 40 } },
  "numpy and seven more": {
    packages: ["numpy", "pillow", "lxml", "cryptography", "contourpy", "kiwisolver", "networkx", "fonttools"],
    start: 8,
    throughput: null,
  },
};

const run = promisify(execFile);
const log = (line: string) => console.error(line);
const mib = (bytes: number) => (bytes / 2 ** 20).toFixed(1);

interface Measured {
  readonly name: string;
  readonly plainMs: number;
  readonly sandboxMs: number;
  readonly rates: { readonly ours: number; readonly process: number } | null;
  readonly imageBytes: number;
  readonly archiveBytes: number;
  readonly rewindMs: number;
  readonly furtherBytes: number;
}

/** Files of `name` and what it needs, as far as the folder has them. */
function wheelsOf(folder: string, { packages }: Environment): string[] {
  return packages.map(({ filename }) => path.join(folder, filename));
}

async function measure(name: string, { packages, throughput: wanted }: Case, folder: string): Promise<Measured> {
  const env = {
    ...OURS.env,
    PYODIDE_PACKAGES: packages.join(","),
    PACKAGE_DIR: folder,
    PACKAGE_INDEX_URL: "none",
    PYODIDE_INDEX_URL: folder,
  };
  const config = loadConfig(env);
  const host = await openHost(config);
  const { environments, images, close } = await openEnvironments(config, pino({ level: "warn" }), host);
  await environments.prepare();
  await close();
  const environment = environments.get("default");
  const guest = bootOptions(config, environment);
  // As the server starts them.
  const sandbox = { ...host, guest };
  const denoDir = await denoCache({ cacheDir: config.CACHE_DIR, key: await images.runtimeKey(), sandbox });
  const start = () => Sandbox.start({ ...sandbox, denoDir });

  const times = { plain: [] as number[], sandbox: [] as number[] };
  for (let round = 0; round < BENCH.starts; round++) {
    const imports = environment.guest?.imports.join(",") ?? "";
    const peer = ["bench/peers/plain-packages.ts", imports, ...wheelsOf(folder, environment)];
    times.plain.push(Number((await run(process.execPath, peer)).stdout));
    const started = await start();
    times.sandbox.push(started.bootMs);
    started.kill("measured");
    await started.ended;
  }
  log(`${name}: plain ${median(times.plain).toFixed(0)} ms, from the image ${median(times.sandbox).toFixed(0)} ms`);

  const sandboxes: Sandbox[] = [];
  for (let i = 0; i <= FURTHER_SANDBOXES; i++) sandboxes.push(await start());
  const further = await Promise.all(sandboxes.slice(1).map(({ pid }) => privateBytes(pid)));
  const rewinds = await rewindTimes(sandboxes[0] as Sandbox, wanted?.program ?? "numpy");
  for (const started of sandboxes) started.kill("measured");
  await Promise.all(sandboxes.map(({ ended }) => ended));
  log(`${name}: rewind ${median(rewinds).toFixed(2)} ms, a further sandbox ${mib(median(further))} MiB`);

  const index = EVERY_PROGRAM.findIndex((program) => program.name === wanted?.program);
  const rates = wanted && (await throughput(index, env));
  if (rates) log(`${name}: ${rates.ours.toFixed(0)} requests/s, a process for each ${rates.process.toFixed(1)}/s`);
  return {
    name,
    plainMs: median(times.plain),
    sandboxMs: median(times.sandbox),
    rates,
    imageBytes: environment.image.bytes,
    archiveBytes: environment.archiveBytes,
    rewindMs: median(rewinds),
    furtherBytes: median(further),
  };
}

/** From the reply to being ready for the next tenant, ms. */
async function rewindTimes(sandbox: Sandbox, module: string): Promise<number[]> {
  const { code } = EVERY_PROGRAM.find(({ name }) => name === module) as Program;
  const times: number[] = [];
  for (let i = 0; i < REWINDS; i++) {
    await sandbox.execute(internalJob(code, 30_000));
    const answeredAt = performance.now();
    await sandbox.idle;
    times.push(performance.now() - answeredAt);
  }
  return times;
}

async function throughput(program: number, env: Record<string, string>): Promise<{ ours: number; process: number }> {
  const ours = await startServerProcess(OURS.args, env);
  const peer = await startServerProcess(["bench/peers/python-process.ts"], {});
  try {
    const rounds = { ours: [] as LoadResult[], process: [] as LoadResult[] };
    for (let round = 0; round <= BENCH.rounds; round++) {
      for (const [id, { url }] of [
        ["ours", ours],
        ["process", peer],
      ] as const) {
        const seconds = round === 0 ? WARM_UP_SECONDS : BENCH.seconds;
        const result = await load({ url, program, connections: CONNECTIONS, seconds });
        if (round > 0) rounds[id].push(result);
      }
    }
    const rate = (results: LoadResult[]) => median(results.map(({ goodPerSecond }) => goodPerSecond));
    return { ours: rate(rounds.ours), process: rate(rounds.process) };
  } finally {
    await Promise.all([ours.stop(), peer.stop()]);
  }
}

/** Memory that no other process shares: what this one costs. Linux only. */
async function privateBytes(pid: number): Promise<number> {
  let bytes = 0;
  for (const id of [pid, ...descendantsOf(pid)]) {
    const text = await readFile(`/proc/${id}/smaps_rollup`, "utf8");
    for (const [, kib] of text.matchAll(/^Private_(?:Clean|Dirty): +(\d+) kB$/gm)) bytes += Number(kib) * 1024;
  }
  return bytes;
}

function report(all: readonly Measured[]): string {
  const goal = (value: number, least: number) => `${value.toFixed(1)} × | ${value >= least ? "yes" : "**no**"}`;
  const rows = all.flatMap((m) => {
    const { start, throughput } = CASES[m.name] as Case;
    const faster = goal(m.plainMs / m.sandboxMs, start);
    const rows = [`| ${m.name}: start to ready ≥ ${start} × faster than plain Pyodide | ${faster} |`];
    if (!throughput || !m.rates) return rows;
    const more = goal(m.rates.ours / m.rates.process, throughput.least);
    const target = `throughput ≥ ${throughput.least} × a \`python3\` process for each request`;
    return [...rows, `| ${m.name}: ${target} | ${more} |`];
  });
  const facts = all.map(
    (m) =>
      `| ${m.name} | ${m.plainMs.toFixed(0)} | ${m.sandboxMs.toFixed(0)} | ${m.rates?.ours.toFixed(0) ?? ""} | ${m.rates?.process.toFixed(1) ?? ""} | ` +
      `${mib(m.imageBytes)} | ${mib(m.archiveBytes)} | ${m.rewindMs.toFixed(1)} | ${mib(m.furtherBytes)} |`,
  );
  const load = os.loadavg()[0] ?? 0;
  return `# Environments

Written by \`npm run bench:environments -- --write\`; do not edit. ${new Date().toISOString().slice(0, 10)}, ${os.cpus().length} × ${os.cpus()[0]?.model.trim()},
Node ${process.versions.node}, load average at the end ${load.toFixed(1)}. Medians of ${BENCH.starts} starts, and of ${BENCH.rounds} rounds of ${BENCH.seconds} s at ${CONNECTIONS} connections.

| target | reached | |
| --- | --- | --- |
${rows.join("\n")}

| package | plain start, ms | from the image, ms | requests/s | \`python3\` each, requests/s | image, MiB | archive, MiB | rewind, ms | further sandbox, MiB |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
${facts.join("\n")}

Plain start: \`loadPyodide()\`, loading the same wheels from disk, and the same imports, in a Node process of its own. The programs are in
\`bench/programs.ts\`; both servers get the same code, ours answers from a pristine interpreter. Rewind: from the reply to being ready for the
next tenant. Further sandbox: memory that it shares with no other process.
`;
}

const folder = process.env.PYODIDE_EXPRESS_WHEELS ?? "";
if (folder === "") throw new Error("PYODIDE_EXPRESS_WHEELS has to name a folder with a wheel of numpy.");
if ((os.loadavg()[0] ?? 0) > 0.5) log("The machine is busy: the figures will be lower, and noisy.");
const files = readdirSync(folder);
const hasWheel = (name: string) => files.some((file) => file.startsWith(`${name}-`) && file.endsWith(".whl"));
const hasPeer = (program: string) => spawnSync(PYTHON, ["-I", "-c", `import ${program}`]).status === 0;
const available = Object.entries(CASES).filter(
  ([, { packages, throughput }]) => packages.every(hasWheel) && (!throughput || hasPeer(throughput.program)),
);
try {
  const measured: Measured[] = [];
  for (const [name, wanted] of available) measured.push(await measure(name, wanted, path.resolve(folder)));
  const text = report(measured);
  console.log(text);
  if (process.argv.includes("--write"))
    await writeFile(new URL("../docs/benchmarks-environments.md", import.meta.url), text);
} finally {
  await rm(OURS.env.DATA_DIR, { recursive: true, force: true });
}
