/**
 * `npm run bench`: measures everything in one run and says which targets are reached. `-- --write` keeps the report in
 * docs/benchmarks.md.
 *
 * BENCH_SECONDS, BENCH_ROUNDS, BENCH_STARTS and BENCH_EXECUTIONS shorten it.
 */
import { readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { PYODIDE_DIR } from "../src/sandbox/launch.ts";
import { measureMemory } from "./memory.ts";
import { report } from "./report.ts";
import { OURS } from "./settings.ts";
import { measureStartup } from "./startup.ts";
import { measureThroughput } from "./throughput.ts";

const log = (line: string) => console.error(line);
const load = os.loadavg()[0] ?? 0;
if (load > 0.5) log(`The machine is busy (load average ${load.toFixed(1)}): the figures will be lower, and noisy.`);

const manifest = JSON.parse(await readFile(path.join(PYODIDE_DIR, "package.json"), "utf8")) as { version: string };
try {
  const startup = await measureStartup(log);
  const memory = await measureMemory(log);
  const throughput = await measureThroughput(log);
  const text = report({ startup, memory, throughput, pyodideVersion: manifest.version });
  console.log(text);
  if (process.argv.includes("--write")) {
    await writeFile(new URL("../docs/benchmarks.md", import.meta.url), text);
    log("Written to docs/benchmarks.md.");
  }
} finally {
  await rm(OURS.env.DATA_DIR, { recursive: true, force: true });
}
