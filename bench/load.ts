/**
 * The load generator, a process of its own: `node bench/load.ts '{"url": …}'` prints a `LoadResult` as JSON.
 *
 * Every reply is checked: a fast wrong answer is a failure.
 */
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import autocannon from "autocannon";
import { EVERY_PROGRAM } from "./programs.ts";

export interface LoadOptions {
  readonly url: string;
  /** Indices into `EVERY_PROGRAM`; more than one: in turns. */
  readonly programs: readonly number[];
  readonly connections: number;
  /** Further fields of each request's body. */
  readonly body?: Readonly<Record<string, unknown>>;
  /** For so many seconds, or for so many requests. */
  readonly seconds?: number;
  readonly requests?: number;
}

export interface LoadResult {
  readonly requestsPerSecond: number;
  readonly latencyP50Ms: number;
  readonly latencyP99Ms: number;
  readonly requests: number;
}

const SELF = fileURLToPath(import.meta.url);

/**
 * Sends load from another process.
 *
 * @throws if a single reply was wrong or missing.
 */
export async function load(options: LoadOptions): Promise<LoadResult> {
  const child = spawn(process.execPath, [SELF, JSON.stringify(options)], { stdio: ["ignore", "pipe", "inherit"] });
  const exited = new Promise<number | null>((resolve) => child.once("close", resolve));
  const output = await text(child.stdout);
  const code = await exited;
  if (code !== 0) throw new Error(`the load generator failed: ${output}`);
  return JSON.parse(output) as LoadResult;
}

async function main(options: LoadOptions): Promise<void> {
  let wrong = "";
  const check = (expected: string) => (status: number, body: string) => {
    if (status !== 200 || !body.includes(expected)) wrong = `${status} ${body.slice(0, 500)}`;
  };
  const startedAt = performance.now();
  const result = await autocannon({
    url: `${options.url}/api/execute`,
    connections: options.connections,
    ...(options.requests === undefined ? { duration: options.seconds ?? 1 } : { amount: options.requests }),
    requests: options.programs.map((index) => {
      const { code, stdout } = EVERY_PROGRAM[index] as (typeof EVERY_PROGRAM)[number];
      return {
        method: "POST" as const,
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ code, ...options.body }),
        onResponse: check(`"stdout":${JSON.stringify(stdout)}`),
      };
    }),
  });
  if (result.errors > 0 || result.non2xx > 0 || wrong !== "") {
    console.log(`${result.errors} errors, ${result.non2xx} refused; ${wrong}`);
    process.exit(1);
  }
  const seconds = options.requests === undefined ? result.duration : (performance.now() - startedAt) / 1000;
  const answer: LoadResult = {
    requestsPerSecond: result["2xx"] / seconds,
    latencyP50Ms: result.latency.p50,
    latencyP99Ms: result.latency.p99,
    requests: result["2xx"],
  };
  console.log(JSON.stringify(answer));
}

if (process.argv[1] === SELF) await main(JSON.parse(process.argv[2] ?? "{}") as LoadOptions);
