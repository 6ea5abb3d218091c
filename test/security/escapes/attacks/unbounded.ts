import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readdirSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import path from "node:path";
import { residentBytesOf } from "../../../support/processes.ts";
import { until } from "../../../support/until.ts";
import type { Attack, Prize, Technique } from "../attack.ts";
import type { Reply, Target } from "../target.ts";

const MALLORY = "mallorys-own-key-here";
const ALICE = "alices-own-key-here";
/** Never used before it is guessed. */
const CAROL = "carols-own-key-here";
const MIB = 2 ** 20;
/** Requests that one principal may have open. */
const MAX_OPEN = 60;

/** What an attacker says who has won, or not. */
const saying = (won: boolean, { won: text }: Prize): Reply[] => [{ status: 200, text: won ? text : "", body: null }];

const as = (key: string, init: RequestInit = {}): RequestInit => ({
  ...init,
  headers: { "x-api-key": key, ...(init.headers as Record<string, string>) },
});

/** The server may delete a sealed log between the listing and the look at its size. */
const logBytes = ({ logDir }: Target): number =>
  readdirSync(logDir)
    .filter((name) => /^security\.log(\.\d+)?$/.test(name))
    .reduce((sum, name) => sum + (statSync(path.join(logDir, name), { throwIfNoEntry: false })?.size ?? 0), 0);

/** A connection from another address of this machine, as another client's. */
async function open(target: Target, localAddress: string, request: string): Promise<Socket> {
  const { hostname, port } = new URL(target.url);
  const socket = connect({ host: hostname, port: Number(port), localAddress }).on("error", () => {});
  await new Promise((resolve) => socket.once("connect", resolve).once("close", resolve));
  socket.write(request);
  return socket;
}

