import { execFile } from "node:child_process";
import { rm } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import type { Section } from "./report.ts";
import { startServerProcess } from "./server-process.ts";
import { BENCH, median, OURS, oursWith } from "./settings.ts";

const run = promisify(execFile);

/** From the start of a process until it can answer; each in turns. */
export async function measureStartup(log: (line: string) => void): Promise<Section> {
  // Builds the image where there is none.
  await sandboxMs();
  const times = { load: [], plain: [], sandbox: [], listens: [], ready: [] } as Record<string, number[]>;
  for (let round = 0; round < BENCH.starts; round++) {
    const startedAt = performance.now();
    const { stdout } = await run(process.execPath, ["bench/peers/plain-load.ts"]);
    times.plain?.push(performance.now() - startedAt);
    times.load?.push(Number(stdout));
    times.sandbox?.push(await sandboxMs());
    const server = await startServerProcess(OURS.args, oursWith("startup"));
    times.listens?.push(server.listensMs ?? Number.NaN);
    times.ready?.push(server.readyMs);
    await server.stop();
  }
  const cold = oursWith("cold");
  const cache = path.join(cold.DATA_DIR as string, "cache");
  const first = await startServerProcess(OURS.args, { ...cold, CACHE_DIR: cache });
  await first.stop();
  await rm(cache, { recursive: true, force: true });
  const of = (name: string) => median(times[name] ?? []);
  log(
    `start: loadPyodide ${of("load").toFixed(0)} ms, our sandbox ${of("sandbox").toFixed(0)}, listens ${of("listens").toFixed(0)}`,
  );
  return {
    id: "start",
    title: "Start",
    note: `Medians of ${BENCH.starts} starts in turns; the first start, which compiles the standard library and builds its image, once. Limit: Node itself starts in 35–60 ms, Deno in 30–50.`,
    tables: [
      {
        title: "Start of a process until",
        unit: "ms",
        chart: "bars",
        columns: ["ms"],
        rows: [
          { name: "our sandbox is ready, from the image", values: [of("sandbox")] },
          { name: "our server listens", values: [of("listens")] },
          { name: "our server can run all", values: [of("ready")] },
          { name: "our server can run all, first start ever", values: [first.readyMs] },
          { name: "loadPyodide() in a running Node process", values: [of("load")] },
          { name: "Node process with loadPyodide(), to its end", values: [of("plain")] },
        ],
      },
    ],
  };
}

/** As `doctor` measures it: from starting the process to its first word. */
async function sandboxMs(): Promise<number> {
  const { stdout } = await run(process.execPath, ["src/cli/main.ts", "doctor"], {
    env: { ...process.env, ...oursWith("startup") },
  });
  const bootMs = /^sandbox +ready in (\d+) ms$/m.exec(stdout)?.[1];
  if (bootMs === undefined) throw new Error(`no sandbox could be started:\n${stdout}`);
  return Number(bootMs);
}
