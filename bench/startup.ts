import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { loadConfig } from "../src/config.ts";
import { stdlibImage } from "../src/environments/image-cache.ts";
import { Sandbox } from "../src/sandbox/sandbox.ts";
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

/** Starts each in turns. */
export async function measureStartup(log: (line: string) => void): Promise<Startup> {
  const config = loadConfig(OURS.env);
  const limits = { memoryMb: config.SANDBOX_MEMORY_MB, startTimeoutMs: config.SANDBOX_START_TIMEOUT_MS };
  const image = await stdlibImage({ cacheDir: config.CACHE_DIR, ...limits, onProgress: log });
  const times = { load: [] as number[], plain: [] as number[], sandbox: [] as number[], server: [] as number[] };
  for (let round = 0; round < BENCH.starts; round++) {
    const startedAt = performance.now();
    const { stdout } = await run(process.execPath, ["bench/peers/plain-load.ts"]);
    times.plain.push(performance.now() - startedAt);
    times.load.push(Number(stdout));
    const sandboxStartedAt = performance.now();
    const sandbox = await Sandbox.start({
      guest: { imagePath: image.path, preload: [], maxHeapBytes: Number.MAX_SAFE_INTEGER, hashCheckpoint: false },
      ...limits,
    });
    times.sandbox.push(performance.now() - sandboxStartedAt);
    sandbox.kill("measured");
    await sandbox.ended;
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
