import { rm } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { hasRedis, startRedis } from "../support/redis.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";

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
[n, next(numbers), open("log").read().split()[-1], len(open("log").read().split())]`;

const folders: string[] = [];
const folder = () => {
  const made = temporaryFolder("session-kills");
  folders.push(made);
  return made;
};

describe("kill -9 at random moments under load: no answered execution is lost, none is run twice", () => {
  test("of server and sandboxes, on disk", { timeout: 60_000 + KILLS * 30_000 }, async () => {
    const dataDir = folder();
    const server = { current: await startServerProcess(dataDir, SETTINGS) };
    try {
      await loadAndKill([server], async (kill) => {
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
    const servers = await Promise.all(dirs.map(async (dir) => ({ current: await startServerProcess(dir, settings) })));
    try {
      await loadAndKill(servers, async (kill) => {
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
});

async function loadAndKill(
  servers: readonly { readonly current: ServerProcess }[],
  kill: (kill: number) => Promise<void>,
): Promise<void> {
  let over = false;
  const progress = Array.from({ length: SESSIONS }, () => 0);
  const clients = Array.from({ length: SESSIONS }, (_, index) =>
    client(
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
    const status = (await attempt("/api/sessions", { id }))?.status;
    made = status === 201 || status === 409;
  }
  while ((await attempt("/api/execute", { code: BEGIN, session: id }))?.body.success !== true);
  let answered = 0;
  let unanswered = 0;
  while (!isOver()) {
    const reply = await attempt("/api/execute", { code: STEP, session: id });
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
    const [n, next, last, lines] = reply.body.result as [number, number, string, number];
    expect([next, Number(last), lines]).toEqual([n, n, n]);
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
