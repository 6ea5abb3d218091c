import { rm } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { hasRedis, startRedis } from "../support/redis.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";
import { until } from "../support/until.ts";

/** Kills in each test; the figure is 200. */
const KILLS = Number(process.env.SESSION_KILLS ?? 4);
const SESSIONS = 4;
const SETTINGS = { POOL_SIZE: "2", SESSION_DURABILITY: "commit", SESSION_LEASE_MS: "1000", LOG_LEVEL: "info" };

/** A counter in memory, the same in a file, and a generator: all three must have seen the same executions. */
const BEGIN = `
def count():
    n = 0
    while True:
        n += 1
        yield n
numbers, n, log = count(), 0, open("log", "a")`;
const STEP = `
n += 1
print(n, file=log, flush=True)
[n, next(numbers), open("log").read().split()]`;

/** As its principal's workspace, where all sessions write. */
const onWorkspace = (code: string, index: number) => code.replaceAll('"log"', `"log-${index}"`);

const folders: string[] = [];
const folder = () => {
  const made = temporaryFolder("session-kills");
  folders.push(made);
  return made;
};

type Files = "own" | "workspace";

describe.each<Files>(["own", "workspace"])(
  "kill -9 at random moments under load, with %s files: no answered execution is lost, none is run twice",
  (files) => {
    test("of server and sandboxes, on disk", { timeout: 60_000 + KILLS * 30_000 }, async () => {
      const dataDir = folder();
      const server = { current: await startServerProcess(dataDir, SETTINGS) };
      try {
        await loadAndKill(files, [server], async (kill) => {
          if (kill % 2 === 0) {
            await server.current.kill();
            server.current = await startServerProcess(dataDir, SETTINGS);
          } else {
            killSandboxes(server.current);
          }
        });
      } finally {
        await server.current.kill();
        await rm(dataDir, { recursive: true, force: true });
      }
    });

    test.skipIf(!hasRedis)("of two servers on Redis", { timeout: 60_000 + KILLS * 30_000 }, async () => {
      const redis = await startRedis();
      const settings = { ...SETTINGS, POOL_SIZE: "1", REDIS_URL: redis.url };
      const dirs = [folder(), folder()];
      const servers = await Promise.all(
        dirs.map(async (dir) => ({ current: await startServerProcess(dir, settings) })),
      );
      try {
        await loadAndKill(files, servers, async (kill) => {
          const index = Math.floor(kill / 2) % 2;
          const server = servers[index] as (typeof servers)[number];
          if (kill % 2 === 0) {
            await server.current.kill();
            server.current = await startServerProcess(dirs[index] as string, settings);
          } else {
            killSandboxes(server.current);
          }
        });
      } finally {
        await Promise.all(servers.map(({ current }) => current.kill()));
        await redis.stop();
        for (const dir of dirs) await rm(dir, { recursive: true, force: true });
      }
    });
  },
);

