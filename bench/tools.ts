/**
 * `npm run bench:tools`: how long code waits for its caller's tools. The round trip of a call over each transport beside a bare HTTP echo,
 * 100 calls at once, and what an execution that waits takes. `-- --write` keeps the report in docs/benchmark-tools.md; `-- --quick` only
 * shows that it works.
 */
import { writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import os from "node:os";
import { setTimeout as delay } from "node:timers/promises";
import { figure, type Target, toTable } from "./report.ts";
import { type ServerProcess, startServerProcess } from "./server-process.ts";
import { BENCH, median, OURS, oursWith, quantile } from "./settings.ts";
import { post, type Tool, ToolEndpoint, TRANSPORTS, type Transport } from "./tool-clients.ts";
import { measureWaiting, WAITING } from "./tool-memory.ts";

/** Most of what TOOL_CALLS_MAX lets: the first hundreds of a server's calls take twice as long, until its code is compiled. */
const CALLS = BENCH.isQuick ? 50 : 900;
const PARALLEL = 100;
const TOOL_MS = 50;
const ECHO = { name: "echo", parameters: { type: "object", properties: { value: { type: "integer" } } } };
const ONE_BY_ONE = { code: `for i in range(${CALLS + 1}): echo(value=i)\ni`, tools: [ECHO] };
const AT_ONCE = {
  code: `import asyncio\nsum(await asyncio.gather(*(echo(value=i) for i in range(${PARALLEL}))))`,
  tools: [ECHO],
  toolMode: "async",
};

interface Measured {
  /** From a call to the next, ms. The fastest tenth is what other load on the machine changes least. */
  readonly p10: number;
  readonly p50: number;
  readonly p99: number;
  /** Of one call, ms: of the server, and of its sandboxes. */
  readonly serverCpu: number;
  readonly sandboxCpu: number;
}

/** @param run makes {@link CALLS} and one more, one after another. */
async function timed(server: ServerProcess, run: (tool: Tool) => Promise<void>): Promise<Measured> {
  const times: number[] = [];
  const before = server.cpuMs();
  await run(({ value }) => {
    times.push(performance.now());
    return value;
  });
  const after = server.cpuMs();
  const gaps = times.slice(1).map((time, i) => time - (times[i] as number));
  if (gaps.length !== CALLS) throw new Error(`${gaps.length + 1} calls instead of ${CALLS + 1}`);
  return {
    p10: quantile(gaps, 0.1),
    p50: quantile(gaps, 0.5),
    p99: quantile(gaps, 0.99),
    serverCpu: (after.server - before.server) / CALLS,
    sandboxCpu: (after.children - before.children) / CALLS,
  };
}

async function echoCalls({ url }: ServerProcess, tool: Tool): Promise<void> {
  for (let value = 0; value <= CALLS; value++) {
    tool({ value });
    // As large as an answer.
    await post(url, { type: "results", execution: "e", results: [{ id: "call_100000000000000", result: value }] });
  }
}

async function oneByOne(url: string, transport: Transport, tool: Tool): Promise<void> {
  const { result } = await transport(url, ONE_BY_ONE, tool);
  if (result !== CALLS) throw new Error(`answered ${JSON.stringify(result)}`);
}

/** From sending the code to its result, ms. */
async function atOnce(url: string, transport: Transport): Promise<number> {
  const startedAt = performance.now();
  const { result } = await transport(url, AT_ONCE, async ({ value }) => {
    await delay(TOOL_MS);
    return value;
  });
  if (result !== (PARALLEL * (PARALLEL - 1)) / 2) throw new Error(`answered ${JSON.stringify(result)}`);
  return performance.now() - startedAt;
}

const log = (line: string) => console.error(line);
const loadBefore = os.loadavg()[0] ?? 0;
if (loadBefore > 0.5) log(`The machine is busy (load average ${loadBefore.toFixed(1)}): times are longer, and noisy.`);
const { rounds } = BENCH;

await using endpoint = new ToolEndpoint();
const toolUrl = await endpoint.listen();
const transports: Readonly<Record<string, Transport>> = { ...TRANSPORTS, "signed webhook": endpoint.transport };
const ECHO_NAME = "bare HTTP echo";
const calls = new Map<string, Measured[]>([ECHO_NAME, ...Object.keys(transports)].map((name) => [name, []]));
const parallel = new Map<string, number[]>(Object.keys(transports).map((name) => [name, []]));

const settings = {
  POOL_SIZE: "2",
  TOOL_ENDPOINTS: toolUrl,
  TOOL_ENDPOINT_SECRET: "of a benchmark: no secret",
  NETWORK_ALLOW_PRIVATE: "true",
};
try {
  const server = await startServerProcess(OURS.args, oursWith("tools", settings));
  const echo = await startServerProcess(["bench/peers/http-echo.ts"]);
  try {
    // The first round warms up.
    for (let round = 0; round <= rounds; round++) {
      const keep = <T>(of: Map<string, T[]>, name: string, value: T) => round > 0 && of.get(name)?.push(value);
      keep(calls, ECHO_NAME, await timed(echo, (tool) => echoCalls(echo, tool)));
      for (const [name, transport] of Object.entries(transports)) {
        keep(calls, name, await timed(server, (tool) => oneByOne(server.url, transport, tool)));
        keep(parallel, name, await atOnce(server.url, transport));
      }
      log(`round ${round} of ${rounds}`);
    }
  } finally {
    await Promise.all([server.stop(), echo.stop()]);
  }
  const waiting = await measureWaiting(rounds);

  const of = (name: string, fact: keyof Measured) => median((calls.get(name) ?? []).map((measured) => measured[fact]));
  const echoMs = of(ECHO_NAME, "p50");
  const most = (name: string, value: number, limit: number): Target => ({
    name,
    reached: `${figure(value)} ms (${figure(limit)})`,
    met: value <= limit,
  });
  const targets = [
    most("a call over the WebSocket, p50 ≤ 1.5 × the echo + 1 ms", of("WebSocket", "p50"), 1.5 * echoMs + 1),
    ...Array.from(parallel, ([name, times]) =>
      most(`${PARALLEL} calls at once of a tool of ${TOOL_MS} ms, ${name}, ≤ 150 ms`, median(times), 150),
    ),
  ];
  const kib = (bytes: number) => figure(bytes / 1024);
  const report = `# Benchmark of tool calls

Written by \`npm run bench:tools -- --write\`; do not edit. ${new Date().toISOString().slice(0, 10)}, ${os.cpus().length} × ${os.cpus()[0]?.model.trim()}, Node ${process.versions.node}.
Load average before and after: ${figure(loadBefore)}, ${figure(os.loadavg()[0] ?? 0)}; where it is above 0.5 other work has run on the machine: times are longer then, and what counts is processor time and memory. Medians of ${rounds} rounds in turns.

${toTable(
  ["target", "reached", ""],
  targets.map(({ name, reached, met }) => [name, reached, met ? "yes" : "**no**"]),
)}

${toTable(
  ["a call and its answer", "p10, ms", "p50, ms", "p99, ms", "× the echo", "server, CPU ms", "sandboxes, CPU ms"],
  Array.from(calls.keys(), (name) => [
    name,
    ...(["p10", "p50", "p99"] as const).map((fact) => figure(of(name, fact))),
    figure(of(name, "p50") / echoMs),
    ...(["serverCpu", "sandboxCpu"] as const).map((fact) => figure(of(name, fact))),
  ]),
)}

From one call to the next, of ${CALLS + 1} blocking calls in one execution, as the client sees them: answer, server, sandbox, Python, and back. The echo is \`node:http\` in a process of its
own, asked by the same client over a connection that is kept. Beside the client's
trip a call makes two from the sandbox to the server and back, to begin and to wait: six times a process is woken, where the echo has two. On a busy machine each of them may wait for a processor.

${toTable(
  [`${PARALLEL} calls at once, tool of ${TOOL_MS} ms`, "from the code to its result, ms"],
  Array.from(parallel, ([name, times]) => [name, figure(median(times))]),
)}

Each answer goes by itself; plain HTTP sends all in one request. An endpoint has at most 16 calls of an execution at a time, so that ${PARALLEL} take ${Math.ceil(PARALLEL / 16)} times as long as the tool.

${toTable(
  ["an execution that waits", "KiB"],
  [
    ["server, resident, more", kib(waiting.server)],
    ["server, heap after garbage collection, more", kib(waiting.heap)],
    ["sandbox, resident, more than an idle one", kib(waiting.sandbox)],
    ["sandbox that it holds, resident, with pages that it shares", kib(waiting.held)],
  ],
)}

${WAITING} executions that wait on plain HTTP, by difference, each.
`;
  console.log(report);
  if (process.argv.includes("--write")) writeFileSync(new URL("../docs/benchmark-tools.md", import.meta.url), report);
} finally {
  await rm(OURS.env.DATA_DIR, { recursive: true, force: true });
}