const post = (path: string, body: string): string =>
  `POST ${path} HTTP/1.1\r\nHost: x\r\nX-API-Key: ${MALLORY}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;

async function isRunning(target: Target, session: string): Promise<boolean> {
  return (await target.send(`/api/sessions/${session}`, as(MALLORY))).body.session?.state === "running";
}

async function newSession(target: Target, key: string): Promise<string> {
  return (await target.send("/api/sessions", as(key, { method: "POST" }))).body.session.id;
}

async function putFile(target: Target, key: string, bytes: Buffer): Promise<{ session: string; status: number }> {
  const session = await newSession(target, key);
  const { status } = await target.send(
    `/api/sessions/${session}/files/f`,
    as(key, { method: "PUT", body: new Uint8Array(bytes) }),
  );
  return { session, status };
}

/** Stores random contents until no more is taken. */
async function fillStore(target: Target): Promise<string[]> {
  const sessions: string[] = [];
  for (let i = 0; i < 200; i++) {
    const { session, status } = await putFile(target, MALLORY, randomBytes(MIB));
    sessions.push(session);
    if (status === 507) break;
  }
  return sessions;
}

async function deleteSessions(target: Target, key: string, sessions: readonly string[]): Promise<void> {
  for (const session of sessions) await target.send(`/api/sessions/${session}`, as(key, { method: "DELETE" }));
}

const attack = (name: string, act: NonNullable<Attack["act"]>, rest: Partial<Attack> = {}): Attack => ({
  name,
  code: "",
  act,
  ...rest,
});

/** What a client can make grow or repeat, before it has said who it is and after. */
export const UNBOUNDED: Technique = {
  title: "unbounded use",
  settings: {
    API_KEYS: `mallory:${MALLORY},alice:${ALICE},carol:${CAROL}`,
    SESSION_STORE_MAX_MB: "24",
    PRINCIPAL_MAX_OPEN: String(MAX_OPEN),
    LOG_CODE: "true",
    LOG_MAX_SIZE: String(MIB / 4),
    LOG_MAX_TOTAL_MB: "1",
  },
  controls: [["client-limits"], ["shares"], ["own-contents"]],
  attacks: [
    attack("200 guesses of keys, of which the last is right", async (target, prize) => {
      // What is known to come from here goes on; the attacks after this one are to be heard.
      for (const key of [MALLORY, ALICE]) await target.send("/api/status", as(key));
      for (let i = 0; i < 200; i++) await target.send("/api/stats", as(`a-wrong-key-number-${i}`));
      const { status } = await target.send("/api/stats", as(CAROL));
      return saying(status === 200, prize);
    }),
    attack("500 requests with a wrong key and long headers, to fill the log", async (target, prize) => {
      const before = logBytes(target);
      const headers = { "user-agent": "\u00ff".repeat(6000) };
      for (let i = 0; i < 500; i++)
        await target.send(`/api/${"p".repeat(6000)}`, as("a-wrong-key-of-mallory", { headers }));
      return saying(logBytes(target) - before > 50_000, prize);
    }),
    attack("large code again and again, so that logs take the disk", async (target, prize) => {
      for (let i = 0; i < 40; i++) {
        const { status } = await target.run(`# ${i} ${"x".repeat(90_000)}`);
        if (status !== 200) throw new Error(`the attack was not run: ${status}`);
      }
      return saying(logBytes(target) > 2 * MIB, prize);
    }),
    attack("one request's code that installs what is none again and again, to fill the log", async (target, prize) => {
      const before = logBytes(target);
      const { status } = await target.run(`from sandbox_runner import device
for i in range(600):
    try: device.ask("install-packages", ["-" + "x" * 990])
    except OSError: pass`);
      if (status !== 200) throw new Error(`the attack was not run: ${status}`);
      return saying(logBytes(target) - before > 300_000, prize);
    }),
    attack("sessions that fill the store, so that another principal's cannot be stored", async (target, prize) => {
      const sessions = await fillStore(target);
      const { session, status } = await putFile(target, ALICE, randomBytes(2 * MIB));
      await deleteSessions(target, MALLORY, sessions);
      await deleteSessions(target, ALICE, [session]);
      return saying(status === 507, prize);
    }),
    attack("a content that only another principal has takes no room", async (target, prize) => {
      const secret = randomBytes(MIB);
      const alices = await putFile(target, ALICE, secret);
      const sessions = await fillStore(target);
      const other = await putFile(target, MALLORY, randomBytes(MIB));
      const same = await putFile(target, MALLORY, secret);
      await deleteSessions(target, MALLORY, [...sessions, other.session, same.session]);
      await deleteSessions(target, ALICE, [alices.session]);
      return saying(other.status === 507 && same.status === 200, prize);
    }),
    attack("more dashboards' streams than one may have", async (target, prize) => {
      const request = `GET /api/dashboard/stats/stream HTTP/1.1\r\nHost: x\r\nX-API-Key: ${MALLORY}\r\n\r\n`;
      const dashboards = Array.from({ length: MAX_OPEN }, async () => {
        const socket = await open(target, "127.0.0.1", request);
        const [reply] = await once(socket, "data");
        return { socket, isOpen: String(reply).startsWith("HTTP/1.1 200") };
      });
      const replies = await Promise.all(dashboards);
      for (const { socket } of replies) socket.destroy();
      return saying(replies.filter(({ isOpen }) => isOpen).length > 20, prize);
    }),
    attack("executions that wait for the turns of sessions, each with a connection", async (target, prize) => {
      const sessions = [await newSession(target, MALLORY), await newSession(target, MALLORY)];
      // A stream says at once that it waits, or is refused.
      const waiting = Array.from({ length: MAX_OPEN + 30 }, async (_, i) => {
        const body = JSON.stringify({ code: "import time\ntime.sleep(60)", session: sessions[i % 2] });
        const socket = await open(target, "127.0.0.1", post("/api/execute-stream", body));
        const [reply] = await once(socket, "data");
        return { socket, isWaiting: String(reply).startsWith("HTTP/1.1 200") };
      });
      const replies = await Promise.all(waiting);
      for (const { socket } of replies) socket.destroy();
      await deleteSessions(target, MALLORY, sessions);
      return saying(replies.filter(({ isWaiting }) => isWaiting).length > MAX_OPEN, prize);
    }),
    attack("files of a session whose turn is taken, by clients that go away", async (target, prize) => {
      const session = await newSession(target, MALLORY);
      const body = JSON.stringify({ code: "import time\ntime.sleep(60)", session });
      const running = await open(target, "127.0.0.1", post("/api/execute", body));
      await until(() => isRunning(target, session));
      const held = async () => (await target.send("/health")).body.memory.arrayBuffers as number;
      const before = await held();
      for (let i = 0; i < 60; i++) {
        const gone = new AbortController();
        const put = target
          .send(
            `/api/sessions/${session}/files/f${i}`,
            as(MALLORY, { method: "PUT", body: new Uint8Array(4 * MIB), signal: gone.signal }),
          )
          .catch(() => {});
        // Long enough that the body has come; where it has not, this attack holds less.
        await new Promise((resolve) => setTimeout(resolve, 60));
        gone.abort();
        await put;
      }
      // Memory that is free is collected some time: as long as it is not, this is not lost.
      let grown = (await held()) - before;
      for (let i = 0; i < 30 && grown > 120 * MIB; i++) {
        await target.run("bytearray(1000)");
        await new Promise((resolve) => setTimeout(resolve, 200));
        grown = (await held()) - before;
      }
      running.destroy();
      await deleteSessions(target, MALLORY, [session]);
      return saying(grown > 120 * MIB, prize);
    }),
    attack("all connections", async (target, prize) => {
      const sockets: Socket[] = [];
      for (let i = 0; i < 21; i++) {
        const some = Array.from({ length: 100 }, () =>
          open(target, "127.0.0.2", "GET /health HTTP/1.1\r\nHost: x\r\n"),
        );
        sockets.push(...(await Promise.all(some)));
      }
      const socket = await open(target, "127.0.0.3", "GET /docs.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
      let reply = "";
      for await (const chunk of socket.iterator({ destroyOnReturn: true })) reply += chunk;
      for (const other of sockets) other.destroy();
      return saying(!reply.includes("200 OK"), prize);
    }),
    attack(
      "40 bodies of 29 MB that stop before their end",
      async (target, prize) => {
        const head = `POST /api/execute HTTP/1.1\r\nHost: x\r\nX-API-Key: ${MALLORY}\r\nContent-Type: application/json\r\n`;
        const body = Buffer.alloc(29_000_000, "[");
        const sockets = await Promise.all(
          Array.from({ length: 40 }, () => open(target, "127.0.0.2", `${head}Content-Length: 30000000\r\n\r\n`)),
        );
        const before = residentBytesOf(prize.pid);
        await Promise.all(
          sockets.map(
            (socket) =>
              new Promise<void>((resolve) => {
                socket.once("close", () => resolve()).resume();
                socket.write(body, () => resolve());
              }),
          ),
        );
        await new Promise((resolve) => setTimeout(resolve, 1000));
        const grown = residentBytesOf(prize.pid) - before;
        for (const socket of sockets) socket.destroy();
        return saying(grown > 800 * MIB, prize);
      },
      { connections: 40 },
    ),
  ],
};
