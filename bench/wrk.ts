import { execFile, spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** One kind of request that wrk sends over and over. */
export interface WrkRequest {
  /** Path below the server's address; default `/api/execute`. */
  readonly path?: string;
  /** Default: `POST` with a body, else `GET`. */
  readonly body?: object;
  /** What each reply has to contain; looking for it takes processor time of the generator's. Default: only the status is looked at. */
  readonly expects?: string;
}

export interface WrkOptions extends WrkRequest {
  readonly url: string;
  readonly connections: number;
  readonly seconds: number;
}

export interface WrkResult {
  /** Answered with a status below 400, and as expected. */
  readonly good: number;
  /** Answered with another status: refusals. */
  readonly refused: number;
  /** Connections that could not be made or broke, and replies that did not come in time. */
  readonly broken: number;
  readonly seconds: number;
  readonly goodPerSecond: number;
  /** Of all replies, ms. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** Processor time of the generator itself for one reply, ms. */
  readonly generatorCpuMs: number;
}

const HINT =
  "The benchmarks need wrk, a load generator that takes next to no processor time: `apt-get install wrk` (Debian, Ubuntu).";

/** @throws {Error} that says how to get it, if it is missing. */
export function requireWrk(): string {
  // It prints its version with an exit status of 1.
  const { stdout, error } = spawnSync("wrk", ["-v"], { encoding: "utf8" });
  if (error !== undefined) throw new Error(HINT);
  return /^wrk \S+/.exec(stdout)?.[0] ?? "wrk";
}

/**
 * Sends one request over `connections` connections, each as soon as it has its last reply.
 *
 * @throws {Error} if wrk is missing, or a reply with a status below 400 lacks what it has to contain.
 */
export async function wrk({ url, connections, seconds, ...request }: WrkOptions): Promise<WrkResult> {
  requireWrk();
  const folder = await mkdtemp(path.join(os.tmpdir(), "bench-wrk-"));
  try {
    const script = path.join(folder, "request.lua");
    await writeFile(script, luaOf(request));
    const args = ["-t1", `-c${connections}`, `-d${seconds}s`, "--timeout", "60s", "-s", script];
    const { stdout } = await run("wrk", [...args, url + (request.path ?? "/api/execute")], { maxBuffer: 2 ** 26 });
    return resultOf(stdout);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** wrk runs `request` and `response` in the thread that sends, `done` in the main one, which sees that thread's globals as JSON text. */
function luaOf({ body, expects }: WrkRequest): string {
  return `
${body === undefined ? "" : `wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\nwrk.body = ${luaText(JSON.stringify(body))}`}
local threads = {}
function setup(thread) table.insert(threads, thread) end
wrong = ""
${
  expects === undefined
    ? ""
    : `function response(status, headers, text)
  if status < 400 and not text:find(${luaText(expects)}, 1, true) then wrong = status .. " " .. text:sub(1, 500) end
end`
}
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d %d %.6f %.3f %.3f %.3f\\n", summary.requests, summary.duration, e.connect,
    e.read, e.write, e.status, e.timeout, os.clock(), latency:percentile(50), latency:percentile(99), latency.max))
  io.write("WRONG ", threads[1]:get("wrong"), "\\n")
end
`;
}

function resultOf(stdout: string): WrkResult {
  const wrong = /^WRONG (.+)$/m.exec(stdout)?.[1];
  if (wrong) throw new Error(`a wrong reply: ${wrong}`);
  const numbers = /^RESULT (.+)$/m.exec(stdout)?.[1]?.split(" ").map(Number);
  if (numbers === undefined) throw new Error(`wrk said nothing of its result:\n${stdout}`);
  const [requests, us, connect, read, write, status, timeout, cpuS, p50, p99, max] = numbers as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const good = requests - status;
  return {
    good,
    refused: status,
    broken: connect + read + write + timeout,
    seconds: us / 1e6,
    goodPerSecond: good / (us / 1e6),
    p50Ms: p50 / 1000,
    p99Ms: p99 / 1000,
    maxMs: max / 1000,
    generatorCpuMs: (cpuS * 1000) / Math.max(1, requests),
  };
}

/** A text as Lua writes it. */
const luaText = (text: string): string =>
  `"${text.replace(/[^ !#-[\]-~]/gu, (c) => [...Buffer.from(c)].map((byte) => `\\${String(byte).padStart(3, "0")}`).join(""))}"`;
