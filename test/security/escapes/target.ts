import { type ChildProcess, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { type AddressInfo, createServer, type Server } from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { verifySecurityLog } from "../../../src/security-log/verify.ts";
import { temporaryFolder } from "../../../src/shared/testing/temporary-folder.ts";
import { TEST_CACHE_DIR } from "../../support/config.ts";
import { descendantsOf } from "../../support/processes.ts";
import { listening } from "../../support/server-process.ts";
import type { Attack, Prize } from "./attack.ts";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url)).replace(/\/$/, "");
const INSTALLED = [ROOT, realpathSync(path.join(ROOT, "node_modules"))];
/** What the server's resolver answers for names that nobody is to ask the world for. */
const DNS = new URL("dns.js", import.meta.url).href;
const EVENT_LOOP = new URL("event-loop.js", import.meta.url).href;
/** What the server may have for its objects, MiB. */
const SERVER_MEMORY_MB = 1024;
/** The longest that nobody else may be served, ms of the server's processor time. */
export const LONGEST_TURN_MS = 50;
const ATTEMPTS = 3;
/** One turn reads up to 2 MiB of each connection that has sent something: that long for each, ms. */
const READING_MS = 2;
/** What the server itself writes to its log of an attack. */
const OWN_EVENTS = [
  ...["code_execution", "code_execution_error", "network_refused", "network_request", "package_install", "tool_call"],
  ...[
    "session_create",
    "session_delete",
    "file_upload",
    "file_write",
    "file_delete",
    "files_clear",
    "state_reset",
    "auth_failure",
    "access_denied",
    "log_sealed",
  ],
];
const MAX_PARSED_CHARACTERS = 1024 * 1024;
/** Over HTTP on a busy machine; what may take longer than its timeout is what the server itself does. */
const SLACK_MS = 30_000;
/** Names nobody else's code leaves behind, and what the interpreter looks like before anybody was here. */
const LOOK_AROUND = `
import sys, os, builtins, gc, codecs, warnings, signal, threading, random, json, re, asyncio, time, decimal, locale
def _():
    fds = []
    for fd in range(64):
        try: fds.append((fd, os.fstat(fd).st_mode))
        except OSError: pass
    return [
        sorted(sys.modules), sorted(vars(builtins)), sys.path, len(sys.meta_path), len(sys.path_hooks),
        dict(os.environ), os.getcwd(), fds, sorted(os.listdir("/tmp")), sorted(os.listdir("/home/pyodide")),
        sorted(os.listdir("/lib")), sorted(os.listdir("/dev")), len(warnings.filters), len(gc.callbacks), sys.getrecursionlimit(), sys.gettrace() is None,
        sys.getprofile() is None, threading.active_count(), decimal.getcontext().prec, locale.setlocale(locale.LC_ALL),
        len(asyncio.all_tasks(asyncio.get_event_loop())), str(sys.stdout), time.sleep.__name__, json.dumps([1]),
        re.match("a", "a").group(), int.__add__(1, 1), 2 + 2, "abc".upper(), len(type.__dict__), len(int.__dict__), len(str.__dict__),
        json.dumps.__code__.co_code.hex(), os.umask(0o22), id(object), [hash(i) for i in range(5)], sys.argv,
        [str(signal.getsignal(n)) for n in (2, 14, 15)], sorted(globals().keys()),
    ]
_()
`;

export interface Reply {
  readonly status: number;
  readonly text: string;
  // biome-ignore lint/suspicious/noExplicitAny: what a server sends is what the test is about to find out.
  readonly body: any;
}

/** How an attack ended. `null`: it failed, as it must; else what proves that it did not. */
export type Success = string | null;

export interface TargetOptions {
  readonly settings?: Readonly<Record<string, string>> | undefined;
  readonly files?: Readonly<Record<string, Uint8Array>> | undefined;
  /** Folder with the `src` to run: the repository's, or a copy with a layer taken out. */
  readonly source?: string;
  /** Addresses of modules to load into the server first. */
  readonly preload?: readonly string[];
}

/** A server to attack, in a process of its own, with bait around it that nobody is meant to touch. */
export class Target {
  readonly url: string;
  readonly logDir: string;
  readonly #process: ChildProcess;
  readonly #folder: string;
  readonly #bait: Bait;
  readonly #output: () => string;
  #seenLines = 0;
  #baseline: string | undefined;