test("kill -9 between the change of a workspace and its session's leaves what was written, and the session as it was", {
  timeout: 60_000,
}, async () => {
  const dataDir = folder();
  let server = await startServerProcess(dataDir, SETTINGS);
  const execute = async (code: string) => {
    const headers = { "content-type": "application/json" };
    const request = { method: "POST", headers, body: JSON.stringify({ code, session: "s" }) };
    const response = await fetch(`${server.url}/api/execute`, request);
    return (await response.json()) as { result: unknown; session: object };
  };
  try {
    const body = JSON.stringify({ id: "s", files: "workspace" });
    await fetch(`${server.url}/api/sessions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body,
    });
    await execute("x = 1; log = open('log', 'a'); f = open('f', 'w+'); f.write('1 ')");
    // A state of this size takes long enough to be listed, compressed and stored that the kill most likely comes before it is.
    const answer = execute(
      "import os; x = 2; large = os.urandom(60_000_000); log.write('2 '); f.write('2 '); open('written', 'w').write('whole')",
    ).catch(() => "none" as const);
    await until(async () => (await fetch(`${server.url}/api/files/written`)).status === 200);
    await server.kill();
    const wasAnswered = (await answer) !== "none";
    server = await startServerProcess(dataDir, SETTINGS);
    const { result, session } = await execute(
      "log.write('3 '); log.flush(); [x, *(open(name).read() for name in ('written', 'log', 'f'))]",
    );
    const [x, ...files] = result as [number, string, string, string];
    expect(files).toEqual(["whole", "2 3 ", "1 2 "]);
    expect(session).toEqual(x === 1 ? { id: "s", staleFiles: ["/home/pyodide/f"] } : { id: "s" });
    if (wasAnswered) expect(x).toBe(2);
    else expect([1, 2]).toContain(x);
  } finally {
    await server.kill();
    await rm(dataDir, { recursive: true, force: true });
  }
});

async function loadAndKill(
  files: Files,
  servers: readonly { readonly current: ServerProcess }[],
  kill: (kill: number) => Promise<void>,
): Promise<void> {
  let over = false;
  const progress = Array.from({ length: SESSIONS }, () => 0);
  const clients = Array.from({ length: SESSIONS }, (_, index) =>
    client(
      files,
      servers,
      index,
      () => over,
      (answered) => {
        progress[index] = answered;
      },
    ),
  );
  const failed = Promise.all(clients);
  // A client that found something wrong ends the test at once.
  failed.catch(() => {
    over = true;
  });
  for (let count = 0; count < KILLS && !over; count++) {
    const before = [...progress];
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 500));
    await kill(count);
    // Every session goes on after each kill.
    while (!over && progress.some((answered, index) => answered <= (before[index] as number))) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  over = true;
  await failed;
}

/** Drives one session and checks each answer. */
async function client(
  files: Files,
  servers: readonly { readonly current: ServerProcess }[],
  index: number,
  isOver: () => boolean,
  onAnswer: (answered: number) => void,
): Promise<void> {
  const id = `session-${index}`;
  let turn = index;
  const send = async (path: string, body: object) => {
    const { url } = (servers[turn++ % servers.length] as { current: ServerProcess }).current;
    const response = await fetch(url + path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  };
  const attempt = async (path: string, body: object) => {
    try {
      return await send(path, body);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 20));
      return null;
    }
  };
  for (let made = false; !made; ) {
    const status = (await attempt("/api/sessions", { id, files }))?.status;
    made = status === 201 || status === 409;
  }
  const codeOf = (code: string) => (files === "workspace" ? onWorkspace(code, index) : code);
  while ((await attempt("/api/execute", { code: codeOf(BEGIN), session: id }))?.body.success !== true);
  let answered = 0;
  let unanswered = 0;
  while (!isOver()) {
    const reply = await attempt("/api/execute", { code: codeOf(STEP), session: id });
    if (reply === null) {
      // The server went without an answer: it was kept, or it was not.
      unanswered++;
      continue;
    }
    if (reply.body.success !== true) {
      // The answer is that it was not kept, and that is to be true.
      expect(reply.body).toSatisfy(
        (body: { session?: { restored?: boolean } }) => body.session?.restored === true || reply.status >= 409,
      );
      continue;
    }
    const [n, next, lines] = reply.body.result as [number, number, string[]];
    expect(next).toBe(n);
    // A workspace may have a line of an execution whose state was not stored any more: then that execution is not answered, and its number comes again.
    const numbers =
      files === "own" ? lines.map(Number) : lines.map(Number).filter((line, at, all) => line !== all[at - 1]);
    expect(numbers).toEqual(Array.from({ length: n }, (_, i) => i + 1));
    expect(reply.body.session as object).toEqual({ id });
    expect(n).toBeGreaterThan(answered);
    expect(n).toBeLessThanOrEqual(answered + 1 + unanswered);
    answered = n;
    unanswered = 0;
    onAnswer(answered);
  }
}

function killSandboxes(server: ServerProcess): void {
  for (const pid of server.descendants()) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It ended before that.
    }
  }
}
