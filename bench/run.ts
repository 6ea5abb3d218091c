/**
 * `npm run bench`: measures everything in one run, writes `results.json` and `report.html` (charts, no network), and says which targets
 * are reached.
 *
 *     npm run bench -- [--quick] [--only start,throughput,…] [--out FOLDER] [--write]
 *
 * --only: some of start, throughput, results, sessions, overload, where, soak. --out: default `data/bench`. --quick: only shows that it
 * works. --write: the report as docs/benchmarks.md. PYODIDE_EXPRESS_WHEELS: a folder of wheels, for numpy, pandas and plots.
 */
import { execFileSync } from "node:child_process";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { PYODIDE_DIR } from "../src/sandbox/launch.ts";
import { measureSessions } from "./hibernated.ts";
import { measureOverload } from "./overload.ts";
import { toPage } from "./page.ts";
import { type Report, type Section, toMarkdown } from "./report.ts";
import { measureResults } from "./results.ts";
import { OURS, PYTHON } from "./settings.ts";
import { measureSoak, type Soak } from "./soak.ts";
import { measureStartup } from "./startup.ts";
import { targetsOf } from "./targets.ts";
import { measureThroughput } from "./throughput.ts";
import { measureWhere } from "./where.ts";
import { requireWrk } from "./wrk.ts";

const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean" },
    only: { type: "string" },
    out: { type: "string", default: "data/bench" },
    write: { type: "boolean" },
  },
});
const log = (line: string) => console.error(line);
const skipped: string[] = [];
let soak: Soak | null = null;
const STEPS: Readonly<Record<string, () => Promise<Section>>> = {
  start: () => measureStartup(log),
  throughput: () => measureThroughput(log, skipped),
  results: () => measureResults(log, skipped),
  sessions: () => measureSessions(log, skipped),
  overload: () => measureOverload(log),
  where: () => measureWhere(log),
  soak: async () => {
    soak = await measureSoak(log);
    return soak.section;
  },
};

const wanted = options.only?.split(",") ?? Object.keys(STEPS);
const unknown = wanted.filter((name) => !(name in STEPS));
if (unknown.length > 0) throw new Error(`There is no part ${unknown.join(", ")}: ${Object.keys(STEPS).join(", ")}.`);
const generator = requireWrk();
const loadBefore = os.loadavg()[0] ?? 0;
if (loadBefore > 0.5)
  log(`The machine is busy (load average ${loadBefore.toFixed(1)}): the figures will be lower, and noisy.`);

try {
  const sections: Section[] = [];
  for (const name of wanted) {
    log(`— ${name}`);
    const section = await STEPS[name]?.();
    if (section) sections.push(section);
  }
  const report: Report = {
    at: new Date().toISOString(),
    machine: await machine(),
    loadAverage: [loadBefore, os.loadavg()[0] ?? 0],
    generator,
    targets: targetsOf(sections, soak),
    sections,
    skipped,
  };
  const folder = path.resolve(options.out);
  await mkdir(folder, { recursive: true });
  await writeFile(path.join(folder, "results.json"), `${JSON.stringify(report, null, 2)}\n`);
  await writeFile(path.join(folder, "report.html"), toPage(report));
  for (const { name, reached, met } of report.targets)
    console.log(`${met ? "yes" : "NO "}  ${reached.padStart(10)}  ${name}`);
  for (const what of skipped) console.log(`not measured: ${what}`);
  console.log(`Written to ${path.join(folder, "report.html")} and results.json.`);
  if (options.write) await writeFile(new URL("../docs/benchmarks.md", import.meta.url), toMarkdown(report));
} finally {
  await rm(OURS.env.DATA_DIR, { recursive: true, force: true });
}

async function machine(): Promise<string> {
  const cpus = os.cpus();
  const python = execFileSync(PYTHON, ["--version"], { encoding: "utf8" }).trim();
  const manifest = JSON.parse(await readFile(path.join(PYODIDE_DIR, "package.json"), "utf8")) as { version: string };
  const memory = `${(os.totalmem() / 2 ** 30).toFixed(0)} GiB`;
  const facts = [`${cpus.length} × ${cpus[0]?.model.trim()}`, memory, `${os.type()} ${os.release()} ${os.arch()}`];
  return [...facts, `Node ${process.versions.node}`, `Pyodide ${manifest.version}`, `${python} (${PYTHON})`].join(", ");
}