  private constructor(process: ChildProcess, url: string, folder: string, bait: Bait, output: () => string) {
    this.#process = process;
    this.url = url;
    this.#folder = folder;
    this.#bait = bait;
    this.#output = output;
    this.logDir = path.join(folder, "logs");
  }

  static async start({ settings = {}, files = {}, source = ROOT, preload = [] }: TargetOptions = {}): Promise<Target> {
    const folder = temporaryFolder("escapes");
    const bait = await Bait.lay(folder);
    for (const [name, content] of Object.entries(files)) {
      mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
      writeFileSync(path.join(folder, name), content);
    }
    const named = (text: string) =>
      text
        .replaceAll("REDIRECT_PORT", String(bait.redirectPort))
        .replaceAll("PORT", String(bait.port))
        .replaceAll("DATA_DIR", folder);
    const preloaded = [DNS, EVENT_LOOP, ...preload].flatMap((url) => ["--import", url]);
    const limits = [`--max-old-space-size=${SERVER_MEMORY_MB}`];
    const child = spawn(process.execPath, [...limits, ...preloaded, path.join(source, "src/cli/main.ts"), "serve"], {
      cwd: source,
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      env: {
        PATH: process.env.PATH,
        SECRET: bait.secret,
        BAIT_ORIGIN: `http://127.0.0.1:${bait.port}`,
        DATA_DIR: folder,
        LOG_DIR: path.join(folder, "logs"),
        CACHE_DIR: TEST_CACHE_DIR,
        PORT: "0",
        POOL_SIZE: "1",
        API_KEYS: "mallory:mallorys-own-key-here,alice:alices-own-key-here",
        PYODIDE_PACKAGES: "none",
        PYODIDE_INDEX_URL: folder,
        PACKAGE_INDEX_URL: "none",
        ...Object.fromEntries(Object.entries(settings).map(([name, value]) => [name, named(value)])),
      },
    });
    let said = "";
    const keep = (chunk: string) => {
      said = (said + chunk).slice(-100_000);
    };
    for (const stream of [child.stdout, child.stderr]) stream?.setEncoding("utf8").on("data", keep);
    const url = await listening(child);
    return new Target(child, url, folder, bait, () => said);
  }

  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    const { exitCode, signalCode } = this.#process;
    this.#process.kill(signal);
    if (exitCode === null && signalCode === null) await once(this.#process, "close");
    this.#bait.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Ends its sandboxes: those that take their place know nothing of what was done to them. */
  async endSandboxes(): Promise<void> {
    for (const pid of descendantsOf(Number(this.#process.pid))) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It went with its parent.
      }
    }
    // One may be lent out in the moment in which it dies.
    while ((await this.run("1")).body.success !== true);
  }

  get secret(): string {
    return this.#bait.secret;
  }

  /** The variables of an attack, fresh for each. */
  prize(): Prize {
    return {
      won: `won-${randomBytes(16).toString("hex")}`,
      secret_file: this.#bait.secretFile,
      marker: this.#bait.newMarker(),
      port: this.#bait.port,
      redirect_port: this.#bait.redirectPort,
      pid: Number(this.#process.pid),
    };
  }

  async run(code: string, options: Record<string, unknown> = {}, key = "mallorys-own-key-here"): Promise<Reply> {
    return await this.send("/api/execute", {
      method: "POST",
      headers: { "content-type": "application/json", "x-api-key": key },
      body: JSON.stringify({ code, timeout: 10_000, files: "none", ...options }),
    });
  }

  async send(where: string, init: RequestInit = {}): Promise<Reply> {
    const response = await fetch(this.url + where, {
      ...init,
      headers: { "x-api-key": "mallorys-own-key-here", ...(init.headers as Record<string, string>) },
    });
    const text = await response.text();
    // What would take the test half a minute, the server does not parse either.
    const isJson =
      response.headers.get("content-type")?.includes("json") === true && text.length < MAX_PARSED_CHARACTERS;
    return { status: response.status, text, body: isJson ? JSON.parse(text) : text };
  }

  /**
   * Runs an attack and says whether it won.
   *
   * One that has held the event loop for too long is run again: its own work takes as long each time, what the machine does besides does not.
   *
   * @throws if the server, its log or the next execution is not well afterwards.
   */
  async attack(attack: Attack): Promise<Success> {
    let success: Success = null;
    for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
      const { won, turnMs } = await this.#attackOnce(attack);
      success = won ?? held(turnMs, attack.connections);
      if (won !== null || success === null) break;
    }
    return success;
  }

  async #attackOnce(attack: Attack): Promise<{ readonly won: Success; readonly turnMs: number }> {
    const { proof = "reply", timeoutMs = 10_000 } = attack;
    const prize = this.prize();
    const startedAt = performance.now();
    const replies = await this.#perform(attack, prize);
    const tookMs = performance.now() - startedAt;
    for (const { status, text } of replies) expect(status, text.slice(0, 300)).toBeLessThan(500);
    const won = this.#judge(prize, proof, replies) ?? (await this.#differences());
    const turnMs = await this.longestTurnMs();
    await this.#checkLog(attack);
    if (won === null && held(turnMs, attack.connections) === null) expect(tookMs).toBeLessThan(timeoutMs + SLACK_MS);
    return { won, turnMs };
  }

  async #perform(attack: Attack, prize: Prize): Promise<readonly Reply[]> {
    const { act, code, context, next, timeoutMs = 10_000, workspace, session } = attack;
    if (act) return await act(this, prize);
    const files = workspace ? "workspace" : "none";
    if (session) return await this.#performInSession(attack, prize);
    const replies = [await this.run(code, { context: { ...prize, ...context }, timeout: timeoutMs, files })];
    if (next !== undefined) replies.push(await this.run(next, { context: prize, files }, "alices-own-key-here"));
    for (const { status, text } of replies) expect(status, text.slice(0, 300)).toBe(200);
    return replies;
  }

