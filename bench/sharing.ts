/**
 * What it costs that a sandbox serves one principal only (SANDBOX_SHARING): requests that come one after another from 1, 4 and 50
 * principals in turns, and as many as there are places at a time.
 *
 * `npm run bench:sharing [-- --write]`: with `--write`, docs/benchmark-sharing.md is written too.
 */
import { mkdtempSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { median, quantile } from "./settings.ts";

const SECONDS = Number(process.env.BENCH_SECONDS ?? 10);
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 3);
const POOL_SIZE = 2;
const PRINCIPALS = [1, 4, 50];
const PLACES = [POOL_SIZE, 4];
const SHARINGS = ["all", "principal"] as const;

interface Result {
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** Sandboxes started for each request. */
  readonly starts: number;
  readonly mib: number;
}

const folder = mkdtempSync(path.join(os.tmpdir(), "bench-sharing-"));
const keyOf = (i: number) => `key-of-principal-${i}`.padEnd(24, "x");

async function start(sharing: (typeof SHARINGS)[number], principals: number, size: number): Promise<ServerProcess> {
  const keys = Array.from({ length: principals }, (_, i) => `p${i}:${keyOf(i)}`);
  return await startServerProcess(["src/cli/main.ts", "serve"], {
    PORT: "0",
    DATA_DIR: path.join(folder, `${sharing}-${principals}-${size}`),
    CACHE_DIR: path.join(folder, "cache"),
    PYODIDE_PACKAGES: "none",
    PACKAGE_INDEX_URL: "none",
    POOL_SIZE: String(size),
    SANDBOX_SHARING: sharing,
    API_KEYS: [...keys, `root:${keyOf(10_000)}:admin+stats`].join(","),
    LOG_LEVEL: "info",
  });
}

async function run(url: string, key: string): Promise<number> {
  const startedAt = performance.now();
  const response = await fetch(`${url}/api/execute`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-api-key": key },
    body: JSON.stringify({ code: "sum(i * i for i in range(1000))" }),
  });
  const { result } = (await response.json()) as { result: number };
  if (result !== 332_833_500) throw new Error(`a wrong answer: ${response.status} ${result}`);
  return performance.now() - startedAt;
}

async function started(url: string): Promise<number> {
  const response = await fetch(`${url}/api/status`, { headers: { "x-api-key": keyOf(10_000) } });
  return ((await response.json()) as { pool: { started: number } }).pool.started;
}

/** @param clients at a time; each sends its next request when it has its reply, as the principal whose turn it is. */
async function measure(server: ServerProcess, principals: number, clients: number): Promise<Result> {
  for (let i = 0; i < Math.min(principals, 8); i++) await run(server.url, keyOf(i));
  const before = await started(server.url);
  const times: number[] = [];
  const startedAt = performance.now();
  let turn = 0;
  const client = async () => {
    while (performance.now() - startedAt < SECONDS * 1000)
      times.push(await run(server.url, keyOf(turn++ % principals)));
  };
  await Promise.all(Array.from({ length: clients }, client));
  const seconds = (performance.now() - startedAt) / 1000;
  const { server: own, children } = server.residentBytes();
  return {
    perSecond: times.length / seconds,
    p50Ms: quantile(times, 0.5),
    p99Ms: quantile(times, 0.99),
    starts: ((await started(server.url)) - before) / times.length,
    mib: (own + children) / 2 ** 20,
  };
}

const rows: string[] = [];
try {
  for (const size of PLACES) {
    for (const principals of PRINCIPALS) {
      const results = new Map<string, Result[]>(SHARINGS.map((sharing) => [sharing, []]));
      for (let round = 0; round < ROUNDS; round++) {
        for (const sharing of SHARINGS) {
          const server = await start(sharing, principals, size);
          try {
            results.get(sharing)?.push(await measure(server, principals, size));
          } finally {
            await server.stop();
          }
        }
      }
      for (const [sharing, all] of results) {
        const of = (name: keyof Result) => median(all.map((result) => result[name]));
        const cells = [
          String(size),
          String(principals),
          `\`${sharing}\``,
          of("perSecond").toFixed(0),
          of("p50Ms").toFixed(1),
          of("p99Ms").toFixed(1),
          of("starts").toFixed(2),
          of("mib").toFixed(0),
        ];
        rows.push(`| ${cells.join(" | ")} |`);
        console.error(rows.at(-1));
      }
    }
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}

const text = `# Benchmark of SANDBOX_SHARING

Written by \`npm run bench:sharing -- --write\`. ${os.cpus().length} × ${os.cpus()[0]?.model}, Node ${process.versions.node}, load ${(os.loadavg()[0] as number).toFixed(1)}.
Requests of \`sum(i * i for i in range(1000))\` from principals in turns, as many at a time as POOL_SIZE, medians of ${ROUNDS} rounds of ${SECONDS} s.
\`principal\` keeps half of POOL_SIZE more sandboxes; memory counts shared pages once for each process. The worst case: no principal comes twice in
a row. Starts for each request say how often a principal found no sandbox of its own.

| POOL_SIZE | principals | sharing | requests/s | p50, ms | p99, ms | starts for each request | memory, MiB |
| ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |
${rows.join("\n")}
`;
console.log(text);
if (process.argv.includes("--write")) {
  writeFileSync(new URL("../docs/benchmark-sharing.md", import.meta.url), text);
}
