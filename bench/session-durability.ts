/**
 * What it costs that an answered execution is not lost: the same small execution without a session, in a session that is stored behind
 * its reply, and in one that is stored before it, on disk and in Redis. All servers run at once and are asked in turns, so that what
 * else the machine does falls on each alike; only ratios within one run count.
 */
import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { hasRedis, startRedis } from "../test/support/redis.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { BENCH, median, quantile } from "./settings.ts";

const ROUNDS = BENCH.rounds;
const REQUESTS = Number(process.env.BENCH_REQUESTS ?? (BENCH.isQuick ? 40 : 400));
/** A new process compiles its own code for some hundreds of requests. */
const WARM_UP = Number(process.env.BENCH_WARM_UP ?? (BENCH.isQuick ? 20 : 600));

const SETTINGS = { PORT: "0", POOL_SIZE: "1", PYODIDE_PACKAGES: "none", PACKAGE_INDEX_URL: "none", LOG_LEVEL: "info" };

export interface DurabilityFigures {
  readonly name: string;
  /** ms, of all rounds. */
  readonly p50: number;
  readonly p99: number;
  /** Median over the rounds of this one's p50 by the stateless one's in the same round. */
  readonly ratio: number;
}

interface Contender {
  readonly name: string;
  readonly request: (index: number) => Promise<void>;
  readonly rounds: number[][];
}

export async function measureDurability(): Promise<readonly DurabilityFigures[]> {
  const folder = mkdtempSync(path.join(os.tmpdir(), "bench-durability-"));
  const redis = hasRedis ? await startRedis() : null;
  const servers: ServerProcess[] = [];
  const start = async (name: string, settings: Record<string, string>) => {
    const env = { ...SETTINGS, DATA_DIR: path.join(folder, name), CACHE_DIR: path.resolve("data/cache"), ...settings };
    const server = await startServerProcess(["src/cli/main.ts", "serve"], env);
    servers.push(server);
    return server.url;
  };
  try {
    const stateless = await start("stateless", {});
    const contenders = [
      contender("stateless `1+1`", stateless, () => ({ code: "1+1" })),
      await inSession("after-reply, on disk", await start("after-reply", { SESSION_DURABILITY: "after-reply" })),
      await inSession("commit, on disk", await start("commit", { SESSION_DURABILITY: "commit" })),
    ];
    if (redis) {
      const settings = { SESSION_DURABILITY: "commit", REDIS_URL: redis.url };
      contenders.push(await inSession("commit, in Redis (`appendfsync always`)", await start("redis", settings)));
    }
    for (const { request } of contenders) for (let i = 0; i < WARM_UP; i++) await request(i);
    for (let round = 0; round < ROUNDS; round++) {
      for (const { request, rounds } of contenders) {
        const times: number[] = [];
        for (let i = 0; i < REQUESTS; i++) {
          const startedAt = performance.now();
          await request(i);
          times.push(performance.now() - startedAt);
        }
        rounds.push(times);
      }
    }
    const [base] = contenders;
    return contenders.map(({ name, rounds }) => ({
      name,
      p50: quantile(rounds.flat(), 0.5),
      p99: quantile(rounds.flat(), 0.99),
      ratio: median(rounds.map((times, round) => median(times) / median(base?.rounds[round] ?? []))),
    }));
  } finally {
    await Promise.all(servers.map((server) => server.stop()));
    await redis?.stop();
    await rm(folder, { recursive: true, force: true });
  }
}

async function inSession(name: string, url: string): Promise<Contender> {
  const { session } = (await post(url, "/api/sessions", {})) as { session: { id: string } };
  return contender(`session \`x = i\`, ${name}`, url, (index) => ({ code: `x = ${index}`, session: session.id }));
}

function contender(name: string, url: string, bodyOf: (index: number) => object): Contender {
  const request = async (index: number) => {
    const reply = (await post(url, "/api/execute", bodyOf(index))) as {
      success: boolean;
      session?: { pinned?: string };
    };
    if (!reply.success || reply.session?.pinned !== undefined) throw new Error(JSON.stringify(reply));
  };
  return { name, request, rounds: [] };
}

const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

/** By `node:http`: `fetch` takes as long as what is measured here. */
function post(url: string, route: string, body: object): Promise<unknown> {
  const text = JSON.stringify(body);
  const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(text) };
  return new Promise((resolve, reject) => {
    const request = http.request(url + route, { method: "POST", agent, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => resolve(JSON.parse(Buffer.concat(chunks).toString())));
    });
    request.on("error", reject).end(text);
  });
}