  async #performInSession({ code, context, next = "1", timeoutMs = 10_000 }: Attack, prize: Prize): Promise<Reply[]> {
    const make = async (key: string): Promise<string> =>
      (await this.send("/api/sessions", { method: "POST", headers: { "x-api-key": key } })).body.session.id;
    const [own, others] = [await make("mallorys-own-key-here"), await make("alices-own-key-here")];
    const asAlice = () => this.run(next, { session: others, context: prize }, "alices-own-key-here");
    const replies = [
      await this.run(code, { session: own, context: { ...prize, ...context }, timeout: timeoutMs }),
      await asAlice(),
      // What it says of its own making is no success.
      { ...(await this.run("1", { session: own, timeout: timeoutMs })), text: "" },
      await asAlice(),
    ];
    await this.send(`/api/sessions/${own}`, { method: "DELETE" });
    await this.send(`/api/sessions/${others}`, { method: "DELETE", headers: { "x-api-key": "alices-own-key-here" } });
    return replies;
  }

  #judge({ won, marker }: Prize, proof: Proof, replies: readonly Reply[]): Success {
    const { secret, takeConnections } = this.#bait;
    if (existsSync(marker)) return "wrote to a file of the host";
    if (takeConnections() > 0) return "connected to a port of the host";
    for (const { text, body } of replies) {
      if (text.includes(secret)) return "read a secret of the host";
      if (INSTALLED.some((place) => text.includes(place))) return "learned where the server is installed";
      if (proof === "reply" && text.includes(won)) return "said so";
      if (proof === "result" && body?.result === won) return "forged a result";
    }
    return null;
  }

  /** Whether another principal can tell that somebody was here. Starts the server's record of what is normal. */
  async #differences(): Promise<Success> {
    const { status, body, text } = await this.run(LOOK_AROUND, {}, "alices-own-key-here");
    expect(status, text.slice(0, 300)).toBe(200);
    expect(body, text.slice(0, 600)).toMatchObject({ success: true, stdout: "", stderr: "" });
    const seen = JSON.stringify(body.result);
    this.#baseline ??= seen;
    expect((await this.send("/ready")).status).toBe(200);
    if (seen === this.#baseline) return null;
    const before = JSON.parse(this.#baseline) as unknown[];
    const changed = (body.result as unknown[]).flatMap((value, index) =>
      JSON.stringify(value) === JSON.stringify(before[index])
        ? []
        : [`${index}: ${JSON.stringify(value).slice(0, 200)}`],
    );
    return `the next execution sees a difference: ${changed.join("; ")}`;
  }

  /** Must be called before the first attack. */
  async rememberNormal(): Promise<void> {
    await this.#differences();
    this.#seenLines = this.logLines().length;
    await this.longestTurnMs();
  }

  /** How long the server's event loop was held at the most since this was asked last, ms of processor time. */
  async longestTurnMs(): Promise<number> {
    const answer = once(this.#process, "message");
    this.#process.send("longest turn");
    const [{ longestTurnMs }] = (await answer) as [{ longestTurnMs: number }];
    return longestTurnMs;
  }

  /** Tells a module that was preloaded something, and waits for its answer. */
  async tell(message: string): Promise<void> {
    const answer = once(this.#process, "message");
    this.#process.send(message);
    await answer;
  }

  /** Whether the server had to log that something of it failed that nothing foresaw. */
  get said(): string {
    return this.#output();
  }

  logLines(): Record<string, unknown>[] {
    const text = readFileSync(path.join(this.logDir, "security.log"), "utf8");
    return text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line)]));
  }

  async #checkLog({ code, act }: Attack): Promise<void> {
    const lines = this.logLines().slice(this.#seenLines);
    this.#seenLines += lines.length;
    const codeHash = createHash("sha256").update(code).digest("hex");
    const recorded = expect.objectContaining({ principal: "mallory", details: expect.objectContaining({ codeHash }) });
    if (!act) expect(lines).toContainEqual(recorded);
    // Whatever the attack printed, nothing in the log is of its making.
    for (const line of lines) expect(OWN_EVENTS).toContain(line.event);
  }

  /** The whole chain, and that nothing secret got into either log. */
  async checkLogs(): Promise<void> {
    expect(await verifySecurityLog(this.logDir)).toMatchObject({ ok: true });
    for (const name of ["security.log", "server.log"]) {
      const text = readFileSync(path.join(this.logDir, name), "utf8");
      for (const forbidden of [this.secret, "mallorys-own-key-here", "alices-own-key-here"])
        expect(text).not.toContain(forbidden);
    }
    for (const forbidden of ["mallorys-own-key-here", "alices-own-key-here"])
      expect(this.#output()).not.toContain(forbidden);
  }
}

