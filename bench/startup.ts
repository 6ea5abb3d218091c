import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { startServerProcess } from "./server-process.ts";
import { BENCH, median, OURS } from "./settings.ts";

const run = promisify(execFile);

/** Medians, ms. */
export interface Startup {
  /** `loadPyodide()` alone, in a Node process that is already running. */
  readonly loadPyodideMs: number;
  /** The whole Node process: start, `loadPyodide()`, end. */
  readonly plainProcessMs: number;
  /** Start of a sandbox process to its `ready`, from the cached image. */
  readonly sandboxMs: number;
  /** Start of our server's process until it listens, with its first sandbox ready. */
  readonly serverMs: number;
}

/** Starts each in turns. The first `doctor` builds the image where there is none. */
export async function measureStartup(log: (line: string) => void): Promise<Startup> {
  await sandboxMs();
  const times = { load: [] as number[], plain: [] as number[], sandbox: [] as number[], server: [] as number[] };
  for (let round = 0; round < BENCH.starts; round++) {
    const startedAt = performance.now();
    const { stdout } = await run(process.execPath, ["bench/peers/plain-load.ts"]);
    times.plain.push(performance.now() - startedAt);
    times.load.push(Number(stdout));
    times.sandbox.push(await sandboxMs());
    const server = await startServerProcess(OURS.args, OURS.env);
    times.server.push(server.readyMs);
    await server.stop();
  }
  const startup: Startup = {
    loadPyodideMs: median(times.load),
    plainProcessMs: median(times.plain),
    sandboxMs: median(times.sandbox),
    serverMs: median(times.server),
  };
  log(`start: loadPyodide ${startup.loadPyodideMs.toFixed(0)} ms, our sandbox ${startup.sandboxMs.toFixed(0)} ms`);
  return startup;
}

/** As `doctor` measures it: from starting the process to its first word. */
async function sandboxMs(): Promise<number> {
  const { stdout } = await run(process.execPath, ["src/cli/main.ts", "doctor"], {
    env: { ...process.env, ...OURS.env },
  });
  const bootMs = /^sandbox +ready in (\d+) ms$/m.exec(stdout)?.[1];
  if (bootMs === undefined) throw new Error(`no sandbox could be started:\n${stdout}`);
  return Number(bootMs);
}
