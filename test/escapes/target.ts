import { type ChildProcess, spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmodSync, existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer, type Server } from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import { verifySecurityLog } from "../../src/audit/verify-security-log.ts";
import { TEST_CACHE_DIR } from "../support/config.ts";
import type { Attack, Prize } from "./attack.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url)).replace(/\/$/, "");
const INSTALLED = [ROOT, realpathSync(path.join(ROOT, "node_modules"))];
/** What the server itself writes to its log of an attack. */
const OWN_EVENTS = ["code_execution", "code_execution_error", "network_refused", "package_install"];
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

  /** @param source folder with the `src` to run: the repository's, or a copy with a layer taken out. */
  static async start(settings: Record<string, string> = {}, source = ROOT): Promise<Target> {
    const folder = mkdtempSync(path.join(os.tmpdir(), "escapes-"));
    const bait = await Bait.lay(folder);
    const child = spawn(process.execPath, [path.join(source, "src/cli.ts"), "serve"], {
      cwd: source,
      stdio: ["ignore", "pipe", "pipe"],
      env: {
        PATH: process.env.PATH,
        SECRET: bait.secret,
        DATA_DIR: folder,
        LOG_DIR: path.join(folder, "logs"),
        CACHE_DIR: TEST_CACHE_DIR,
        PORT: "0",
        POOL_SIZE: "1",
        API_KEYS: "mallory:mallorys-key,alice:alices-key",
        PYODIDE_PACKAGES: "none",
        PYODIDE_INDEX_URL: folder,
        PACKAGE_INDEX_URL: "none",
        ...settings,
      },
    });
    let said = "";
    const url = await new Promise<string>((resolve, reject) => {
      const read = (chunk: string) => {
        said = (said + chunk).slice(-100_000);
        const listening = /Listening on (http:\/\/[\d.:]+)/.exec(said)?.[1];
        if (listening) resolve(listening);
      };
      child.stdout.setEncoding("utf8").on("data", read);
      child.stderr.setEncoding("utf8").on("data", read);
      child.once("close", () => reject(new Error(`the server did not start:\n${said}`)));
    });
    return new Target(child, url, folder, bait, () => said);
  }

  async stop(): Promise<void> {
    this.#process.kill("SIGTERM");
    if (this.#process.exitCode === null) await once(this.#process, "close");
    this.#bait.close();
    rmSync(this.#folder, { recursive: true, force: true });
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
      pid: Number(this.#process.pid),
    };
  }

  async run(code: string, options: Record<string, unknown> = {}, key = "mallorys-key"): Promise<Reply> {
    return await this.send("/api/execute", {
      method: "POST",
      headers: { "content-type": "application/json", "x-api-key": key },
      body: JSON.stringify({ code, timeout: 10_000, files: "none", ...options }),
    });
  }

  async send(where: string, init: RequestInit = {}): Promise<Reply> {
    const response = await fetch(this.url + where, {
      ...init,
      headers: { "x-api-key": "mallorys-key", ...(init.headers as Record<string, string>) },
    });
    const text = await response.text();
    const isJson = response.headers.get("content-type")?.includes("json") === true;
    return { status: response.status, text, body: isJson ? JSON.parse(text) : text };
  }

  /** Runs an attack and says whether it won. @throws if the server, its log or the next execution is not well afterwards. */
  async attack(attack: Attack): Promise<Success> {
    const { proof = "reply", timeoutMs = 10_000 } = attack;
    const prize = this.prize();
    const startedAt = performance.now();
    const reply = await this.run(attack.code, {
      context: { ...prize, ...attack.context },
      timeout: timeoutMs,
      files: attack.workspace ? "workspace" : "none",
    });
    const tookMs = performance.now() - startedAt;
    expect(reply.status, reply.text.slice(0, 300)).toBe(200);
    const replies = [reply];
    let after: Reply | undefined;
    if (attack.next !== undefined) {
      after = await this.run(
        attack.next,
        { context: prize, files: attack.workspace ? "workspace" : "none" },
        "alices-key",
      );
      replies.push(after);
    }
    const success = this.#judge(prize, proof, replies) ?? (await this.#differences());
    await this.#checkLog(attack.code);
    if (success === null) {
      attack.reply?.(reply);
      expect(tookMs).toBeLessThan(timeoutMs + SLACK_MS);
    }
    return success;
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
    const { status, body, text } = await this.run(LOOK_AROUND, {}, "alices-key");
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
  }

  logLines(): Record<string, unknown>[] {
    const text = readFileSync(path.join(this.logDir, "security.log"), "utf8");
    return text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line)]));
  }

  async #checkLog(code: string): Promise<void> {
    const lines = this.logLines().slice(this.#seenLines);
    this.#seenLines += lines.length;
    const codeHash = createHash("sha256").update(code).digest("hex");
    expect(lines).toContainEqual(
      expect.objectContaining({ principal: "mallory", details: expect.objectContaining({ codeHash }) }),
    );
    // Whatever the attack printed, nothing in the log is of its making.
    for (const line of lines) expect(OWN_EVENTS).toContain(line.event);
  }

  /** The whole chain, and that nothing secret got into either log. */
  async checkLogs(): Promise<void> {
    expect(await verifySecurityLog(this.logDir)).toMatchObject({ ok: true });
    for (const name of ["security.log", "server.log"]) {
      const text = readFileSync(path.join(this.logDir, name), "utf8");
      for (const forbidden of [this.secret, "mallorys-key", "alices-key"]) expect(text).not.toContain(forbidden);
    }
    for (const forbidden of ["mallorys-key", "alices-key"]) expect(this.#output()).not.toContain(forbidden);
  }
}

/** What lies around the server for an attacker to find. */
export class Bait {
  readonly secret = `secret-${randomBytes(16).toString("hex")}`;
  readonly secretFile: string;
  readonly port: number;
  readonly #folder: string;
  readonly #listener: Server;
  #connections = 0;
  #markers = 0;

  private constructor(folder: string, listener: Server) {
    this.#folder = folder;
    this.#listener = listener;
    this.port = (listener.address() as AddressInfo).port;
    this.secretFile = path.join(folder, "secret");
    writeFileSync(this.secretFile, this.secret);
    chmodSync(folder, 0o777);
    // Nothing but the layers under test shall keep an attacker out.
    chmodSync(path.dirname(folder), 0o755);
    listener.on("connection", (socket) => {
      this.#connections++;
      socket.on("error", () => {}).end(`HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n${this.secret}`);
    });
  }

  static async lay(folder: string): Promise<Bait> {
    const listener = createServer().listen(0, "127.0.0.1");
    await once(listener, "listening");
    return new Bait(mkdtempSync(path.join(folder, "bait-")), listener);
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
  }
}
type Proof = NonNullable<Attack["proof"]>;