/** @param connections how many send at once: the bound is one request's, and a turn serves all of them. */
function held(turnMs: number, connections = 0): Success {
  return turnMs > LONGEST_TURN_MS + connections * READING_MS
    ? `held the server's event loop for ${Math.round(turnMs)} ms`
    : null;
}

/** What lies around the server for an attacker to find. */
export class Bait {
  readonly secret = `secret-${randomBytes(16).toString("hex")}`;
  readonly secretFile: string;
  readonly port: number;
  /** Redirects to `port`; who follows that without being allowed to has reached it. */
  readonly redirectPort: number;
  readonly #folder: string;
  readonly #listener: Server;
  readonly #redirector: Server;
  #connections = 0;
  #markers = 0;

  private constructor(folder: string, listener: Server, redirector: Server) {
    this.#folder = folder;
    this.#listener = listener;
    this.#redirector = redirector;
    this.port = (listener.address() as AddressInfo).port;
    this.redirectPort = (redirector.address() as AddressInfo).port;
    this.secretFile = path.join(folder, "secret");
    writeFileSync(this.secretFile, this.secret);
    chmodSync(folder, 0o777);
    // Nothing but the layers under test shall keep an attacker out.
    chmodSync(path.dirname(folder), 0o755);
    listener.on("connection", (socket) => {
      this.#connections++;
      socket.on("error", () => {}).end(`HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n${this.secret}`);
    });
    const away = `HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:${this.port}/\r\nContent-Length: 0\r\n`;
    redirector.on("connection", (socket) => {
      socket.on("error", () => {}).once("data", () => socket.end(`${away}Connection: close\r\n\r\n`));
    });
  }

  static async lay(folder: string): Promise<Bait> {
    const listeners = [createServer(), createServer()] as const;
    for (const listener of listeners) await once(listener.listen(0, "127.0.0.1"), "listening");
    return new Bait(mkdtempSync(path.join(folder, "bait-")), ...listeners);
  }

  readonly takeConnections = (): number => {
    const taken = this.#connections;
    this.#connections = 0;
    return taken;
  };

  newMarker(): string {
    return path.join(this.#folder, `marker-${this.#markers++}`);
  }

  close(): void {
    this.#listener.close();
    this.#redirector.close();
  }
}
type Proof = NonNullable<Attack["proof"]>;
